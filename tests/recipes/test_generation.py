"""Recipes of kind `generate`, from the command to the files: yields, retries and reasons against a stub server."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from generation_samples import CAUSE, SEEDS, Stub, dataset, options, parts, requests, run, tree
from stub_server import REFUSAL, prompt_of

from recipes.cli import main
from recipes.settings import RecipeError, load_any
from recipes.values import to_yaml
from synth.records.errors import InputError, WorkError
from synth.store import read_parts

FAULTS = {
    "malformed": 0.1,
    "truncated": 0.08,
    "wrong_schema": 0.05,
    "refusal": 0.06,
    "empty": 0.06,
    "429": 0.05,
    "500": 0.05,
}


def self_instruct(stub: Stub, folder: Path, **changes: Any) -> dict[str, Any]:
    small = options(count=40, batch=4, per_prompt=4)
    return tree(stub.url, "self_instruct", SEEDS, folder, **{**small, **changes})


def tries(metrics: dict[str, Any]) -> Counter[str]:
    """Failed tries of all steps by cause."""
    total: Counter[str] = Counter()
    for counts in metrics["steps"]["it"].values():
        total.update(counts.get("tries", {}))
    return total


def test_a_run_gives_the_rows_it_was_asked_for(tmp_path: Path) -> None:
    with Stub() as stub:
        metrics = run(self_instruct(stub, tmp_path), tmp_path / "run")
        assert stub.served == {"good": len(requests(tmp_path / "run"))}
    assert metrics["funnel"]["it"] == dict.fromkeys(
        ("asked", "generated", "parsed", "passed", "unique", "clean", "kept"), 40
    )
    assert metrics["funnel"]["reasons"] == {"it": {}}
    rows = dataset(tmp_path / "run")
    assert len(rows) == 40
    for row in rows:
        meta = json.loads(row["meta"])
        assert row["prompt"] == f"{meta['task']}\n\n{meta['input']}"
        assert row["completion"]
        assert (row["source"], row["domain"], row["retokenised"]) == ("self_instruct", "it", True)


def test_yield_retries_and_reasons_are_what_the_server_did(tmp_path: Path) -> None:
    with Stub(FAULTS) as stub:
        metrics = run(self_instruct(stub, tmp_path), tmp_path / "run")
        served = stub.served
    bad = {cause: served[fault] for fault, cause in CAUSE.items()}
    assert tries(metrics) == bad
    assert min(bad.values()) > 0
    assert min(served["429"], served["500"]) > 0
    written = requests(tmp_path / "run")
    # What the engine sends again is no new try: 429 and 500 leave no row.
    assert len(written) == served["good"] + sum(bad.values())
    assert Counter(row["cause"] for row in written if row["cause"]) == bad
    steps = metrics["steps"]["it"]
    assert {name: (c["asked"], c["generated"], c["parsed"]) for name, c in steps.items() if "asked" in c} == {
        "00-instructions": (16, 16, 16),
        "02-instructions": (16, 16, 12),
        "04-instructions": (12, 12, 12),
        "06-kind": (40, 40, 39),
        "07-open": (18, 18, 18),
        "08-classification": (21, 21, 20),
    }
    assert {name: (c["seen"], c["kept"]) for name, c in steps.items() if "seen" in c} == {
        "01-novel": (16, 16),
        "03-novel": (12, 12),
        "05-novel": (12, 12),
    }
    funnel = metrics["funnel"]
    assert list(funnel["it"].values()) == [39, 39, 38, 38, 38, 38, 38]
    lost = {reason: entry["count"] for reason, entry in funnel["reasons"]["it"].items()}
    assert lost == {"instructions:not_json": 1, "kind:refused": 1, "classification:length": 1}
    example = funnel["reasons"]["it"]["kind:refused"]["example"]
    assert example["completion"] == REFUSAL
    assert example["prompt"].startswith("A classification task has a small, fixed set")


def test_every_reply_is_kept_as_it_came(tmp_path: Path) -> None:
    with Stub(FAULTS) as stub:
        run(self_instruct(stub, tmp_path), tmp_path / "run")
        asked = {(prompt_of(body), body["seed"]): body for body in stub.seen}
        faults = {cause: fault for fault, cause in CAUSE.items()}
        for row in requests(tmp_path / "run"):
            body = asked[row["prompt"], row["sampling_seed"]]
            assert row["completion"] == stub.text_for(body, faults.get(row["cause"]))
            assert row["finish_reason"] == ("length" if row["cause"] == "length" else "stop")


def test_a_task_is_tried_again_with_another_seed_up_to_attempts(tmp_path: Path) -> None:
    for attempts, most in ((1, 1), (5, 5)):
        with Stub({"malformed": 0.5}) as stub:
            changes = {"parse.attempts": attempts, "parse.min_yield": 0.0}
            run(self_instruct(stub, tmp_path, **changes), tmp_path / f"run-{attempts}")
        tasks: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for row in requests(tmp_path / f"run-{attempts}"):
            tasks.setdefault((row["step"], row["problem_id"]), []).append(row)
        assert max(len(rows) for rows in tasks.values()) == most
        for rows in tasks.values():
            rows.sort(key=lambda row: row["index"])
            assert [row["index"] for row in rows] == list(range(len(rows)))
            assert (
                len({row["sampling_seed"] for row in rows})
                == len({row["sample_id"] for row in rows})
                == len(rows)
            )
            assert {row["prompt"] for row in rows} == {rows[0]["prompt"]}
            causes = [row["cause"] for row in rows]
            assert set(causes[:-1]) <= {"not_json"}
            assert causes[-1] is None or len(rows) == attempts


def test_without_chance_in_the_sampling_nothing_is_tried_again(tmp_path: Path) -> None:
    with Stub({"malformed": 0.5}) as stub:
        changes = {"sampling.temperature": 0, "parse.min_yield": 0.0}
        run(self_instruct(stub, tmp_path, **changes), tmp_path / "run")
    assert {row["index"] for row in requests(tmp_path / "run")} == {0}


def test_a_prompt_the_server_refuses_is_final(tmp_path: Path) -> None:
    with Stub({"missing": 0.2}) as stub:
        metrics = run(self_instruct(stub, tmp_path), tmp_path / "run")
        assert tries(metrics) == {"rejected": stub.served["missing"]}
    assert stub.served["missing"] > 3
    rejected = [row for row in requests(tmp_path / "run") if row["cause"] == "rejected"]
    assert {row["index"] for row in rejected} == {0}
    assert {row["error"] for row in rejected} == {"server answered 400 (planned 400)"}
    counts = [c for c in metrics["steps"]["it"].values() if "asked" in c]
    assert sum(c["asked"] - c["generated"] for c in counts) >= len(rejected)


def test_requests_without_an_answer_are_sent_again_and_answers_given_twice_are_dropped(
    tmp_path: Path,
) -> None:
    rates = {"hang": 0.1, "429": 0.1, "500": 0.1, "duplicate": 0.3}
    rows = [{"prompt": f"Tell me something about {n} boats."} for n in range(6)]
    with Stub(rates) as stub:
        changes = {**options(n=8), "engine.options.timeout_s": 0.3}
        metrics = run(tree(stub.url, "answers", rows, tmp_path, **changes), tmp_path / "run")
        assert min(stub.served[fault] for fault in rates) > 0
        said = stub.text_for(stub.seen[0], "duplicate")
    times = Counter(row["prompt"] for row in requests(tmp_path / "run") if row["completion"] == said)
    twice = times.total() - len(times)
    assert twice > 0
    assert {name: each["count"] for name, each in metrics["funnel"]["reasons"]["it"].items()} == {
        "duplicate": twice
    }
    counts = metrics["funnel"]["it"]
    assert (counts["asked"], counts["parsed"], counts["kept"]) == (48, 48, 48 - twice)


# ---- Going on ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A run with faults that nothing stopped, and how many answers it took."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with Stub(FAULTS) as stub:
        run(self_instruct(stub, folder), folder / "run")
        return folder, stub.served.total()


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.55, 0.8, 0.97])
def test_a_run_that_was_stopped_becomes_the_undisturbed_one(
    share: float, undisturbed: tuple[Path, int], tmp_path: Path
) -> None:
    """The server goes away after some answers and comes back: same bytes, and nothing answered is asked again."""
    folder, answers = undisturbed
    with Stub(FAULTS) as stub:
        stub.down_after = int(share * answers)
        made = self_instruct(stub, folder, **{"engine.options.retries": 1})
        with pytest.raises(WorkError, match=r"requests were not answered .*503"):
            run(made, tmp_path / "run")
        before = parts(tmp_path / "run")
        on_disk = {(row["prompt"], row["sampling_seed"]) for row in requests(tmp_path / "run")}
        stub.down_after, earlier = None, len(stub.seen)
        run(made, tmp_path / "run")
        again = {(prompt_of(body), body["seed"]) for body in stub.seen[earlier:]}
    assert not again & on_disk
    after = parts(tmp_path / "run")
    assert after == parts(folder / "run")
    closed = {name: data for name, data in before.items() if not name.endswith("journal.jsonl")}
    assert {name: after[name] for name in closed} == closed
    metrics = [json.loads((place / "run/round-00/metrics.json").read_text()) for place in (folder, tmp_path)]
    assert metrics[0]["funnel"] == metrics[1]["funnel"]


def test_a_finished_run_asks_nothing_more(undisturbed: tuple[Path, int], tmp_path: Path) -> None:
    folder, _ = undisturbed
    before = parts(folder / "run")
    with Stub() as stub:
        changes = {"engine.options.concurrency": 2, "parse.min_yield": 0.2}
        made = self_instruct(stub, folder, **changes)
        made["engine"]["options"]["base_url"] = _url(folder / "run")
        run(made, folder / "run")
        assert not stub.seen
    assert parts(folder / "run") == before


def test_a_resume_with_other_contents_is_refused(undisturbed: tuple[Path, int], tmp_path: Path) -> None:
    folder, _ = undisturbed
    manifest = (folder / "run/manifest.json").read_bytes()
    with Stub() as stub:
        for changes, named in (
            ({"sampling.temperature": 0.5}, "sampling.temperature"),
            ({"parse.attempts": 4}, "parse.attempts"),
            (options(count=41), "domains.it.generator.options.count"),
            ({"domains.it.system": "Be brief."}, "domains.it.system"),
        ):
            made = self_instruct(stub, folder, **changes)
            made["engine"]["options"]["base_url"] = _url(folder / "run")
            with pytest.raises(InputError, match="holds a run of another recipe") as caught:
                run(made, folder / "run")
            assert named in str(caught.value)
        rows = folder / "rows.jsonl"
        kept = rows.read_bytes()
        rows.write_bytes(kept + b'{"instruction": "Say something else altogether, please."}\n')
        made = tree(stub.url, "self_instruct", None, folder, **options(count=40, batch=4, per_prompt=4))
        made["domains"]["it"]["train"] = str(rows)
        made["engine"]["options"]["base_url"] = _url(folder / "run")
        with pytest.raises(InputError, match="the data changed since this run began"):
            run(made, folder / "run")
        rows.write_bytes(kept)
        assert not stub.seen
    assert (folder / "run/manifest.json").read_bytes() == manifest


def _url(out: Path) -> str:
    from recipes.settings import read_resolved

    return read_resolved(out / "recipe.yaml").engine.options["base_url"]


def test_what_a_task_draws_depends_on_rng_seed_and_its_index_alone(tmp_path: Path) -> None:
    def first(count: int, rng_seed: int, name: str) -> list[str]:
        with Stub() as stub:
            changes = {**options(count=count, batch=64), "rng_seed": rng_seed}
            run(self_instruct(stub, tmp_path, **changes), tmp_path / name)
        stage = tmp_path / name / "round-00/steps/it/00-instructions"
        rows = sorted(read_parts(stage), key=lambda row: row["task"])
        return [row["prompt"] for row in rows]

    short, long, other = first(8, 0, "short"), first(40, 0, "long"), first(8, 1, "other")
    assert len(short) == 2
    assert long[:2] == short
    assert len(set(long)) == len(long) == 10
    assert not set(other) & set(long)


# ---- What is refused or stopped ----------------------------------------------------------------------------------


def test_too_few_usable_replies_stop_the_run_early_and_say_why(tmp_path: Path) -> None:
    with Stub({"malformed": 0.9, "truncated": 0.1}) as stub:
        made = self_instruct(stub, tmp_path, **options(count=4000, batch=1000), **{"parse.attempts": 1})
        with pytest.raises(WorkError, match=r"it, step instructions: 0 of the first 200 tasks") as caught:
            run(made, tmp_path / "run")
        asked = stub.served.total()
        assert asked < 1000
        assert re.search(r"\(not_json 1\d\d, length \d+\)", str(caught.value))
        # What was asked is there to be looked at, and a lower bar goes on.
        assert len(requests(tmp_path / "run")) >= 200


def test_nothing_kept_is_an_error_with_the_funnel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Stub({"empty": 1.0}) as stub:
        made = self_instruct(stub, tmp_path)
        with pytest.raises(WorkError, match="nothing was kept"):
            run(made, tmp_path / "run")
    told = capsys.readouterr().out
    assert re.search(r"instructions:empty +\d+", told)
    status = json.loads((tmp_path / "run/manifest.json").read_text())["status"]
    assert status == "failed"


WRONG = [
    (
        {"domains.it.generator.name": "self_instrukt"},
        "domains.it.generator.name",
        "did you mean 'self_instruct'?",
    ),
    (options(cuont=3), "domains.it.generator.options.cuont", "did you mean 'count'?"),
    (options(count=0), "domains.it.generator.options.count", "at least 1"),
    (options(novelty=1.5), "domains.it.generator.options.novelty", "at most 1"),
    (options(novelty=0), "domains.it.generator.options.novelty", "above 0"),
    ({"gate": {"alpha": 0.1}}, "gate", "unknown key"),
    ({"domains.it.prompt": {"template": "x"}}, "domains.it.prompt", "unknown key"),
    (
        {"domains.it.templates": {"instruction": "x"}},
        "domains.it.templates.instruction",
        "did you mean 'instructions'?",
    ),
    ({"domains.it.train": None}, "domains.it.train", "instruction"),
    ({"curate": {}}, "curate.decontaminate", "held_out"),
    ({"curate.across_rounds": True}, "curate.across_rounds", "one round"),
    ({"curate.reward_schedule": [0.5]}, "curate.reward_schedule", "one round"),
    ({"curate.text": ["prompt", "answer"]}, "curate.text", "'answer', a column that no row will have"),
    ({"curate.select": {"quotas": {"kind": {"a": 1}}}}, "curate.select.quotas.kind", "no row will have"),
    ({"domains.reasons": {"generator": "over_refusal"}}, "domains.reasons", "another name"),
    ({"domains.it.chat": False, "domains.it.system": "Be brief."}, "domains.it.system", "chat"),
    ({"kind": "generat"}, "kind", "did you mean 'generate'?"),
    ({"model": "scratch"}, "model.path", "name a model"),
    ({"model": {"path": "served", "scratch": {"layers": 2}}}, "model.scratch", "leave it out"),
]


@pytest.mark.parametrize(("changes", "where", "fix"), WRONG)
def test_a_wrong_recipe_is_refused_naming_the_field(
    changes: dict[str, Any], where: str, fix: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError) as caught:
        load_any(tree("http://127.0.0.1:1/v1", "self_instruct", SEEDS, tmp_path, **changes))
    places = {problem.where.rpartition(", ")[2]: problem for problem in caught.value.problems}
    assert where in places
    assert fix in f"{places[where].seen} {places[where].fix}"


def test_input_without_the_column_the_generator_needs(tmp_path: Path) -> None:
    rows = [{"task": row["instruction"]} for row in SEEDS]
    with Stub() as stub:
        made = tree(stub.url, "self_instruct", rows, tmp_path, **options(count=8))
        with pytest.raises(
            InputError, match="no column 'instruction', which the generator self_instruct needs"
        ):
            run(made, tmp_path / "run")
        made["domains"]["it"]["columns"] = {"instruction": "task"}
        run(made, tmp_path / "run")


def test_control_characters_in_prompts_are_told_once_a_step_and_refused_in_templates(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING", "synthloop")
    rows = [{"prompt": f"What is 3 \times {n}?"} for n in range(5)]  # the backslash is lost
    with Stub() as stub:
        run(tree(stub.url, "answers", rows, tmp_path, **options(n=2)), tmp_path / "run")
        assert {prompt_of(body) for body in stub.seen} == {row["prompt"] for row in rows}
        told = [record.message for record in caplog.records if "control character" in record.message]
        assert len(told) == 1
        assert told[0].startswith("it, step answer: a prompt has a control character U+0009")
        own = tmp_path / "open.jinja"
        own.write_text("Carry out: {{ instruction }}\x07")
        made = self_instruct(stub, tmp_path, **{"domains.it.templates": {"open": str(own)}})
        with pytest.raises(InputError, match=r"open\.jinja: control character U\+0007"):
            run(made, tmp_path / "refused")


# ---- The command line --------------------------------------------------------------------------------------------


def test_the_verbs_know_the_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "r.yaml", tmp_path / "run"
    with Stub({"malformed": 0.3}) as stub:
        file.write_text(to_yaml(self_instruct(stub, tmp_path)))
        assert main(["validate", str(file)]) == 0
        assert main(["preview", str(file), "-n", "2"]) == 0
        previewed = capsys.readouterr().out
        assert not out.exists()
        assert main(["run", str(file), "--out", str(out)]) == 0
    for shown in ("=== it: 00-instructions: prompt 0", "=== it: 01-novel", "--- items: [", "=== it: row 0"):
        assert shown in previewed
    capsys.readouterr()
    assert main(["status", str(out), "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["kind"], status["status"], status["rounds"][0]["state"]) == ("generate", "done", "closed")
    assert status["rounds"][0]["stages"]["it/kind"] == {"rows": len(requests(out, "kind")), "closed": True}
    assert main(["inspect", str(out)]) == 0
    assert "kind: not_json: " in capsys.readouterr().out
    row = dataset(out)[0]
    assert main(["inspect", str(out), row["sample_id"][:9], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["sample_id"], found["decision"]) == (row["sample_id"], "kept")
    steps = [each["step"] for each in found["written"]]
    assert steps[0] in ("open", "classification")
    assert steps[1:] == ["kind", "novel", "instructions"]
    assert (
        main(["export", str(out), "--format", "jsonl", "--layout", "messages", "--out", str(tmp_path / "x")])
        == 0
    )
    exported = [json.loads(line) for line in (tmp_path / "x/train.jsonl").read_text().splitlines()]
    assert [turn["role"] for turn in exported[0]["messages"]] == ["user", "assistant"]
    assert len(exported) == len(dataset(out))
    assert "self_instruct" in (tmp_path / "x/README.md").read_text()
    assert main(["clean", str(out)]) == 0
    assert main(["train", str(file), "--out", str(tmp_path / "m")]) == 2
    assert "'generate' trains and measures no model" in capsys.readouterr().err
