"""What curation did to rows, for people: OUTPUT.report.md and .json, and OUTPUT.topics.png.

The funnel with the reasons and examples of each, the largest groups of duplicates, which evaluation texts rows came too
close to, length and diversity before and after (and against other rows, such as the previous round's), and a map of
topics. Measured on samples of at most `SAMPLE` rows, the same ones for the same input.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from synth.curate import measures, topics
from synth.curate.curation import Curation, Decision
from synth.curate.embedding import Vectors, unit
from synth.curate.grams import Counts
from synth.curate.text import columns_text
from synth.curate.vectors import WordVectors
from synth.records.errors import InputError
from synth.records.jsonl import atomic_write, write_json

if TYPE_CHECKING:
    from synth.curate.pipeline import CurateResult

SAMPLE = 2000
EXAMPLES = 3
CLUSTERS = 10
MEASURED = 20_000
"""Characters of a text that are measured: a text may be a book, and thousands of them are held."""
MAPPED = 30
"""Rows that a map of topics needs to say anything."""
SHOWN_CHARACTERS = 300
Row = Mapping[str, Any]


class _Text(NamedTuple):
    """What is measured of a text, its beginning, and the characters that all of it has."""

    begun: str
    length: int


class Report:
    """Made of what was decided; `wanted` rows are then shown to it by `see`, and it is written."""

    def __init__(
        self,
        curation: Curation,
        compared: Iterable[Row] | None = None,
        columns: tuple[str, ...] | None = None,
    ) -> None:
        """compared: other rows, which the kept ones' length and diversity are set against. columns: those that are
        measured, if not all compared ones."""
        self.curation, self.decided = curation, curation.decided
        self._columns = columns or curation.options.text_columns
        draw = np.random.default_rng(0)
        kept = np.array([index for index in range(curation.rows) if index not in self.decided], np.int64)
        self._given = _sample(draw, np.arange(curation.rows))
        self._kept = _sample(draw, kept)
        self._examples = _first_rows(self.decided)
        self._clusters = _clusters(self.decided)
        shown = (row for rows in (*self._examples.values(), *self._clusters.values()) for row in rows)
        self.wanted = {*self._given.tolist(), *self._kept.tolist(), *shown, *self._clusters}
        self._texts: dict[int, _Text] = {}
        self._shown: dict[int, str] = {}
        self._others = list(_reservoir(draw, map(self._measured, compared or ())))
        if self._others and not any(text.length for text in self._others):
            names = ", ".join(self._columns)
            raise InputError("--compare", f"no row has text in {names}", "compare rows of the same columns")

    def _measured(self, row: Row) -> _Text:
        whole = "\n".join(filter(None, columns_text(row, self._columns)))
        return _Text(whole[:MEASURED], len(whole))

    def see(self, index: int, row: Row) -> None:
        """One of the wanted rows."""
        parts = [text for text in columns_text(row, self.curation.options.text_columns) if text]
        self._texts[index] = self._measured(row)
        # Rows often differ in the last column alone, so each is shown.
        each = SHOWN_CHARACTERS // max(len(parts), 1)
        self._shown[index] = " / ".join(text if len(text) <= each else text[:each] + "..." for text in parts)

    def write(self, output: str | os.PathLike[str]) -> list[str]:
        """Write the files beside `output`; returns what must not go unseen (a fall of diversity)."""
        picture = Path(f"{os.fspath(output)}.topics.png")
        facts = {**self.facts(), "topics": self._draw(picture)}
        if facts["topics"] is None:
            picture.unlink(missing_ok=True)  # an earlier call's
        write_json(f"{os.fspath(output)}.report.json", facts)
        with atomic_write(f"{os.fspath(output)}.report.md") as handle:
            lines = "\n".join(_markdown(facts, Path(output).name, picture.name))
            handle.write(f"{lines}\n".encode("utf-8", "backslashreplace"))
        return facts["warnings"]

    def facts(self) -> dict[str, Any]:
        """Everything the report says but for the topics."""
        counts = Counter(decision.reason for decision in self.decided.values())
        reasons = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        sizes = Counter(winner for winner, _ in _matches(self.decided))
        diversity = self._diversity()
        before = diversity.get("compared", diversity["given"])
        return {
            "funnel": _funnel(self.curation.rows, counts),
            "reasons": {
                reason: {"count": count, "examples": [self._example(index) for index in self._examples[reason]]}
                for reason, count in reasons
            },
            "clusters": [
                {"survivor": self.curation.name(winner), "rows": sizes[winner] + 1, "text": self._shown[winner],
                 "dropped": [self._shown[row] for row in rows]}
                for winner, rows in self._clusters.items()
            ],
            "contaminated": _contaminated(self.decided),
            "diversity": diversity,
            "warnings": measures.warnings(before, diversity["kept"]),
        }  # fmt: skip

    def _example(self, index: int) -> dict[str, Any]:
        decision = self.decided[index]
        told = {
            "row": self.curation.name(index),
            "text": self._shown[index],
            "matched_id": decision.matched_id,
        }
        if decision.match is not None:
            told |= {
                "match": decision.match.match,
                "share": decision.match.share,
                "ngram": decision.match.ngram,
            }
        return told

    def _diversity(self) -> dict[str, Any]:
        """Measures of the rows read, of those kept and of the other file, of equally many texts and words."""
        texts = {
            "given": [self._texts[index] for index in self._given.tolist()],
            "kept": [self._texts[index] for index in self._kept.tolist()],
        }
        if self._others:
            texts["compared"] = self._others
        fewest = min((len(each) for each in texts.values() if each), default=0)
        texts = {name: each[:fewest] for name, each in texts.items()}
        begun = {name: [text.begun for text in each] for name, each in texts.items()}
        budget = min((measures.words_in(each) for each in begun.values() if each), default=0)
        vectors = self._vectors(begun)
        result, begin = {}, 0
        for name, each in begun.items():
            lengths = [text.length for text in texts[name]]
            result[name] = measures.measure(each, vectors[begin : begin + len(each)], budget, lengths)
            begin += len(each)
        return result

    def _vectors(self, sets: Mapping[str, Sequence[str]]) -> Vectors:
        """Vectors of the texts of all sets. Words are weighed as they are rare in what the kept rows are set against:
        rows that are all alike would make their own words count for nothing."""
        texts = [text for each in sets.values() for text in each]
        embed = self.curation.embed
        if embed is not None and texts:
            return unit(embed(texts))
        words = WordVectors()
        words.add(texts)
        others = len(sets.get("compared", ()))
        weighed = range(len(texts) - others, len(texts)) if others else range(len(sets["given"]))
        return words.vectors(range(len(texts)), weighed)

    def _draw(self, path: Path) -> list[dict[str, Any]] | None:
        """The map of a sample of all rows; what its topics are called, and how many of their rows stayed."""
        rows = self._given[: topics.MOST].tolist()
        texts = [self._texts[index].begun for index in rows]
        embed = self.curation.embed
        if len(texts) < MAPPED:
            return None
        found = topics.find_topics(texts, unit(embed(texts)) if embed is not None else None)
        if found is None:
            return None
        stays = [index not in self.decided for index in rows]
        topics.draw(
            path, found, stays, f"{len(rows)} of {self.curation.rows:,} rows, {sum(stays)} of them kept"
        )
        of = [(group, stay) for group, stay in zip(found.groups.tolist(), stays, strict=True)]
        return [
            {"name": name, "kept": of.count((group, True)), "dropped": of.count((group, False))}
            for group, name in enumerate(found.names)
        ]


def report_on(
    result: CurateResult,
    rows: Sequence[Row],
    output: str | os.PathLike[str],
    compared: Iterable[Row] | None = None,
    columns: tuple[str, ...] | None = None,
) -> list[str]:
    """Write the report on curated `rows` beside `output`; returns its warnings. compared, columns: see `Report`."""
    report = Report(result.curation, compared, columns)
    for index in sorted(report.wanted):
        report.see(index, rows[index])
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    return report.write(output)


def _sample(draw: np.random.Generator, rows: Counts) -> Counts:
    return draw.permutation(rows)[:SAMPLE]


def _reservoir(draw: np.random.Generator, texts: Iterable[_Text]) -> list[_Text]:
    """`SAMPLE` texts, each with the same chance, of texts that need not be in memory (Vitter 1985, algorithm R)."""
    held: list[_Text] = []
    for number, text in enumerate(texts):
        if number < SAMPLE:
            held.append(text)
        elif (place := int(draw.integers(number + 1))) < SAMPLE:
            held[place] = text
    return held


def _matches(decided: Mapping[int, Decision]) -> Iterator[tuple[int, int]]:
    """(survivor, dropped row) of each duplicate whose survivor is a row of this file."""
    for index, decision in decided.items():
        if decision.reason == "duplicate" and decision.winner is not None:
            yield decision.winner, index


def _first_rows(decided: Mapping[int, Decision]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for index in sorted(decided):
        rows = found.setdefault(decided[index].reason, [])
        if len(rows) < EXAMPLES:
            rows.append(index)
    return found


def _clusters(decided: Mapping[int, Decision]) -> dict[int, list[int]]:
    """{survivor: its first dropped rows} of the largest groups of duplicates."""
    sizes = Counter(winner for winner, _ in _matches(decided))
    largest = sorted(sizes, key=lambda winner: (-sizes[winner], winner))[:CLUSTERS]
    rows: dict[int, list[int]] = {winner: [] for winner in largest}
    for winner, index in sorted(_matches(decided)):
        if winner in rows and len(rows[winner]) < EXAMPLES:
            rows[winner].append(index)
    return rows


_LOST_AT = {
    "failed": 1,
    "error": 1,
    "low_reward": 1,
    "duplicate": 2,
    "duplicate_reasoning": 2,
    "contaminated": 3,
}


def _funnel(rows: int, counts: Mapping[str, int]) -> dict[str, int]:
    """Rows after each stage: read, passed, unique, clean, kept."""
    lost = Counter[int]()
    for reason, count in counts.items():
        lost[_LOST_AT.get(reason.partition(":")[0], 4)] += count
    names = ("read", "passed", "unique", "clean", "kept")
    return {name: rows - sum(lost[stage] for stage in range(place + 1)) for place, name in enumerate(names)}


def _contaminated(decided: Mapping[int, Decision]) -> dict[str, Any]:
    """How rows matched evaluation texts, and the texts that most rows matched."""
    matches = [decision.match for decision in decided.values() if decision.match is not None]
    texts = Counter(match.matched_id for match in matches)
    most = sorted(texts.items(), key=lambda item: (-item[1], item[0]))[:CLUSTERS]
    return {"by_match": dict(sorted(Counter(match.match for match in matches).items())), "most": dict(most)}


# ---- Markdown ----------------------------------------------------------------------------------------------------


def _markdown(facts: Mapping[str, Any], output: str, picture: str) -> Iterator[str]:
    yield f"# Curation of {output}"
    yield from ("", *(f"**{warning}**" for warning in facts["warnings"]))
    yield from ("", "| stage | rows |", "|---|---|")
    yield from (f"| {name} | {count:,} |" for name, count in facts["funnel"].items())
    yield from ("", "## Why rows were dropped", "")
    for reason, entry in facts["reasons"].items():
        yield f"- **{_plain(reason)}**: {entry['count']:,}"
        for example in entry["examples"]:
            like = f", like {_plain(example['matched_id'])}" if example["matched_id"] else ""
            by = f" ({example['match']}, share {example['share']:.2f})" if "match" in example else ""
            yield f"  - {_plain(example['row'])}{like}{by}: {_plain(example['text'])}"
    if facts["clusters"]:
        yield from ("", "## Largest groups of duplicates", "")
        for cluster in facts["clusters"]:
            yield f"- {cluster['rows']:,} rows, kept {_plain(cluster['survivor'])}: {_plain(cluster['text'])}"
            yield from (f"  - {_plain(text)}" for text in cluster["dropped"])
    if facts["contaminated"]["most"]:
        yield from ("", "## Evaluation texts that rows came too close to", "")
        yield from (f"- {_plain(name)}: {count:,}" for name, count in facts["contaminated"]["most"].items())
    yield from _diversity_table(facts["diversity"])
    if facts["topics"]:
        yield from (
            "",
            "## Topics",
            "",
            f"![topics]({picture})",
            "",
            "| topic | kept | dropped |",
            "|---|---|---|",
        )
        yield from (f"| {_plain(t['name'])} | {t['kept']} | {t['dropped']} |" for t in facts["topics"])


def _diversity_table(diversity: Mapping[str, Any]) -> Iterator[str]:
    texts = ", ".join(f"{name} {figures['texts']:,}" for name, figures in diversity.items())
    yield from (
        "",
        "## Length and diversity",
        "",
        f"Of a sample ({texts} rows), equally many words of each.",
        "",
    )
    yield "| | " + " | ".join(diversity) + " |"
    yield "|---" * (len(diversity) + 1) + "|"
    rows = {
        "words, median (5 % to 95 %)": [
            f"{d['words']['median']:g} ({d['words']['p5']:g} to {d['words']['p95']:g})" for d in diversity.values()
        ],
        **{
            title: ["-" if d[name] is None else f"{d[name]:.3f}" for d in diversity.values()]
            for title, name in (
                ("distinct-1", "distinct_1"), ("distinct-2", "distinct_2"), ("distinct-3", "distinct_3"),
                ("self-BLEU", "self_bleu"), ("spread of embeddings", "spread"),
            )
        },
        "commonest opening": [
            f"{_plain(d['opening']['text'])} ({d['opening']['share']:.1%})" if "opening" in d else "-"
            for d in diversity.values()
        ],
    }  # fmt: skip
    yield from (f"| {title} | " + " | ".join(cells) + " |" for title, cells in rows.items())


def _plain(text: str) -> str:
    """A text of unknown origin on one line, without what Markdown or a table would take for its own."""
    line = " ".join(str(text).split())
    return "".join(f"\\{character}" if character in "\\`*_[]<>|#" else character for character in line)
