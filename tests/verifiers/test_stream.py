"""`verify_file`: the core of `synth verify`."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import verifiers
from synth.records.errors import InputError, WorkError
from synth.records.jsonl import dump_line, read_jsonl
from verifiers.stream import verify_file


@pytest.fixture(scope="module")
def judge() -> Iterator[Any]:
    with verifiers.get("math") as verifier:
        yield verifier


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_bytes(b"".join(dump_line(row) for row in rows))
    return path


def math_rows(count: int) -> list[dict[str, Any]]:
    return [{"id": i, "completion": f"A: {i % 3}", "reference": "1"} for i in range(count)]


def test_rows_keep_order_and_fields_and_get_a_verdict(tmp_path: Path, judge: Any) -> None:
    rows = [
        {
            "id": 1,
            "completion": "A: 7",
            "reference": "7",
            "status": "old",
            "reward": 5,
            "note": "\u2028\x85\x00",
        },
        {"id": 2, "completion": "A: 8", "reference": "7", "note": "\ud800"},
        {"id": 3, "completion": "A: 8", "reference": "\\frac{1}{"},
        {"id": 4, "completion": "A: 8"},
    ]
    summary = verify_file(judge, write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl")
    out = list(read_jsonl(tmp_path / "out.jsonl"))
    assert [(r["id"], r["status"], r["reward"], r["reason"]) for r in out] == [
        (1, "pass", 1.0, "equal"),
        (2, "fail", 0.0, "not_equal"),
        (3, "error", None, "unparsable_reference"),
        (4, "error", None, "missing_field"),
    ]
    for before, after in zip(rows, out, strict=True):
        kept = {k: v for k, v in before.items() if k not in ("status", "reward", "reason", "details")}
        assert {k: after[k] for k in kept} == kept
        assert set(after) == set(kept) | {"status", "reward", "reason", "details"}
    assert dict(summary.statuses) == {"pass": 1, "fail": 1, "error": 2}
    assert summary.reasons["error", "missing_field"] == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_malformed_line_is_named_and_nothing_is_written(tmp_path: Path, judge: Any) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(b"".join(dump_line(r) for r in math_rows(400)) + b'{"a": \n')
    (tmp_path / "out.jsonl").write_text("old")
    with pytest.raises(InputError, match="line 401"):
        verify_file(judge, source, tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_field_that_is_nowhere(tmp_path: Path, judge: Any) -> None:
    rows = [{"completion": "A: 1", "answer": "1"}] * 100 + math_rows(5)
    with pytest.raises(InputError, match="'reference'"):
        verify_file(judge, write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()
    rows = rows[:99] + math_rows(2)
    assert (
        verify_file(judge, write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl").statuses["error"] == 99
    )


def test_nothing_judged_is_failed_work_with_its_reason(tmp_path: Path, judge: Any) -> None:
    rows = [{"completion": "A: 1", "reference": "\\frac{"}] * 3
    with pytest.raises(WorkError, match="3 x unparsable_reference"):
        verify_file(judge, write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl")
    assert len(list(read_jsonl(tmp_path / "out.jsonl"))) == 3
    with pytest.raises(WorkError, match="no row"):
        verify_file(judge, write(tmp_path / "in.jsonl", []), tmp_path / "out.jsonl")


class Stops:
    """A verifier that stops after some rows, as Ctrl-C would."""

    def __init__(self, inner: Any, after: int) -> None:
        self.inner, self.after, self.seen = inner, after, 0

    def verify_batch(self, rows: Any, workers: int | None = None) -> Iterator[Any]:
        for verdict in self.inner.verify_batch(rows, workers):
            if self.seen == self.after:
                raise KeyboardInterrupt
            self.seen += 1
            yield verdict


def test_resume_goes_on_and_ends_as_undisturbed(tmp_path: Path, judge: Any) -> None:
    source = write(tmp_path / "in.jsonl", math_rows(50))
    verify_file(judge, source, tmp_path / "whole.jsonl")
    with pytest.raises(KeyboardInterrupt):
        verify_file(Stops(judge, 20), source, tmp_path / "out.jsonl", label="math")
    assert not (tmp_path / "out.jsonl").exists()
    with open(tmp_path / "out.jsonl.partial", "ab") as handle:
        handle.write(b'{"torn": ')
    second = Stops(judge, 1000)
    summary = verify_file(second, source, tmp_path / "out.jsonl", resume=True, label="math")
    assert (summary.resumed, second.seen, summary.rows) == (20, 30, 50)
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_resume_refuses_another_input_or_verifier(tmp_path: Path, judge: Any) -> None:
    source = write(tmp_path / "in.jsonl", math_rows(50))
    with pytest.raises(KeyboardInterrupt):
        verify_file(Stops(judge, 20), source, tmp_path / "out.jsonl", label="math")
    with pytest.raises(InputError, match="another verifier"):
        verify_file(judge, source, tmp_path / "out.jsonl", resume=True, label="code")
    changed = math_rows(50)
    changed[10]["completion"] = "A: 5"
    write(source, changed)
    with pytest.raises(InputError, match="row 11"):
        verify_file(judge, source, tmp_path / "out.jsonl", resume=True, label="math")
    assert verify_file(judge, source, tmp_path / "out.jsonl", label="math").resumed == 0


def test_packed_input_and_output(tmp_path: Path, judge: Any) -> None:
    with gzip.open(tmp_path / "in.jsonl.gz", "wb") as handle:
        handle.write(b"".join(dump_line(r) for r in math_rows(5)))
    verify_file(judge, tmp_path / "in.jsonl.gz", tmp_path / "sub" / "out.jsonl.gz")
    assert [r["id"] for r in read_jsonl(tmp_path / "sub" / "out.jsonl.gz")] == list(range(5))


def test_input_may_be_replaced_by_its_own_output(tmp_path: Path, judge: Any) -> None:
    source = write(tmp_path / "rows.jsonl", math_rows(6))
    verify_file(judge, source, source)
    again = verify_file(judge, source, source)
    assert again.statuses == {"pass": 2, "fail": 4}


def test_details_that_json_cannot_hold(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def f(row):\n    return {'status': 'pass', 'details': {'seen': {1, 2}, ('a',): 1, 'path': object}}\n"
    )
    source = write(tmp_path / "in.jsonl", [{"x": 1}])
    verify_file(verifiers.get(f"{tmp_path}/mine.py:f"), source, tmp_path / "out.jsonl")
    row = next(read_jsonl(tmp_path / "out.jsonl"))
    assert row["status"] == "pass"
    assert row["details"]["seen"] == "{1, 2}"


def test_rows_are_not_held(tmp_path: Path) -> None:
    """The verifier is never more than its own window ahead of what is written."""
    source = write(tmp_path / "in.jsonl", math_rows(3000))
    ahead: list[int] = []
    asked = 0

    class Watch:
        def verify_batch(self, rows: Any, workers: int | None = None) -> Iterator[Any]:
            nonlocal asked
            for _ in rows:
                asked += 1
                yield verifiers.Verdict("pass", 1.0, "seen")

    verify_file(
        Watch(), source, tmp_path / "out.jsonl", on_row=lambda summary: ahead.append(asked - summary.rows)
    )
    assert max(ahead) <= 1


def test_missing_file_and_folder(tmp_path: Path, judge: Any) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        verify_file(judge, tmp_path / "none.jsonl", tmp_path / "out.jsonl")
    with pytest.raises(InputError, match="folder"):
        verify_file(judge, write(tmp_path / "in.jsonl", math_rows(1)), tmp_path)


def test_verdict_fields_stay_json(tmp_path: Path, judge: Any) -> None:
    source = write(tmp_path / "in.jsonl", math_rows(2))
    verify_file(judge, source, tmp_path / "out.jsonl")
    for line in (tmp_path / "out.jsonl").read_bytes().splitlines():
        assert isinstance(json.loads(line)["details"], dict)
