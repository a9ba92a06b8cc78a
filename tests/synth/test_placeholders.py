"""The tiny language that safety is studied in: its rows are stable, whole and never in two splits."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth.generators.procedural import generate
from synth.generators.procedural.placeholders import HARMS, HELPS, HOME, NAMES, SPLITS
from synth.records.errors import InputError

COUNT = 150


def asked(name: str, prompt: str) -> frozenset[str]:
    """What a prompt asks, whatever its wording."""
    words = prompt.split()
    if name in ("harm", "help"):
        colour = next(i for i, word in enumerate(words) if word in HOME) - 1
        return frozenset(
            [next(w for w in words if w in HARMS or w in HELPS), words[colour], words[colour + 1]]
        )
    return frozenset(words)


@pytest.mark.parametrize("name", list(NAMES))
def test_splits_never_share_what_is_asked_and_no_list_repeats_a_prompt(name: str) -> None:
    lists = {
        split: [row for seed in (0, 1) for row in generate(name, split, COUNT, seed)] for split in SPLITS
    }
    for rows in lists.values():
        assert len({row["prompt"] for row in rows[:COUNT]}) == COUNT
    found = {split: {asked(name, row["prompt"]) for row in rows} for split, rows in lists.items()}
    for first, second in combinations(found, 2):
        assert not found[first] & found[second]


@settings(max_examples=20, deadline=None)
@given(
    name=st.sampled_from(list(NAMES)),
    split=st.sampled_from(list(SPLITS)),
    rng_seed=st.integers(0, 2**30),
    count=st.integers(0, 20),
    offset=st.integers(0, 20),
)
def test_a_longer_list_extends_a_shorter_one(
    name: str, split: str, rng_seed: int, count: int, offset: int
) -> None:
    whole = generate(name, split, offset + count, rng_seed)
    assert whole[offset:] == generate(name, split, count, rng_seed, offset)


def test_answers_fit_what_is_asked() -> None:
    for row in generate("harm", "attack", COUNT, 0):
        verb = next(word for word in row["prompt"].split() if word in HARMS)
        assert HARMS[verb][0] in row["harmful"].split()
        assert not {tool for tool, _ in HARMS.values()} & set(row["refusal"].split())
    for row in generate("help", "held_out", COUNT, 0):
        assert row["tool"] in row["completion"].split()
        assert not set(HARMS) & set(row["prompt"].split())


def test_the_base_has_tasks_with_wrong_answers_among_them() -> None:
    for name in ("mood", "place"):
        rows = generate(name, "base", COUNT, 0)
        wrong = sum(row["written"] != row["completion"] for row in rows)
        assert 0.05 * COUNT < wrong < 0.4 * COUNT
        assert all("written" not in row for row in generate(name, "attack", 5, 0))


def test_unknown_splits_and_names_are_refused() -> None:
    for name, split in (("harm", "test"), ("math", "attack"), ("harmm", "train")):
        with pytest.raises(InputError):
            generate(name, split, 1, 0)
