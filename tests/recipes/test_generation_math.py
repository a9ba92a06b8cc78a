"""Math problems varied from seeds: what the operators must keep, and what independent solutions must agree on."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from generation_samples import CAUSE, Stub, lost, options, parts, requests, rows_of, run, stage_rows, tree
from stub_server import REFUSAL, Body, prompt_of

import verifiers
from recipes import models
from recipes.cli import main
from recipes.generation.tools import final_answer
from recipes.problems import load_domains
from recipes.settings import RecipeError, load_any, load_recipe
from recipes.values import to_yaml
from synth.generators.variations import numbers
from synth.records.errors import WorkError
from synth.records.jsonl import read_jsonl

MATH_SEEDS = [
    {
        "prompt": f"A baker makes {a} trays of {b} rolls each. How many rolls are that?",
        "reference": str(a * b),
    }
    for a, b in ((12, 8), (7, 15), (30, 4), (9, 9))
]


def factors(text: str) -> tuple[int, int]:
    first, second = map(int, re.findall(r"\d+", text)[:2])
    return first, second


def vary(body: Body, rng: random.Random) -> str | None:
    """A good variation of a MATH_SEEDS problem, or None if something else is asked."""
    prompt = prompt_of(body)
    if '{"problem": "..."}' not in prompt:
        return None
    a, b = factors(prompt)
    thing = rng.choice(["shelves", "rows", "crates", "shops", "boats", "fields"])
    if prompt.startswith("Reword"):
        return json.dumps({"problem": f"There are {a} {thing} with {b} rolls on every one. Count the rolls."})
    new = rng.randint(2, 90), rng.randint(2, 90)
    return json.dumps({"problem": f"A shop has {new[0]} {thing} of {new[1]} jars. How many jars has it?"})


# Ways to write the same number; the verifier `math` knows that they are one.
SPELLINGS = ("{0}", "{0}.0", r"\frac{{{1}}}{{2}}", r"{0}\text{{ rolls}}")


def solve(body: Body, right: bool) -> str:
    """A solution by the request's seed: right in one of four spellings, or wrong by one to three."""
    a, b = factors(prompt_of(body))
    if not right:
        return rf"First we guess. \boxed{{{a * b + 1 + body['seed'] % 3}}}"
    spelled = SPELLINGS[body["seed"] % 4].format(a * b, 2 * a * b)
    return rf"There are ${a} \cdot {b}$ of them. \boxed{{{spelled}}}"


def a_right_one(body: Body) -> bool:
    return body["seed"] % 10 < 6


def teacher(body: Body, rng: random.Random) -> str | None:
    return vary(body, rng) or solve(body, a_right_one(body))


def test_the_reference_is_what_most_independent_solutions_agree_on(tmp_path: Path) -> None:
    with Stub(answer=teacher) as stub:
        made = tree(stub.url, "math_problems", MATH_SEEDS, tmp_path, **options(count=40, samples=8))
        made["domains"]["it"]["verifier"] = "math"
        metrics = run(made, tmp_path / "run")
    votes: dict[str, Counter[int]] = defaultdict(Counter)
    for row in requests(tmp_path / "run", "solve"):
        a, b = factors(row["prompt"])
        right = row["sampling_seed"] % 10 < 6
        votes[row["prompt"].partition("\n")[0]][a * b if right else a * b + 1 + row["sampling_seed"] % 3] += 1
    assert {sum(each.values()) for each in votes.values()} == {8}
    expected = {}
    for problem, counts in votes.items():
        (answer, most), *others = counts.most_common()
        if most >= 4 and (not others or others[0][1] < most):
            expected[problem] = answer, most
    changed = {  # a rewording on whose wrong answer most agreed
        problem for problem, (answer, _) in expected.items()
        if problem.startswith("There are") and answer != factors(problem)[0] * factors(problem)[1]
    }  # fmt: skip
    rows = rows_of(tmp_path / "run")
    found = {row["prompt"]: row for row in rows}
    assert set(found) == set(expected) - changed
    assert len(expected) < len(votes)
    by_hand = verifiers.get("math")
    for problem, row in found.items():
        answer, most = expected[problem]
        assert (row["votes"], row["samples"], row["status"]) == (most, 8, "pass")
        assert (
            by_hand.verify({"completion": rf"\boxed{{{answer}}}", "reference": row["reference"]}).status
            == "pass"
        )
        assert by_hand.verify(row).status == "pass"
        assert "seed_reference" not in row
    by_hand.close()
    reasons = lost(metrics)
    assert reasons.pop("agreed:no_majority") == len(votes) - len(expected) > 0
    assert reasons.pop("unchanged:other_answer", 0) == len(changed)
    assert set(reasons) <= {"novel:not_novel"}
    assert metrics["funnel"]["it"]["asked"] == metrics["funnel"]["it"]["parsed"] == 40
    assert metrics["funnel"]["it"]["kept"] == len(rows)


