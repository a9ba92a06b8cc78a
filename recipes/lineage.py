"""Where a sample came from and what became of it, read from the run directory (`synth inspect`, cards)."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from recipes.embedding.schema import EMBEDDING
from recipes.generation.schema import GENERATE
from recipes.safety.schema import SAFETY
from recipes.status import open_run, stage_rows
from synth.records.errors import InputError, did_you_mean
from synth.records.lint import visible
from synth.store import RunFolder, read_json

Row = dict[str, Any]
EXAMPLES = 3
"""Examples shown for each reason."""


def inspect(folder: str | os.PathLike[str], sample_id: str | None = None) -> Row:
    """A sample's whole history; without an id, counts by domain and reason with examples.

    `sample_id` may be the beginning of one, if it is the only one that begins so. Raises InputError if there is none.
    """
    run = open_run(folder)
    if (run.manifest() or {}).get("kind") == GENERATE:
        from recipes.generation import lineage

        return lineage.overview(run) if sample_id is None else lineage.history(run, sample_id)
    if (run.manifest() or {}).get("kind") == EMBEDDING:
        from recipes.embedding import lineage as pairs

        return pairs.overview(run) if sample_id is None else pairs.history(run, sample_id)
    if (run.manifest() or {}).get("kind") == SAFETY:
        from recipes.safety import lineage as answers

        return answers.overview(run) if sample_id is None else answers.history(run, sample_id)
    return _overview(run) if sample_id is None else _history(run, sample_id)


# ---- All samples -------------------------------------------------------------------------------------------------


def _overview(run: RunFolder) -> Row:
    domains: dict[str, Row] = {}
    for index in run.rounds():
        verdicts = {row["sample_id"]: row for row in stage_rows(run.round(index) / "verdicts")}
        decisions = {row["sample_id"]: row for row in stage_rows(run.round(index) / "dataset")}
        for row in _samples(run, index):
            entry = domains.setdefault(row["domain"], {"samples": 0, "kept": 0, "reasons": {}})
            entry["samples"] += 1
            decision, reason = _fate(verdicts.get(row["sample_id"]), decisions.get(row["sample_id"]))
            entry["kept"] += decision == "kept"
            label = f"{decision}: {reason}" if reason else decision
            found = entry["reasons"].setdefault(label, {"count": 0, "examples": []})
            found["count"] += 1
            if len(found["examples"]) < EXAMPLES:
                found["examples"].append(
                    {"sample_id": row["sample_id"], "completion": row["completion"][-160:]}
                )
    for entry in domains.values():
        entry["reasons"] = dict(sorted(entry["reasons"].items(), key=lambda item: -item[1]["count"]))
    return {"folder": str(run.root), "domains": domains}


def _samples(run: RunFolder, index: int) -> list[Row]:
    """A round's samples: its completions, or the dataset rows of a recipe that was given its rows."""
    return stage_rows(run.round(index) / "completions") or stage_rows(run.round(index) / "dataset")


def _fate(verdict: Row | None, decision: Row | None) -> tuple[str, str | None]:
    """(kept, rejected or undecided; reason) of a sample."""
    if decision is not None:
        return decision["decision"], decision["decision_reason"]
    return ("undecided", verdict["reason"]) if verdict is not None else ("undecided", "not judged yet")


# ---- One sample --------------------------------------------------------------------------------------------------


def _history(run: RunFolder, sample_id: str) -> Row:
    index, completion = _find(run, sample_id)
    name, folder, sampled = completion["sample_id"], run.round(index), "sampling_seed" in completion
    verdicts = [
        {**row, "details": _parsed(row["details"])}
        for row in stage_rows(folder / "verdicts")
        if row["sample_id"] == name
    ]
    decision = next((row for row in stage_rows(folder / "dataset") if row["sample_id"] == name), None)
    return {
        "sample_id": name,
        "problem_id": completion["problem_id"],
        "domain": completion["domain"],
        "round": index,
        "index": completion.get("index"),
        "sampler": _sampler(run, index) if sampled else {"hash": None, "from": "a given row"},
        "sampling": _sampling(run, completion) if sampled else {},
        "prompt": completion["prompt"],
        "completion": completion["completion"],
        "finish_reason": completion.get("finish_reason"),
        "error": completion.get("error"),
        "verdicts": verdicts,
        "decision": decision["decision"] if decision else "undecided",
        "decision_reason": decision["decision_reason"] if decision else None,
        "source": (decision or {}).get("source") or "sampled",
        "matched": _matched(run, decision["matched_id"]) if decision and decision["matched_id"] else None,
        "trained_in": _trainings(run, index, decision),
    }


