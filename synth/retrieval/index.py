"""An index folder: documents with their vectors, to be searched by hand or taken elsewhere.

manifest.json     format, model (path or name) and its hash, instruction, dimensions, rows, graph
vectors.npy       float32 [rows, dimensions], rows of length 1
documents.jsonl   {id, text}, row i being vector i
graph.usearch     where there are more than `EXACT_DOCUMENTS` rows: usearch's graph of neighbours, keys 0, 1, ...
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from synth.curate.embedding import Vectors
from synth.records.errors import InputError
from synth.records.jsonl import atomic_folder, parse_line, read_jsonl, read_lines, write_json, write_jsonl
from synth.retrieval.bm25 import BM25Search
from synth.retrieval.dense import DenseSearch
from synth.retrieval.ranking import Ranking
from synth.store import read_json

FORMAT = 1
MANIFEST, VECTORS, DOCUMENTS, GRAPH = "manifest.json", "vectors.npy", "documents.jsonl", "graph.usearch"


class Hit(NamedTuple):
    """One document found; `score` is a cosine, or BM25's."""

    rank: int
    score: float
    id: str
    text: str


def write_index(
    out: str | os.PathLike[str],
    ids: Sequence[str],
    texts: Sequence[str],
    vectors: Vectors,
    facts: Mapping[str, Any],
    exact: bool | None = None,
) -> Path:
    """Write a whole index folder in the place of a former one. vectors: unit rows [n, d]. facts: model, model_hash,
    instruction. exact: see `DenseSearch`. Raises InputError where `out` is something else than an index."""
    target = Path(out).expanduser().absolute()
    check_target(target)
    search = DenseSearch(vectors, exact)
    rows = ({"id": id, "text": text} for id, text in zip(ids, texts, strict=True))
    with atomic_folder(target) as building:
        np.save(building / VECTORS, vectors.astype(np.float32, copy=False))
        write_jsonl(building / DOCUMENTS, rows)
        if not search.exact:
            search.save(building / GRAPH)
        numbers = {"dimensions": int(vectors.shape[1]), "rows": len(vectors), "graph": not search.exact}
        write_json(building / MANIFEST, {"format": FORMAT, "kind": "index", **facts, **numbers})
    return target


def check_target(target: Path) -> None:
    """Raise InputError where `target` is there and no index."""
    there = target.exists() and not (target.is_dir() and not any(target.iterdir()))
    if there and _manifest(target) is None:
        raise InputError(str(target), "is there and is no index", "choose another --out")


def _manifest(folder: Path) -> dict[str, Any] | None:
    found = read_json(folder / MANIFEST) if folder.is_dir() else None
    return found if found is not None and found.get("kind") == "index" else None


@dataclass(frozen=True)
class Index:
    """An index folder, opened; vectors stay on disk until they are looked at."""

    folder: Path
    manifest: dict[str, Any]
    vectors: Vectors

    def search(self, query: Vectors, k: int) -> list[Hit]:
        """The k documents nearest to a query's unit vector [d]."""
        graph = self.folder / GRAPH if self.manifest["graph"] else None
        ranking = DenseSearch(self.vectors, graph is None, graph).search(query[None, :], k)[0]
        return self._hits(ranking)

    def search_words(self, query: str, k: int) -> list[Hit]:
        """The k best documents by BM25 of those that share a word with the query; all texts are read for it."""
        texts = [row["text"] for row in read_jsonl(self.folder / DOCUMENTS)]
        return self._hits(BM25Search(texts).search(query, k))

    def _hits(self, ranking: Ranking) -> list[Hit]:
        rows = dict(self._rows(set(ranking.documents.tolist())))
        found = zip(ranking.documents.tolist(), ranking.scores.tolist(), strict=True)
        return [
            Hit(rank, score, rows[number]["id"], rows[number]["text"])
            for rank, (number, score) in enumerate(found, start=1)
        ]

    def _rows(self, wanted: set[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        path = self.folder / DOCUMENTS
        for number, (place, line) in enumerate(read_lines(path)):
            if number in wanted:
                yield number, parse_line(line, f"{path}, line {place}")


def open_index(folder: str | os.PathLike[str]) -> Index:
    """The index in a folder. Raises InputError where it is none, of another format, or not whole."""
    path = Path(folder).expanduser()
    manifest = _manifest(path)
    if manifest is None:
        raise InputError(str(folder), "no index there", "make one with `synth index`")
    if manifest.get("format") != FORMAT:
        seen = f"an index of format {manifest.get('format')}; this version reads {FORMAT}"
        raise InputError(str(folder), seen, "make the index again")
    try:
        vectors = np.load(path / VECTORS, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise InputError(str(path / VECTORS), f"cannot be read ({error})", "make the index again") from None
    rows = sum(1 for _ in read_lines(path / DOCUMENTS))
    if vectors.shape != (manifest["rows"], manifest["dimensions"]) or rows != manifest["rows"]:
        seen = f"{manifest['rows']} rows are promised, {len(vectors)} vectors and {rows} documents there"
        raise InputError(str(folder), seen, "make the index again")
    return Index(path, manifest, vectors)
