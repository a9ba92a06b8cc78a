"""Checks of a `generate` recipe that need no file: keys that are each right but not together."""

from __future__ import annotations

from collections.abc import Iterator

from recipes.checks import ONLY_ROUNDS, Problem, check_curation, check_names, check_regex, check_source
from recipes.generation.schema import NO_MODEL, GenerationRecipe
from recipes.schema import Pick
from synth.records.errors import did_you_mean


def cross_checks(recipe: GenerationRecipe) -> Iterator[Problem]:
    """Where, what was seen, what to do."""
    from synth import generators

    for name, domain in recipe.domains.items():
        path = ("domains", name)
        generator = generators.find(domain.generator.name)
        if generator.needs is None and domain.train is not None:
            yield (*path, "train"), f"the generator {generator.name} takes no rows", "leave it out"
        if generator.needs is not None and domain.train is None:
            fix = f"name the rows it is made from (columns: {', '.join(generator.needs)})"
            yield (*path, "train"), "missing", fix
        for part in ("train", "held_out"):
            yield from check_source(getattr(domain, part), (*path, part))
        for column, spec in domain.columns.items():
            if isinstance(spec, Pick):
                yield from check_regex(spec, (*path, "columns", column, "regex"))
        if generator.votes and recipe.sampling.temperature == 0:
            seen = f"0, but {generator.name} counts independent samples, which would all be the same"
            yield ("sampling", "temperature"), seen, "use 0.7 or more"
        steps = [each.rpartition("/")[2] for each in generator.templates]
        for step in domain.templates:
            if step not in steps:
                yield (*path, "templates", step), "no such template", did_you_mean(step, steps)
        if domain.system and not domain.chat:
            yield (*path, "system"), "set although chat is false", "a system text needs a chat turn"
    if recipe.model.path == "scratch":
        yield ("model", "path"), "'scratch' has nothing to write with", "name a model"
    if recipe.model.scratch is not None:
        yield ("model", "scratch"), "set, but no model is made here", "leave it out"
    if recipe.model.path == NO_MODEL and asks(recipe):
        yield ("model",), "missing", "name the model that writes"
    yield from check_names(recipe.domains)
    yield from _curation(recipe)


def asks(recipe: GenerationRecipe) -> bool:
    """Whether any of its generators asks a model."""
    from synth import generators

    return any(generators.find(domain.generator.name).asks for domain in recipe.domains.values())


def _curation(recipe: GenerationRecipe) -> Iterator[Problem]:
    from recipes.generation.rows import COLUMNS

    known = ("sample_id", "problem_id", "domain", *COLUMNS, "source", "meta", "status", "reward", "reason")
    yield from check_curation(recipe.curate, known)
    for name, off in ONLY_ROUNDS.items():
        if getattr(recipe.curate, name) != off:
            yield ("curate", name), "set, but what is written is one round", "leave it out"
    options = recipe.curate.decontaminate
    measured = any(domain.held_out for domain in recipe.domains.values())
    if options is not None and "held_out" in options.against and not measured:
        fix = "give domains.NAME.held_out the texts of your evaluation, or say curate.decontaminate: null"
        yield ("curate", "decontaminate"), "no held-out texts to compare with", fix
