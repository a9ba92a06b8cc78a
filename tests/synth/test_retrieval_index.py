"""Index folders: whole or not at all, and what is found in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from retrieval_samples import signs

from synth.records.errors import InputError
from synth.records.jsonl import atomic_folder
from synth.retrieval import dense
from synth.retrieval.index import Hit, open_index, write_index

TEXTS = [f"document {i}\nsecond line" for i in range(20)] + ["parse a json file", "\ud800\u2028NUL \x00"]
IDS = [f"d{i}" for i in range(22)]
FACTS = {"model": "a/model", "model_hash": "abc", "instruction": ""}


def unit(texts: list[str]) -> np.ndarray:
    return signs(texts) / 4


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_is_written_is_found(tmp_path: Path) -> None:
    folder = write_index(tmp_path / "deep" / "index", IDS, TEXTS, unit(TEXTS), FACTS)
    index = open_index(folder)
    assert index.manifest == {
        **FACTS, "format": 1, "kind": "index", "dimensions": 16, "rows": 22, "graph": False
    }  # fmt: skip
    for id, text, vector in zip(IDS, TEXTS, unit(TEXTS), strict=True):
        assert index.search(vector, 1) == [Hit(1, 1.0, id, text)]
    cosines = unit(TEXTS) @ unit(["query"])[0]
    order = sorted(range(22), key=lambda i: (-cosines[i], i))[:5]
    assert index.search(unit(["query"])[0], 5) == [
        Hit(rank, float(cosines[i]), IDS[i], TEXTS[i]) for rank, i in enumerate(order, start=1)
    ]
    assert len(index.search(unit(["query"])[0], 100)) == 22
    assert np.load(folder / "vectors.npy").dtype == np.float32
    assert sorted(files(folder)) == ["documents.jsonl", "manifest.json", "vectors.npy"]
    assert [path.name for path in folder.parent.iterdir()] == ["index"]


def test_words_are_found(tmp_path: Path) -> None:
    pytest.importorskip("bm25s")
    index = open_index(write_index(tmp_path / "index", IDS, TEXTS, unit(TEXTS), FACTS))
    assert [(hit.rank, hit.id) for hit in index.search_words("json", 5)] == [(1, "d20")]
    assert index.search_words("nothing", 5) == []


def test_a_graph_is_kept_where_documents_are_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("usearch")
    monkeypatch.setattr(dense, "EXACT_DOCUMENTS", 21)
    folder = write_index(tmp_path / "index", IDS, TEXTS, unit(TEXTS), FACTS)
    assert (folder / "graph.usearch").is_file()
    monkeypatch.setattr(dense, "_build", lambda vectors: pytest.fail("built again"))
    index = open_index(folder)
    assert index.manifest["graph"] is True
    for id, vector in zip(IDS, unit(TEXTS), strict=True):
        assert index.search(vector, 1)[0].id == id
    (folder / "graph.usearch").unlink()
    with pytest.raises(InputError, match=r"graph\.usearch: cannot be read"):
        open_index(folder).search(unit(["query"])[0], 1)


def test_a_former_index_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    write_index(folder, IDS, TEXTS, unit(TEXTS), FACTS)
    write_index(folder, IDS[:3], TEXTS[:3], unit(TEXTS[:3]), FACTS)
    assert open_index(folder).manifest["rows"] == 3
    (tmp_path / "empty").mkdir()
    write_index(tmp_path / "empty", IDS, TEXTS, unit(TEXTS), FACTS)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "note.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("other", "file"):
        with pytest.raises(InputError, match="is there and is no index"):
            write_index(tmp_path / name, IDS, TEXTS, unit(TEXTS), FACTS)
    assert files(tmp_path / "other") == {"note.txt": b"mine"}


def test_a_failure_leaves_the_former_index(tmp_path: Path) -> None:
    folder = write_index(tmp_path / "index", IDS, TEXTS, unit(TEXTS), FACTS)
    before = files(folder)
    with pytest.raises(ValueError, match="zip"):
        write_index(folder, IDS[:-1], TEXTS, unit(TEXTS), FACTS)
    assert files(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_a_folder_that_cannot_take_the_name_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "a").write_text("1")
    rename = __import__("os").rename

    def failing(source: Any, target: Any) -> None:
        if str(source).endswith(".tmp"):
            raise OSError("disk")
        rename(source, target)

    monkeypatch.setattr("os.rename", failing)
    with pytest.raises(OSError, match="disk"), atomic_folder(tmp_path / "old") as building:
        (building / "b").write_text("2")
    assert files(tmp_path / "old") == {"a": b"1"}
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def damage(folder: Path, name: str, change: Any) -> None:
    path = folder / name
    manifest = json.loads((folder / "manifest.json").read_text())
    if name == "manifest.json":
        path.write_text(json.dumps({**manifest, **change}))
    elif change is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:change])


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("manifest.json", {"format": 2}, "an index of format 2; this version reads 1"),
        ("manifest.json", {"kind": "run"}, "no index there"),
        ("manifest.json", {"rows": 23}, "23 rows are promised, 22 vectors and 22 documents there"),
        ("documents.jsonl", 40, "22 rows are promised"),
        ("documents.jsonl", None, "cannot be read"),
        ("vectors.npy", 40, "vectors.npy: cannot be read"),
        ("vectors.npy", None, "vectors.npy: cannot be read"),
    ],
)
def test_a_damaged_index_is_refused(tmp_path: Path, name: str, change: Any, message: str) -> None:
    folder = write_index(tmp_path / "index", IDS, TEXTS, unit(TEXTS), FACTS)
    damage(folder, name, change)
    with pytest.raises(InputError) as error:
        open_index(folder)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) <= 2


def test_where_nothing_is_there_is_no_index(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no index there"):
        open_index(tmp_path / "nowhere")
