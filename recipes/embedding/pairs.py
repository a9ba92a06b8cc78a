"""Pairs of a recipe: read from their source or from the run that wrote them, columns mapped, ids given.

A pair is a dict: `sample_id, problem_id, domain, query, positive, negatives, instruction, source, group, meta` and,
under `known`, all that its verifier may look at.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from recipes.embedding.checks import PAIR
from recipes.generated import is_run, kept_by_run, kept_rows, meta_of
from recipes.problems import Loaded, Unusable, check_columns, collect, column_value, lookup, source_columns
from recipes.reading import read_source
from recipes.schema import Source
from synth.records.errors import InputError
from synth.records.ids import content_hash, problem_id
from synth.records.jsonl import repair_text
from synth.store import RunFolder

if TYPE_CHECKING:
    from recipes.embedding.schema import EmbeddingDomain, EmbeddingRecipe

Row = dict[str, Any]
NEEDED = ("query", "positive")
DOCUMENT = ("document_id", "passage_id", "path")
"""What generators leave in `meta` that says from which document a pair comes."""
_HASH = re.compile(r"[0-9a-f]{16}")
"""The form of `content_hash`."""


def given_pairs(recipe: EmbeddingRecipe, name: str, part: str) -> Loaded:
    """The pairs of a domain's source `part` (`train` or `held_out`), each once, with the negatives of all rows that
    have it. Unusable rows are set aside.

    Raises InputError for a missing column, an empty source, or more unusable rows than `problems.max_bad`.
    """
    domain, where = recipe.domains[name], f"domains.{name}.{part}"
    source = getattr(domain, part)
    raw = list(_source_rows(source, where))
    if not raw:
        raise InputError(where, f"{source.path} holds no rows", "check path, split and limit")
    columns = {column: spec for column, spec in domain.columns.items() if column in PAIR}
    if part == "held_out":  # need not have what only training reads
        columns = {c: spec for c, spec in columns.items() if c in NEEDED or _held(raw, spec)}
    check_columns(raw, columns, NEEDED, where, "training")
    first: dict[str, Row] = {}

    def made(row: Row) -> Row:
        pair = _given(name, domain, row, columns)
        earlier = first.setdefault(pair["sample_id"], pair)
        if earlier is not pair:
            _add_negatives(earlier, pair)
        return pair

    return collect(
        raw,
        made,
        "pair",
        "sample_id",
        where,
        recipe.problems.max_bad,
    )


def _held(raw: Iterable[Mapping[str, Any]], spec: Any) -> bool:
    return any(lookup(row, column) is not None for column in source_columns(spec) for row in raw)


def _source_rows(source: Source, where: str) -> Iterator[Row]:
    """Rows of a source; of a finished run of kind `generate` the kept ones, with what their `meta` says."""
    if not is_run(source):
        yield from read_source(source, where)
        return
    for row in kept_by_run(source, where):
        # `source` is the generator's name there: no task or data set.
        plain = {key: row[key] for key in PAIR if key != "source" and row.get(key) is not None}
        yield {**meta_of(row), **plain}


def _given(name: str, domain: EmbeddingDomain, row: Row, columns: Mapping[str, Any]) -> Row:
    content = dict(row)
    for column, spec in columns.items():
        if column in NEEDED or all(lookup(row, each) is not None for each in source_columns(spec)):
            content[column] = column_value(column, row, spec)
    for column in NEEDED:
        if not isinstance(content.get(column), str) or not content[column].strip():
            raise Unusable(f"no text in {column}")
    negatives = content.get("negatives") or []
    negatives = [negatives] if isinstance(negatives, str) else negatives  # data of triplets have one a row
    if not isinstance(negatives, list) or not all(isinstance(text, str) for text in negatives):
        raise Unusable("negatives are neither a text nor a list of texts")
    own = content.get("instruction")
    if own is not None and not isinstance(own, str):
        raise Unusable("instruction is no text")
    content |= {"negatives": negatives, "instruction": own or domain.instruction}
    named = (content[each] for each in ("query", "positive", "instruction"))
    return _pair(name, content_hash("pair", name, *named), content)


def _add_negatives(pair: Row, again: Row) -> None:
    """Give the pair what the same pair of a later row has for negatives."""
    for row, more in ((pair, again), (pair["known"], again["known"])):
        row["negatives"] = list(dict.fromkeys([*row["negatives"], *more["negatives"]]))
    pair["text_repaired"] |= again["text_repaired"]


def written_pairs(recipe: EmbeddingRecipe, pairs: RunFolder) -> list[Row]:
    """The pairs that the nested run of the recipe's generators kept."""
    rows = []
    for row in kept_rows(pairs):
        known = {**meta_of(row), **{column: row[column] for column in PAIR if row.get(column) is not None}}
        known["instruction"] = row["instruction"] or recipe.domains[row["domain"]].instruction
        known.pop("source")  # the generator's name: no task or data set
        rows.append(_pair(row["domain"], row["sample_id"], known))
    return rows


def _pair(domain: str, sample_id: str, content: Row) -> Row:
    group = content.get("group")
    kind = content.get("type") if isinstance(content.get("type"), str) else None
    meta = {key: value for key, value in content.items() if key not in PAIR}
    texts = {
        "query": content["query"],
        "positive": content["positive"],
        "negatives": list(content["negatives"]),
        "instruction": content["instruction"],
        "source": str(content.get("source") or (f"{domain}/{kind}" if kind else domain)),
        "group": None if group is None else str(group),
        "meta": json.dumps(meta, ensure_ascii=True, sort_keys=True),
    }
    repaired = {name: _repaired(value) for name, value in texts.items()}
    return {
        "sample_id": sample_id,
        "problem_id": problem_id(domain, {"query": content["query"]}),
        "domain": domain,
        **repaired,
        "text_repaired": repaired != texts,
        "known": content,
    }


def _repaired(value: Any) -> Any:
    """Texts without halves of surrogate pairs, which neither Arrow nor a tokenizer takes."""
    if isinstance(value, list):
        return [_repaired(each) for each in value]
    return repair_text(value)[0] if isinstance(value, str) else value


def documents_of(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Every name of the document that a pair was made from, as far as one is known: (column, value).

    Two generators may have read one document and know it by different names, so each of them counts.
    """
    meta = meta_of(row)
    return [(name, str(meta[name])) for name in DOCUMENT if meta.get(name) is not None]


def documents_anywhere(row: Mapping[str, Any], source: str) -> list[tuple[str, ...]]:
    """The same as names that hold beyond `source`, what the pair's domain reads: 3 in one file is not 3 in another, but
    an absolute path and a hash of a text mean the same everywhere."""

    def anywhere(name: str, value: str) -> bool:
        return os.path.isabs(value) if name == "path" else bool(_HASH.fullmatch(value))

    return [named if anywhere(*named) else (source, *named) for named in documents_of(row)]


def distractor_texts(recipe: EmbeddingRecipe, name: str) -> list[str]:
    """The documents of `domains.NAME.distractors`, each once, in order. Raises InputError where a row has none."""
    source = recipe.domains[name].distractors
    if source is None:
        return []
    where = f"domains.{name}.distractors"
    texts: dict[str, None] = {}
    for number, row in enumerate(_source_rows(source, where), start=1):
        text = next((row[key] for key in ("positive", "text") if isinstance(row.get(key), str)), None)
        if text is None:
            has = ", ".join(map(str, row))
            raise InputError(f"{where}, row {number}", "no text in positive or text", f"rows have: {has}")
        texts.setdefault(text)
    if not texts:
        raise InputError(where, f"{source.path} holds no rows", "check path, split and limit")
    return list(texts)
