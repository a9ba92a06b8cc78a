"""How far a run is, read from its directory alone (`synth status`)."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

from recipes.regenerated import found_in, regenerated_text
from recipes.report import score_text
from synth.records.errors import InputError, WorkError
from synth.store import RunFolder, read_json

STAGES = ("completions", "verdicts", "dataset")


def open_run(folder: str | os.PathLike[str]) -> RunFolder:
    """The run in `folder`. Raises InputError where there is none."""
    run = RunFolder(folder)
    if not run.root.is_dir():
        raise InputError(str(folder), "no such folder", "name a run directory (default: runs/NAME)")
    if not run.recipe.exists():
        raise InputError(
            str(folder), "not a run directory (no recipe.yaml)", "name the DIR of `synth run --out DIR`"
        )
    return run


def is_live(run: RunFolder) -> bool:
    """Whether a process holds the run's lock now."""
    try:
        descriptor = os.open(run.root / "lock", os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def status(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """{name, kind, status, live, rounds: [...], model, pairs, base, disk_bytes, tokens, regenerated}.

    `status` is the manifest's, but `interrupted` where it says running and nothing holds the lock. Each round has
    {round, state: closed|open, stages: {stage: {rows, closed}}, funnel, scores, accepted, timings, tokens}.
    `pairs`: the same of what the generators of a run of kind `embedding` made. `regenerated`: {stage: {samples, same,
    share}} of stages that were sampled again.
    """
    run = open_run(folder)
    manifest, live = run.manifest() or {}, is_live(run)
    state = manifest.get("status", "unknown")
    rounds = [_round(run, index) for index in run.rounds()]
    link, pairs = run.root / "model", RunFolder(run.root / "pairs")
    return {
        "folder": str(run.root),
        "name": manifest.get("name"),
        "kind": manifest.get("kind"),
        "status": "interrupted" if state == "running" and not live else state,
        "live": live,
        "rounds": rounds,
        "model": str(link.resolve()) if link.is_symlink() else None,
        "pairs": _round(pairs, 0) if pairs.recipe.exists() else None,
        "base": read_json(run.base / "evaluation" / "scores.json")
        or (read_json(run.base / "evaluation" / "evaluation.json") or {}).get("scores"),
        "tokens": sum(each["tokens"].get("sampled", 0) for each in rounds),
        "disk_bytes": folder_bytes(run.root),
        "regenerated": found_in(run),
    }


def _round(run: RunFolder, index: int) -> dict[str, Any]:
    folder, metrics = run.round(index), run.metrics(index)
    facts = metrics or {}
    places = [place for place in (folder / "attacks", folder / "attack" / "attacks") if place.is_dir()]
    attacks = {"attacks": _attacks(places[0], metrics)} if places else {}
    return {
        "round": index,
        "state": "closed" if metrics is not None else "open",
        "stages": _steps(folder / "steps")
        | {name: _stage(folder / name) for name in STAGES if (folder / name).is_dir()}
        | attacks,
        "model_saved": (folder / "model" / "config.json").exists(),
        "funnel": facts.get("funnel", {}),
        "scores": facts.get("model"),
        "accepted": facts.get("accepted"),
        "timings": facts.get("timings", {}),
        "tokens": facts.get("tokens", {}),
    }


def _attacks(folder: Path, metrics: dict[str, Any] | None) -> dict[str, Any]:
    """Finished attacks: those of a run of kind `safety`, or those that a round's model went through."""
    return {"rows": len(list(folder.glob("*/result.json"))), "closed": metrics is not None}


def _steps(folder: Path) -> dict[str, dict[str, Any]]:
    """Rows of a generator's steps as `DOMAIN/STEP`, the rounds of one step together, in the order they are taken."""
    found: dict[str, dict[str, Any]] = {}
    for place in sorted(folder.glob("*/*")):
        name, stage = f"{place.parent.name}/{place.name.partition('-')[2]}", _stage(place)
        before = found.get(name, {"rows": 0, "closed": True})
        found[name] = {"rows": before["rows"] + stage["rows"], "closed": before["closed"] and stage["closed"]}
    return found


def _stage(folder: Path) -> dict[str, Any]:
    manifest = read_json(folder / "manifest.json")
    if manifest is not None:
        return {"rows": manifest.get("rows"), "closed": True}
    try:
        # A live stage: whole lines only, the last one may be half written.
        return {"rows": (folder / "journal.jsonl").read_bytes().count(b"\n"), "closed": False}
    except FileNotFoundError:
        return {"rows": 0, "closed": False}


def folder_bytes(folder: Path) -> int:
    """Bytes of the files in a folder, links not followed; files that vanish meanwhile do not count."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except FileNotFoundError:
                continue
    return total


def status_text(found: dict[str, Any]) -> str:
    """The same for people: head line, each round's stages, funnel and scores."""
    closed = sum(each["state"] == "closed" for each in found["rounds"])
    head = f"{found['name']} ({found['kind']}): {found['status']}, {closed} rounds closed"
    lines = [f"{head}, {found['tokens']:,} tokens sampled, {found['disk_bytes']:,} bytes"]
    if found["base"]:
        lines.append(f"base: {_scores(found['base'])}")
    if found["pairs"]:
        first, *more = _round_lines(found["pairs"])
        lines += [first.replace("round 00", "pairs", 1), *more]
    for each in found["rounds"]:
        lines += _round_lines(each)
    lines += [regenerated_text(stage, figures) for stage, figures in found["regenerated"].items()]
    if found["model"]:
        gone = "" if Path(found["model"]).is_dir() else " (is gone)"
        lines.append(f"model: {found['model']}{gone}")
    if found["status"] in ("interrupted", "failed", "stopped"):
        lines.append(f"go on: synth run {found['folder']}/recipe.yaml --out {found['folder']}")
    return "\n".join(lines)


def _round_lines(each: dict[str, Any]) -> list[str]:
    verdict = {True: ", accepted", False: ", REJECTED", None: ""}[each["accepted"]]
    stages = ", ".join(
        f"{name} {stage['rows']:,}{'' if stage['closed'] else ' so far'}"
        for name, stage in each["stages"].items()
    )
    lines = [f"round {each['round']:02d}: {each['state']}{verdict}; {stages or 'nothing yet'}"]
    for domain, counts in each["funnel"].items():
        if domain != "reasons":
            lines.append(f"  {domain}: " + " -> ".join(f"{name} {count:,}" for name, count in counts.items()))
    if each["scores"]:
        lines.append(f"  {_scores(each['scores'])}")
    return lines


def _scores(scores: dict[str, Any]) -> str:
    parts = []
    for domain, metrics in scores.items():
        # A run of kind `embedding` has its gate's metric first.
        name = "pass@1" if "pass@1" in metrics else next(iter(metrics))
        value = metrics[name]
        if isinstance(value, dict):
            parts.append(f"{domain} {name} {score_text(value, name)}")
    return ", ".join(parts)


def stage_rows(folder: Path) -> list[dict[str, Any]]:
    """Every row a stage folder holds now, of its parts or of its journal. Raises WorkError for a damaged one."""
    from synth.records import schemas
    from synth.store import Stage

    kind = {"completions": schemas.completions, "verdicts": schemas.verdicts, "dataset": schemas.dataset}[
        folder.name
    ]
    try:
        return Stage(folder, kind).rows() if folder.is_dir() else []
    except OSError as error:
        raise WorkError(str(folder), f"cannot be read ({error})", "check the disk") from None
