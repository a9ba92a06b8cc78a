"""`synth curate` as scripts see it: which rows go where, exit codes, and that wrong input leaves the output alone."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from recipe_samples import with_data

from recipes import cli
from recipes.values import to_yaml

LONG = "Tom has twelve boxes of nine red marbles each and gives five of the boxes to his sister Ann on Sunday"
OTHER = (
    "A train leaves the old station at noon and reaches the coast before the evening with all its passengers"
)


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


class Verb:
    """Calls the verb on files of one folder."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys
        self.output, self.dropped = folder / "out.jsonl", folder / "out.jsonl.dropped.jsonl"

    def call(self, rows: list[Any] | Path, *sets: str, output: Path | None = None) -> int:
        source = rows if isinstance(rows, Path) else write(self.folder / "in.jsonl", rows)
        words = [word for text in sets for word in ("--set", text)]
        code = cli.main(["curate", "--input", str(source), "--output", str(output or self.output), *words])
        self.out, self.err = self.capsys.readouterr()
        return code

    def curate(self, rows: list[Any] | Path, *sets: str) -> tuple[list[Any], list[Any]]:
        assert self.call(rows, *sets) == 0, self.err
        return read(self.output), read(self.dropped)

    def refuse(self, rows: list[Any] | Path, *sets: str) -> str:
        """The error of a call that must exit 2 and leave an earlier output alone."""
        self.output.write_text("before")
        self.dropped.write_text("before")
        assert self.call(rows, *sets) == 2
        assert (self.output.read_text(), self.dropped.read_text()) == ("before", "before")
        assert "Traceback" not in self.err
        said = self.err[self.err.index("error: ") :].splitlines()
        assert len(said) <= 3
        assert not list(self.folder.glob(".*tmp"))
        return "\n".join(said)


@pytest.fixture
def verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Verb:
    return Verb(tmp_path, capsys)


def pair(prompt: str, completion: str = "x", **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "completion": completion, **more}


# ---- Rows in, rows out -------------------------------------------------------------------------------------------


def test_kept_rows_keep_their_bytes_and_order_and_dropped_ones_say_why(verb: Verb) -> None:
    lines = [
        b'{"prompt": "b",  "completion":"x", "note": [1, {"z": null}]}',
        b'{"completion": "x", "prompt": "a", "id": "first"}',
        b"",
        '{"prompt": "A ", "completion": "x", "id": 7, "tönt": "\u2028\u0085"}'.encode(),
        b'{"prompt": "c\\u0000", "completion": "\\ud800"}',
    ]
    source = verb.folder / "in.jsonl"
    source.write_bytes(b"\n".join(lines))  # no newline at the end
    assert verb.call(source) == 0
    assert verb.output.read_bytes() == b"".join(lines[i] + b"\n" for i in (0, 1, 4))
    told = {"drop_reason": "duplicate", "matched_id": "first"}
    assert read(verb.dropped) == [{**pair("A "), "id": 7, "tönt": "\u2028\u0085", **told}]
    assert "4 rows: kept 3" in verb.out
    assert "duplicate: 1" in verb.out


def test_the_survivor_has_the_highest_reward_then_comes_first(verb: Verb) -> None:
    rows = [
        pair("a"),
        pair("b", reward=0.5, id="low"),
        pair("B", reward=2, id="high"),
        pair("b", reward=2),
        pair("A"),
    ]
    kept, dropped = verb.curate(rows)
    assert kept == [rows[0], rows[2]]
    assert [row["matched_id"] for row in dropped] == ["high", "high", "row 1"]


@pytest.mark.parametrize("method", ["exact", "normalized", "minhash"])
def test_dedup_methods(verb: Verb, method: str) -> None:
    rows = [pair(LONG * 3), pair(LONG * 3), pair(LONG.upper() * 3), pair(LONG * 3 + " yes"), pair(OTHER)]
    kept, _ = verb.curate(rows, f"dedup.method={method}")
    expected = {"exact": [0, 2, 3, 4], "normalized": [0, 3, 4], "minhash": [0, 4]}[method]
    assert kept == [rows[index] for index in expected]