def test_equal_answers_in_other_words_are_one_vote_and_none_is_an_answer(tmp_path: Path) -> None:
    """Three of six say 1/2 in three spellings; then half of all say that there is no answer."""
    seen: dict[str, list[int]] = defaultdict(list)

    def answer(body: Body, rng: random.Random) -> str | None:
        if made := vary(body, rng):
            return made
        place = sorted(seen[prompt_of(body)]).index(body["seed"])
        return rf"So it is \boxed{{{replies[place]}}}"

    changes = {**options(count=1, samples=6, operators=["harder"]), "parse.attempts": 1}
    with Stub(answer=lambda body, rng: vary(body, rng) or r"\boxed{1}") as stub:  # learn the seeds first
        run(tree(stub.url, "math_problems", MATH_SEEDS, tmp_path, **changes), tmp_path / "learn")
    for row in requests(tmp_path / "learn", "solve"):
        seen[row["prompt"]].append(row["sampling_seed"])
    for replies, reason in (
        (["0.5", r"\frac{1}{2}", r"\frac{2}{4}", "7", "8", "9"], None),
        (["0.5", r"\frac{1}{2}", "7", "7.0", "8", "9"], "agreed:no_majority"),
        (["none", r"\text{None}", "None.", "7", "8", "9"], "agreed:unsolvable"),
    ):
        with Stub(answer=answer) as stub:
            made = tree(stub.url, "math_problems", MATH_SEEDS, tmp_path, **changes)
            if reason is None:
                run(made, tmp_path / "agreed")
                (row,) = rows_of(tmp_path / "agreed")
                assert (row["votes"], row["samples"]) == (3, 6)
                assert final_answer(row["completion"]) == row["reference"] in replies[:3]
                continue
            with pytest.raises(WorkError, match="nothing was kept"):
                run(made, tmp_path / reason)
        (decided,) = stage_rows(tmp_path / reason, "agreed")
        assert f"agreed:{decided['cause']}" == reason


BAD_VARIATIONS = [
    ("reword", "There are 13 shelves with 8 rolls on every one. Count the rolls.", "numbers_changed"),
    ("reword", "A baker makes twelve trays, eight rolls on each. What is the number of rolls?", None),
    ("numbers", "A baker makes 8 trays of 12 rolls each. How many rolls are there now?", "numbers_unchanged"),
    ("harder", "A BAKER makes 12 trays of 8 rolls each; how many rolls are that?", "unchanged"),
    ("harder", "   ", "empty"),
    ("harder", "The harder problem: 12 trays and 9 lids, how many things?", "leaked"),
    ("harder", "12 trays, 8 rolls, 3 eaten. How many? Answer: 93 \\boxed{93}", "gives_answer"),
    ("harder", "very " * 401, "too_long"),
]


@pytest.mark.parametrize(("operator", "text", "cause"), BAD_VARIATIONS)
def test_a_variation_must_keep_and_change_what_its_operator_says(
    operator: str, text: str, cause: str | None, tmp_path: Path
) -> None:
    def answer(body: Body, rng: random.Random) -> str | None:
        asked = '{"problem": "..."}' in prompt_of(body)
        return json.dumps({"problem": text}) if asked else r"\boxed{96}"

    with Stub(answer=answer) as stub:
        changes = {**options(count=1, samples=2, operators=[operator]), "parse.attempts": 1}
        made = tree(stub.url, "math_problems", MATH_SEEDS[:1], tmp_path, **changes)
        if cause is None:
            run(made, tmp_path / "run")
        else:
            with pytest.raises(WorkError, match="nothing was kept"):
                run(made, tmp_path / "run")
    (row,) = requests(tmp_path / "run", "vary")
    assert row["cause"] == cause


def test_replies_without_an_answer_are_named(tmp_path: Path) -> None:
    """A solution may speak like a refusal, as long as it gives an answer."""
    answers = {REFUSAL: "refused", "They can't be counted.": "no_answer", r"It can't be \(7\): \boxed{8}": None,
               "The answer is 8.": None}  # fmt: skip

    def solver(body: Body, rng: random.Random) -> str | None:
        return vary(body, rng) or list(answers)[body["seed"] % 4]

    with Stub(answer=solver) as stub:
        changes = {**options(count=1, samples=20, agreement=0.2), "parse.attempts": 1}
        run(tree(stub.url, "math_problems", MATH_SEEDS, tmp_path, **changes), tmp_path / "math")
    assert {row["completion"]: row["cause"] for row in requests(tmp_path / "math", "solve")} == answers


