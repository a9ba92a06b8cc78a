"""Curation by meaning with a real embedding model: paraphrases that people agree on, and reworded problems."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from benchmark_scripts import script

from recipes.curation_files import open_embed
from synth.curate import CurateOptions, CurateResult, DecontaminateOptions, DedupOptions, curate

Embed = Callable[[Any], Any]


@pytest.fixture(scope="module")
def embed(minilm: Path) -> Embed:
    found = open_embed(CurateOptions(embed=str(minilm)))
    assert found is not None
    return found


def curated(texts: list[str], embed: Embed, against: list[str], **options: Any) -> CurateResult:
    rows = [{"sample_id": f"{number:05d}", "prompt": text} for number, text in enumerate(texts)]
    chosen = CurateOptions(
        **{"text": "prompt", "cap_per_problem": None, "dedup": None, "decontaminate": None, **options}
    )
    return curate(rows, chosen, {"test": against}, embed=embed)


def test_semantic_dedup_finds_paraphrases_and_spares_unrelated_sentences(
    embed: Embed, shared_data: Callable[[str], Path]
) -> None:
    """Pairs of STS-B with a score of at least 4.8 of 5, and of at most 1, each by itself."""
    lines = shared_data("stsb/sts-test.csv").read_text("utf-8").split("\n")
    pairs = [(float(row[4]), row[5], row[6]) for line in lines if line for row in [line.split("\t")]]
    same = [(one, other) for score, one, other in pairs if score >= 4.8 and one != other]
    unlike = [(one, other) for score, one, other in pairs if score <= 1][:150]
    assert len(same) > 100
    for least, found, alarms in ((0.85, 0.7, 0.0), (0.95, 0.2, 0.0)):
        dedup = DedupOptions("semantic", least)
        hits = sum(bool(curated([*pair], embed, [], dedup=dedup).dropped) for pair in same[::2])
        wrong = sum(bool(curated([*pair], embed, [], dedup=dedup).dropped) for pair in unlike[::2])
        print(f"cosine {least}: {hits} of {len(same[::2])} paraphrases, {wrong} of {len(unlike[::2])} others")
        assert hits >= found * len(same[::2])
        assert wrong <= alarms
    result = curated(
        [text for pair in same for text in pair], embed, [], dedup=DedupOptions("semantic", 0.85)
    )
    assert len(result.dropped) >= 0.7 * len(same)
    assert all(int(row["matched_id"]) != int(row["sample_id"]) for row in result.dropped)


def test_reworded_problems_are_found_by_meaning(embed: Embed, shared_data: Callable[[str], Path]) -> None:
    """GSM8K's test questions with other numbers or in another order of sentences, among its training questions."""
    test, train = (
        [
            json.loads(line)["question"]
            for line in shared_data(f"gsm8k/{part}.jsonl").read_bytes().split(b"\n")
            if line
        ]
        for part in ("test", "train")
    )
    plants = script("curate").Plants([*test, *train])
    test, train = test[1:800:16], train[:1500:15]
    options = DecontaminateOptions(against=["test"], ngram=13, threshold=1.0, semantic=0.85)
    for kind, least in (("verbatim", 1.0), ("names", 0.6), ("numbers", 0.85), ("clauses", 0.95)):
        draw = random.Random(kind)
        result = curated(
            [plants.kinds[kind](text, draw) for text in test], embed, test, decontaminate=options
        )
        by = [json.loads(row["evidence"])["match"] for row in result.dropped]
        print(f"{kind}: {len(by)} of {len(test)}, by meaning {by.count('semantic')}")
        assert len(by) >= least * len(test)
    right = [row["matched_id"] == f"test[{int(row['sample_id'])}]" for row in result.dropped]
    assert sum(right) >= 0.95 * len(right)
    alarms = curated(train, embed, test, decontaminate=options).dropped
    print(f"clean: {len(alarms)} of {len(train)}")
    assert len(alarms) <= 0.02 * len(train)
