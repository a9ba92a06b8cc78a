"""Evaluation and gate on a fake engine and a fake judge: who counts, what is asked once, when a model is rejected."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from recipe_samples import with_data

from recipes.evaluation import Evaluation, Examination, evaluate, examination
from recipes.gate import decide, require_judged
from recipes.problems import load_domains
from recipes.sampling import Domain
from recipes.settings import load_recipe
from synth.engines import Capabilities, Output, Request
from synth.records.errors import InputError, WorkError
from synth.store import read_parts
from verifiers import Verdict

OPTIONS = SimpleNamespace(
    k=[1, 2], n=3, temperature=1.0, top_p=1.0, top_k=0, max_tokens=8, max_problems=None, bootstrap=200
)


@dataclass
class Prompt:
    text: str
    token_ids: tuple[int, ...] | None = (1, 2)
    messages: None = None
    rejected: str | None = None


class ParrotEngine:
    """Answers `greedy` at temperature 0 and `INDEX` otherwise; counts what it was asked."""

    capabilities = Capabilities(False, True, False, True, False)

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self._queue: list[Request] = []

    def submit(self, requests: Iterable[Request]) -> None:
        self._queue += requests

    def outputs(self) -> Iterator[Output]:
        while self._queue:
            request = self._queue.pop()
            self.asked.append(request)
            text = "greedy" if request.sampling.temperature == 0 else str(request.index)
            yield Output(request.id, text, list(request.prompt_token_ids or ()), [3], "stop")


class Judge:
    """Greedy answers pass for even problems; sample 0 always passes; problem 3 cannot be judged."""

    def verify_batch(self, rows: Iterable[Mapping[str, Any]], workers: int = 1) -> Iterator[Verdict]:
        for row in rows:
            if row["number"] == 3:
                yield Verdict("error", None, "unparsable_reference", {})
                continue
            good = row["number"] % 2 == 0 if row["completion"] == "greedy" else row["completion"] == "0"
            yield Verdict("pass" if good else "fail", float(good), "any", {"answer": row["completion"]})


def domain() -> Domain:
    held_out = [{"problem_id": f"p{i}", "prompt": f"{i}", "number": i, "difficulty": i % 2} for i in range(5)]
    return Domain(
        "math", "judge", Judge(), lambda row: Prompt(row["prompt"]), "t", (), held_out, lambda _round: []
    )


def run(folder: Path, engine: ParrotEngine, model: str = "m") -> Evaluation:
    return evaluate(
        Examination([domain()], OPTIONS, 0, 1), lambda: engine, folder, model, lambda done, total: None
    )  # type: ignore[arg-type, return-value]


def test_scores_count_judged_problems_only(tmp_path: Path) -> None:
    result = run(tmp_path, ParrotEngine())
    scores = result.scores["math"]
    assert scores["n"] == 4
    assert scores["pass@1"]["value"] == pytest.approx(3 / 4)  # 0, 2, 4 of 0, 1, 2, 4
    assert scores["mean@n"]["value"] == pytest.approx(1 / 3)
    assert scores["pass@2"]["value"] == pytest.approx(2 / 3)
    assert scores["maj@2"]["value"] == pytest.approx(1 / 3)  # ties share the vote
    assert result.details["math"]["unjudged"] == 4
    assert result.details["math"]["by_difficulty"]["1"]["pass@1"]["value"] == 0
    assert result.tokens == 20


def test_what_is_on_disk_is_not_asked_again(tmp_path: Path) -> None:
    first = ParrotEngine()
    before = run(tmp_path, first)
    assert len(first.asked) == 20
    (tmp_path / "evaluation.json").unlink()
    second = ParrotEngine()
    assert run(tmp_path, second) == before
    assert second.asked == []


def test_seeds_differ_between_samples_and_agree_between_models(tmp_path: Path) -> None:
    one, two = ParrotEngine(), ParrotEngine()
    run(tmp_path / "one", one, "one")
    run(tmp_path / "two", two, "two")
    sampled = {(r.prompt, r.index): r.seed for r in one.asked if r.sampling.temperature}
    assert len(set(sampled.values())) == len(sampled) == 15
    assert sampled == {(r.prompt, r.index): r.seed for r in two.asked if r.sampling.temperature}
    assert not {r.id for r in one.asked} & {r.id for r in two.asked}


def test_a_prompt_that_is_too_long_becomes_a_row_with_its_cause(tmp_path: Path) -> None:
    engine, one = ParrotEngine(), domain()
    one.render = lambda row: Prompt(row["prompt"], rejected="too long" if row["number"] == 0 else None)
    result = evaluate(
        Examination([one], OPTIONS, 0, 1), lambda: engine, tmp_path, "m", lambda done, total: None
    )  # type: ignore[arg-type, return-value]
    assert len(engine.asked) == 16
    assert result.scores["math"]["n"] == 3
    rejected = [row for row in read_parts(tmp_path / "completions") if row["finish_reason"] == "rejected"]
    assert {row["error"] for row in rejected} == {"too long"}
    verdicts = {row["sample_id"]: row for row in read_parts(tmp_path / "verdicts")}
    assert {verdicts[row["sample_id"]]["reason"] for row in rejected} == {"generation_rejected"}


def scored(values: list[int | None]) -> Evaluation:
    outcomes = {f"p{i}": {"greedy": v, "correct": 0, "judged": 0, "maj": {}} for i, v in enumerate(values)}
    return Evaluation({}, {"math": outcomes}, {}, 0)


def test_gate_rolls_back_what_is_worse_and_counts_what_is_better() -> None:
    zeros, ones = scored([0] * 40), scored([1] * 40)
    worse = decide(ones, zeros, "pass@1", 0.05, 0)
    assert not worse.accepted
    assert worse.difference == -1
    better = decide(zeros, ones, "pass@1", 0.05, 0)
    assert better.accepted
    assert better.gained


def test_gate_accepts_noise_without_calling_it_a_gain() -> None:
    decision = decide(scored([0, 1] * 20), scored([1, 0] * 20), "pass@1", 0.05, 0)
    assert decision.accepted
    assert not decision.gained
    assert decision.problems == 40


def test_gate_pairs_only_problems_both_models_were_judged_on() -> None:
    decision = decide(scored([1, None, 0]), scored([None, 1, 1]), "pass@1", 0.05, 0)
    assert decision.problems == 1
    assert decision.difference == 1


def test_gate_does_not_decide_on_what_was_not_measured() -> None:
    with pytest.raises(WorkError, match="no held-out problem was judged for both"):
        decide(scored([1, 0]), scored([None, None]), "pass@1", 0.05, 0)
    require_judged(scored([1] * 99 + [None]), "pass@1", 0.01, Path("e"))
    with pytest.raises(WorkError, match="2 of 100 held-out problems have no pass@1"):
        require_judged(scored([1] * 98 + [None] * 2), "pass@1", 0.01, Path("e"))
    refused = scored([1] * 98 + [None] * 2)
    for name in ("p98", "p99"):
        refused.outcomes["math"][name]["rejected"] = True
    require_judged(refused, "pass@1", 0.01, Path("e"))


def test_scores_of_another_test_are_refused_and_an_older_folder_is_read(tmp_path: Path) -> None:
    def again(digest: str | None) -> Evaluation:
        exam = Examination([domain()], OPTIONS, 0, 1, digest)
        return evaluate(exam, ParrotEngine, tmp_path / "e", "m", lambda done, total: None)  # type: ignore[arg-type]

    first = again("one")
    assert again("one") == first
    with pytest.raises(InputError, match="another test"):
        again("two")
    (tmp_path / "e" / "examination.json").unlink()
    assert again("two") == first


def test_the_hash_of_a_test_knows_all_that_shapes_its_scores(tmp_path: Path) -> None:
    def digest(content: str = "", **changes: Any) -> str | None:
        file = tmp_path / "own.py"
        file.write_text(f"def check(row):\n    return True{content}\n")
        tree = with_data(tmp_path, **{"domains.math.verifier": f"{file}:check", **changes})
        recipe = load_recipe(tree)
        return examination(recipe, load_domains(recipe, None), 1).digest

    same = digest()
    assert digest(**{"workers": 3, "rounds": 7}) == same
    changes = [
        {"rng_seed": 1},
        {"evaluate.n": 5},
        {"sampling.max_tokens": 5},
        {"domains.math.verifier": "math"},
    ]
    changes += [{"domains.math.prompt": {"stop": ["x"]}}, {"domains.math.prompt": {"template": "Q {prompt}"}}]
    changes += [{"evaluate.max_problems": 1}]
    assert len({same, digest("  # edited"), *(digest(**change) for change in changes)}) == 2 + len(changes)


@pytest.mark.parametrize(("declared", "value"), [(None, 1 / 4), (True, 1 / 4), (False, None)])
def test_a_problem_without_a_readable_answer_counts_as_a_lost_vote(
    tmp_path: Path, declared: bool | None, value: float | None
) -> None:
    class Mute(Judge):
        names_answers = declared

        def verify_batch(self, rows: Iterable[Mapping[str, Any]], workers: int = 1) -> Iterator[Verdict]:
            rows = list(rows)
            for row, verdict in zip(rows, super().verify_batch(rows), strict=True):
                silent = row["number"] == 0 and verdict.status != "error"
                yield Verdict("fail", 0.0, "no_answer", {}) if silent else verdict

    one = domain()
    one.verifier = Mute()  # type: ignore[assignment]
    exam = Examination([one], OPTIONS, 0, 1)
    scores = evaluate(exam, ParrotEngine, tmp_path, "m", lambda done, total: None).scores["math"]  # type: ignore[arg-type]
    # Ties of two answers share the vote: 1/3 for each of three problems, 0 for the silent one.
    assert (scores["maj@2"]["value"] if "maj@2" in scores else None) == (
        value if value is None else pytest.approx(value)
    )
