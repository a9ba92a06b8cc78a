"""Reading JSONL: what cannot be read is named by file and line."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import pytest

from synth.records.errors import InputError
from synth.records.jsonl import dump_line, read_jsonl

ROWS = [{"n": number, "text": random.Random(number).randbytes(50).hex()} for number in range(5000)]
WHOLE = gzip.compress(b"".join(map(dump_line, ROWS)))
HALF = len(WHOLE) // 2
# A deflate block of the reserved type 3 in place of the first one.
BAD_BLOCK = WHOLE[:10] + b"\xff" * 100 + WHOLE[110:]


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b'{"n": 1}\n', "Not a gzipped file"),
        (WHOLE[:HALF], "end-of-stream"),
        (BAD_BLOCK, "invalid block type"),
        (WHOLE[:-8] + bytes(8), "CRC check failed"),
    ],
    ids=["no gzip", "cut off", "damaged", "wrong checksum"],
)
def test_a_broken_gz_file_is_named_with_the_line(tmp_path: Path, content: bytes, cause: str) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(content)
    read = []
    with pytest.raises(InputError, match=cause) as caught:
        read.extend(read_jsonl(path))
    assert read == ROWS[: len(read)]
    assert caught.value.where == f"{path}, line {len(read) + 1}"
    assert "cannot be read" in caught.value.seen


def test_lines_before_the_damage_are_given_out(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(WHOLE[:HALF])
    read = []
    with pytest.raises(InputError):
        read.extend(read_jsonl(path))
    assert len(ROWS) // 3 < len(read) < len(ROWS)