def test_threshold_and_text_decide_what_is_compared(verb: Verb) -> None:
    words = [f"w{i}" for i in range(44)]
    near = " ".join([*words[:20], "other", *words[21:]])  # 35 of 45 grams in common: 0.78
    rows = [pair("one", text=" ".join(words)), pair("two", text=near)]
    assert len(verb.curate(rows, "dedup.method=minhash", "text=text")[0]) == 2
    assert len(verb.curate(rows, "dedup.method=minhash", "text=text", "dedup.threshold=0.77")[0]) == 1
    assert len(verb.curate(rows, 'text=["completion"]')[0]) == 1
    assert len(verb.curate(rows, 'text=["completion", "prompt"]')[0]) == 2


def test_chains_of_near_duplicates_merge_where_asked(verb: Verb) -> None:
    words = [f"w{i}" for i in range(60)]
    steps = [pair("", " ".join(words[i : i + 40])) for i in (0, 4, 8)]  # neighbours share 32 of 40 5-grams
    sets = ("dedup.method=minhash", "dedup.threshold=0.75")
    assert verb.curate(steps, *sets)[0] == [steps[0], steps[2]]
    kept, dropped = verb.curate(steps, *sets, "dedup.chains=true")
    assert kept == steps[:1]
    assert [row["matched_id"] for row in dropped] == ["row 1", "row 1"]


def test_verdicts_of_synth_verify_are_heeded_and_other_status_columns_are_not(verb: Verb) -> None:
    judged = [
        pair("a", status="pass", reward=0.1),
        pair("b", status="fail", reward=0.0, reason="not_equal"),
        pair("c", status="error", reward=None, reason="timeout"),
        pair("d"),
    ]
    kept, dropped = verb.curate(judged)
    assert kept == judged[:1]
    assert [r["drop_reason"] for r in dropped] == ["failed:not_equal", "error:timeout", "error:not_judged"]
    rows = [pair("a", status="active", reward=-3), pair("b", status="closed", reward=0.0)]
    assert verb.curate(rows)[0] == rows
    kept, dropped = verb.curate(rows, "min_reward=-1")
    assert (kept, dropped[0]["drop_reason"]) == (rows[1:], "low_reward")


def test_the_quality_verifier_decides_and_its_measures_rank(verb: Verb, tmp_path: Path) -> None:
    texts = [
        "Add two and three, which gives five.",
        "no no no no " * 40,
        "It is five.",
        "Five, because two and three are five.",
    ]
    source = write(tmp_path / "rows.jsonl", [pair(f"p{i}", text) for i, text in enumerate(texts)])
    judged = tmp_path / "judged.jsonl"
    assert cli.main(["verify", "quality", "--input", str(source), "--output", str(judged)]) == 0
    sets = ("select.size=2", "select.method=best", "select.quality=details.measures.words")
    kept, dropped = verb.curate(judged, *sets)
    assert [row["completion"] for row in kept] == [texts[0], texts[3]]
    assert [row["drop_reason"] for row in dropped] == ["failed:repeated_ngrams", "not_selected"]
    assert "no row has a number in 'details.value'" in verb.refuse(judged, "select.quality=details.value")


def test_the_cap_counts_problems(verb: Verb) -> None:
    rows = [pair("p", str(i), reward=i) for i in range(5)] + [pair("q", "z")]
    assert verb.curate(rows)[0] == rows
    kept, dropped = verb.curate(rows, "cap_per_problem=2")
    assert kept == [rows[3], rows[4], rows[5]]
    assert {row["drop_reason"] for row in dropped} == {"over_cap"}
    assert "problem" in verb.refuse([{"text": "a"}], "text=text", "cap_per_problem=2")