def _find(run: RunFolder, sample_id: str) -> tuple[int, Row]:
    found: dict[str, tuple[int, Row]] = {}
    names: list[str] = []
    for index in run.rounds():
        for row in _samples(run, index):
            names.append(row["sample_id"])
            if row["sample_id"].startswith(sample_id):
                found[row["sample_id"]] = (index, row)
    return found[the_one(run, sample_id, names)]


def the_one(run: RunFolder, beginning: str, names: Collection[str]) -> str:
    """The only name that begins so, or is that. Raises InputError if there is none or more than one."""
    if beginning in names:
        return beginning
    found = [name for name in names if name.startswith(beginning)]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError("SAMPLE_ID", f"{len(found)} samples begin with '{beginning}'", "give more of it")
    hint = did_you_mean(beginning, names) if 0 < len(names) <= 10_000 else ""
    fix = hint if hint.startswith("did") else f"`synth inspect {run.root}` shows some"
    raise InputError("SAMPLE_ID", f"no sample '{beginning}' among {len(names)} in {run.root}", fix)


def _parsed(details: Any) -> Any:
    return json.loads(details) if isinstance(details, str) else details


def _sampler(run: RunFolder, index: int) -> Row:
    """Hash of the model that sampled a round, and where it came from."""
    metrics = run.metrics(index)
    base = (run.manifest() or {}).get("model", {})
    digest = metrics.get("sampler") if metrics else (_dataset_manifest(run, index) or {}).get("model")
    if digest is None:
        return {"hash": None, "from": "round still open"}
    if digest == base.get("hash"):
        return {"hash": digest, "from": f"base model {base.get('path')}"}
    for earlier in range(index):
        if (run.metrics(earlier) or {}).get("model_hash") == digest:
            return {"hash": digest, "from": f"round {earlier:02d}"}
    return {"hash": digest, "from": "unknown"}


def _dataset_manifest(run: RunFolder, index: int) -> Row | None:
    return read_json(run.round(index) / "dataset" / "manifest.json")


def _sampling(run: RunFolder, completion: Row) -> Row:
    """Settings and seed that sampled it, and the template, as the run's recipe has them."""
    recipe = _recipe(run)
    sampling = recipe.get("sampling", {})
    section = recipe.get("domains", {}).get(completion["domain"], {})
    return {
        "seed": completion["sampling_seed"],
        "rng_seed": recipe.get("rng_seed"),
        **{key: sampling.get(key) for key in ("temperature", "top_k", "top_p", "max_tokens")},
        "template": section.get("prompt", {}).get("template"),
        "engine": (run.manifest() or {}).get("engine"),
    }


def _recipe(run: RunFolder) -> Row:
    from recipes.values import read_yaml

    return read_yaml(run.recipe)[0] or {}


def _matched(run: RunFolder, matched_id: str) -> Row:
    """The row a sample was dropped for: another sample, or an evaluation text."""
    for index in run.rounds():
        for row in stage_rows(run.round(index) / "dataset"):
            if row["sample_id"] == matched_id:
                return {
                    "id": matched_id,
                    "round": index,
                    "decision": row["decision"],
                    "completion": row["completion"],
                }
    return {"id": matched_id}


def _trainings(run: RunFolder, index: int, decision: Row | None) -> list[Row]:
    """Trainings of this run that used the sample: its round's, and with `data: all_rounds` every later one."""
    if decision is None or decision["decision"] != "kept":
        return []
    train = _recipe(run).get("train", {})
    if train.get("method") == "none":
        return []
    last = index if train.get("data") != "all_rounds" else max(run.rounds())
    used = []
    for later in range(index, last + 1):
        done = read_json(run.round(later) / "training" / "manifest.json")
        if done is not None:
            metrics = run.metrics(later) or {}
            used.append(
                {"round": later, "model_hash": done.get("model"), "accepted": metrics.get("accepted")}
            )
    return used


# ---- For people, exports and cards -------------------------------------------------------------------------------


def inspect_text(found: Mapping[str, Any]) -> str:
    """What `inspect` found, for people; control characters are shown as escapes."""
    if "pair" in found:
        from recipes.embedding.lineage import history_text as pair_text

        return pair_text(found)
    if "written" in found:
        from recipes.generation.lineage import history_text

        return history_text(found)
    return _overview_text(found) if "domains" in found else _history_text(found)


