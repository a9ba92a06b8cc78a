"""Pairs that generators make: a run of kind `generate` of its own inside the run, in DIR/pairs/.

It judges and curates nothing: what it leaves is verified and curated with the pairs that were given.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from recipes.context import LimitReached
from recipes.embedding.checks import PAIR, asking_domains
from recipes.generation.schema import NO_MODEL, GenerationDomain, GenerationRecipe
from recipes.schema import Engine, Limits, Model
from synth.curate.options import CurateOptions
from synth.records.errors import InputError
from synth.records.ids import content_hash
from synth.store import RunFolder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recipes.embedding.schema import EmbeddingRecipe
    from recipes.validation import Finding

WRITER = ("engine", "model", "sampling", "parse")
"""Keys of a recipe of kind `generate` that stand under `writer` here."""


def writing_recipe(recipe: EmbeddingRecipe) -> GenerationRecipe | None:
    """The recipe of the nested run; None where no domain has a generator."""
    domains = {}
    writer = recipe.writer
    for name, domain in recipe.domains.items():
        if domain.generator is not None:
            domains[name] = GenerationDomain(
                train=domain.train,
                # A group is a matter of the document, too: what is made of it inherits it.
                columns={c: spec for c, spec in domain.columns.items() if c not in PAIR or c == "group"},
                generator=domain.generator,
                chat=writer.chat if writer else True,
                system=writer.system if writer else None,
            )
    if not domains:
        return None
    asked = {"sampling": writer.sampling, "parse": writer.parse} if writer else {}
    return GenerationRecipe(
        name=f"{recipe.name}-pairs",
        kind="generate",
        rng_seed=recipe.rng_seed,
        model=writer.model if writer else Model(path=NO_MODEL),
        engine=writer.engine if writer else Engine(),
        domains=domains,
        problems=recipe.problems,
        curate=CurateOptions(dedup=None, decontaminate=None, cap_per_problem=None),
        limits=Limits(hours=recipe.limits.hours),
        workers=recipe.workers,
        **asked,
    )


def findings(recipe: EmbeddingRecipe) -> Iterator[Finding]:
    """What the writer's engine lacks, under the names that the keys have here."""
    from recipes.generation.validation import engine_findings
    from recipes.validation import Finding

    nested = writing_recipe(recipe)
    if nested is not None and asking_domains(recipe):
        for found in engine_findings(nested):
            yield Finding(found.level, _here(found.where), found.seen, found.fix)


def inputs_hashes(recipe: EmbeddingRecipe) -> dict[str, str]:
    """{domain: hash of what its generator makes pairs from}. Raises InputError where that cannot be used."""
    from recipes.generation.prepare import writing_of

    nested = writing_recipe(recipe)
    if nested is None:
        return {}
    return {
        name: content_hash([item.id for item in writing_of(nested, name).items]) for name in nested.domains
    }


def write_pairs(recipe: EmbeddingRecipe, folder: RunFolder) -> None:
    """Run the generators, or go on with that; a finished run is left as it is. Raises LimitReached."""
    from recipes.generation.run import run_generation
    from recipes.runner import check_facts

    nested = writing_recipe(recipe)
    if nested is None or folder.metrics(0) is not None:
        return
    folder.root.mkdir(parents=True, exist_ok=True)
    try:
        status = run_generation(nested, folder, partial(check_facts, nested, folder))
    except InputError as error:
        raise InputError(_here(error.where), error.seen, error.fix) from None
    if status != "done":
        raise LimitReached("limits.hours used while the pairs were written")


def _here(where: str) -> str:
    return f"writer.{where}" if where.partition(".")[0] in WRITER else where
