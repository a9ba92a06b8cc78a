"""Improve: one training, the probe of its weights, its scores on the held-out problems, and the gate.

Used by every round of self-training, and once by a recipe of kind `sft`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.context import Clock, Context, Model
from recipes.evaluation import Evaluation, evaluate, examination, read_evaluation
from recipes.gate import Decision, decide, require_judged
from recipes.judging import release
from recipes.models import is_served
from recipes.regenerated import record_path
from recipes.weights_probe import Probe, probe_weights
from synth.records.errors import InputError, WorkError
from synth.records.ids import content_hash, model_hash
from synth.records.jsonl import write_json
from synth.store import read_json

if TYPE_CHECKING:
    from recipes.sampling import Row
    from recipes.schema import Recipe
    from trainers import TrainResult

log = logging.getLogger("synthloop")


def measure(ctx: Context, path: Path, digest: str, folder: Path, title: str) -> Evaluation:
    """Scores of the model at `path`, with its completions and verdicts kept in `folder`."""
    exam, record = examination(ctx.recipe, ctx.domains, ctx.workers), record_path(ctx.folder, folder)
    with ctx.progress.stage(title) as bar:
        return evaluate(exam, lambda: ctx.engine.at(path), folder, digest, bar.update, record)


def measured_base(ctx: Context) -> Model:
    """The base with its scores. Raises WorkError when too much of its evaluation could not be judged."""
    folder = ctx.folder.base / "evaluation"
    scores = measure(ctx, ctx.base, ctx.base_hash, folder, "base: evaluating")
    ctx.tokens += scores.tokens
    _require_judged(ctx, scores, folder)
    return Model(ctx.base, ctx.base_hash, scores, None)


def closed_model(ctx: Context, index: int) -> Model:
    """The model of a closed round that trained one."""
    folder, metrics = ctx.folder.round(index), ctx.folder.metrics(index)
    assert metrics is not None
    digest = metrics["model_hash"]
    return Model(folder / "model", digest, read_evaluation(folder / "evaluation", digest), index)


def _scores_of(ctx: Context, accepted: Model) -> Evaluation:
    """The accepted model's scores, measured again if the folder of its evaluation is gone."""
    if accepted.evaluation is not None:
        return accepted.evaluation
    assert accepted.round is not None
    folder = ctx.folder.round(accepted.round) / "evaluation"
    return measure(ctx, accepted.path, accepted.hash, folder, f"round {accepted.round}: evaluating again")


@dataclass(frozen=True)
class Task:
    """What one training is given: the model it starts from, its rows, and what its model's card says of both.

    `sequences` (token ids) are what the weights are probed on.
    """

    start: Model
    rows: list[Row]
    lineage: Mapping[str, Any]
    sequences: Sequence[Sequence[int]]
    rng_seed: int


def point_at(ctx: Context, accepted: Model) -> None:
    """Let DIR/model name the accepted model, unless a server has it. Raises WorkError if it is not there any more."""
    if accepted.round is None and is_served(ctx.engine.name, ctx.recipe.model.path):
        return
    if not (accepted.path / "config.json").exists():
        again = (
            ""
            if accepted.round is None
            else f", or delete {ctx.folder.round(accepted.round)} to make it again"
        )
        raise WorkError(str(accepted.path), "the last accepted model is gone", f"restore it{again}")
    ctx.folder.point_model(accepted.path)


def improve(ctx: Context, index: int, accepted: Model, task: Task, clock: Clock) -> dict[str, Any]:
    """Train, probe the weights, evaluate, compare with the model accepted before; attack it if that is asked for.

    Returns what the round's metrics tell of it: model, model_hash, accepted, gate, probe, training, details, perhaps
    `attack`, and `tokens` {sampled, trained} of this half of the round.
    """
    digest, training = _train(ctx, index, task)
    clock.lap("train")
    probe = _probe(ctx, index, accepted, task.sequences)
    folder = ctx.folder.round(index)
    scores = measure(ctx, folder / "model", digest, folder / "evaluation", f"round {index}: evaluating")
    _require_judged(ctx, scores, folder / "evaluation")
    gate = ctx.recipe.gate
    decision = decide(_scores_of(ctx, accepted), scores, gate.metric, gate.alpha, ctx.recipe.rng_seed)
    clock.lap("evaluate")
    _say_verdict(ctx, index, scores, decision)
    sampled, attack = scores.tokens, {}
    if ctx.attack is not None:
        from recipes.safety.rounds import attack_round

        found = attack_round(ctx, index, digest)
        sampled, attack = sampled + found["tokens"], {"attack": found}
        clock.lap("attack")
    return {
        "model": scores.scores,
        "accepted": decision.accepted,
        "model_hash": digest,
        "gate": decision.as_dict(),
        "probe": probe.as_dict() if probe else None,
        "training": training,
        "details": scores.details,
        "tokens": {"sampled": sampled, "trained": training["trained_tokens"]},
        **attack,
    }


