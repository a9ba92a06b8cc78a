"""What a `safety` run asked and how it was judged, read from its directory (`synth inspect`)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recipes.lineage import EXAMPLES, the_one
from recipes.status import stage_rows
from synth.store import RunFolder

Row = dict[str, Any]


def overview(run: RunFolder) -> Row:
    """Counts by domain and verdict, with examples, of the base, the aligned model and every attack that is there."""
    domains: dict[str, Row] = {}
    for label, place in _evaluations(run):
        verdicts = {row["sample_id"]: row for row in stage_rows(place / "verdicts")}
        for row in stage_rows(place / "completions"):
            verdict = verdicts.get(row["sample_id"])
            entry = domains.setdefault(f"{row['domain']}, {label}", {"samples": 0, "kept": 0, "reasons": {}})
            entry["samples"] += 1
            passed = verdict is not None and verdict["status"] == "pass"
            entry["kept"] += passed
            reason = f"{verdict['status']}: {verdict['reason']}" if verdict else "not judged yet"
            found = entry["reasons"].setdefault(reason, {"count": 0, "examples": []})
            found["count"] += 1
            if len(found["examples"]) < EXAMPLES:
                found["examples"].append(
                    {"sample_id": row["sample_id"], "completion": row["completion"][-160:]}
                )
    for entry in domains.values():
        entry["reasons"] = dict(sorted(entry["reasons"].items(), key=lambda item: -item[1]["count"]))
    return {"folder": str(run.root), "domains": domains}


def history(run: RunFolder, sample_id: str) -> Row:
    """One answer: by which model, to what, and its verdict."""
    rows = {
        row["sample_id"]: (label, place, row)
        for label, place in _evaluations(run)
        for row in stage_rows(place / "completions")
    }
    label, place, row = rows[the_one(run, sample_id, list(rows))]
    verdicts = [
        {**verdict, "details": json.loads(verdict["details"])}
        for verdict in stage_rows(place / "verdicts")
        if verdict["sample_id"] == row["sample_id"]
    ]
    return {
        "sample_id": row["sample_id"],
        "problem_id": row["problem_id"],
        "domain": row["domain"],
        "round": 0,
        "index": row["index"],
        "sampler": {"hash": None, "from": label},
        "sampling": {"temperature": 0.0},
        "prompt": row["prompt"],
        "completion": row["completion"],
        "finish_reason": row["finish_reason"],
        "error": row["error"],
        "verdicts": verdicts,
        "decision": "measured",
        "decision_reason": None,
        "source": "sampled",
        "matched": None,
        "trained_in": [],
    }


def _evaluations(run: RunFolder) -> Iterator[tuple[str, Path]]:
    yield "base", run.base / "evaluation"
    yield "aligned", run.round(0) / "evaluation"
    for attack in sorted((run.round(0) / "attacks").glob("*")):
        for place in sorted(attack.glob("step-*")):
            yield f"{attack.name}, {place.name}", place / "evaluation"
        yield f"{attack.name}, last step", attack / "evaluation"
