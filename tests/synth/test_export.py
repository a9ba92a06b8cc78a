"""Export as a black box: what is written is read back by the libraries people use."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth.export import LAYOUTS, export, read_rows, redact
from synth.export.layouts import lay_out
from synth.records import schemas
from synth.records.errors import InputError, WorkError
from synth.records.jsonl import read_jsonl, write_jsonl
from synth.store import Stage

INFO = {
    "name": "demo",
    "recipe": "demo",
    "model_hash": "abc123",
    "verifiers": {"math": "math"},
    "funnel": {
        "math": {"asked": 9, "generated": 8, "parsed": 7, "passed": 6, "unique": 5, "clean": 4, "kept": 3}
    },
}


def row(name, completion, decision="kept", reason=None, problem="p", **more):
    return {
        "sample_id": name, "problem_id": problem, "domain": "math", "round": 0, "prompt": f"Q {problem}\n",
        "completion": completion, "reward": 1.0 if decision == "kept" else 0.0, "decision": decision,
        "decision_reason": reason, "matched_id": None, "source": "sampled", **more,
    }  # fmt: skip


ROWS = [
    row("a1", "one\u2028two\u0085\0"),
    row("a2", "three", token_ids=[1, 2, 3], loss_mask=[0, 1, 1]),
    row("b1", "wrong", "rejected", "failed:not_equal"),
    row("b2", "also wrong", "rejected", "failed:no_answer"),
    row("b3", "three", "rejected", "duplicate"),
    row("c1", "late", "rejected", "error:timeout"),
    row("q1", "four", problem="q"),
]


@pytest.mark.parametrize("layout", ["messages", "prompt_completion", "sharegpt", "alpaca"])
@pytest.mark.parametrize("data_format", ["jsonl", "parquet", "datasets"])
def test_round_trip_through_the_datasets_library(tmp_path, monkeypatch, layout, data_format):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    result = export(ROWS, data_format, layout, tmp_path / "out", INFO)
    assert result.rows == 3
    if data_format == "datasets":
        loaded = datasets.load_from_disk(str(tmp_path / "out"))
    else:
        loaded = datasets.load_dataset(
            str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache")
        )
    expected = lay_out(ROWS, layout).rows
    assert [dict(r) for r in loaded] == expected
    assert loaded["sample_id"] == ["a1", "a2", "q1"]
    assert set(loaded["source"]) == {"sampled"}
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    for column in expected[0]:
        assert f"`{column}`" in card
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_layouts_say_what_their_trainers_read():
    def first(layout):
        return lay_out(ROWS, layout).rows[1]

    assert first("messages")["messages"] == [
        {"role": "user", "content": "Q p\n"},
        {"role": "assistant", "content": "three"},
    ]
    assert first("sharegpt")["conversations"] == [
        {"from": "human", "value": "Q p\n"},
        {"from": "gpt", "value": "three"},
    ]
    assert {k: first("alpaca")[k] for k in ("instruction", "input", "output")} == {
        "instruction": "Q p\n", "input": "", "output": "three",
    }  # fmt: skip
    with_system = lay_out([row("a", "x", system="Be brief.")], "messages").rows[0]["messages"]
    assert with_system[0] == {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize("layout", ["messages", "prompt_completion", "sharegpt", "alpaca"])
def test_sampled_token_ids_travel_and_text_only_rows_are_marked(layout):
    rows = lay_out(ROWS, layout).rows
    assert [(r["token_ids"], r["loss_mask"], r["retokenised"]) for r in rows] == [
        (None, None, True),
        ([1, 2, 3], [0, 1, 1], False),
        (None, None, True),
    ]
    assert "token_ids" not in lay_out([row("a", "x")], layout).rows[0]


def test_preference_pairs_accepted_with_wrong_siblings_of_the_same_problem():
    laid = lay_out(ROWS, "preference")
    assert [
        (r["prompt"], r["chosen"], r["rejected"], r["sample_id"], r["rejected_sample_id"]) for r in laid.rows
    ] == [
        ("Q p\n", "one\u2028two\u0085\0", "wrong", "a1", "b1"),
        ("Q p\n", "three", "also wrong", "a2", "b2"),
    ]
    assert laid.rows[0]["rejected_reason"] == "failed:not_equal"
    assert laid.left_out == {"accepted without a rejected sibling left": 1}
    assert len(lay_out(ROWS, "preference", pairs_per_problem=1).rows) == 1
    assert lay_out(list(reversed(ROWS)), "preference").rows == laid.rows


def test_preference_takes_the_nearest_misses_and_no_text_twice():
    rows = [
        row("a", "good"),
        row("b", "bad", "rejected", "failed:x"),
        row("c", "bad", "rejected", "failed:x"),
        row("d", "near", "rejected", "failed:x", reward=0.9),
        row("e", "good", "rejected", "failed:x"),
        row("f", "  ", "rejected", "failed:no_answer"),
        row("g", "better", reward=2.0),
    ]
    rows[3]["reward"] = 0.9
    pairs = lay_out(rows, "preference").rows
    assert [(p["chosen"], p["rejected"]) for p in pairs] == [("better", "near"), ("good", "bad")]


def test_embedding_needs_its_columns():
    with pytest.raises(InputError, match="query and positive"):
        lay_out(ROWS, "embedding")
    rows = [{"sample_id": "a", "query": "q", "positive": "d", "source": "sampled"}]
    assert lay_out(rows, "embedding").rows == [
        {
            "query": "q",
            "positive": "d",
            "negatives": [],
            "instruction": "",
            "sample_id": "a",
            "source": "sampled",
        }
    ]


def test_embedding_with_empty_negatives_keeps_its_type(tmp_path):
    import pyarrow.parquet as pq

    rows = [{"sample_id": "a", "query": "q", "positive": "d"}]
    export(rows, "parquet", "embedding", tmp_path / "e.parquet")
    assert str(pq.read_schema(tmp_path / "e.parquet").field("negatives").type).startswith("list<")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"data_format": "json"}, "did you mean 'jsonl'"),
        ({"layout": "mesages"}, "did you mean 'messages'"),
        ({"rows": []}, "no rows"),
        ({"rows": [{"prompt": "a"}]}, "completion"),
        ({"rows": [{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": 3}]}, "row 2"),
        ({"rows": "no/such/folder"}, "no dataset parts"),
    ],
)
def test_wrong_arguments_are_input_errors_and_leave_nothing(tmp_path, arguments, said):
    call = {"rows": ROWS, "data_format": "jsonl", "layout": "messages", "out": tmp_path / "out", **arguments}
    with pytest.raises(InputError, match=said):
        export(**call)
    assert not os.listdir(tmp_path)


def test_nothing_left_is_explained(tmp_path):
    with pytest.raises(
        WorkError, match=r"3 rows came, 0 were kept; top reasons: failed:not_equal 1"
    ) as caught:
        export(
            [r for r in ROWS if r["sample_id"] in ("b1", "b3", "c1")], "jsonl", "messages", tmp_path / "out"
        )
    assert "error:timeout" in str(caught.value)
    with pytest.raises(WorkError, match="without a rejected sibling"):
        export([r for r in ROWS if r["decision"] == "kept"], "jsonl", "preference", tmp_path / "out")
    assert not os.listdir(tmp_path)


def test_only_an_earlier_export_is_replaced(tmp_path):
    out = tmp_path / "out"
    export(ROWS, "jsonl", "messages", out)
    export(ROWS[:1], "parquet", "alpaca", out)
    assert sorted(os.listdir(out)) == ["README.md", "train.parquet"]
    other = tmp_path / "mine"
    other.mkdir()
    (other / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="no export"):
        export(ROWS, "jsonl", "messages", other)
    assert os.listdir(other) == ["thesis.tex"]


def test_a_failed_write_leaves_the_old_export(tmp_path, monkeypatch):
    out = tmp_path / "out"
    export(ROWS, "jsonl", "messages", out)
    before = (out / "train.jsonl").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("synth.export.write.write_jsonl", full)
    with pytest.raises(OSError, match="No space"):
        export(ROWS[:1], "jsonl", "alpaca", out)
    assert (out / "train.jsonl").read_bytes() == before
    assert os.listdir(tmp_path) == ["out"]


def test_one_file_with_its_card_beside_it(tmp_path):
    result = export(ROWS, "jsonl", "messages", tmp_path / "set.jsonl", INFO)
    assert [r["sample_id"] for r in read_jsonl(result.data)] == ["a1", "a2", "q1"]
    assert result.card == tmp_path / "set.card.md"
    assert "# demo" in result.card.read_text("utf-8")


def test_lone_surrogates_survive_jsonl_and_are_counted_elsewhere(tmp_path):
    rows = [row("a", "bad \ud800 half"), row("b", "fine")]
    assert export(rows, "jsonl", "prompt_completion", tmp_path / "j.jsonl").repaired == 0
    assert next(iter(read_jsonl(tmp_path / "j.jsonl")))["completion"] == "bad \ud800 half"
    result = export(rows, "parquet", "messages", tmp_path / "p")
    assert result.repaired == 1
    assert "U+FFFD" in result.card.read_text("utf-8")
    assert next(read_rows(result.data))["messages"][1]["content"] == "bad \ufffd half"


def test_equal_text_of_two_rounds_is_exported_once(tmp_path):
    rows = [row("a", "same"), row("b", "same", round=1), row("c", "other", round=1)]
    result = export(rows, "jsonl", "messages", tmp_path / "out")
    assert (result.rows, result.left_out) == (2, {"duplicate of an exported row": 1})


def test_rows_come_from_closed_rounds_of_a_run(tmp_path):
    for number, closed in ((0, True), (1, True), (2, False)):
        folder = tmp_path / f"round-{number:02d}" / "dataset"
        Stage(folder, schemas.dataset).write([row(f"s{number}", f"text {number}", round=number)])
        if not closed:
            (folder / "manifest.json").unlink()
    assert [r["sample_id"] for r in read_rows(tmp_path)] == ["s0", "s1"]
    assert export(tmp_path, "jsonl", "messages", tmp_path / "out").rows == 2
    assert [r["sample_id"] for r in read_rows(tmp_path / "round-01" / "dataset")] == ["s1"]
    write_jsonl(tmp_path / "x.jsonl", ROWS[:2])
    assert len(list(read_rows(tmp_path / "x.jsonl"))) == 2
    (tmp_path / "x.parquet").write_bytes(b"not parquet")
    with pytest.raises(InputError, match=r"x\.parquet"):
        list(read_rows(tmp_path / "x.parquet"))


def test_the_card_tells_counts_funnel_lineage_and_no_secret(tmp_path):
    secret = "sk-" + "a1b2" * 8
    info = {
        **INFO,
        "engine": {"base_url": f"http://me:{secret}@host/v1", "api_key": "hush", "max_tokens": 256},
    }
    card = export(ROWS, "jsonl", "messages", tmp_path / "out", info).card.read_text("utf-8")
    assert card.startswith("---\nlicense: unknown\n")
    for said in (
        "abc123",
        "| math | 9 | 8 | 7 | 6 | 5 | 4 | 3 |",
        "failed:not_equal | 1",
        "licence | unknown",
        "256",
    ):
        assert said in card
    assert secret not in card
    assert "hush" not in card


def test_redaction_hides_keys_but_not_counts():
    hidden = redact(
        {
            "api_key": "x", "OPENAI_API_KEY": "x", "hf_token": "x", "token": "x", "password": "x", "max_tokens": 5,
            "token_ids": [1], "tokens": 7, "note": "key hf_abcdefghijklmnopqrst!", "list": [{"secret": "x"}],
            "headers": {"Authorization": "Bearer abcdefghijk"}, "token_count": "5", "secret": None,
        }
    )  # fmt: skip
    assert "x" not in json.dumps(hidden).replace("max", "")
    assert hidden["max_tokens"] == 5
    assert hidden["tokens"] == 7
    assert hidden["token_ids"] == [1]
    assert hidden["token_count"] == "5"
    assert hidden["secret"] is None
    assert hidden["note"] == "key [hidden]!"
    assert hidden["headers"] == {"Authorization": "[hidden]"}


TEXT = st.text(st.characters(exclude_categories=()), max_size=8)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(TEXT, TEXT, st.sampled_from(["kept", "rejected"])), min_size=1, max_size=6), st.data()
)
def test_any_text_survives_in_any_layout(tmp_path_factory, texts, data):
    rows = [row(f"s{i}", c, d, None if d == "kept" else "failed:x") for i, (p, c, d) in enumerate(texts)]
    layout = data.draw(st.sampled_from([name for name in LAYOUTS if name != "embedding"]))
    expected = lay_out(rows, layout).rows
    out = tmp_path_factory.mktemp("export") / "x.jsonl"
    if not expected:
        with pytest.raises(WorkError):
            export(rows, "jsonl", layout, out)
        return
    export(rows, "jsonl", layout, out)
    assert list(read_jsonl(out)) == expected
    assert all(r["sample_id"] and r["source"] for r in expected)
