"""A look before the run (`synth preview`): prompts as the model sees them, completions, verdicts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from recipes.embedding.schema import EmbeddingRecipe
from recipes.safety.schema import SafetyRecipe
from recipes.schema import Recipe
from synth.records.errors import InputError
from synth.records.ids import sampling_seed
from synth.records.lint import lint, visible

if TYPE_CHECKING:
    from recipes.kinds import AnyRecipe
    from recipes.sampling import Domain, Rendered
    from synth.engines import Engine, Output


def preview(recipe: AnyRecipe, n: int = 3) -> Iterator[str]:
    """Texts to print: for each domain the first `n` problems' prompts, then a completion of each with its verdict.

    Nothing is written. Raises what a run would raise for the same mistakes.
    """
    if n < 1:
        raise InputError("-n", str(n), "use at least 1")
    if isinstance(recipe, EmbeddingRecipe):
        from recipes.embedding.preview import preview as preview_embedding

        yield from preview_embedding(recipe, n)
        return
    if isinstance(recipe, SafetyRecipe):
        recipe = recipe.examined()
    if not isinstance(recipe, Recipe):
        from recipes.generation.preview import preview as preview_generation

        yield from preview_generation(recipe, n)
        return
    from recipes import models
    from recipes.engine_handle import EngineHandle
    from recipes.problems import load_domains
    from recipes.progress import Progress
    from recipes.runner import engine_choice

    base, _ = models.locate(recipe.engine.name, recipe.model.path, recipe.model.revision)
    domains = load_domains(recipe, base)
    handle = None
    try:
        for domain in domains:
            # Rows that are given need nothing that a verifier asks for; held-out problems have it.
            sampled = [] if recipe.kind == "sft" else domain.train(0)
            problems = (sampled or domain.held_out)[:n]
            prompts = [domain.render(problem) for problem in problems]
            yield from _prompt_texts(domain, prompts)
            handle = handle or EngineHandle(*engine_choice(recipe, Progress()), recipe.model.path)
            outputs = _complete(recipe, domain, handle.at(base), problems, prompts)
            yield from _completion_texts(domain, problems, outputs)
    finally:
        if handle is not None:
            handle.close()
        for domain in domains:
            domain.verifier.close()


def _prompt_texts(domain: Domain, prompts: list[Rendered]) -> Iterator[str]:
    for number, prompt in enumerate(prompts):
        tokens = f", {len(prompt.token_ids)} tokens" if prompt.token_ids is not None else ""
        yield f"=== {domain.name}: prompt {number} ({len(prompt.text)} characters{tokens})\n{visible(prompt.text)}"
        for wrong in lint(prompt.text):
            yield f"warning: {wrong}"
    if domain.stop:
        yield f"stop strings: {', '.join(map(repr, domain.stop))}"


def _complete(
    recipe: Recipe, domain: Domain, engine: Engine, problems: list[dict[str, Any]], prompts: list[Rendered]
) -> list[Output]:
    """One completion a problem, sampled as round 0 samples its first."""
    from recipes.sampling import source_id
    from synth.engines import Request, Sampling

    options = recipe.sampling
    sampling = Sampling(options.temperature, options.top_k, options.top_p, options.max_tokens, domain.stop)
    takes_ids = engine.capabilities.token_ids
    engine.submit(
        Request(
            id=problem["problem_id"],
            prompt=prompt.text,
            prompt_token_ids=prompt.token_ids if takes_ids else None,
            seed=sampling_seed(recipe.rng_seed, 0, problem["problem_id"], 0),
            sampling=sampling,
            messages=prompt.messages,
            problem_id=problem["problem_id"],
            source_id=source_id(problem),
        )
        for problem, prompt in zip(problems, prompts, strict=True)
    )
    by_id = {output.id: output for output in engine.outputs()}
    return [by_id[problem["problem_id"]] for problem in problems]


def _completion_texts(domain: Domain, problems: list[dict[str, Any]], outputs: list[Output]) -> Iterator[str]:
    made = [output.finish_reason in ("stop", "length") for output in outputs]
    rows = [
        {**problem, "completion": output.text}
        for problem, output, good in zip(problems, outputs, made, strict=True)
        if good
    ]
    verdicts = iter(domain.verifier.verify_batch(rows, workers=1))
    for number, (output, good) in enumerate(zip(outputs, made, strict=True)):
        yield f"--- {domain.name}: completion {number} ({output.finish_reason})\n{visible(output.text)}"
        if not good:
            yield f"--- not sampled: {output.error}"
            continue
        verdict = next(verdicts)
        reward = "" if verdict.reward is None else f", reward {verdict.reward:g}"
        yield f"--- verdict: {verdict.status}, {verdict.reason}{reward}"
