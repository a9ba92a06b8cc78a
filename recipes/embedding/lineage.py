"""How a pair came to be, what became of it and which negatives it got, read from the run (`synth inspect`)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from recipes.lineage import EXAMPLES, the_one
from synth.records import schemas
from synth.records.lint import visible
from synth.store import RunFolder, Stage, read_json

Row = dict[str, Any]
SIDE = 28
"""Characters of either side that an example shows: what `synth inspect` prints of one is 60 long."""


def overview(run: RunFolder) -> Row:
    """{folder, domains: {NAME: {samples (pairs), kept, reasons: {DECISION: {count, examples}}}}}."""
    domains: dict[str, Row] = {}
    for row in Stage(run.root / "curated", schemas.pairs).each():
        entry = domains.setdefault(row["domain"], {"samples": 0, "kept": 0, "reasons": {}})
        entry["samples"] += 1
        entry["kept"] += row["decision"] == "kept"
        reason = row["decision_reason"]
        label = f"{row['decision']}: {reason}" if reason not in (None, row["decision"]) else row["decision"]
        found = entry["reasons"].setdefault(label, {"count": 0, "examples": []})
        found["count"] += 1
        if len(found["examples"]) < EXAMPLES:
            told = f"{row['query'][:SIDE]} -> {row['positive'][:SIDE]}"
            found["examples"].append({"sample_id": row["sample_id"], "completion": told})
    for entry in domains.values():
        entry["reasons"] = dict(sorted(entry["reasons"].items(), key=lambda item: -item[1]["count"]))
    return {"folder": str(run.root), "domains": domains}


def history(run: RunFolder, sample_id: str) -> Row:
    """A pair's way: {sample_id, domain, pair, decision, decision_reason, matched_id, evidence, verdicts, rounds, made}.

    `rounds`: what each round mined for it, and the model that was trained on it. `made`: the history of what a
    generator wrote, None for a given pair. `sample_id` may be the beginning of one.
    """
    rows = {row["sample_id"]: row for row in Stage(run.root / "curated", schemas.pairs).each()}
    name = the_one(run, sample_id, rows)
    row = rows[name]
    verdicts = [
        {**verdict, "details": json.loads(verdict["details"])}
        for verdict in Stage(run.round(0) / "verdicts", schemas.verdicts).each()
        if verdict["sample_id"] == name
    ]
    shown = ("query", "positive", "instruction", "source", "group", "meta")
    return {
        "sample_id": name,
        "domain": row["domain"],
        "pair": {key: row[key] for key in shown if row[key]},
        "decision": row["decision"],
        "decision_reason": row["decision_reason"],
        "matched_id": row["matched_id"],
        "evidence": row["evidence"],
        "verdicts": verdicts,
        "rounds": list(_rounds(run, name)) if row["decision"] == "kept" else [],
        "made": _made(run, name),
    }


def _rounds(run: RunFolder, name: str) -> Iterator[Row]:
    for index in run.rounds():
        for row in Stage(run.round(index) / "dataset", schemas.pairs).each():
            if row["sample_id"] == name:
                trained = read_json(run.round(index) / "training" / "manifest.json") or {}
                yield {
                    "round": index,
                    "negatives": row["negatives"],
                    "mined": json.loads(row["evidence"]) if row["evidence"] else None,
                    "model_hash": trained.get("model"),
                    "accepted": (run.metrics(index) or {}).get("accepted"),
                }


def _made(run: RunFolder, name: str) -> Row | None:
    pairs = RunFolder(run.root / "pairs")
    if not pairs.recipe.exists():
        return None
    from recipes.generation import lineage

    known = {row["sample_id"] for row in Stage(pairs.round(0) / "dataset", schemas.generated).each()}
    return lineage.history(pairs, name) if name in known else None


def history_text(found: Mapping[str, Any]) -> str:
    """The same for people; control characters are shown as escapes."""
    lines = [f"sample {found['sample_id']}  domain {found['domain']}"]
    lines += [f"{name}: {visible(str(value))}" for name, value in found["pair"].items()]
    for verdict in found["verdicts"]:
        judged = f"{verdict['status']}, {verdict['reason']}, reward {verdict['reward']}"
        lines.append(f"--- verdict {verdict['verifier']}: {judged}")
        lines.append(f"    {json.dumps(verdict['details'], ensure_ascii=True)}")
    reason = found["decision_reason"]
    lines.append(f"--- {found['decision']}" + (f": {reason}" if reason else ""))
    if found["matched_id"]:
        lines.append(f"    matched {found['matched_id']}")
    if found["evidence"]:
        lines.append(f"    {found['evidence']}")
    for each in found["rounds"]:
        lines += _round_lines(each)
    if found["made"] is not None:
        from recipes.generation.lineage import history_text as made_text

        lines += ["=== made", made_text(found["made"])]
    return "\n".join(lines)


def _round_lines(each: Mapping[str, Any]) -> list[str]:
    mined = each["mined"] or {}
    score = mined.get("positive_score")
    lines = [f"--- round {each['round']:02d}" + ("" if score is None else f": positive {score:.3f}")]
    brought = mined.get("kept", len(each["negatives"]))
    for number, text in enumerate(each["negatives"]):
        told = "brought along"
        if number >= brought:
            place = number - brought
            told = f"rank {mined['ranks'][place]}, score {mined['scores'][place]:.3f}"
        lines.append(f"    negative ({told}): {visible(text[:160])}")
    if each["model_hash"]:
        lines.append(f"    trained on: model {each['model_hash']}, accepted {each['accepted']}")
    return lines
