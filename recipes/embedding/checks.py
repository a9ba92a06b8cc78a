"""Checks of an `embedding` recipe that need no file: keys that are each right but not together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from recipes.checks import ONLY_ROUNDS, Problem, check_curation, check_names, check_regex, check_source
from recipes.embedding.schema import (
    BASE,
    Beir,
    EmbeddingDomain,
    EmbeddingRecipe,
    HeldOutShare,
)
from recipes.schema import Pick, Source
from synth.records.errors import InputError

PAIR = ("query", "positive", "negatives", "instruction", "source", "group", "split", "language")
"""Columns of a pair; further ones that a domain maps are its generator's."""
COMPARED = ("query", "positive")
"""What curation compares unless it is told otherwise."""
CURATED = (
    "sample_id", "problem_id", "domain", "round", *PAIR[:6], "meta", "status", "reward", "reason",
)  # fmt: skip
"""Columns of the pairs that are curated."""


def cross_checks(recipe: EmbeddingRecipe) -> Iterator[Problem]:
    """Where, what was seen, what to do."""
    for name, domain in recipe.domains.items():
        yield from _domain(recipe, domain, ("domains", name))
    yield from _names(recipe)
    yield from _writer(recipe)
    yield from _curation(recipe)
    yield from _measuring(recipe)
    yield from _stopping(recipe)


def _domain(recipe: EmbeddingRecipe, domain: EmbeddingDomain, path: tuple[Any, ...]) -> Iterator[Problem]:
    for part in ("train", "held_out", "distractors"):
        source = getattr(domain, part)
        if isinstance(source, Source):
            yield from check_source(source, (*path, part))
    for column, spec in domain.columns.items():
        if isinstance(spec, Pick):
            yield from check_regex(spec, (*path, "columns", column, "regex"))
    if isinstance(domain.held_out, Beir) and domain.distractors is not None:
        fix = "leave distractors out: the folder's corpus has its own"
        yield (*path, "distractors"), "beside held_out.beir", fix
    elif domain.distractors is not None and domain.held_out is None:
        yield (*path, "distractors"), "without held_out, nothing is searched", "give held-out pairs"
    if domain.generator is None:
        if domain.train is None and domain.held_out is None:
            yield path, "neither pairs to train on nor held-out ones", "name `train`, or a `generator`"
        if isinstance(domain.held_out, HeldOutShare) and domain.train is None:
            yield (*path, "held_out", "share"), "of a domain without `train`", "name the pairs"
        return
    yield from _generator(domain, path)


def _generator(domain: EmbeddingDomain, path: tuple[Any, ...]) -> Iterator[Problem]:
    from synth import generators

    assert domain.generator is not None
    try:
        generator = generators.find(domain.generator.name)
    except InputError:
        return  # told already by the check of its options
    if "query" not in generator.compared:
        fix = "use embedding_pairs, mined_pairs or document_queries"
        yield (*path, "generator", "name"), f"{generator.name} makes no pairs", fix
    if generator.needs is None and domain.train is not None:
        yield (*path, "train"), f"the generator {generator.name} takes no rows", "leave it out"
    if generator.needs is not None and domain.train is None:
        yield (*path, "train"), "missing", f"name what {generator.name} makes the pairs from"


def _names(recipe: EmbeddingRecipe) -> Iterator[Problem]:
    """Every set that is measured stands in the scores by its name."""
    yield from check_names(recipe.domains)
    if not any(each.train is not None or each.generator is not None for each in recipe.domains.values()):
        yield ("domains",), "no domain with pairs to train on", "give one `train` or a `generator`"
    taken = Counter([*recipe.domains, *recipe.evaluate.mteb])
    for number, path in enumerate(recipe.evaluate.sts):
        taken[sts_name(path)] += 1
        if taken[sts_name(path)] > 1:
            where, fix = ("evaluate", "sts", number), "name the file, or the domain, otherwise"
            yield where, f"its name '{sts_name(path)}' is taken", fix


def sts_name(path: str) -> str:
    """What a file of scored sentence pairs is called in the scores: its name up to the first point."""
    return Path(path).name.partition(".")[0]


def asking_domains(recipe: EmbeddingRecipe) -> list[str]:
    """Domains whose generator asks the writer."""
    from synth import generators

    return [
        name
        for name, domain in recipe.domains.items()
        if domain.generator is not None and generators.find(domain.generator.name).asks
    ]


def _writer(recipe: EmbeddingRecipe) -> Iterator[Problem]:
    try:
        asking = asking_domains(recipe)
    except InputError:
        return
    if asking and recipe.writer is None:
        yield ("writer",), f"missing, and the generator of {asking[0]} asks one", "name the model that writes"
    if not asking and recipe.writer is not None:
        yield ("writer",), "set, but no generator asks it", "leave it out"
    if recipe.writer is not None and recipe.writer.model.path == "scratch":
        yield ("writer", "model", "path"), "'scratch' has nothing to write with", "name a model"
    if recipe.writer is not None and recipe.writer.system and not recipe.writer.chat:
        yield ("writer", "system"), "set although chat is false", "a system text needs a chat turn"


def _curation(recipe: EmbeddingRecipe) -> Iterator[Problem]:
    options = recipe.curate.decontaminate
    measured = any(domain.held_out for domain in recipe.domains.values())
    if options is not None and "held_out" in options.against and not measured:
        yield (
            ("curate", "decontaminate"),
            "no held-out pairs to compare with",
            "give a domain held_out, or say curate.decontaminate: null",
        )
    if recipe.curate.text is None:
        yield from check_curation(replace(recipe.curate, text=list(COMPARED)), CURATED)
    else:
        yield from check_curation(recipe.curate, CURATED)
    for name, off in ONLY_ROUNDS.items():
        if getattr(recipe.curate, name) != off:
            yield ("curate", name), "every round has the same pairs", "leave it out"


def _measuring(recipe: EmbeddingRecipe) -> Iterator[Problem]:
    trains = recipe.train.method != "none"
    if trains and not any(domain.held_out for domain in recipe.domains.values()):
        yield ("domains",), "no domain with `held_out`", "improvement is measured: give held-out pairs"
    if trains and recipe.gate.metric not in recipe.metrics:
        yield (
            ("gate", "metric"),
            f"'{recipe.gate.metric}' is not measured",
            f"use {', '.join(recipe.metrics)}",
        )
    if recipe.gate.max_sts_loss is not None and not recipe.evaluate.sts:
        yield ("gate", "max_sts_loss"), "no sentence pairs to measure it on", "name files in evaluate.sts"
    for name, domain in recipe.domains.items():
        verifier = domain.verifier
        if verifier is not None and verifier.options.get("model") == BASE and verifier.name != "pairs":
            fix = "only the verifier pairs takes the base for its guide"
            yield ("domains", name, "verifier", "options", "model"), f"'{BASE}'", fix
    if recipe.mine.rescore is not None and recipe.mine.method == "none":
        yield ("mine", "rescore"), "nothing is mined (method: none)", "leave one of them out"


def _stopping(recipe: EmbeddingRecipe) -> Iterator[Problem]:
    """A training would say so, too, but only when a round has been mined."""
    stopping, path = recipe.train.early_stopping, ("train", "early_stopping")
    if stopping is None or recipe.train.method == "none":
        return
    if not recipe.train.validation_share:
        yield path, "no pairs to see an improvement on", "set train.validation_share"
    elif stopping.metric not in recipe.metrics:
        yield (*path, "metric"), f"'{stopping.metric}' is not measured", f"use {', '.join(recipe.metrics)}"
