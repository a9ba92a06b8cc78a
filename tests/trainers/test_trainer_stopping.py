"""When training stops because a held-out metric no longer improves, and with which weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch

import trainers
from synth.records.errors import InputError
from trainers.core.checkpoint import Progress
from trainers.core.evaluate import Stopper, checked_metrics
from trainers.options import EarlyStopping, TrainOptions

NAN, INF = math.nan, math.inf
Folder = Callable[..., Path]


@pytest.mark.parametrize(
    ("mode", "min_delta", "patience", "values", "stopped_at", "best_step"),
    [
        ("min", 0.0, 2, [3.0, 2.0, 2.0, 2.5], 4, 2),
        ("min", 0.0, 2, [3.0, 3.5, 2.0, 2.5], None, 3),
        ("max", 0.0, 2, [3.0, 2.0, 2.5], 3, 1),
        ("max", 0.0, 2, [3.0, 3.5, 4.0, 3.9], None, 3),
        ("min", 0.5, 2, [3.0, 2.6, 2.5], 3, 1),
        ("min", 0.5, 2, [3.0, 2.6, 2.4], None, 3),
        ("max", 0.5, 1, [0.0, 0.5], 2, 1),
        ("min", 0.0, 1, [3.0, 3.0], 2, 1),
        ("min", 0.0, 3, [1.0, 2.0, 2.0, 2.0], 4, 1),
        ("min", 0.0, 2, [NAN, 2.0, 1.0], None, 3),
        ("max", 0.0, 2, [NAN, 2.0, 1.0], None, 2),
        ("min", 0.0, 2, [2.0, NAN, 1.0], None, 3),
        ("min", 0.0, 2, [2.0, NAN, NAN], 3, 1),
        ("min", 0.0, 2, [NAN, NAN], 2, 0),
        ("max", 0.0, 2, [INF, 1.0], None, 2),
        ("min", 0.0, 2, [-INF, 1.0], None, 2),
    ],
)
def test_stopper(
    mode: Any,
    min_delta: float,
    patience: int,
    values: list[float],
    stopped_at: int | None,
    best_step: int,
) -> None:
    """Values come one a step; `stopped_at` is the first step after which patience is used up."""
    stopper = Stopper(EarlyStopping("score", mode, patience, min_delta))
    progress, stops = Progress(), []
    for progress.step, value in enumerate(values, start=1):
        improved = stopper.improved({"score": value}, progress)
        assert improved == (progress.best_step == progress.step)
        if stopper.exhausted(progress):
            stops.append(progress.step)
    assert stops[:1] == ([] if stopped_at is None else [stopped_at])
    assert progress.best_step == best_step
    assert progress.best == (values[best_step - 1] if best_step else None)


def test_numbers_of_other_libraries_become_plain_ones() -> None:
    import numpy as np

    given = {"a": 1, "b": 0.5, "c": np.float32(0.25), "d": torch.tensor(2.0), "e": True}
    plain = checked_metrics(given)
    assert plain == {"a": 1, "b": 0.5, "c": 0.25, "d": 2.0, "e": 1.0}
    assert [type(value) for value in plain.values()] == [int, float, float, float, float]


@pytest.mark.parametrize(
    "returned",
    [None, 0.5, {"score": "0.5"}, {"score": None}, {"score": [1.0, 2.0]}, {"score": torch.zeros(2)}],
    ids=["nothing", "bare", "text", "null", "list", "tensor"],
)
def test_evaluation_that_returns_no_number_is_an_input_error(returned: Any) -> None:
    with pytest.raises(InputError, match=r"(?s)evaluate.*return a mapping of names to numbers"):
        checked_metrics(returned)


def test_training_stops_on_its_validation_loss_with_the_best_weights(
    tmp_path: Path, model_folder: Folder
) -> None:
    """Random rows can only be learnt by heart: the loss on others soon rises."""
    rows, held = tiny_models.token_rows(6), tiny_models.token_rows(6, seed=9)
    options = TrainOptions(
        max_steps=40, batch_size=6, lr=1e-2, schedule="constant", eval_every=1,
        early_stopping=EarlyStopping(patience=2),
    )  # fmt: skip
    result = trainers.train(str(model_folder()), rows, tmp_path / "m", options, 0, validation=held)
    losses = [entry["validation_loss"] for entry in result.logs]
    best = losses.index(min(losses))
    assert result.stopped_early
    assert result.steps == len(losses) == best + 3 < 40
    assert best > 0, "nothing was learnt first: the test is vacuous"
    again = trainers.logprobs(str(tmp_path / "m"), [row["token_ids"] for row in held])
    nll = [
        -value
        for row, found in zip(held, again, strict=True)
        for value, trained in zip(found, row["loss_mask"][1:], strict=True)
        if trained
    ]
    assert sum(nll) / len(nll) == pytest.approx(losses[best], abs=1e-5)
