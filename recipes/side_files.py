"""Files beside a recipe whose contents shape its results, though the recipe holds their names alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from recipes.embedding.schema import EmbeddingDomain, EmbeddingRecipe
from recipes.generation.schema import GenerationDomain
from recipes.kinds import AnyRecipe
from recipes.safety.schema import SafetyRecipe
from recipes.schema import Domain, Recipe
from synth.records.ids import file_hash

EMBEDDING_WEIGHTS = ("pytorch_model.bin", "0_Transformer/model.safetensors", "model.safetensors")
"""Where the weights of a sentence-embedding model may lie; the last that is there is meant."""


def side_files(recipe: AnyRecipe) -> dict[str, Path]:
    """{recipe key: file} of worked examples, a verifier's examples and corpora, own Python files, mixed-in rows,
    evaluation texts, scored sentence pairs, earlier exports and replayed completions; keys that name something else
    than a local file are left out."""
    return {key: path for key, name in _named(recipe) if (path := Path(name).expanduser()).is_file()}


def _named(recipe: AnyRecipe) -> Iterator[tuple[str, str]]:
    for name, domain in recipe.domains.items():
        yield from _named_by_domain(domain, f"domains.{name}")
    for name, source in ((isinstance(recipe, Recipe) and recipe.train.mix) or {}).items():
        yield f"train.mix.{name}", source.path
    decontaminate = recipe.curate.decontaminate
    for number, against in enumerate(decontaminate.against if decontaminate else ()):
        yield f"curate.decontaminate.against.{number}", against
    if isinstance(recipe, SafetyRecipe):
        return
    dedup = recipe.curate.dedup
    for number, against in enumerate(dedup.against if dedup else ()):
        yield f"curate.dedup.against.{number}", against
    if recipe.curate.embed is not None:
        for weights in EMBEDDING_WEIGHTS:
            yield "curate.embed", f"{recipe.curate.embed}/{weights}"
    if isinstance(recipe, EmbeddingRecipe):
        yield from ((f"evaluate.sts.{number}", path) for number, path in enumerate(recipe.evaluate.sts))
        asking, where = recipe.writer, "writer.engine"
    else:
        asking, where = recipe, "engine"
    replayed = asking.engine.options.get("path") if asking else None
    if isinstance(replayed, str):
        yield f"{where}.options.path", replayed


def _of_verifier(options: Any, where: str) -> Iterator[tuple[str, str]]:
    """Labelled examples, rows that pairs are compared with, and files that judges replay their judgements from, in a
    verifier's options or its parts'."""
    if not isinstance(options, Mapping):
        return
    if isinstance(options.get("examples"), str):
        yield f"{where}.examples", options["examples"]
    if isinstance(options.get("corpus"), str):
        yield f"{where}.corpus", options["corpus"]
    against = options.get("against")
    for number, path in enumerate(against if isinstance(against, list) else ()):
        if isinstance(path, str):
            yield f"{where}.against.{number}", path
    engine = options.get("engine")
    if isinstance(engine, Mapping) and isinstance(path := (engine.get("options") or {}).get("path"), str):
        yield f"{where}.engine.options.path", path
    yield from _of_verifier(options.get("judge"), f"{where}.judge")
    parts = options.get("parts")
    for index, part in enumerate(parts if isinstance(parts, list) else ()):
        if isinstance(part, Mapping):
            yield from _of_verifier(part.get("options"), f"{where}.parts.{index}.options")


def side_hashes(recipe: AnyRecipe) -> dict[str, str]:
    """{recipe key: SHA-256 of the file's contents}."""
    return {key: file_hash(path) for key, path in side_files(recipe).items()}


def _named_by_domain(
    domain: Domain | GenerationDomain | EmbeddingDomain, where: str
) -> Iterator[tuple[str, str]]:
    if isinstance(domain, GenerationDomain):
        for step, path in domain.templates.items():
            yield f"{where}.templates.{step}", path
    elif isinstance(domain, Domain):
        if isinstance(domain.prompt.few_shot, str):
            yield f"{where}.prompt.few_shot", domain.prompt.few_shot
        if domain.prompt.render:
            yield f"{where}.prompt.render", domain.prompt.render.rpartition(":")[0]
    if domain.verifier is not None:
        if ".py:" in domain.verifier.name:
            yield f"{where}.verifier.name", domain.verifier.name.rpartition(":")[0]
        yield from _of_verifier(domain.verifier.options, f"{where}.verifier.options")
