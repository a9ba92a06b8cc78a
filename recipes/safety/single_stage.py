"""Single stages of a `safety` recipe from the command line: `synth train` aligns, `synth evaluate` measures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.safety.align import align
from recipes.safety.context import prepare
from recipes.safety.measure import measure
from recipes.safety.schema import Attack
from synth.records.errors import InputError

if TYPE_CHECKING:
    from recipes.progress import Progress
    from recipes.safety.schema import SafetyRecipe


def train_alone(recipe: SafetyRecipe, data: str | None, out: Path, progress: Progress, workers: int) -> Path:
    """`synth train`: the aligned model that a run of the recipe would make, in `out`."""
    from recipes.runner import make_folder

    if data is not None:
        seen = "recipes of kind safety align on the rows of their domains"
        raise InputError("--data", seen, "name them there: --set domains.NAME.train=FILE")
    if recipe.train.method == "none":
        raise InputError("train.method", "'none' aligns nothing", "choose a method")
    make_folder(out.parent, "--out")
    ctx, _ = prepare(_unattacked(recipe), progress, workers)
    try:
        align(ctx, out)
    finally:
        ctx.close()
    progress.say(f"model: {out}")
    return out


def evaluate_alone(
    recipe: SafetyRecipe, model: str, out: Path, progress: Progress, workers: int
) -> dict[str, Any]:
    """`synth evaluate`: the scores of `model` before any attack; answers are kept beside `out`, so that a second call
    goes on."""
    from recipes.runner import make_folder

    if out.is_dir():
        raise InputError("--out", f"{out} is a folder", "name the JSON file that the scores go to")
    make_folder(out.parent, "--out")
    ctx, _ = prepare(_unattacked(recipe), progress, workers, model)
    try:
        folder = out.with_name(f"{out.name}.work") / ctx.base_hash
        found = measure(ctx, ctx.base, ctx.base_hash, folder, "measuring")
    finally:
        ctx.close()
    return {"model": str(ctx.base), "model_hash": ctx.base_hash, "scores": found["scores"]}


def _unattacked(recipe: SafetyRecipe) -> SafetyRecipe:
    """The recipe without its attacks, whose rows need not be there."""
    return recipe.model_copy(update={"attack": Attack(tasks=[])})
