"""Rounds of self-training: ReST-EM (arXiv 2312.06585) and its relatives.

1. Measure the base on the held-out problems.
2. Grow: sample N completions a problem from the last accepted model, judge, curate (recipes/grow.py).
3. Improve: fine-tune on what was kept, completion tokens only, **from the base** (`train.start_from: previous` is
   ReST's way).
4. Probe that the engine holds the new weights (law 6), measure the candidate, and let the gate accept it or roll back.
5. Next round, until `rounds`, the gate's patience or a limit is reached.

Departures from the paper: the Improve step runs a fixed number of steps (or `train.early_stopping`) instead of
"while reward improves on D_val"; a round's model must pass a paired test to become the next sampler.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from recipes import rounds
from recipes.checkpoints import removable, remove
from recipes.context import Clock, Context, Model
from recipes.grow import Grower, Growth
from recipes.improve import Task, closed_model, improve, measured_base, point_at
from recipes.regenerated import record_path
from recipes.supervised import mix_rows, trainable
from synth.records.errors import WorkError
from synth.records.ids import content_hash
from synth.records.jsonl import write_json
from synth.store import read_parts

if TYPE_CHECKING:
    from recipes.sampling import Row


def run_rounds(ctx: Context) -> Model:
    """Run (or resume) every round of the recipe; returns the last accepted model."""
    base = _first(ctx)
    closed = [ctx.folder.metrics(index) for index in range(rounds.closed_rounds(ctx.folder))]
    ctx.tokens += sum(metrics["tokens"]["sampled"] for metrics in closed if metrics)

    def one_round(index: int, accepted: Model) -> dict[str, Any]:
        metrics = _one_round(ctx, index, base, accepted)
        ctx.tokens += metrics["tokens"]["sampled"]
        return metrics

    settle, closed_one = partial(_settle, ctx), partial(closed_model, ctx)
    return rounds.run_rounds(ctx, base, settle=settle, one_round=one_round, closed_model=closed_one)


def _settle(ctx: Context, accepted: Model) -> None:
    """Point DIR/model at the accepted model, then delete what `keep` does not keep."""
    point_at(ctx, accepted)
    for path in removable(ctx.folder, ctx.recipe.keep.checkpoints):
        remove(path)


def _first(ctx: Context) -> Model:
    """The base, measured unless the run trains nothing."""
    if ctx.recipe.train.method == "none":
        return Model(ctx.base, ctx.base_hash, None, None)
    return measured_base(ctx)


def _one_round(ctx: Context, index: int, base: Model, accepted: Model) -> dict[str, Any]:
    clock = Clock()
    growth = _grow(ctx, index, accepted)
    clock.lap("grow")
    metrics: dict[str, Any] = {
        "base": base.evaluation.scores if base.evaluation else None,
        "model": None,
        "accepted": None,
        "sampler": accepted.hash,
        "funnel": growth.funnel,
        "timings": clock.seconds,
        "tokens": {"sampled": growth.tokens, "completions_saved": growth.completions_saved},
    }
    if ctx.recipe.train.method != "none":
        improved = improve(ctx, index, accepted, _task(ctx, index, accepted, growth), clock)
        tokens = improved.pop("tokens")
        metrics |= improved
        metrics["tokens"] |= {"sampled": growth.tokens + tokens["sampled"], "trained": tokens["trained"]}
    write_json(ctx.folder.round(index) / "metrics.json", metrics)
    return metrics


def _grow(ctx: Context, index: int, sampler: Model) -> Growth:
    from recipes.report import funnel_text

    with ctx.progress.stage(f"round {index}: sampling") as bar:
        grower = Grower(
            ctx.recipe,
            ctx.folder.round(index),
            ctx.domains,
            index,
            sampler.hash,
            ctx.workers,
            lambda what, done, total: bar.update(done, total, f"round {index}: {what}"),
            record_path(ctx.folder, ctx.folder.round(index)),
        )
        earlier = _kept_rows(ctx, range(index)) if ctx.recipe.curate.across_rounds else []
        previous = _kept_rows(ctx, range(max(index - 1, 0), index))
        growth = grower.grow(lambda: ctx.engine.at(sampler.path), earlier, previous, ctx.check_limits)
    ctx.progress.say(funnel_text(growth.funnel))
    for warning in growth.warnings if previous else ():
        ctx.progress.say(f"warning: of what was kept, {warning} since round {index - 1}")
    if growth.completions_saved:
        asked = sum(f["asked"] for name, f in growth.funnel.items() if name != "reasons")
        mean = growth.tokens / max(asked, 1)
        saved = growth.completions_saved
        ctx.progress.say(f"stopping at the cap saved {saved} completions, about {int(saved * mean)} tokens")
    if not growth.kept and ctx.recipe.train.method != "none":
        raise WorkError(
            f"round {index}",
            "no completion was kept, so there is nothing to train on (funnel above)",
            "see `synth inspect DIR`; sample more (sampling.n), raise max_tokens, or start from a stronger model",
        )
    return growth


def _kept_rows(ctx: Context, rounds: range) -> list[Row]:
    return [
        row
        for index in rounds
        for row in read_parts(ctx.folder.round(index) / "dataset")
        if row["decision"] == "kept"
    ]


def _training_rows(ctx: Context, index: int, growth: Growth) -> list[Row]:
    """This round's kept rows, with earlier rounds' (`train.data: all_rounds`) and the mixed-in supervised ones."""
    earlier = _kept_rows(ctx, range(index)) if ctx.recipe.train.data == "all_rounds" else []
    # Two rounds may have found the same solution of the same problem: it is trained on once.
    rows = {(row["problem_id"], row["completion"]): row for row in [*earlier, *growth.kept]}
    ordered = sorted(rows.values(), key=lambda row: row["sample_id"])
    left_out = ctx.folder.round(index) / "training" / "mix_left_out.jsonl"
    return [*map(trainable, ordered), *mix_rows(ctx.recipe, ctx.domains, left_out, ctx.progress.say)]


def _task(ctx: Context, index: int, accepted: Model, growth: Growth) -> Task:
    previous = ctx.recipe.train.start_from == "previous"
    return Task(
        start=accepted if previous else Model(ctx.base, ctx.base_hash, None, None),
        rows=_training_rows(ctx, index, growth),
        lineage={"sampled from": accepted.hash},
        sequences=[row["token_ids"] for row in growth.kept if row["token_ids"]],
        rng_seed=int(content_hash("training", ctx.recipe.rng_seed, index), 16) % 2**31,
    )
