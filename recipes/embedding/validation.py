"""What can be known of an `embedding` recipe before any work (`synth validate`): every finding, not just the first."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from recipes.embedding import context, writing
from recipes.embedding.beside import Kind, located, models_beside
from recipes.embedding.checks import COMPARED
from recipes.embedding.context import Encoders, check_training
from recipes.embedding.curated import held_out_ids, pair_verifier
from recipes.embedding.measure import fixed_sets, read_scored, texts_of
from recipes.embedding.pairs import distractor_texts, given_pairs
from recipes.embedding.schema import BASE
from recipes.validation import NOT_YET, Finding, in_hub_cache, on_this_machine
from synth.records.errors import InputError, WorkError

if TYPE_CHECKING:
    from recipes.embedding.schema import EmbeddingRecipe


def validate(recipe: EmbeddingRecipe) -> list[Finding]:
    """Check packages, model, pairs, held-out sets, verifiers and files. Nothing is asked, mined or trained; hub data
    may be fetched, a model is not."""
    found = list(context.findings(recipe))
    checks: list[Callable[[], Iterator[Finding]]] = [
        partial(_model, recipe),
        *(partial(_beside, *named) for named in models_beside(recipe)),
        *(partial(_domain, recipe, name) for name in recipe.domains),
        partial(_tasks, recipe),
        partial(_measuring, recipe),
    ]
    for check in checks:
        try:
            found += check()
        except InputError as error:
            found.append(Finding("error", error.where, error.seen, error.fix))
        except WorkError as error:
            found.append(Finding("warning", error.where, f"not checked: {error.seen}", error.fix))
    return found


def _model(recipe: EmbeddingRecipe) -> Iterator[Finding]:
    from recipes import models

    path = recipe.model.path
    if on_this_machine(path):
        check_training(recipe, models.resolve(path, recipe.model.revision))
    elif in_hub_cache(path, recipe.model.revision) is None:
        yield Finding("warning", "model.path", f"{path} {NOT_YET}")


def _beside(where: str, name: str, kind: Kind) -> Iterator[Finding]:
    if on_this_machine(name):
        located(where, name, kind)
    elif in_hub_cache(name, None) is None:
        yield Finding("warning", where, f"{name} {NOT_YET}")


def _domain(recipe: EmbeddingRecipe, name: str) -> Iterator[Finding]:
    domain = recipe.domains[name]
    section = domain.verifier
    if section is not None and section.options.get("model") != BASE:
        verifier = pair_verifier(recipe, name, lambda: Encoders(recipe))
        verifier.close()
    if domain.generator is None and domain.train is not None:
        loaded = given_pairs(recipe, name, "train")
        held_out_ids(recipe, {name: loaded})
        if loaded.duplicates:
            seen = f"{len(loaded.duplicates)} pairs stand there twice"
            fix = "they count once, with the negatives of all their rows"
            yield Finding("warning", f"domains.{name}.train", seen, fix)
    distractor_texts(recipe, name)


def _tasks(recipe: EmbeddingRecipe) -> Iterator[Finding]:
    if importlib.util.find_spec("mteb") is not None:  # told already where it is missing
        context.check_tasks(recipe)
    return iter(())


def _measuring(recipe: EmbeddingRecipe) -> Iterator[Finding]:
    from recipes.curation_files import check_files, named_sets
    from recipes.embedding.context import known_texts
    from synth.curate import evaluation_sets

    writing.inputs_hashes(recipe)
    sets = fixed_sets(recipe)
    for name, each in sets.items():
        if each.unfindable:
            seen = f"{each.unfindable} documents that answer a query are not in the corpus"
            yield Finding("warning", f"domains.{name}.held_out", seen, "they count as not found")
    for number, path in enumerate(recipe.evaluate.sts):
        read_scored(path, f"evaluate.sts.{number}")
    evaluation_sets(
        recipe.curate.decontaminate, {**known_texts(recipe, texts_of(sets)), **named_sets(recipe)}
    )
    check_files(recipe.curate, [COMPARED])
