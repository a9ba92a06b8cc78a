"""What can be known of a `generate` recipe before any work (`synth validate`): every finding, not just the first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from recipes.generation.checks import asks
from recipes.validation import Finding, engine_name, installation_findings
from synth.records.errors import InputError, WorkError

if TYPE_CHECKING:
    from recipes.generation.schema import GenerationRecipe


def validate(recipe: GenerationRecipe) -> list[Finding]:
    """Check engine, inputs, templates, evaluation texts and verifiers. Nothing is asked; hub data may be fetched."""
    from recipes.curation_files import check_files, named_sets
    from recipes.generation.inputs import held_out_texts
    from recipes.generation.prepare import check_verifiers, writing_of
    from recipes.generation.tools import VerifierPool
    from recipes.runner import workers_of
    from synth import generators
    from synth.curate import evaluation_sets

    findings = list(engine_findings(recipe))
    pool = VerifierPool(workers_of(recipe))
    try:
        for name in recipe.domains:
            try:
                check_verifiers(recipe, [writing_of(recipe, name)], pool)
            except InputError as error:
                findings.append(Finding("error", error.where, error.seen, error.fix))
            except WorkError as error:
                findings.append(Finding("warning", error.where, f"not checked: {error.seen}", error.fix))
    finally:
        pool.close()
    try:
        sets = {**held_out_texts(recipe), **named_sets(recipe)}
        evaluation_sets(recipe.curate.decontaminate, sets)
        found = (generators.find(domain.generator.name) for domain in recipe.domains.values())
        check_files(recipe.curate, (generator.compared for generator in found))
    except InputError as error:
        findings.append(Finding("error", error.where, error.seen, error.fix))
    except WorkError as error:
        findings.append(Finding("warning", error.where, f"not checked: {error.seen}", error.fix))
    return findings


def engine_findings(recipe: GenerationRecipe) -> Iterator[Finding]:
    """What the engine lacks for this recipe: asked by `synth validate`, and before a run starts."""
    from synth import engines, generators

    if not asks(recipe):
        return
    name = engine_name(recipe)
    can = engines.capabilities(name)
    if recipe.parse.structured and not can.structured_output and _asks_json(recipe):
        seen = f"{name} cannot hold replies to a JSON schema"
        fix = "use vllm or openai, or parse.structured: false (the prompt alone asks for JSON then)"
        yield Finding("error", "engine.name", seen, fix)
    if recipe.limits.tokens is not None and not can.token_ids:
        yield Finding("error", "limits.tokens", f"{name} does not count tokens", "use limits.hours")
    if name == "openai" and any(
        generators.find(domain.generator.name).reads_turn for domain in recipe.domains.values()
    ):
        seen = "the user's turn is continued as plain text: the server must serve /v1/completions"
        yield Finding("warning", "engine.name", seen)
    yield from installation_findings(recipe)


def _asks_json(recipe: GenerationRecipe) -> bool:
    from synth import generators

    return any(generators.find(domain.generator.name).templates for domain in recipe.domains.values())