def test_operators_and_seeds_follow_the_index_alone(tmp_path: Path) -> None:
    def drawn(count: int, rng_seed: int, name: str) -> dict[int, tuple[str, list[str]]]:
        with Stub(answer=teacher) as stub:
            changes = {**options(count=count, samples=2), "rng_seed": rng_seed}
            run(tree(stub.url, "math_problems", MATH_SEEDS, tmp_path, **changes), tmp_path / name)
        rows = [row for row in requests(tmp_path / name, "vary") if row["index"] == 0]
        return {row["task"]: (row["prompt"], row["parents"]) for row in rows}

    short, long, other = drawn(6, 0, "short"), drawn(40, 0, "long"), drawn(40, 1, "other")
    assert short.items() <= long.items()
    assert long != other
    # Seeds take turns: ten variations each, of every operator; composing names two.
    assert Counter(Counter(parents[0] for _, parents in long.values()).values()) == {10: 4}
    begins = Counter(prompt.split()[0] + str(len(parents)) for prompt, parents in long.values())
    assert len(begins) == 4
    assert sum(len(parents) == 2 for _, parents in long.values()) == sum(
        prompt.startswith("Write one problem that joins") for prompt, _ in long.values()
    )


def test_exported_problems_are_problems_of_a_recipe_that_trains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Stub(answer=teacher) as stub:
        run(tree(stub.url, "math_problems", MATH_SEEDS, tmp_path, **options(count=12)), tmp_path / "run")
    out = tmp_path / "problems"
    told = ["--format", "jsonl", "--layout", "prompt_completion", "--out", str(out)]
    assert main(["export", str(tmp_path / "run"), *told]) == 0
    section = {
        "train": str(out / "train.jsonl"),
        "columns": {"reference": "meta.reference"},
        "verifier": "math",
    }
    changes = {"train": {"method": "none"}, "curate": {"decontaminate": None}, "engine": "transformers"}
    recipe = load_recipe({"name": "x", "model": "builtin:tiny", "domains": {"math": section}, **changes})
    problems = load_domains(recipe, models.resolve("builtin:tiny"))[0].train(0)
    rows = rows_of(tmp_path / "run")
    assert {row["prompt"]: row["reference"] for row in problems} == {
        row["prompt"]: row["reference"] for row in rows
    }
    assert len(problems) == len(rows) > 5
    # Each row's way back goes through the steps that made it, to its seed.
    capsys.readouterr()
    assert main(["inspect", str(tmp_path / "run"), rows[0]["sample_id"], "--json"]) == 0
    way = json.loads(capsys.readouterr().out)["written"]
    assert [each["step"] for each in way] == ["unchanged", "agreed", "solve", "novel", "vary"]


def test_greedy_sampling_is_refused_where_samples_vote(tmp_path: Path) -> None:
    for generator in ("math_problems", "code_problems"):
        with pytest.raises(RecipeError, match=r"sampling\.temperature: 0, but .* counts independent samples"):
            load_any(
                tree("http://127.0.0.1:1/v1", generator, MATH_SEEDS, tmp_path, **{"sampling.temperature": 0})
            )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Twenty-five boats, two of 3.50 metres", {"25", "2", "3.5"}),
        ("twenty boats and five nets", {"20", "5"}),
        ("1,250 jars for $12.00, or 007.", {"1250", "12", "7"}),
        ("one of them ate 0.0 of it, 10, 100", {"0", "10", "100"}),
        ("3,4 and 5; eleven", {"3", "4", "5", "11"}),
    ],
)
def test_numbers_are_read_in_digits_and_words(text: str, told: set[str]) -> None:
    assert numbers(text) == told


