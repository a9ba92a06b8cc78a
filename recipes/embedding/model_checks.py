"""Models that an `embedding` recipe names besides its own, and whether its own can be trained as it says: what a run
and `synth validate` ask before any work. No weights are read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from recipes import models
from recipes.validation import means_folder
from synth.records.errors import InputError, WorkError

if TYPE_CHECKING:
    from recipes.embedding.schema import EmbeddingRecipe


def further_models(recipe: EmbeddingRecipe) -> dict[str, str]:
    """{recipe key: folder or hub name} of the models that mining and training open."""
    found = {}
    if recipe.mine.rescore is not None:
        found["mine.rescore.model"] = recipe.mine.rescore.model
    if recipe.train.guide is not None and recipe.train.method != "none":
        found["train.guide"] = recipe.train.guide
    return found


def located(where: str, name: str) -> Path:
    """The folder of a model, fetched if it is the hub's. Raises InputError or WorkError at `where`."""
    if means_folder(name) and not Path(name).is_dir():
        raise InputError(where, f"no such folder: {name}", "name the folder of a model, or one on the hub")
    try:
        return models.resolve(name)
    except (InputError, WorkError) as error:
        raise type(error)(where, error.seen, error.fix) from None


def check_training(recipe: EmbeddingRecipe, base: Path) -> None:
    """Raise InputError for dimensions or layers that the model at `base` does not have."""
    options, lora = recipe.train_options(), recipe.train.lora
    named = lora is not None and lora.target_modules != "all-linear"
    if recipe.train.method != "none" and (options.matryoshka or named):
        import trainers

        trainers.check_embedder(str(base), options, trust_remote_code=recipe.model.trust_remote_code)
