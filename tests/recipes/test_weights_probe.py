"""Law 6: stale or mis-synced weights are an error."""

from __future__ import annotations

from typing import Any

import pytest

from recipes.weights_probe import TOLERANCE, probe_weights
from synth.records.errors import WorkError

SEQUENCES = [[1, 2, 3, 4], [5, 6, 7]]
NEW, OLD = -1.0, -1.4


class FakeEngine:
    """Scores every token with one log-prob."""

    def __init__(self, value: float) -> None:
        self.value = value

    def prompt_logprobs(self, token_ids: list[list[int]]) -> list[list[float]]:
        return [[self.value] * (len(ids) - 1) for ids in token_ids]


def trainer(path: str, token_ids: list[list[int]]) -> list[list[float]]:
    return FakeEngine(NEW if path == "new" else OLD).prompt_logprobs(token_ids)


def probe(value: float, logprobs: Any = trainer) -> Any:
    return probe_weights(FakeEngine(value), SEQUENCES, "new", "old", logprobs)  # type: ignore[arg-type]


def test_synced_weights_pass_and_the_distances_are_reported() -> None:
    result = probe(NEW + 0.01)
    assert result.in_sync
    assert result.tokens == 5
    assert result.engine_to_trainer == pytest.approx(0.01)
    assert result.moved == pytest.approx(0.4)
    assert result.as_dict()["tolerance"] == TOLERANCE


def test_stale_weights_are_an_error_that_names_both_distances() -> None:
    with pytest.raises(WorkError, match=r"0\.4000.*0\.0000"):
        probe(OLD)


def test_small_steps_are_caught_by_the_comparison_with_the_old_weights() -> None:
    def near(path: str, token_ids: list[list[int]]) -> list[list[float]]:
        return FakeEngine(-1.0 if path == "new" else -1.06).prompt_logprobs(token_ids)

    with pytest.raises(WorkError):
        probe(-1.05, near)  # within the tolerance of the new weights, and still the old ones
    assert probe(-1.01, near).in_sync


def test_nothing_to_compare_is_an_error() -> None:
    with pytest.raises(WorkError, match="no token sequences"):
        probe_weights(FakeEngine(0.0), [[1]], "new", "old", trainer)  # type: ignore[arg-type]
