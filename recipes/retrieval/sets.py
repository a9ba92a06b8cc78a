"""Retrieval sets: queries, a corpus, and which documents answer which query.

They come from a folder in BEIR's layout (Thakur et al., arXiv 2104.08663), from rows of pairs, or from mteb (mteb.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synth.curate.text import normalise
from synth.records.errors import InputError, did_you_mean
from synth.records.ids import content_hash
from synth.records.jsonl import parse_line, read_lines
from synth.retrieval.documents import read_pairs

Grades = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class RetrievalSet:
    """queries and corpus: {id: text}. qrels: {query id: {document id: grade}}, above 0 where the document answers the
    query. `instruction` goes with every query, `instructions` {query id: text} with some in its place. Where
    `ignore_identical_ids`, a document that has its query's own id is left out, as BEIR does."""

    name: str
    queries: Mapping[str, str]
    corpus: Mapping[str, str]
    qrels: Grades
    instruction: str = ""
    instructions: Mapping[str, str] = field(default_factory=dict)
    ignore_identical_ids: bool = True

    def __post_init__(self) -> None:
        judged = self.judged
        if not judged:
            fix = "check the judgements (qrels)"
            raise InputError(self.name, "no query has a document that answers it", fix)
        if self.unfindable == sum(map(len, judged.values())):
            fix = "compare the ids"
            raise InputError(self.name, "no document that answers a query is in the corpus", fix)

    @property
    def judged(self) -> dict[str, dict[str, int]]:
        """{query id: {document id: grade above 0}} of the queries that are measured, sorted: those with an answer."""
        found = {}
        for query in sorted(self.qrels.keys() & self.queries.keys()):
            same = query if self.ignore_identical_ids else None
            grades = {id: grade for id, grade in self.qrels[query].items() if grade > 0 and id != same}
            if grades:
                found[query] = grades
        return found

    @property
    def unfindable(self) -> int:
        """How many answers are not in the corpus: no search finds them, and they count as not found."""
        return sum(id not in self.corpus for grades in self.judged.values() for id in grades)

    def instructions_of(self, queries: Sequence[str]) -> list[str]:
        """The instruction of each query."""
        return [self.instructions.get(query, self.instruction) for query in queries]


def pairs_set(
    name: str, rows: Iterable[Mapping[str, Any]], distractors: Iterable[str] = (), instruction: str = ""
) -> RetrievalSet:
    """Rows with `query`, `positive` and perhaps `instruction` as a set whose corpus are the positives and distractors.

    Texts that differ only in case and blanks are one; several positives of one query all answer it. A row's own
    instruction wins over `instruction`. Ids are hashes of the texts: they do not depend on the order of the rows.
    Raises InputError for rows that are no pairs.
    """
    queries: dict[str, str] = {}
    corpus: dict[str, str] = {}
    instructions: dict[str, str] = {}
    qrels: dict[str, dict[str, int]] = {}

    def add(texts: dict[str, str], kind: str, text: str, *more: str) -> str:
        id = content_hash(kind, normalise(text), *more)
        texts[id] = min(text, texts.get(id, text))
        return id

    for pair in read_pairs(rows):
        told = pair.instruction or instruction
        query = add(queries, "query", pair.query, told)
        instructions[query] = told
        qrels.setdefault(query, {})[add(corpus, "document", pair.positive)] = 1
    for text in distractors:
        add(corpus, "document", text)
    return RetrievalSet(name, queries, corpus, qrels, instruction, instructions)


def read_beir(
    folder: str | Path, split: str = "test", name: str | None = None, instruction: str = ""
) -> RetrievalSet:
    """A folder in BEIR's layout: queries.jsonl (`_id`, `text`), corpus.jsonl (`_id`, `title`, `text`; both may be .gz)
    and qrels/SPLIT.tsv (query id, document id, grade; with a header or without, or TREC's four columns).

    A document's text is its title, a blank and its text, as in BEIR. Judgements of other queries are passed over.
    Raises InputError naming file and line.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise InputError(
            str(folder), "no such folder", "name a folder with queries.jsonl, corpus.jsonl and qrels/"
        )
    queries = read_texts(_file(root, "queries"))
    corpus = read_texts(_file(root, "corpus"))
    table = root / "qrels" / f"{split}.tsv"
    if not table.is_file():
        known = [path.stem for path in sorted((root / "qrels").glob("*.tsv"))]
        raise InputError(str(table), "no such file", did_you_mean(split, known))
    return RetrievalSet(name or root.name, queries, corpus, _read_qrels(table), instruction)


def read_texts(path: Path) -> dict[str, str]:
    """{`_id`: title and text} of one of BEIR's JSONL files. Raises InputError naming the line."""
    texts: dict[str, str] = {}
    for number, line in read_lines(path):
        where = f"{path}, line {number}"
        row = parse_line(line, where)
        id = row.get("_id")
        if not isinstance(id, str | int) or id == "":
            raise InputError(where, "has no `_id`", "each line needs an id of its own")
        if str(id) in texts:
            raise InputError(where, f"the `_id` {id!r} stood before", "each line needs an id of its own")
        texts[str(id)] = document_text(row, where)
    if not texts:
        raise InputError(str(path), "is empty", "it needs one JSON object a line")
    return texts


def document_text(row: Mapping[str, Any], where: str) -> str:
    """A row's `title` (where it has one) and `text` with a blank between."""
    text, title = row.get("text"), row.get("title")
    if not isinstance(text, str):
        raise InputError(where, "has no `text`", did_you_mean("text", row))
    return f"{title} {text}".strip() if isinstance(title, str) and title else text


def _file(root: Path, stem: str) -> Path:
    found = [root / f"{stem}.jsonl{ending}" for ending in ("", ".gz")]
    present = next((path for path in found if path.is_file()), None)
    if present is None:
        raise InputError(
            str(found[0]), "no such file", "BEIR's layout has queries.jsonl, corpus.jsonl and qrels/"
        )
    return present


def _read_qrels(path: Path) -> Grades:
    qrels: dict[str, dict[str, int]] = {}
    for number, (query, document, grade) in _judgements(path):
        try:
            qrels.setdefault(query, {})[document] = int(grade)
        except ValueError:
            if number > 1:  # the first line may be a header
                where = f"{path}, line {number}"
                raise InputError(where, f"the grade is {grade!r}", "write a whole number") from None
            qrels.clear()
    return qrels


def _judgements(path: Path) -> Iterator[tuple[int, tuple[str, str, str]]]:
    """(line, (query id, document id, grade))."""
    for number, line in read_lines(path):
        cells = line.decode("utf-8", "replace").rstrip("\r\n").split("\t")
        if len(cells) not in (3, 4):
            fix = "write query id, document id and grade with tabs between"
            raise InputError(f"{path}, line {number}", f"has {len(cells)} columns", fix)
        yield number, (cells[0], cells[-2], cells[-1].strip())
