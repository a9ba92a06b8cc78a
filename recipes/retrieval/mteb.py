"""Retrieval and STS tasks of MTEB (Muennighoff et al., arXiv 2210.07316) by name, fetched by the package `mteb`.

Only the data are taken from it: metrics are those of evaluation.py. Of retrieval both of its layouts are read:
`task.dataset[subset][split]` with tables, and the older `task.queries[split]` with dicts that some tasks still have.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from recipes.retrieval.sets import RetrievalSet, document_text
from recipes.retrieval.sts import StsSet
from synth.records.errors import InputError, WorkError

KEY = "evaluate.mteb"
PIP = "pip install 'synthloop[mteb]'"


def find_task(name: str) -> Any:
    """The task of that name; nothing is fetched. Raises InputError for an unknown task or one that is neither retrieval
    nor STS, or where `mteb` is missing."""
    try:
        package: Any = importlib.import_module("mteb")
    except ImportError as error:
        raise InputError(KEY, f"'{name}' needs the package mteb ({error})", PIP) from None
    try:
        task = package.get_task(name)
    except KeyError as error:
        raise InputError(KEY, f"no task '{name}'", _first_line(error.args[0] if error.args else "")) from None
    if task.metadata.type not in ("Retrieval", "STS"):
        raise InputError(
            KEY, f"'{name}' is a task of type {task.metadata.type}", "name a task of type Retrieval or STS"
        )
    return task


def read_mteb(name: str, instruction: str = "") -> list[RetrievalSet | StsSet]:
    """The sets of a task, one for each subset and split that it evaluates on; a single one has the task's name, several
    are NAME/SUBSET/SPLIT. Raises what `find_task` raises, and WorkError when its data cannot be had."""
    task = find_task(name)
    try:
        task.load_data()
    except (OSError, ValueError, RuntimeError) as error:
        fix = "check the network, or use a folder in BEIR's layout"
        raise WorkError(KEY, f"the data of '{name}' could not be had ({_first_line(error)})", fix) from None
    if task.metadata.type == "STS":
        return _sentence_pairs(task, name, instruction)
    parts = list(_parts(task))
    same = bool(getattr(task, "ignore_identical_ids", False))
    return [
        RetrievalSet(
            name if len(parts) == 1 else f"{name}/{part}", queries, corpus, qrels, instruction, {}, same
        )
        for part, queries, corpus, qrels in parts
    ]


Part = tuple[str, Mapping[str, str], Mapping[str, str], Mapping[str, Mapping[str, int]]]


def _parts(task: Any) -> Iterator[Part]:
    """SUBSET/SPLIT, queries, corpus and judgements."""
    if not hasattr(task, "queries"):
        for subset, splits in task.dataset.items():
            for split, data in splits.items():
                qrels = data["relevant_docs"]
                yield f"{subset}/{split}", _texts(data["queries"]), _texts(data["corpus"]), qrels
        return
    older = (task.queries, task.corpus, task.relevant_docs)
    for subset in list(task.queries) if task.metadata.is_multilingual else [None]:
        queries, corpus, qrels = (each if subset is None else each[subset] for each in older)
        for split in queries:
            part = f"{subset or 'default'}/{split}"
            yield part, _texts(queries[split]), _texts(corpus[split]), qrels[split]


def _sentence_pairs(task: Any, name: str, instruction: str) -> list[RetrievalSet | StsSet]:
    """The sets of an STS task; the scale of its scores does not matter."""
    first, second = task.column_names
    parts = [
        (f"{subset}/{split}", task.dataset.get(subset, task.dataset)[split])
        for subset in task.hf_subsets
        for split in task.eval_splits
    ]
    return [
        StsSet(
            name if len(parts) == 1 else f"{name}/{part}",
            list(table[first]),
            list(table[second]),
            [float(score) for score in table["score"]],
            instruction,
        )
        for part, table in parts
    ]


def _texts(given: Any) -> dict[str, str]:
    """{id: text} of a table with `id`, `text` and perhaps `title`, or of a dict of texts or of such rows."""
    rows: Iterable[Mapping[str, Any]] = given
    if isinstance(given, Mapping):
        rows = ({**({"text": row} if isinstance(row, str) else row), "id": id} for id, row in given.items())
    return {str(row["id"]): document_text(row, f"mteb, id {row['id']}") for row in rows}


def _first_line(error: object) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0][:200]
