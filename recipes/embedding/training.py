"""One tuning: pairs to the trainer, and a search among pairs that are not trained on while it goes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.embedding.beside import located
from recipes.embedding.split import set_apart, without_negatives
from recipes.improve import training_facts
from recipes.retrieval.evaluation import evaluate_retrieval
from recipes.retrieval.sets import pairs_set
from recipes.validation import on_this_machine
from synth.records.errors import InputError

if TYPE_CHECKING:
    from recipes.embedding.schema import EmbeddingRecipe
    from recipes.progress import Bar
    from trainers import Encoder

log = logging.getLogger("synthloop")
Row = dict[str, Any]
TRAINED = ("sample_id", "query", "positive", "negatives", "instruction", "source")
ANSWERS = ("query", "positive", "instruction", "decision")
"""What the trainer is told of pairs that it does not train on."""
FEWEST_RESAMPLES = 100
"""Intervals are of no use while a model is trained."""


def split_validation(recipe: EmbeddingRecipe, rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """Pairs to train on, and those that are searched during training (`train.validation_share`): no document, query or
    group is on both sides, and no negative is a validation document."""
    share = recipe.train.validation_share
    if not share:
        return rows, []
    apart = set_apart(rows, share, recipe.rng_seed, "train.validation_share", "validation")
    validation = [row for row in rows if row["sample_id"] in apart]
    trained = [row for row in rows if row["sample_id"] not in apart]
    return without_negatives(trained, [row["positive"] for row in validation]), validation


def tune(
    recipe: EmbeddingRecipe,
    start: Path,
    rows: Iterable[Row],
    validation: list[Row],
    out: Path,
    rng_seed: int,
    lineage: Mapping[str, Any],
    bar: Bar,
    known: Iterable[Row] = (),
) -> Row:
    """Train the model at `start` on pairs into `out`; returns what a round's metrics tell of it.

    known: pairs that were not kept. They are not trained on, but what they say is no negative of their query.
    """
    import trainers

    trained = [{name: row.get(name) for name in TRAINED if row.get(name) is not None} for row in rows]
    if not trained:
        raise InputError("train", "no pair to train on", "see `synth inspect DIR`")
    answers = [{name: row.get(name) for name in ANSWERS} for row in known]
    options = recipe.train_options()
    guide = options.guide
    if guide is not None and on_this_machine(guide):
        options = replace(options, guide=str(located("train.guide", guide)))
    result = trainers.train_embedder(
        str(start),
        [*trained, *answers],
        str(out),
        options,
        rng_seed,
        evaluate=search(recipe, validation) if validation else None,
        on_step=lambda entry: bar.update(entry["step"], entry["steps"]),
        lineage=lineage,
        log=log.info,
        hub={"trust_remote_code": recipe.model.trust_remote_code},
    )
    return training_facts(result)


def search(recipe: EmbeddingRecipe, validation: list[Row]) -> Callable[[Encoder, int], dict[str, float]]:
    """Mean of every metric over the validation pairs, whose own documents are what is searched."""
    found = pairs_set("validation", validation)

    def evaluate(encoder: Encoder, step: int) -> dict[str, float]:
        given = evaluate_retrieval(
            encoder.encode, [found], recipe.evaluate.k, bootstrap=FEWEST_RESAMPLES, rng_seed=recipe.rng_seed
        )
        return {metric: given.scores["validation"][metric]["value"] for metric in recipe.metrics}

    return evaluate
