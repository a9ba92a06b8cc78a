"""What answers what, in recipes of kind `embedding`: held-out pairs are drawn without regard to the model that is
measured, and no text that is known to answer a query, or is measured on, becomes a negative."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from embedding_samples import TOPICS, dataset, decisions, pairs, run
from fake_embedder import Fakes
from recipe_samples import write_rows

from recipes.cli import main
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


@pytest.mark.parametrize("named", ["document_id", "passage_id", "path"])
def test_a_document_of_another_file_is_another_document(named: str, fakes: Fakes, tmp_path: Path) -> None:
    """Names that users give their documents hold in one file; two domains of one file mean the same by them."""
    made = fakes.tree(**{"domains.it.held_out": {"share": 0.25}, "curate": {"decontaminate": None}})
    for name, seed in (("it", 0), ("more", 3)):
        rows = [{**row, named: number // 2} for number, row in enumerate(pairs(seed=seed))]
        train = str(write_rows(tmp_path / f"{name}.jsonl", rows))
        made["domains"].setdefault(name, {"verifier": None})["train"] = train
    run(made, tmp_path / "apart")
    assert "contaminated" not in decisions(tmp_path / "apart")
    turned = {"query": "positive", "positive": "query"}
    train = made["domains"]["it"]["train"]
    made["domains"]["more"] = {"train": train, "columns": turned, "verifier": None}
    run(made, tmp_path / "same")
    assert decisions(tmp_path / "same")["contaminated"] > 0


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


@pytest.mark.parametrize("held_out", ["share", "rows"])
def test_train_alone_takes_held_out_documents_from_negatives(
    held_out: str, fakes: Fakes, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {"mine.method": "none", "domains.it.verifier": None}
    if held_out == "share":
        changes["domains.it.held_out"] = {"share": 0.25}
    made = fakes.tree(**changes)
    every = [*pairs(), *pairs(TOPICS[8:], seed=1)]
    negatives = ["surely none .", *(row["positive"].upper() for row in every)]
    rows = [{"query": "who ?", "positive": "one .", "negatives": negatives}]
    made["domains"]["more"] = {"train": str(write_rows(tmp_path / "more.jsonl", rows)), "verifier": None}
    run(made, tmp_path / "run")
    in_a_run = trained(fakes)["who ?"]
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps(made))
    assert main(["train", str(recipe), "--out", str(tmp_path / "model")]) == 0
    assert trained(fakes)["who ?"] == in_a_run != negatives


def test_no_document_that_is_searched_in_training_is_a_negative(fakes: Fakes, tmp_path: Path) -> None:
    train = {"train.validation_share": 0.25, "train.eval_every": 1}
    made = fakes.tree(**{"mine.method": "none", "domains.it.verifier": None, **train})
    rows = pairs()
    negatives = ["surely none .", *(row["positive"].upper() for row in rows)]
    given = [
        {**row, "negatives": [text for text in negatives if text != row["positive"].upper()]} for row in rows
    ]
    made["domains"]["it"]["train"] = str(write_rows(tmp_path / "given.jsonl", given))
    run(made, tmp_path / "run")
    left = {row["positive"].upper() for row in fakes.trained[-1].rows}
    assert 0 < len(left) < len(rows)
    assert all({*row["negatives"]} <= {"surely none .", *left} for row in fakes.trained[-1].rows)


def test_pairs_of_domains_with_and_without_a_verifier_are_curated_together(
    fakes: Fakes, tmp_path: Path
) -> None:
    """What is equal is a duplicate, one selection is made of all, and unjudged pairs stay unjudged."""
    changes = {"curate": {"dedup": {"method": "exact"}, "min_reward": 0.5, "select": {"size": 30}}}
    made = fakes.tree(**{"mine.method": "none", "domains.it.verifier": {"name": "pairs"}, **changes})
    more = str(write_rows(tmp_path / "more.jsonl", [*pairs()[:3], *pairs(TOPICS[4:8], seed=2)]))
    made["domains"]["more"] = {"train": more, "verifier": None}
    run(made, tmp_path / "run")
    told = decisions(tmp_path / "run")
    assert (told["kept"], told["duplicate"] >= 3) == (30, True)
    rows = dataset(tmp_path / "run", decision=None)
    kept = [row for row in rows if row["decision"] == "kept"]
    assert {row["domain"] for row in kept} == {"it", "more"}
    assert {(row["domain"], row["status"]) for row in kept} == {("it", "pass"), ("more", None)}


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
