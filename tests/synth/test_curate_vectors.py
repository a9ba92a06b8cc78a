"""Vectors that curation compares rows by: of their words, or what a model handed in gives."""

from __future__ import annotations

import numpy as np
import pytest

from synth.curate import CurateOptions, DecontaminateOptions, DedupOptions, SelectOptions, curate
from synth.curate.embedding import unit
from synth.curate.options import DEDUP_METHODS
from synth.curate.vectors import WordVectors


def test_word_vectors_are_like_for_like_texts() -> None:
    words = WordVectors()
    texts = ["red green blue red", "Red, green blue", "one two three", "two one four", "only here", ""]
    words.add(texts[:2])
    words.add(texts[2:])
    vectors = words.vectors(range(6))
    cosines = vectors @ vectors.T
    assert cosines[0, 1] > 0.3
    assert cosines[2, 3] > 0.9
    assert abs(cosines[0, 2]) < 0.3
    assert not vectors[5].any()
    np.testing.assert_array_equal(words.vectors([2, 3])[0], words.vectors([3, 2])[1])


def test_vectors_get_length_one_and_what_is_none_is_refused() -> None:
    assert unit([[3, 4], [0, 0]]).tolist() == [pytest.approx([0.6, 0.8]), [0, 0]]
    for wrong in ([1.0, 2.0], [[float("nan")]], [[float("inf"), 1.0]]):
        with pytest.raises(ValueError, match="finite numbers"):
            unit(wrong)


@pytest.mark.parametrize("chains", [False, True])
@pytest.mark.parametrize("method", DEDUP_METHODS)
def test_of_no_rows_none_is_kept(method: str, chains: bool) -> None:
    options = CurateOptions(
        dedup=DedupOptions(method, chains=chains),
        decontaminate=DecontaminateOptions(against=["test"], reworded=0.6, semantic=0.9),
        select=SelectOptions(size=3, quotas={"source": {"web": 1}}),
    )
    result = curate([], options, {"test": ["a text"]}, embed=lambda texts: [[1.0, 0.0] for _ in texts])
    assert (result.kept, result.dropped, result.counts) == ([], [], {"kept": 0})
