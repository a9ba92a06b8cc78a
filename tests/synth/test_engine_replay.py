"""The replay engine: what a request gets depends on its prompt and index alone."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth import engines
from synth.engines import Output, Request, Sampling
from synth.records.errors import InputError
from synth.records.jsonl import write_jsonl

ROWS = [
    {"prompt": "a", "completion": "a0"},
    {"prompt": "b", "completion": "b0\u2028\u0085\x00"},
    {"prompt": "a", "completion": "a1", "finish_reason": "length", "completion_token_ids": [5, 6]},
]


def open_replay(path: Path, **options: Any) -> engines.Engine:
    return engines.open("replay", None, {"path": str(path), **options})


def request(prompt: str, index: int = 0, **more: Any) -> Request:
    fields: dict[str, Any] = {
        "id": f"{prompt}-{index}",
        "prompt_token_ids": None,
        "seed": 0,
        "sampling": Sampling(),
    }
    return Request(**{**fields, "prompt": prompt, "index": index, **more})


def ask(engine: engines.Engine, *requests: Request) -> dict[str, Output]:
    engine.submit(requests)
    return {output.id: output for output in engine.outputs()}


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, ROWS)
    return path


def test_rows_are_given_out_by_index_whatever_the_order(rows_file: Path) -> None:
    got = ask(open_replay(rows_file), request("a", 1), request("b", 0), request("a", 0))
    assert {key: output.text for key, output in got.items()} == {
        "a-1": "a1",
        "b-0": ROWS[1]["completion"],
        "a-0": "a0",
    }
    assert got["a-1"].token_ids == [5, 6]
    assert (got["a-1"].finish_reason, got["a-0"].finish_reason) == ("length", "stop")


@given(seed=st.integers(0, 1000), done=st.sets(st.integers(0, 11)))
def test_a_resumed_run_gets_what_the_first_would_have(
    seed: int, done: set[int], tmp_path_factory: Any
) -> None:
    path = tmp_path_factory.mktemp("replay") / "rows.jsonl"
    rng = random.Random(seed)
    rows = [{"prompt": rng.choice("xyz"), "completion": str(number)} for number in range(12)]
    write_jsonl(path, rows)
    seen: dict[str, int] = {}
    requests = []
    for row in rows:
        requests.append(request(row["prompt"], seen.get(row["prompt"], 0)))
        seen[row["prompt"]] = seen.get(row["prompt"], 0) + 1
    whole = ask(open_replay(path), *requests)
    rest = [item for number, item in enumerate(requests) if number not in done]
    rng.shuffle(rest)
    assert ask(open_replay(path), *rest) == {item.id: whole[item.id] for item in rest}


def test_rows_that_run_out_are_rejected_not_made_up(rows_file: Path) -> None:
    got = ask(open_replay(rows_file), request("a", 2), request("unknown"))
    assert got["a-2"].finish_reason == got["unknown-0"].finish_reason == "rejected"
    assert "has 2 completions of this prompt, none with index 2" in str(got["a-2"].error)
    assert "no completion of this prompt" in str(got["unknown-0"].error)


def test_an_index_column_wins_over_the_order(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"prompt": "a", "completion": c, "index": i} for c, i in (("one", 1), ("zero", 0))])
    assert ask(open_replay(path), request("a", 0))["a-0"].text == "zero"
    write_jsonl(path, [{"prompt": "a", "completion": "x", "index": 1}] * 2)
    with pytest.raises(InputError, match=r"row 2.*index 1"):
        open_replay(path)


def test_messages_and_ids_find_rows_too(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [*ROWS, {"id": "p7", "completion": "by id"}])
    engine = open_replay(path)
    chat = [
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "?"},
        {"role": "user", "content": "a"},
    ]
    got = ask(engine, request("<chat>", 1, messages=chat), request("nothing", id="p7"))
    assert (got["<chat>-1"].text, got["p7"].text) == ("a1", "by id")


def test_parquet_and_renamed_columns(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"q": ["a", "a"], "a": ["a0", "a1"]}), path)
    engine = open_replay(path, prompt="q", completion="a")
    assert ask(engine, request("a", 1))["a-1"].text == "a1"


def test_whole_numbers_that_a_table_made_floats_are_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"prompt": "a", "completion": "b", "index": 1.0, "completion_token_ids": [5.0, 6]}])
    assert ask(open_replay(path), request("a", 1))["a-1"].token_ids == [5, 6]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"prompt": "a"}\n', "row 1.*column 'completion'"),
        ('{"completion": "a"}\n', "row 1.*column 'prompt'"),
        ('{"prompt": "a", "completion": "b", "finish_reason": "eos"}\n', "finish_reason is 'eos'"),
        ("{\n", "line 1.*not JSON"),
        ('{"prompt": "a", "completion": "b", "index": "x"}\n', "row 1: index is 'x'"),
        ('{"prompt": "a", "completion": "b", "index": 0.5}\n', "row 1: index is 0.5"),
        ('{"prompt": "a", "completion": "b", "index": true}\n', "row 1: index is True"),
        (
            '{"prompt": "a", "completion": "b"}\n'
            '{"prompt": "a", "completion": "b", "completion_token_ids": [1, "q"]}\n',
            "row 2: completion_token_ids holds 'q'",
        ),
        ('{"prompt": "a", "completion": "b", "completion_token_ids": [[1]]}\n', r"holds \[1\]"),
        (
            '{"prompt": "a", "completion": "b", "completion_token_ids": "12"}\n',
            "completion_token_ids is '12'",
        ),
    ],
)
def test_bad_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        open_replay(path)
    assert str(path) in caught.value.where


def test_missing_files_are_input_errors(tmp_path: Path) -> None:
    for name in ("no.jsonl", "no.parquet"):
        with pytest.raises(InputError, match="cannot be read"):
            open_replay(tmp_path / name)
    with pytest.raises(InputError, match=r"engine\.options\.path"):
        engines.open("replay", None, {})


def test_what_replay_cannot_do_is_said(rows_file: Path) -> None:
    engine = open_replay(rows_file)
    with pytest.raises(InputError, match="load weights"):
        engine.load_weights("x")
    with pytest.raises(InputError, match="log-prob"):
        engine.prompt_logprobs([[1, 2]])


def test_real_completions_come_back_in_order(shared_data: Any) -> None:
    from synth.records.jsonl import read_jsonl

    path = shared_data("gsm8k/model_solutions.jsonl")
    rows = list(read_jsonl(path))
    seen: dict[str, int] = {}
    requests = []
    for row in rows:
        index = seen[row["prompt"]] = seen.get(row["prompt"], -1) + 1
        requests.append(request(row["prompt"], index, id=row["id"]))
    got = ask(open_replay(path), *requests)
    assert [got[row["id"]].text for row in rows] == [row["completion"] for row in rows]
