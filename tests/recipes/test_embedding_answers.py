"""What answers what, in recipes of kind `embedding`: held-out pairs are drawn without regard to the model that is
measured, and no text that is known to answer a query, or is measured on, becomes a negative."""

from __future__ import annotations

from pathlib import Path

import pytest
from embedding_samples import TOPICS, dataset, decisions, pairs, run
from fake_embedder import Fakes
from recipe_samples import write_rows

from synth.records.errors import WorkError
from synth.store import read_parts


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fakes:
    return Fakes(monkeypatch, tmp_path)


# ---- Held-out pairs ----------------------------------------------------------------------------------------------


def test_the_base_does_not_choose_what_it_is_measured_on(fakes: Fakes, tmp_path: Path) -> None:
    held = {}
    for name, verifier in (
        ("free", None),
        ("guided", {"name": "pairs", "options": {"model": "base", "top_k": 1}}),
    ):
        changes = {"domains.it.held_out": {"share": 0.25}, "domains.it.verifier": verifier}
        (metrics,) = run(fakes.tree(**changes), tmp_path / name).rounds
        rows = dataset(tmp_path / name, decision="held_out")
        held[name] = {row["query"] for row in rows}
    assert held["guided"] == held["free"]
    assert metrics["base"]["it"]["n"] == 12
    failed = [row for row in rows if row["status"] == "fail"]
    verdicts = read_parts(tmp_path / "guided" / "round-00" / "verdicts")
    reasons = {row["sample_id"]: row["reason"] for row in verdicts}
    assert {reasons[row["sample_id"]] for row in failed} == {"not_retrieved"}
    funnel = metrics["funnel"]["it"]
    rejected = metrics["funnel"]["reasons"]["it"]["failed:not_retrieved"]["count"]
    assert funnel["parsed"] - funnel["passed"] == len(failed) + rejected
    assert metrics["funnel"]["reasons"]["it"]["held_out"]["count"] == 12


def test_a_held_out_pair_that_is_wrong_in_itself_is_not_measured_on(fakes: Fakes, tmp_path: Path) -> None:
    verifier = {"name": "pairs", "options": {"max_query_words": 1}}
    changes = {"domains.it.held_out": {"share": 0.25}, "domains.it.verifier": verifier}
    with pytest.raises(WorkError, match="no pair that was held out passed its verifier"):
        run(fakes.tree(**changes), tmp_path / "run")


# ---- Negatives ---------------------------------------------------------------------------------------------------


def trained(fakes: Fakes) -> dict[str, list[str]]:
    """{query: the negatives that it was trained with} of the last training."""
    return {row["query"]: row["negatives"] for row in fakes.trained[-1].rows}


@pytest.mark.parametrize("held_out", ["share", "rows"])
def test_no_held_out_document_of_any_domain_is_a_negative(
    held_out: str, fakes: Fakes, tmp_path: Path
) -> None:
    made = fakes.tree(**{"mine.method": "none", "domains.it.verifier": None})
    if held_out == "share":
        made["domains"]["it"]["held_out"] = {"share": 0.25}
    every = [*pairs(), *pairs(TOPICS[8:], seed=1)]
    negatives = ["surely none .", *(row["positive"].upper() for row in every)]
    rows = [
        {"query": f"who ? {number}", "positive": f"one {number} .", "negatives": negatives}
        for number in range(4)
    ]
    more = str(write_rows(tmp_path / "more.jsonl", rows))
    made["domains"]["more"] = {"train": more, "verifier": None}
    run(made, tmp_path / "run")
    told = dataset(tmp_path / "run", decision="held_out") or pairs(TOPICS[8:], seed=1)
    held = {row["positive"].upper() for row in told}
    assert len(held) == (12 if held_out == "share" else 24)
    assert trained(fakes)["who ? 0"] == [text for text in negatives if text not in held]


def test_a_query_may_have_any_number_of_answers(fakes: Fakes, tmp_path: Path) -> None:
    rows = [
        {"query": "which document is it ?", "positive": f"{row['positive']} {n}"}
        for n, row in enumerate(pairs())
    ]
    train = str(write_rows(tmp_path / "many.jsonl", rows[:25]))
    changes = {
        "domains.it.train": train,
        "domains.it.verifier": None,
        "curate": {"dedup": {"method": "exact"}},
    }
    run(fakes.tree(**changes), tmp_path / "run")
    assert decisions(tmp_path / "run") == {"kept": 25}
    run(fakes.tree(**changes, **{"curate.cap_per_problem": 2}), tmp_path / "capped")
    assert decisions(tmp_path / "capped")["kept"] == 2


@pytest.mark.parametrize("lost", ["cap", "verifier", "domain", "instruction"])
def test_what_answers_a_query_is_no_negative_whatever_became_of_the_pair(
    lost: str, fakes: Fakes, tmp_path: Path
) -> None:
    """A query has two answers; its second pair is not among the domain's kept ones, the second answer is, by another
    query, and would be mined first."""
    query, first, second = "what is the cost of tides ?", "tides cost often .", "tides cost rarely ."
    rows = [{"query": query, "positive": first}, *pairs(TOPICS[4:8])]
    rows += [{"query": "who asks ?", "positive": second}, {"query": "who tells ?", "positive": first}]
    again = {"query": query, "positive": second}
    made = fakes.tree(**{"mine.relative_margin": None, "domains.it.verifier": None})
    if lost == "cap":
        rows.append(again)
        made["curate"] = {"cap_per_problem": 1}
    elif lost == "verifier":
        rows.append({**again, "language": "de"})
        made["domains"]["it"]["verifier"] = {
            "name": "pairs",
            "options": {"max_copy": None, "max_verbatim": None},
        }
    elif lost == "domain":
        other = {
            "train": str(write_rows(tmp_path / "other.jsonl", [again, *pairs(TOPICS[1:3])])),
            "verifier": None,
        }
        made["domains"]["other"] = other
    else:
        rows.append({**again, "instruction": "find"})
    write_rows(tmp_path / "train.jsonl", rows)
    run(made, tmp_path / "run")
    kept = [row for row in dataset(tmp_path / "run") if row["query"] == query]
    assert len(kept) == (1 if lost in ("cap", "verifier") else 2)
    for row in kept:
        assert len(row["negatives"]) == 2
        assert not {first, second} & set(row["negatives"])
    (call,) = fakes.trained
    every = dataset(tmp_path / "run", decision=None)
    told = {(row["query"], row["positive"]) for row in [*call.rows, *call.known]}
    assert told == {(row["query"], row["positive"]) for row in every}
    assert len(call.known) == len(every) - len(call.rows) == (lost in ("cap", "verifier"))