def test_rows_are_selected_by_bands_quotas_and_mix(verb: Verb) -> None:
    english = "The boat is in the harbour and the wind is from the north of the island today."
    german = "Das Boot ist im Hafen und der Wind kommt heute aus dem Norden der kleinen Insel."
    rows = [pair(f"{i}", english, source="web", reward=i) for i in range(4)]
    rows += [pair(f"{i}", german, source="books", reward=i) for i in range(4, 8)]
    kept, dropped = verb.curate(rows, "select.quotas.language.de=1")
    assert kept == [*rows[:4], rows[7]]
    assert {row["drop_reason"] for row in dropped} == {"quota:language=de"}
    kept, _ = verb.curate(rows, 'select.mix={"web": 3, "books": 1}', "select.method=best", "select.size=4")
    assert kept == [*rows[1:4], rows[7]]
    kept, dropped = verb.curate(rows, "select.min_quality=6", "select.length=[5, 30]")
    assert kept == rows[6:]
    judged = [pair("p", str(i), status="pass" if i < 3 else "fail", reason="not_equal") for i in range(4)]
    judged += [pair("q", str(i), status="pass") for i in range(2)]
    kept, dropped = verb.curate(judged, "select.pass_rate=[0.2, 0.8]")
    assert kept == judged[:3]
    assert [row["drop_reason"] for row in dropped] == ["failed:not_equal", "pass_rate", "pass_rate"]


def test_rows_are_compared_with_earlier_exports(verb: Verb) -> None:
    earlier = write(
        verb.folder / "earlier.jsonl", [pair("A", sample_id="old"), pair("b", decision="rejected")]
    )
    rows = [pair("a"), pair("b"), pair("c")]
    kept, dropped = verb.curate(rows, f"dedup.against.0={earlier}")
    assert kept == rows[1:]
    assert dropped[0]["matched_id"] == "old"
    assert "nowhere.jsonl" in verb.refuse(rows, "dedup.against.0=nowhere.jsonl")


def test_zipped_files(verb: Verb) -> None:
    packed = verb.folder / "in.jsonl.gz"
    packed.write_bytes(gzip.compress(b'{"prompt": "a", "completion": "b"}\n' * 3))
    output = verb.folder / "out.jsonl.gz"
    assert verb.call(packed, output=output) == 0
    assert gzip.decompress(output.read_bytes()) == b'{"prompt": "a", "completion": "b"}\n'
    first = output.read_bytes()
    assert verb.call(packed, output=output) == 0
    assert output.read_bytes() == first


def test_the_input_may_be_its_own_output(verb: Verb) -> None:
    source = write(verb.folder / "in.jsonl", [pair("a"), pair("a"), pair("b")])
    assert verb.call(source, output=source) == 0
    assert read(source) == [pair("a"), pair("b")]


# ---- Parquet -----------------------------------------------------------------------------------------------------


def table() -> pa.Table:
    return pa.table(
        {
            "prompt": ["a", "b", "A", None],
            "completion": ["x", "y", "x", "z"],
            "count": pa.array([1, None, 3, 4], pa.int16()),
            "when": pa.array([0, 1, 2, 3], pa.timestamp("s")),
            "raw": pa.array([b"\x00", b"1", b"2", b"3"]),
            "turns": [[{"role": "user"}], [], None, [{"role": "user"}]],
        }
    ).replace_schema_metadata({"made": "by hand"})


def test_parquet_stays_parquet_with_its_schema(verb: Verb) -> None:
    pq.write_table(table(), verb.folder / "in.parquet")
    output = verb.folder / "out.parquet"
    assert verb.call(verb.folder / "in.parquet", output=output) == 0, verb.err
    kept = pq.read_table(output)
    given = pq.read_table(verb.folder / "in.parquet")
    assert kept.schema.equals(given.schema, check_metadata=True)
    assert kept.equals(given.take([0, 1, 3]))
    assert read(verb.folder / "out.parquet.dropped.jsonl") == [
        {"prompt": "A", "completion": "x", "count": 3, "when": "1970-01-01T00:00:02", "raw": "Mg==", "turns": None,
         "drop_reason": "duplicate", "matched_id": "row 1"}
    ]  # fmt: skip
    assert verb.call(verb.folder / "in.parquet") == 0
    assert [row["prompt"] for row in read(verb.output)] == ["a", "b", None]


