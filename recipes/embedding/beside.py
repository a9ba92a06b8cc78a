"""Models beside the one that is tuned: the guide of training, the one that scores negatives anew, a verifier's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from recipes import models
from recipes.embedding.schema import BASE
from recipes.validation import means_folder
from synth.records.errors import InputError
from synth.records.ids import model_hash

if TYPE_CHECKING:
    from recipes.embedding.schema import EmbeddingRecipe

Kind = Literal["bi", "cross"]
WORDS: dict[Kind, str] = {"bi": "an embedder", "cross": "a cross-encoder"}
RESCORE = "mine.rescore.model"
EMBEDDER, CROSS = "SentenceTransformer", "CrossEncoder"
"""What sentence-transformers calls them in the folders that it saves."""
HEAD, CAUSAL = "ForSequenceClassification", "ForCausalLM"
"""Ends of the architectures that a cross-encoder can have."""


def models_beside(recipe: EmbeddingRecipe) -> Iterator[tuple[str, str, Kind]]:
    """(recipe key, folder or hub name, its kind) of what a run opens itself."""
    if recipe.mine.rescore is not None:
        yield RESCORE, recipe.mine.rescore.model, recipe.mine.rescore.kind
    if recipe.train.guide is not None and recipe.train.method != "none":
        yield "train.guide", recipe.train.guide, "bi"


def located(key: str, name: str, kind: Kind = "bi") -> Path:
    """The folder of the model that `key` names, fetched if need be.

    Raises InputError or WorkError at that key, also for a model of another kind: sentence-transformers opens it as
    either, with a head of random numbers where a cross-encoder's is missing.
    """
    if means_folder(name) and not Path(name).expanduser().is_dir():
        raise InputError(key, f"no such folder: {name}", "name the folder of a model, or one on the hub")
    folder = models.resolve(name, field=key)
    check_kind(key, name, folder, kind)
    return folder


def check_kind(key: str, name: str, folder: Path, kind: Kind) -> None:
    """Raise InputError unless the folder's files tell of a model of that kind; its weights are not read."""
    named = _read(key, folder / "config.json").get("architectures")
    architecture = str(named[0]) if isinstance(named, list) and named else ""
    layout, head = _layout(key, folder), architecture.endswith(HEAD)
    # With a layout, an embedder may well have the architecture of the causal model or classifier it came from.
    fits: dict[Kind, bool] = {
        "bi": layout == EMBEDDER or (layout is None and not head),
        "cross": layout == CROSS or head or (layout is None and architecture.endswith(CAUSAL)),
    }
    if fits[kind]:
        return
    says = f"its config.json says {architecture or 'nothing of it'}"
    if layout is not None:
        says = f"sentence-transformers saved it as {layout}"
    other: Kind = "cross" if kind == "bi" else "bi"
    instead = f", or set mine.rescore.kind: {other}" if key == RESCORE and fits[other] else ""
    raise InputError(key, f"{name} is not {WORDS[kind]}: {says}", f"name {WORDS[kind]}{instead}")


def _layout(key: str, folder: Path) -> str | None:
    """As what sentence-transformers saved the folder, None if it did not. Where it does not say, it is an embedder."""
    if not (folder / "modules.json").exists():
        return None
    path = folder / "config_sentence_transformers.json"
    return str(_read(key, path).get("model_type", EMBEDDER)) if path.exists() else EMBEDDER


def _read(key: str, path: Path) -> dict[str, Any]:
    """A JSON object of the model's folder. Raises InputError at `key`."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise InputError(key, f"{path} is no JSON object", "mend the model's folder, or fetch it anew")
    return found


def model_hashes(recipe: EmbeddingRecipe) -> dict[str, str]:
    """{recipe key: hash of the model's folder}. Raises what `located` raises.

    Of the verifier `pairs`, which opens its model itself, a folder is looked at and a hub name is not.
    """
    found = {named[0]: model_hash(located(*named)) for named in models_beside(recipe)}
    for name, domain in recipe.domains.items():
        if domain.verifier is None or domain.verifier.name != "pairs":
            continue
        model = domain.verifier.options.get("model")
        if isinstance(model, str) and model != BASE and (folder := Path(model).expanduser()).is_dir():
            found[f"domains.{name}.verifier.options.model"] = model_hash(folder)
    return found