def _train(ctx: Context, index: int, task: Task) -> tuple[str, dict[str, Any]]:
    """Fine-tune; returns the new model's hash and facts about the training."""
    import trainers

    folder = ctx.folder.round(index)
    done = read_json(folder / "training" / "manifest.json")
    if done is not None:
        return done["model"], done["training"]
    ctx.engine.yield_accelerator()
    release(ctx.domains)
    trained, validation = split_validation(task.rows, ctx.recipe)
    lineage = {
        "base model": ctx.recipe.model.path,
        "started from": task.start.hash,
        **task.lineage,
        "round": index,
        "recipe": ctx.recipe.name,
        "rows": len(trained),
    }
    with ctx.progress.stage(f"round {index}: training on {len(trained)} rows") as bar:
        result = trainers.train(
            str(task.start.path),
            trained,
            str(folder / "model"),
            ctx.recipe.train_options(),
            task.rng_seed,
            validation=validation,
            lineage=lineage,
            on_step=lambda entry: bar.update(entry["step"], entry["steps"]),
            log=log.info,
            hub={"trust_remote_code": ctx.recipe.model.trust_remote_code},
        )
    digest, training = model_hash(folder / "model"), training_facts(result)
    (folder / "training").mkdir(exist_ok=True)
    write_json(folder / "training" / "manifest.json", {"model": digest, "training": training})
    return digest, training


def split_validation(rows: list[Row], recipe: Recipe) -> tuple[list[Row], list[Row] | None]:
    """Rows to train on, and rows that give `validation_loss`: whole problems, chosen by their ids alone.

    Rows of a file without `problem_id` go by what they ask. Raises InputError when none is left to train on.
    """
    share = recipe.train.validation_share
    if not share:
        return rows, None

    def held(row: Row) -> bool:
        name = next(
            (row[key] for key in ("problem_id", "messages", "prompt") if row.get(key)), row.get("token_ids")
        )
        return int(content_hash("validation", recipe.rng_seed, name), 16) < share * 16**16

    trained, validation = [row for row in rows if not held(row)], [row for row in rows if held(row)]
    if not trained:
        seen = f"{share} of {len(rows)} rows leaves none to train on"
        raise InputError("train.validation_share", seen, "lower it, or give more problems")
    return trained, validation or None


def training_facts(result: TrainResult) -> dict[str, Any]:
    """What a round's metrics tell of a training: fates of its rows, steps, tokens, first and last loss."""
    return {
        "rows": result.counts,
        "steps": result.steps,
        "trained_tokens": sum(entry["tokens"] for entry in result.logs),
        "loss": {"first": result.logs[0]["loss"], "last": result.logs[-1]["loss"]} if result.logs else None,
        "stopped_early": result.stopped_early,
    }


def _probe(ctx: Context, index: int, accepted: Model, sequences: Sequence[Sequence[int]]) -> Probe | None:
    """Law 6, where the engine loads weights and tells log-probs: has it what was trained?"""
    if not (ctx.engine.capabilities.loads_weights and ctx.engine.capabilities.prompt_logprobs):
        return None
    import trainers

    path = ctx.folder.round(index) / "model"
    ctx.progress.say(f"round {index}: loading the checkpoint into the engine and comparing log-probs")
    engine = ctx.engine.fresh_at(path)
    logprobs = partial(trainers.logprobs, trust_remote_code=ctx.recipe.model.trust_remote_code)
    probe = probe_weights(engine, sequences, str(path), str(accepted.path), logprobs)
    log.info("round %d: weights probe %s", index, probe.as_dict())
    return probe


def _require_judged(ctx: Context, evaluation: Evaluation, folder: Path) -> None:
    require_judged(evaluation, ctx.recipe.gate.metric, ctx.recipe.problems.max_bad, folder)


def _say_verdict(ctx: Context, index: int, evaluation: Evaluation, decision: Decision) -> None:
    parts = []
    for domain, scores in evaluation.scores.items():
        value = scores.get(decision.metric)
        if value:
            parts.append(
                f"{domain} {100 * value['value']:.1f} [{100 * value['low']:.1f}, {100 * value['high']:.1f}]"
            )
    word = "accepted" if decision.accepted else "REJECTED, rolled back"
    gain = f"{100 * decision.difference:+.1f} points"
    p = decision.p_better if decision.difference >= 0 else decision.p_worse
    ctx.progress.say(f"round {index}: {decision.metric} {', '.join(parts)}  ({gain}, p = {p:.3g}): {word}")