def test_jsonl_becomes_parquet(verb: Verb) -> None:
    rows = [pair("a", n=1), pair("b", n=2.5, more={"x": [1]}), pair("\ud800c")]
    output = verb.folder / "out.parquet"
    assert verb.call(rows, output=output) == 0, verb.err
    assert pq.read_table(output).to_pylist() == [
        {"prompt": "a", "completion": "x", "n": 1.0, "more": None},
        {"prompt": "b", "completion": "x", "n": 2.5, "more": {"x": [1]}},
        {"prompt": "\ufffdc", "completion": "x", "n": None, "more": None},
    ]
    assert "text_repaired: 1" in verb.out
    assert verb.call([pair("a", n=1), pair("b", n=["x"])], output=output) == 2
    assert ".jsonl" in verb.err
    assert pq.read_table(output).num_rows == 3  # the earlier one is untouched


# ---- Decontamination ---------------------------------------------------------------------------------------------


def test_copies_of_evaluation_problems_are_dropped_with_evidence(verb: Verb) -> None:
    test = write(
        verb.folder / "test.jsonl", [{"id": "t1", "question": OTHER}, {"id": "t2", "question": LONG}]
    )
    rows = [pair(f"Well. {LONG}?"), pair("something else"), pair("q", f"So: {OTHER.upper()}")]
    kept, dropped = verb.curate(rows, f"decontaminate.against.0={test}")
    assert kept == [rows[1]]
    assert [(row["drop_reason"], row["matched_id"]) for row in dropped] == [
        ("contaminated", f"{test}[t2]"),
        ("contaminated", f"{test}[t1]"),
    ]
    assert dropped[0]["evidence"]["match"] == "ngram"
    assert dropped[0]["evidence"]["share"] == 1.0
    assert "not decontaminated" not in verb.out
    verb.curate(rows)
    assert "not decontaminated" in verb.out


def test_rewordings_are_found_unless_turned_off(verb: Verb) -> None:
    problem = (
        "Janet keeps 16 ducks on her farm near the lake. Each of the ducks lays three eggs in a week. "
        "How many eggs does Janet collect from the ducks in 4 weeks?"
    )
    reworded = (
        "How many eggs does Małgorzata collect from the ducks in 12 weeks? Małgorzata keeps 250 ducks on her farm "
        "near the lake. Each of the ducks lays five eggs in a week."
    )
    test = write(verb.folder / "test.jsonl", [{"question": problem}])
    rows = [
        pair(reworded),
        pair("Janet keeps 16 cows on her farm near the sea. How much milk do they give in 4 weeks?"),
    ]
    kept, dropped = verb.curate(rows, f"decontaminate.against.0={test}")
    assert kept == rows[1:]
    assert dropped[0]["evidence"]["match"] == "reworded"
    assert len(verb.curate(rows, f"decontaminate.against.0={test}", "decontaminate.reworded=null")[0]) == 2


@pytest.mark.parametrize("names", [("role", "content"), ("from", "value")])
def test_chats_are_compared_turn_by_turn(verb: Verb, names: tuple[str, str]) -> None:
    test = write(verb.folder / "test.jsonl", [{"question": "What is\n3 + 4?"}, {"question": OTHER}])

    def chat(*said: str) -> dict[str, Any]:
        return {"chat": [dict(zip(names, turn, strict=True)) for turn in zip("uauaua", said, strict=False)]}

    rows = [
        chat("What is 3 + 4?", "7"),
        chat("Hello", "hi", f"Well,\n{OTHER}\nand now?", "no"),
        chat("Hello", "hi"),
        chat("HELLO", "Hi"),
    ]
    kept, dropped = verb.curate(rows, "text=chat", f"decontaminate.against.0={test}")
    assert kept == [rows[2]]
    reasons = [(row["drop_reason"], row["matched_id"]) for row in dropped]
    assert reasons == [
        ("contaminated", f"{test}[0]"), ("contaminated", f"{test}[1]"), ("duplicate", "row 3"),
    ]  # fmt: skip