def _overview_text(found: Mapping[str, Any]) -> str:
    lines = [f"{found['folder']}: no samples yet"] if not found["domains"] else []
    for domain, entry in found["domains"].items():
        lines.append(f"{domain}: {entry['samples']:,} samples, {entry['kept']:,} kept")
        for reason, group in entry["reasons"].items():
            lines.append(f"  {reason}: {group['count']:,}")
            for example in group["examples"]:
                text = visible(example["completion"][-60:]).replace("\n", "")
                lines.append(f"    {example['sample_id']}  ...{text}")
    return "\n".join(lines)


def _history_text(found: Mapping[str, Any]) -> str:
    finished = f" ({found['finish_reason']})" if found["finish_reason"] else ""
    lines = [
        f"sample {found['sample_id']}  problem {found['problem_id']}  domain {found['domain']}",
        *_origin_lines(found),
        f"--- prompt\n{visible(found['prompt'])}",
        f"--- completion{finished}\n{visible(found['completion'])}",
    ]
    if found["error"]:
        lines.append(f"error: {found['error']}")
    for verdict in found["verdicts"]:
        details = json.dumps(verdict["details"], ensure_ascii=True)
        judged = f"{verdict['status']}, {verdict['reason']}, reward {verdict['reward']}"
        lines += [f"--- verdict {verdict['verifier']}: {judged}", f"    {details}"]
    reason = f": {found['decision_reason']}" if found["decision_reason"] else ""
    lines.append(f"--- {found['decision']}{reason}")
    if found["matched"]:
        lines.append(f"    matched {json.dumps(found['matched'], ensure_ascii=True)}")
    for use in found["trained_in"]:
        model = f"model {use['model_hash']}, accepted {use['accepted']}"
        lines.append(f"    trained on in round {use['round']:02d}: {model}")
    return "\n".join(lines)


def _origin_lines(found: Mapping[str, Any]) -> list[str]:
    sampler, sampling = found["sampler"], found["sampling"]
    if not sampling:
        return [f"round {found['round']:02d}", f"{found['source']}: {sampler['from']}"]
    return [
        f"round {found['round']:02d}, index {found['index']}",
        f"{found['source']} by {sampler['hash']} ({sampler['from']})",
        ", ".join(f"{key} {value}" for key, value in sampling.items() if key != "template"),
    ]


def dataset_rows(run: RunFolder) -> list[Row]:
    """Curated rows of all rounds whose curation is closed, kept and rejected, in order of round and id.

    Rounds of kind `embedding` have the same pairs with other negatives: of these the last one's.
    """
    from synth.store import read_parts

    closed = [index for index in run.rounds() if _dataset_manifest(run, index) is not None]
    if not closed:
        raise InputError(
            str(run.root), "no round has been curated yet", "see `synth status`; go on with `synth run`"
        )
    if (run.manifest() or {}).get("kind") == EMBEDDING:
        closed = closed[-1:]
    return [row for index in closed for row in read_parts(run.round(index) / "dataset")]


def card_info(run: RunFolder) -> Row:
    """What a dataset card tells of a run: recipe, models, verifiers, packages, and the funnel summed over rounds."""
    recipe, manifest = _recipe(run), run.manifest() or {}
    total: dict[str, Counter[str]] = {}
    for index in run.rounds():
        if index and manifest.get("kind") == EMBEDDING:
            break  # every round has the same pairs
        for domain, counts in ((run.metrics(index) or {}).get("funnel") or {}).items():
            if domain != "reasons":
                total.setdefault(domain, Counter()).update(counts)
    domains = recipe.get("domains", {})
    return {
        "name": recipe.get("name"),
        "recipe": recipe.get("name"),
        "model": recipe.get("model", {}).get("path"),
        "model_hash": manifest.get("model", {}).get("hash"),
        "engine": manifest.get("engine"),
        "generators": {n: section["generator"] for n, section in domains.items() if section.get("generator")},
        "verifiers": {name: section["verifier"] for name, section in domains.items()},
        "problems": {name: (section.get("train") or {}).get("path") for name, section in domains.items()},
        "sampling": recipe.get("sampling"),
        "curate": recipe.get("curate"),
        "rng_seed": recipe.get("rng_seed"),
        "run_status": manifest.get("status"),
        "packages": manifest.get("packages"),
        "funnel": {domain: dict(counts) for domain, counts in total.items()},
    }
