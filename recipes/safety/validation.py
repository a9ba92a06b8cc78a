"""What can be known of a `safety` recipe before any work (`synth validate`): every finding, not just the first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from recipes.safety import context
from recipes.safety.rows import alignment_rows, pools
from recipes.validation import Finding
from synth.records.errors import InputError, WorkError

if TYPE_CHECKING:
    from recipes.safety.schema import SafetyRecipe


def validate(recipe: SafetyRecipe) -> list[Finding]:
    """Check engine, rows, prompts and verifiers. Nothing is asked or trained; hub data may be fetched."""
    found = list(context.findings(recipe))
    checks: list[Callable[[], Iterator[Finding]]] = [
        *(partial(_domain, recipe, name) for name in recipe.domains),
        partial(_rows, recipe),
    ]
    for check in checks:
        try:
            found += check()
        except InputError as error:
            found.append(Finding("error", error.where, error.seen, error.fix))
        except WorkError as error:
            found.append(Finding("warning", error.where, f"not checked: {error.seen}", error.fix))
    return found


def _domain(recipe: SafetyRecipe, name: str) -> Iterator[Finding]:
    from recipes.problem_checks import judgeable
    from recipes.problems import load_domain
    from verifiers.base import self_test_problems

    examined = recipe.examined()
    if name not in examined.domains:
        return
    tokenizer, found = _tokenizer(recipe)
    yield from found
    domain = load_domain(examined, name, tokenizer)
    try:
        for wrong in self_test_problems(domain.verifier):
            fix = "mend the verifier or its options; `synth doctor` shows what this machine lacks"
            yield Finding("error", f"domains.{name}.verifier", f"fails its self-test: {wrong}", fix)
        judgeable(domain.verifier, domain.held_out, f"domains.{name}.held_out", recipe.problems.max_bad)
    finally:
        domain.verifier.close()


def _rows(recipe: SafetyRecipe) -> Iterator[Finding]:
    tokenizer, found = _tokenizer(recipe)
    yield from (each for each in found if each.level == "error")
    aligned = alignment_rows(recipe, tokenizer)
    method = recipe.train.method
    for column, needed in (
        ("refusal", method != "none"),
        ("harmful", method in ("booster", "repnoise")),
    ):
        if needed and not any(row.get(column) for row in aligned):
            where, fix = f"domains.{recipe.harmful}.train", f"map it: columns: {{{column}: ...}}"
            yield Finding("error", where, f"no row has `{column}`, which method {method} needs", fix)
    pools(recipe, tokenizer).check(recipe)
    context.perplexity_texts(recipe)


def _tokenizer(recipe: SafetyRecipe) -> tuple[object, list[Finding]]:
    from recipes.validation import tokenizer_at_hand

    return tokenizer_at_hand(recipe.examined())