def test_evaluation_sets_may_be_any_format_a_recipe_or_chosen_columns(verb: Verb, tmp_path: Path) -> None:
    body, question = LONG[:60], LONG[60:].strip()
    (tmp_path / "svamp.json").write_text(json.dumps([{"Body": body, "Question": question}]))
    rows = [pair(LONG), pair("clean")]
    sets = (f"decontaminate.against.0={tmp_path}/svamp.json", 'decontaminate.text=["Body", "Question"]')
    assert verb.curate(rows, *sets)[0] == rows[1:]
    recipe = tmp_path / "recipe.yaml"
    tree = with_data(tmp_path)
    recipe.write_text(to_yaml(tree))
    held_out = read(Path(tree["domains"]["math"]["held_out"]))
    rows = [pair(held_out[0]["question"]), pair("clean")]
    kept, dropped = verb.curate(rows, f"decontaminate.against.0={recipe}")
    assert (kept, dropped[0]["drop_reason"]) == (rows[1:], "contaminated")


def test_evaluation_sets_of_the_hub(verb: Verb, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(path: str, config: str | None, split: str) -> list[dict[str, Any]]:
        asked.append((path, config, split))
        if path == "far/away":
            raise ConnectionError("no route")
        return [{"question": LONG, "id": "g1"}]

    import datasets

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    rows = [pair(f"So: {LONG}"), pair("clean")]
    kept, dropped = verb.curate(rows, 'decontaminate.against=["openai/gsm8k:main", "plain"]')
    assert kept == rows[1:]
    assert dropped[0]["matched_id"] == "openai/gsm8k:main[g1]"
    assert asked == [("openai/gsm8k", "main", "test"), ("plain", None, "test")]
    before = verb.output.read_bytes()
    assert verb.call(rows, "decontaminate.against.0=far/away") == 1
    assert "the hub did not answer for far/away" in verb.err
    assert verb.output.read_bytes() == before


def test_decontamination_fails_closed(verb: Verb) -> None:
    write(verb.folder / "empty.jsonl", [])
    write(verb.folder / "strange.jsonl", [{"question": "a"}, {"query": "b"}])
    (verb.folder / "broken.jsonl").write_text('{"question": "a"}\n{"question')
    for name, said in (
        ("nowhere.jsonl", "no such file"), ("empty.jsonl", "empty"), ("strange.jsonl", "row 2"),
        ("broken.jsonl", "line 2"), ("nowhere.yaml", "nowhere.yaml"),
    ):  # fmt: skip
        path = verb.folder / name
        message = verb.refuse([pair("a")], f"decontaminate.against.0={path}")
        assert said in message, name
    assert ".yaml" in verb.refuse([pair("a")], "decontaminate.against.0=held_out")


# ---- Wrong input -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "said"),
    [(b'{"prompt": ', "not JSON"), (b"[1]", "not an object"), (b'{"a": "\xff"}', "UTF-8")],
)
def test_malformed_rows_are_named(verb: Verb, line: bytes, said: str) -> None:
    source = verb.folder / "in.jsonl"
    source.write_bytes(b'{"prompt": "a", "completion": "b"}\n\n' + line + b"\n")
    message = verb.refuse(source)
    assert "line 3" in message
    assert said in message


