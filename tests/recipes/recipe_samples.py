"""A small recipe for tests, as a mapping and as a file."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

ROWS = [
    {"question": f"What is {i} + 1?", "answer": f"{i} + 1 = {i + 1}\n#### {i + 1}", "level": i % 3}
    for i in range(8)
]

TREE: dict[str, Any] = {
    "name": "small",
    "model": "builtin:tiny",
    "engine": {"name": "replay", "options": {"path": "completions.jsonl"}},
    "domains": {
        "math": {
            "train": "train.jsonl",
            "held_out": "test.jsonl",
            "columns": {"prompt": "question", "reference": {"column": "answer", "regex": r"####\s*(.+)$"}},
            "verifier": "math",
        }
    },
}


def tree(**changes: Any) -> dict[str, Any]:
    """The small recipe with dotted keys changed: `tree(**{"train.lr": 1})`."""
    result = copy.deepcopy(TREE)
    for path, value in changes.items():
        here = result
        *above, last = path.split(".")
        for part in above:
            here = here.setdefault(part, {})
        here[last] = value
    return result


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def with_data(folder: Path, **changes: Any) -> dict[str, Any]:
    """The small recipe with its data files written into `folder`; 6 problems to train on, 2 held out, 2 completions."""
    train = write_rows(folder / "train.jsonl", ROWS[:6])
    test = write_rows(folder / "test.jsonl", ROWS[6:])
    answers = [
        {"prompt": row["question"], "completion": f"So it is #### {i + index}"}
        for i, row in enumerate(ROWS)
        for index in (1, 2)
    ]
    replay = write_rows(folder / "completions.jsonl", answers)
    paths = {
        "domains.math.train": str(train),
        "domains.math.held_out": str(test),
        "engine.options": {"path": str(replay)},
        "sampling.max_tokens": 32,
    }
    return tree(**{**paths, **changes})
