"""The speed benchmark's arithmetic: medians of the turns that count, ratios, and whether the bars are met."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import pytest
from benchmark_scripts import script

# Seconds on the wall of each turn; the first does not count. Processor seconds are twice as many.
PLAIN, OURS = (99.0, 3.0, 2.4, 2.6), (99.0, 1.9, 2.0, 9.0)


def measured(
    monkeypatch: pytest.MonkeyPatch, *, cached: float, ways: str = "plain,ours,undropped,cached,peer_cached"
) -> dict[str, Any]:
    """What `measure` tells of four turns; `cached` ways take so many wall seconds each time, and no more processor
    seconds than wall seconds."""
    benchmark = script("contrastive_speed")
    turns = {"plain": iter(PLAIN), "ours": iter(OURS)}

    def peer(args: Any, rows: list[Any], with_cache: bool) -> tuple[float, float]:
        wall = cached if with_cache else next(turns["plain"])
        return wall, wall if with_cache else 2 * wall

    def ours(args: Any, rows: list[Any], **changes: Any) -> tuple[float, float]:
        if changes.get("cache") == "on":
            return cached, cached
        wall = 1.0 if changes else next(turns["ours"])
        return wall, 2 * wall

    monkeypatch.setattr(benchmark, "peer", peer)
    monkeypatch.setattr(benchmark, "ours", ours)
    monkeypatch.setattr(benchmark, "functions", lambda count: [{}] * count)
    return benchmark.measure(Namespace(pairs=64, batch=8, steps=6, rounds=3, ways=ways))


def test_medians_ratios_and_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    told = measured(monkeypatch, cached=3.0)
    # Five steps of eight pairs lie between the end of the first and of the last.
    assert told["plain"] == {
        "wall_s": 2.6, "processor_s": 5.2, "pairs_per_s": 40 / 2.6, "pairs_per_processor_s": 40 / 5.2,
    }  # fmt: skip
    assert (told["ours"]["wall_s"], told["undropped"]["wall_s"]) == (2.0, 1.0)
    assert told["ratios of wall_s"] == pytest.approx(
        {"plain / ours": 1.3, "cached / ours": 1.5, "ours / undropped": 2.0, "peer_cached / plain": 3.0 / 2.6}
    )
    assert told["ratios of processor_s"]["cached / ours"] == pytest.approx(0.75)
    assert set(told["met"].values()) == {True}
    assert len(told["met"]) == 4
    assert (told["pairs"], len(told["load"])) == (64, 4)


def test_a_bar_that_is_not_met_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told = measured(monkeypatch, cached=3.4)
    assert {name for name, met in told["met"].items() if not met} == {"cached / ours, wall_s"}
    benchmark = script("contrastive_speed")
    monkeypatch.setitem(benchmark.BARS, "plain / ours", 1.4)
    told = measured(monkeypatch, cached=3.0)
    assert {name for name, met in told["met"].items() if not met} == {
        "plain / ours, wall_s",
        "plain / ours, processor_s",
    }


def test_ways_that_did_not_run_are_compared_with_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    told = measured(monkeypatch, cached=3.0, ways="ours,cached")
    assert "plain" not in told
    assert list(told["ratios of wall_s"]) == ["cached / ours"]
    assert list(told["met"]) == ["cached / ours, wall_s", "cached / ours, processor_s"]