def test_wrong_paths_and_empty_files(verb: Verb) -> None:
    assert "no such file" in verb.refuse(verb.folder / "nowhere.jsonl")
    assert "folder" in verb.refuse(verb.folder)
    assert "no rows" in verb.refuse(write(verb.folder / "empty.jsonl", []))
    (verb.folder / "bad.parquet").write_text("no")
    assert "not a parquet file" in verb.refuse(verb.folder / "bad.parquet")
    write(verb.folder / "in.jsonl", [pair("a")])
    assert verb.call([pair("a")], output=verb.folder) == 2
    for nowhere in ("/proc/out.jsonl", str(verb.folder / "in.jsonl" / "out.jsonl")):
        assert verb.call([pair("a")], output=Path(nowhere)) == 2
        assert f"{nowhere}: cannot be written" in verb.err
    os.mkfifo(verb.folder / "pipe.jsonl")
    assert "twice" in verb.refuse(verb.folder / "pipe.jsonl")
    assert verb.call(write(verb.dropped, [pair("a")])) == 2
    assert "dropped rows" in verb.err


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("dedup.methd=exact", "did you mean 'method'"),
        ("dedup.method=minhsh", "did you mean 'minhash'"),
        ("dedupe=null", "did you mean 'dedup'"),
        ("dedup.threshold=2", "dedup.threshold"),
        ("decontaminate.ngram=0", "decontaminate.ngram"),
        ("decontaminate.ngram=[]", "decontaminate.ngram"),
        ("decontaminate.ngram=[8,0]", "decontaminate.ngram"),
        ("decontaminate.reworded=0", "decontaminate.reworded"),
        ("text=[]", "text"),
        ("text=titel", "did"),
        ("across_rounds=true", "dedup.against"),
        ("reward_schedule=[0.5]", "dedup.against"),
        ("cap_per_problem=many", "whole number"),
    ],
)
def test_wrong_options(verb: Verb, setting: str, said: str) -> None:
    message = verb.refuse([pair("a", title="t")], setting)
    if setting.startswith("text=t"):
        assert "no row has the column 'titel'\n  did you mean 'title'?" in message
    else:
        assert said in message


def test_what_compares_with_nothing_is_told(verb: Verb) -> None:
    other = write(verb.folder / "other.jsonl", [{"question": "a"}])
    message = verb.refuse([pair("a")], f"dedup.against.0={other}")
    assert "dedup.against.0: the rows of" in message
    assert "text in none of prompt, completion" in message
    source = write(verb.folder / "in.jsonl", [pair("a")])
    words = ["--input", str(source), "--output", str(verb.output), "--compare", str(other)]
    assert cli.main(["curate", *words]) == 2
    assert "--compare: no row has text in prompt, completion" in verb.capsys.readouterr().err
    assert "no row has a column 'source'" in verb.refuse([pair("a")], 'select.mix={"web": 1}')
    message = verb.refuse([pair("a", source="web")], 'select.mix={"wbe": 1}')
    assert "no row is left whose 'source' is 'wbe'" in message
    assert "did you mean 'web'?" in message


def test_of_a_book_the_beginning_is_measured(verb: Verb) -> None:
    rows = [pair("a " * 5_000_000), pair("one two three")]
    verb.curate(rows)
    words = json.loads((verb.folder / "out.jsonl.report.json").read_text())["diversity"]["given"]["words"]
    assert words["mean"] == pytest.approx(2_500_002.5, rel=1e-3)


def test_rows_without_prompt_and_completion_need_the_option_text(verb: Verb) -> None:
    rows = [{"body": "a"}, {"body": "A"}]
    assert "set text to one of: body" in verb.refuse(rows)
    assert verb.curate(rows, "text=body")[0] == rows[:1]
    only_prompts = [{"prompt": "a"}, {"prompt": "A"}]
    assert verb.curate(only_prompts)[0] == only_prompts[:1]


def test_an_input_that_changes_is_refused(verb: Verb, monkeypatch: pytest.MonkeyPatch) -> None:
    from synth.curate import pipeline

    source = write(verb.folder / "in.jsonl", [pair("a")])
    decide = pipeline.Curation.decide

    def slow(self: Any) -> Any:
        write(source, [pair("a"), pair("b")])
        return decide(self)

    monkeypatch.setattr(pipeline.Curation, "decide", slow)
    assert "changed while" in verb.refuse(source)


def test_an_interrupted_job_leaves_nothing_half_done(verb: Verb, monkeypatch: pytest.MonkeyPatch) -> None:
    from synth.curate import files

    def stop(row: Any, decision: Any) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "dropped_line", stop)
    assert verb.call([pair("a"), pair("a")]) == 130
    assert verb.err.splitlines()[-1] == "interrupted: the output is as it was"
    assert not verb.output.exists()
    assert not verb.dropped.exists()
    assert not list(verb.folder.glob(".*tmp"))
