"""The alignment: one training of the base on harmful prompts with refusals, harmful answers, and harmless prompts."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recipes.safety.context import Context
    from trainers import TrainResult

log = logging.getLogger("synthloop")
Row = dict[str, Any]


def align(ctx: Context, out: Path) -> TrainResult:
    """Train the base with the recipe's method and leave the aligned model in `out`; a killed call goes on."""
    import trainers

    recipe, rows = ctx.recipe, ctx.alignment
    ctx.free_accelerator()
    with ctx.progress.stage(f"aligning ({recipe.train.method}) on {len(rows)} rows") as bar:
        return trainers.train(
            str(ctx.base),
            _refused(rows) if recipe.train.method == "sft" else rows,
            str(out),
            recipe.align_options(),
            recipe.rng_seed,
            method=recipe.train.method,
            lineage={"base model": recipe.model.path, "recipe": recipe.name, "rows": len(rows)},
            on_step=lambda entry: bar.update(entry["step"], entry["steps"]),
            log=log.info,
            hub={"trust_remote_code": recipe.model.trust_remote_code},
        )


def _refused(rows: list[Row]) -> list[Row]:
    """Alignment rows as ordinary ones, whose answer is the refusal."""
    answered = [{**row, "completion": row.get("refusal", row.get("completion"))} for row in rows]
    return [row for row in answered if row["completion"] is not None]
