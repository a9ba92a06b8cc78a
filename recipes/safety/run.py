"""A run of kind `safety`: measure the base, align it, measure it, attack it, tell what survived.

1. The base answers the held-out prompts: DIR/base/evaluation.
2. It is aligned on `prompt`/`refusal`/`harmful` rows: DIR/round-00/model, measured in DIR/round-00/evaluation.
3. Every attack of the recipe (recipes/safety/attack.py): DIR/round-00/attacks/NAME.
4. DIR/round-00/metrics.json, DIR/harmful_score.png.

What is on disk is never made again: a stopped run goes on inside the step it was in.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.context import Clock, LimitReached
from recipes.improve import training_facts
from recipes.progress import Progress
from recipes.running import running
from recipes.safety.align import align
from recipes.safety.attack import attack_all, attacked, over_seeds, tell_left_out
from recipes.safety.context import Context, prepare
from recipes.safety.measure import measure
from recipes.safety.report import PICTURE, attack_table, plot_attacks, scores_table
from synth.records.errors import InputError
from synth.records.ids import content_hash, model_hash
from synth.records.jsonl import write_json
from synth.store import RunFolder, RunLock, read_json

if TYPE_CHECKING:
    from recipes.safety.schema import SafetyRecipe

log = logging.getLogger("synthloop")
Row = dict[str, Any]
ATTACKS = "attacks.json"


def run_safety(recipe: SafetyRecipe, folder: RunFolder, check: Callable[[Row], None], workers: int) -> str:
    """Run or resume the recipe in `folder`, which is locked. Returns the status it ends with: done or stopped.

    `check` is given the facts that a resumed run must find unchanged, before anything is written.
    """
    from recipes.runner import package_versions

    progress = Progress()
    ctx, facts = prepare(recipe, progress, workers)
    try:
        check(facts)
    except BaseException:
        ctx.close()
        raise
    told = {**facts, "engine": ctx.engine.name, "packages": package_versions()}
    with running(recipe, folder, told, progress, ctx.close) as end:
        _work(ctx, folder)
    return end.status


def _work(ctx: Context, folder: RunFolder) -> None:
    recipe, place, clock = ctx.recipe, folder.round(0), Clock()
    ctx.check_limits()
    tell_left_out(ctx, place)
    base = measure(ctx, ctx.base, ctx.base_hash, folder.base / "evaluation", "base: measuring")
    clock.lap("base")
    metrics: Row = {"base": base["scores"], "model": None, "accepted": None, "sampler": ctx.base_hash}
    model, digest, trained, tokens = ctx.base, ctx.base_hash, None, base["tokens"]
    if recipe.train.method != "none":
        model = place / "model"
        digest, trained, seconds = _aligned(ctx, folder)
        clock.lap("train")
        clock.seconds["train"] = seconds
        found = measure(ctx, model, digest, place / "evaluation", "aligned: measuring")
        metrics["model"], tokens = found["scores"], tokens + found["tokens"]
        clock.lap("evaluate")
    folder.point_model(model)
    ctx.progress.say(scores_table(metrics))
    results = attack_all(ctx, model, digest, place / "attacks")
    clock.lap("attack")
    metrics |= {
        "model_hash": digest,
        "method": recipe.train.method,
        "funnel": {},
        "training": trained,
        "attacks": results,
        "over_seeds": over_seeds(results),
        "timings": clock.seconds,
        "tokens": {
            "sampled": tokens + sum(each["tokens"] for each in results),
            "trained": (trained or {}).get("trained_tokens", 0),
        },
    }
    before = folder.metrics(0)
    if before is None or before["attacks"] != results:
        write_json(place / "metrics.json", metrics)
    _tell(ctx.progress, recipe.harmful, folder.root, {recipe.name: metrics})


def _aligned(ctx: Context, folder: RunFolder) -> tuple[str, Row, float]:
    """Align the base; returns the aligned model's hash, facts about the training, and the seconds that the call took
    which ended it."""
    place = folder.round(0)
    done = read_json(place / "training" / "manifest.json")
    if done is None:
        place.mkdir(parents=True, exist_ok=True)
        result = align(ctx, place / "model")
        facts, seconds = training_facts(result), round(result.seconds, 3)
        done = {"model": model_hash(place / "model"), "training": facts, "seconds": seconds}
        (place / "training").mkdir(exist_ok=True)
        write_json(place / "training" / "manifest.json", done)
    return done["model"], done["training"], done["seconds"]


def _tell(progress: Progress, harmful: str, out: Path, compared: dict[str, Row]) -> None:
    """The table of attacks and its picture, one line a model."""
    lines = {name: metrics["over_seeds"] for name, metrics in compared.items() if metrics["over_seeds"]}
    for name, rows in lines.items():
        progress.say(f"{name}\n{attack_table(rows, harmful)}")
    if lines:
        progress.say(f"harmful score: {plot_attacks(lines, out / PICTURE, harmful)}")


def attack_alone(
    recipe: SafetyRecipe, model: str, out: Path, compare: list[str], progress: Progress, workers: int
) -> Row | None:
    """`synth attack`: the recipe's attacks on any checkpoint. Writes OUT/attacks.json and the picture; the results of
    other folders (`compare`: runs of kind safety, or other OUTs) are drawn beside them. Goes on where it was stopped;
    None where `limits.hours` stopped it.
    """
    from recipes.runner import make_folder

    if not recipe.named("task"):
        raise InputError("domains", "no domain of role task to fine-tune on", "give one")
    others = compared(compare, recipe.harmful, out.name)
    if (Path(model) / "model" / "config.json").exists() and not (Path(model) / "config.json").exists():
        raise InputError("--model", f"{model} is a run, not a model", f"did you mean {model}/model?")
    make_folder(out, "--out")
    if any(out.iterdir()) and not (out / "identity.json").exists() and not (out / "lock").exists():
        raise InputError("--out", f"{out} is not empty and holds no attack", "choose another --out")
    lock = RunLock(out)
    try:
        ctx, facts = prepare(recipe, progress, workers, model)
        try:
            lasting = (facts["model"]["hash"], facts["data"], facts["files"])
            _same_attack(out, content_hash(ctx.recipe.identity(), *lasting))
            found = {"path": model, **attacked(ctx, ctx.base, ctx.base_hash, out)}
        except LimitReached as reached:
            progress.say(f"stopped: {reached}; raise the limit and give the command again to go on")
            return None
        finally:
            ctx.close()
    finally:
        lock.release()
    write_json(out / ATTACKS, found)
    _tell(progress, recipe.harmful, out, {out.name: found, **others})
    return found


def _same_attack(out: Path, identity: str) -> None:
    """Refuse a folder that holds attacks of another recipe or on another model."""
    found = read_json(out / "identity.json")
    if found is None:
        write_json(out / "identity.json", {"hash": identity})
    elif found["hash"] != identity:
        seen = f"{out} holds attacks on another model, or of another recipe"
        raise InputError("--out", seen, "choose another --out")


def compared(folders: Sequence[str], harmful: str, own: str) -> dict[str, Row]:
    """What finished attacks in other folders found, by the folder's name, or its path where that name is taken (`own`).

    Raises InputError for a folder without any, and where the harmful domain has another name.
    """
    found: dict[str, Row] = {}
    for name in folders:
        folder = Path(name)
        told = read_json(folder / ATTACKS) or RunFolder(folder).metrics(0)
        if told is None or not told.get("over_seeds"):
            fix = "name the folder of a finished `synth attack`, or of a run of kind safety"
            raise InputError("--compare", f"{name} holds no attacks", fix)
        if harmful not in (told["model"] or told["base"]):
            seen = f"{name} has no scores of a domain '{harmful}'"
            raise InputError("--compare", seen, "compare attacks of one recipe")
        found[name if folder.name in (own, *found) else folder.name] = told
    return found