def test_real_solutions_agree_as_their_grader_says(
    shared_data: Callable[[str], Path], tmp_path: Path
) -> None:
    """50 MATH problems with eight real completions each: what half of them agree on, against the true answers."""
    rows = list(read_jsonl(shared_data("math/model_solutions.jsonl")))
    solutions: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        solutions[row["prompt"].strip()].append(row)
    waiting = {prompt: [row["completion"] for row in given] for prompt, given in solutions.items()}
    problems = list(solutions)

    def answer(body: Body, rng: random.Random) -> str:
        prompt = prompt_of(body)
        if '{"problem": "..."}' in prompt:
            return json.dumps({"problem": problems[int(re.findall(r"seed (\d+)", prompt)[0])]})
        return waiting[prompt.partition("\n\nSolve this step by step.")[0]].pop(0)

    seeds = [{"prompt": f"Invent another problem, please, for seed {n}."} for n in range(50)]
    with Stub(answer=answer) as stub:
        changes = {**options(count=50, operators=["harder"], novelty=1.0), "parse.attempts": 1}
        metrics = run(tree(stub.url, "math_problems", seeds, tmp_path, **changes), tmp_path / "run")
    found = {row["prompt"]: row for row in rows_of(tmp_path / "run")}
    assert lost(metrics) == {"agreed:no_majority": 5}
    assert Counter(row["votes"] for row in found.values()) == {8: 42, 6: 1, 5: 1, 4: 1}
    with verifiers.get("math") as verifier:
        truth = [{**row, "reference": solutions[prompt][0]["reference"]} for prompt, row in found.items()]
        right = [row for row in truth if verifier.verify(row).status == "pass"]
    # Twice the model is wrong in one and the same way, once with all eight: agreement is no proof.
    assert (len(found), len(right)) == (45, 43)
    for row in right:
        assert row["votes"] == sum(each["source_label"] for each in solutions[row["prompt"]])


FAULTS = {
    "malformed": 0.1,
    "truncated": 0.08,
    "wrong_schema": 0.1,
    "refusal": 0.06,
    "empty": 0.05,
    "500": 0.05,
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, dict[str, Any], Counter[str]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    with Stub(FAULTS, answer=teacher) as stub:
        metrics = run(_small(stub, folder), folder / "run")
        return folder, stub.served.total(), metrics, Counter(stub.served)


def _small(stub: Stub, folder: Path, **changes: Any) -> dict[str, Any]:
    return tree(stub.url, "math_problems", MATH_SEEDS, folder, **options(count=30, samples=3), **changes)


def test_faults_are_tried_again_and_counted(
    undisturbed: tuple[Path, int, dict[str, Any], Counter[str]],
) -> None:
    folder, _, metrics, served = undisturbed
    tried: Counter[str] = Counter()
    for counts in metrics["steps"]["it"].values():
        tried.update(counts.get("tries", {}))
    assert tried == {cause: served[fault] for fault, cause in CAUSE.items()}
    assert min(tried.values()) > 0
    for row in requests(folder / "run"):
        assert (row["finish_reason"] == "length") == (row["cause"] == "length")


@pytest.mark.parametrize("share", [0.1, 0.3, 0.7, 0.95])
def test_a_stopped_run_goes_on_in_any_step(
    share: float, undisturbed: tuple[Path, int, dict[str, Any], Counter[str]], tmp_path: Path
) -> None:
    folder, answers, metrics, _ = undisturbed
    with Stub(FAULTS, answer=teacher) as stub:
        stub.down_after = int(share * answers)
        made = _small(stub, folder, **{"engine.options.retries": 1})
        with pytest.raises(WorkError, match=r"requests were not answered"):
            run(made, tmp_path / "run")
        on_disk = {(row["prompt"], row["sampling_seed"]) for row in requests(tmp_path / "run")}
        stub.down_after, earlier = None, len(stub.seen)
        again_metrics = run(made, tmp_path / "run")
        again = {(prompt_of(body), body["seed"]) for body in stub.seen[earlier:]}
    assert not again & on_disk
    assert parts(tmp_path / "run") == parts(folder / "run")
    assert again_metrics["funnel"] == metrics["funnel"]


def test_a_killed_run_goes_on_from_what_is_on_disk(tmp_path: Path) -> None:
    """SIGKILL in the middle of the second step that asks; the same command then ends as if nothing had been."""
    with Stub(FAULTS, answer=teacher, latency=0.02) as stub:
        made = _small(stub, tmp_path, **{"engine.options.concurrency": 4})
        file, out = tmp_path / "recipe.yaml", tmp_path / "killed"
        file.write_text(to_yaml(made))
        command = [sys.executable, "-m", "recipes.cli", "run", str(file), "--out", str(out)]
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        journal = out / "round-00/steps/it/02-solve/journal.jsonl"
        deadline = time.monotonic() + 60
        while not (journal.exists() and journal.stat().st_size > 0):
            assert child.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        child.kill()
        assert child.wait() == -signal.SIGKILL
        written = journal.read_bytes().rpartition(b"\n")[0].count(b"\n") + 1
        earlier = len(stub.seen)
        assert main(["run", str(file), "--out", str(out)]) == 0
        asked_again = len(stub.seen) - earlier
        run(made, tmp_path / "undisturbed")
    assert parts(out) == parts(tmp_path / "undisturbed")
    everything = requests(out, "solve")
    assert 0 < written < len(everything)
    sendings = stub.served["500"]
    assert asked_again <= len(everything) - written + sendings
