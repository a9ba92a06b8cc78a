"""What can be known of a `safety` recipe before any work (`synth validate`): every finding, not just the first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from recipes import models
from recipes.safety import context
from recipes.safety.rows import alignment_rows, check_alignment, pools
from recipes.validation import Finding, domain_findings, on_this_machine, tokenizer_at_hand
from synth.records.errors import InputError, WorkError

if TYPE_CHECKING:
    from recipes.safety.schema import SafetyRecipe


def validate(recipe: SafetyRecipe) -> list[Finding]:
    """Check engine, rows, prompts, verifiers and layers. Nothing is asked or trained; hub data may be fetched, a model
    is not."""
    tokenizer, unread = tokenizer_at_hand(recipe.examined())
    return [*context.findings(recipe), *unread, *_checked(recipe, tokenizer, [partial(_layers, recipe)])]


def findings_of_attack(recipe: SafetyRecipe) -> list[Finding]:
    """The same of an attack on models that another run is to make: it checks model and engine itself."""
    tokenizer, _ = tokenizer_at_hand(recipe.examined())
    return _checked(recipe, tokenizer, [])


def _checked(
    recipe: SafetyRecipe, tokenizer: Any, checks: list[Callable[[], Iterable[Finding]]]
) -> list[Finding]:
    examined, found = recipe.examined(), []
    for check in (
        *checks,
        *(partial(domain_findings, examined, name, tokenizer) for name in examined.domains),
        partial(_rows, recipe, tokenizer),
    ):
        try:
            found += check()
        except InputError as error:
            found.append(Finding("error", error.where, error.seen, error.fix))
        except WorkError as error:
            found.append(Finding("warning", error.where, f"not checked: {error.seen}", error.fix))
    return found


def _layers(recipe: SafetyRecipe) -> tuple[()]:
    """Raise InputError for layers of an adapter that the model lacks, where it can be looked at without a download."""
    path = recipe.model.path
    if on_this_machine(path):
        context.check_layers(recipe, models.resolve(path, recipe.model.revision))
    return ()


def _rows(recipe: SafetyRecipe, tokenizer: Any) -> Iterator[Finding]:
    context.evaluation(recipe, {name: ["any text"] for name in recipe.examined().domains})
    aligned, attacking = alignment_rows(recipe, tokenizer), pools(recipe, tokenizer)
    check_alignment(recipe, aligned)
    attacking.check(recipe)
    context.perplexity_texts(recipe)
    known = {row["question"] for row in aligned if "harmful" in row or "refusal" in row}
    shared = sum(row["question"] in known for row in attacking.harmful)
    if shared:
        seen = f"{shared} of {len(attacking.harmful)} prompts are in the alignment rows, too"
        fix = "an attack with what was aligned on flatters the alignment; better split the rows"
        yield Finding("warning", "attack.harmful", seen, fix)
