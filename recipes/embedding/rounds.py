"""Rounds of tuning: self-training for retrieval, with the gate and roll-back of ReST-EM.

1. Measure the base on the held-out sets.
2. Mine hard negatives for every kept pair with the last accepted model (DIR/round-NN/dataset).
3. Train on them, from the base or from the last accepted model (DIR/round-NN/model).
4. Measure the candidate; a paired one-sided test on `gate.metric` over all held-out queries accepts it or rolls back.
   A loss on scored sentence pairs beyond `gate.max_sts_loss`, against the base, rejects it whatever the test says.
5. Next round, until `rounds`, the gate's patience or a limit is reached.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from recipes import rounds
from recipes.checkpoints import removable, remove
from recipes.context import Clock
from recipes.embedding.context import Context, Tuned
from recipes.embedding.curated import Pairs
from recipes.embedding.measure import Exam, kept_scores, read_scores, sts_loss
from recipes.embedding.rescoring import scorer
from recipes.embedding.training import split_validation, tune
from recipes.gate import Decision, decide
from recipes.retrieval.evaluation import RetrievalEvaluation
from synth.records import schemas
from synth.records.errors import WorkError
from synth.records.ids import content_hash, model_hash
from synth.records.jsonl import write_json
from synth.store import Stage, read_json, read_parts

if TYPE_CHECKING:
    from synth.retrieval import Found, Rescore

log = logging.getLogger("synthloop")
Row = dict[str, Any]


def run_rounds(ctx: Context, pairs: Pairs, exam: Exam | None, written_tokens: int) -> Tuned:
    """Run (or resume) every round; returns the last accepted model. Without an exam nothing is trained or measured."""
    base = measured_base(ctx, exam)

    def one_round(index: int, accepted: Tuned) -> Row:
        return _one_round(ctx, index, pairs, exam, base, accepted, 0 if index else written_tokens)

    def closed(index: int) -> Tuned:
        return closed_model(ctx, index, exam)

    return rounds.run_rounds(
        ctx, base, settle=partial(_settle, ctx), one_round=one_round, closed_model=closed
    )


def _settle(ctx: Context, accepted: Tuned) -> None:
    """Point DIR/model at the accepted model, then delete what `keep` does not keep. Raises WorkError if it is gone."""
    if not (accepted.path / "config.json").exists():
        again = "" if accepted.round is None else f", or delete {accepted.path.parent} to make it again"
        raise WorkError(str(accepted.path), "the last accepted model is gone", f"restore it{again}")
    ctx.folder.point_model(accepted.path)
    for path in removable(ctx.folder, ctx.recipe.keep.checkpoints):
        remove(path)


def measured_base(ctx: Context, exam: Exam | None) -> Tuned:
    """The base model, with its scores where something is measured."""
    if exam is None:
        return Tuned(ctx.base, ctx.base_hash, None, None)
    with ctx.progress.stage("base: evaluating"):
        folder = ctx.folder.base / "evaluation"
        scores = kept_scores(lambda: ctx.encoders.at(ctx.base).encode, exam, folder, ctx.base_hash)
    return Tuned(ctx.base, ctx.base_hash, scores, None)


def closed_model(ctx: Context, index: int, exam: Exam | None) -> Tuned:
    """The model of a closed round, with its scores where they are of this test."""
    folder, metrics = ctx.folder.round(index), ctx.folder.metrics(index)
    assert metrics is not None
    digest = metrics["model_hash"]
    scores = read_scores(folder / "evaluation", digest, exam) if exam is not None else None
    return Tuned(folder / "model", digest, scores, index)


def _one_round(
    ctx: Context, index: int, pairs: Pairs, exam: Exam | None, base: Tuned, accepted: Tuned, tokens: int
) -> Row:
    clock, folder = Clock(), ctx.folder.round(index)
    mined = _mine(ctx, index, pairs, accepted)
    clock.lap("mine")
    metrics: Row = {
        "base": base.scores.scores if base.scores else None,
        "model": None,
        "accepted": None,
        "sampler": accepted.hash,
        "funnel": pairs.funnel,
        "mining": mined,
        "timings": clock.seconds,
        "tokens": {"sampled": tokens},
    }
    if exam is not None:
        ctx.check_limits()
        trained = _train(ctx, index, accepted)
        clock.lap("train")
        scores = _measure(ctx, index, exam, trained["model"])
        assert base.scores is not None
        decision, loss = _decide(ctx, exam, base.scores, _scores_of(ctx, exam, accepted), scores)
        clock.lap("evaluate")
        _say_verdict(ctx, index, scores, decision, loss)
        metrics |= {
            "model": scores.scores,
            "accepted": decision.accepted,
            "model_hash": trained["model"],
            "gate": {**decision.as_dict(), "sts_loss": loss},
            "training": trained["training"],
        }
        metrics["tokens"] |= {"trained": trained["training"]["trained_tokens"]}
    write_json(folder / "metrics.json", metrics)
    return metrics


# ---- Mining ------------------------------------------------------------------------------------------------------


def _mine(ctx: Context, index: int, pairs: Pairs, accepted: Tuned) -> Row:
    """Fill the round's dataset; returns {domain: {counts, refused}} of the search."""
    stage = Stage(ctx.folder.round(index) / "dataset", schemas.pairs)
    if not stage.closed:
        rows = [row for row in pairs.rows if row["decision"] != "kept"]
        told: Row = {}
        kept: dict[str, list[Row]] = {}
        for row in pairs.kept:
            kept.setdefault(row["domain"], []).append(row)
        rescore = scorer(ctx.recipe.mine.rescore, ctx.recipe)
        with ctx.progress.stage(f"round {index}: mining negatives", len(kept)) as bar:
            for name, mine in kept.items():
                found, told[name] = _mined(ctx, mine, pairs.answers, accepted, rescore)
                rows += found
                bar.advance()
        for row in rows:
            row["round"] = index
        rows.sort(key=lambda row: row["sample_id"])
        stage.write(rows, {"model": accepted.hash, "kept": len(pairs.kept), "mining": told})
    mining = stage.manifest()["mining"]
    ctx.progress.say(_mining_text(index, mining))
    return mining


def _mined(
    ctx: Context,
    rows: list[Row],
    answers: list[tuple[str, str]],
    accepted: Tuned,
    rescore: Rescore | None,
) -> tuple[list[Row], Row]:
    """One domain's pairs with negatives out of its own documents, none of which is known to answer, and the counts."""
    from synth.retrieval import mine_negatives

    options = ctx.recipe.mining_options()
    asked = [
        {name: row[name] for name in ("query", "positive", "negatives", "instruction", "group")}
        for row in rows
    ]
    mined = mine_negatives(
        asked,
        options,
        encode=ctx.encoders.at(accepted.path).encode if options.dense else None,
        rescore=rescore,
        known=answers,
        rng_seed=ctx.recipe.rng_seed,
    )
    made = [
        {**row, "negatives": list(new["negatives"]), "evidence": json.dumps(_evidence(found))}
        for row, new, found in zip(rows, mined.rows, mined.found, strict=True)
    ]
    return made, {"counts": dict(mined.counts), "refused": dict(mined.refused)}


def _evidence(found: Found) -> Row:
    """What mining found for a pair. Scores are cut to six decimals, as they are compared."""
    return {
        "positive_score": None if found.positive_score is None else round(found.positive_score, 6),
        "kept": found.kept,
        "scores": [round(score, 6) for score in found.scores],
        "ranks": list(found.ranks),
        "refused": dict(found.refused),
        "missing": found.missing,
    }


def _mining_text(index: int, mining: Mapping[str, Row]) -> str:
    lines = []
    for name, told in mining.items():
        counts = told["counts"]
        refused = ", ".join(f"{why} {n:,}" for why, n in told["refused"].items())
        lines.append(
            f"round {index}: {name}: {counts['mined']:,} negatives mined for {counts['rows']:,} pairs among "
            f"{counts['documents']:,} documents, {counts['kept']:,} kept, {counts['without']:,} pairs without any"
            + (f" (refused: {refused})" if refused else "")
        )
    return "\n".join(lines)


# ---- Training, measuring, deciding -------------------------------------------------------------------------------


def training_rows(ctx: Context, index: int) -> list[Row]:
    """The round's kept pairs; with `train.data: all_rounds` earlier rounds' negatives stand behind the round's own."""
    first = 0 if ctx.recipe.train.data == "all_rounds" else index
    negatives: dict[str, dict[str, None]] = {}
    rows: dict[str, Row] = {}
    for earlier in range(index, first - 1, -1):
        for row in read_parts(ctx.folder.round(earlier) / "dataset"):
            if row["decision"] == "kept":
                rows.setdefault(row["sample_id"], row)
                negatives.setdefault(row["sample_id"], {}).update(dict.fromkeys(row["negatives"]))
    return [{**row, "negatives": list(negatives[name])} for name, row in sorted(rows.items())]


def _train(ctx: Context, index: int, accepted: Tuned) -> Row:
    """{model: hash of the new one, training: facts}."""
    folder = ctx.folder.round(index)
    done = read_json(folder / "training" / "manifest.json")
    if done is not None:
        return done
    rows = training_rows(ctx, index)
    trained, validation = split_validation(ctx.recipe, rows)
    start = (
        accepted if ctx.recipe.train.start_from == "previous" else Tuned(ctx.base, ctx.base_hash, None, None)
    )
    ctx.encoders.close()
    lineage = {
        "base model": ctx.recipe.model.path,
        "started from": start.hash,
        "negatives mined by": accepted.hash,
        "round": index,
        "recipe": ctx.recipe.name,
        "rows": len(trained),
    }
    rng_seed = int(content_hash("training", ctx.recipe.rng_seed, index), 16) % 2**31
    with ctx.progress.stage(f"round {index}: training on {len(trained)} pairs") as bar:
        training = tune(
            ctx.recipe, start.path, trained, validation, folder / "model", rng_seed, lineage, bar,
            known=[row for row in read_parts(folder / "dataset") if row["decision"] != "kept"],
        )  # fmt: skip
    found = {"model": model_hash(folder / "model"), "training": training}
    (folder / "training").mkdir(exist_ok=True)
    write_json(folder / "training" / "manifest.json", found)
    return found


def _measure(ctx: Context, index: int, exam: Exam, digest: str, again: str = "") -> RetrievalEvaluation:
    folder = ctx.folder.round(index)
    with ctx.progress.stage(f"round {index}: evaluating{again}"):
        return kept_scores(
            lambda: ctx.encoders.at(folder / "model").encode, exam, folder / "evaluation", digest
        )


def _scores_of(ctx: Context, exam: Exam, accepted: Tuned) -> RetrievalEvaluation:
    """The accepted model's scores, measured again if the folder of its evaluation is gone."""
    if accepted.scores is not None:
        return accepted.scores
    assert accepted.round is not None
    return _measure(ctx, accepted.round, exam, accepted.hash, " again")


def _decide(
    ctx: Context,
    exam: Exam,
    base: RetrievalEvaluation,
    previous: RetrievalEvaluation,
    candidate: RetrievalEvaluation,
) -> tuple[Decision, float | None]:
    """What the gate says, and how much rank correlation was lost against the base (None where none is measured)."""
    gate = ctx.recipe.gate
    decision = decide(previous, candidate, gate.metric, gate.alpha, ctx.recipe.rng_seed)
    loss = sts_loss(exam, base, candidate) if exam.sts else None
    if gate.max_sts_loss is not None and loss is not None and loss > gate.max_sts_loss:
        decision = replace(decision, accepted=False, gained=False)
    return decision, loss


def _say_verdict(
    ctx: Context, index: int, scores: RetrievalEvaluation, decision: Decision, loss: float | None
) -> None:
    word = "accepted" if decision.accepted else "REJECTED, rolled back"
    p = decision.p_better if decision.difference >= 0 else decision.p_worse
    own = [_value(name, scores.scores[name], decision.metric) for name in scores.outcomes]
    told = f"({100 * decision.difference:+.1f} points, p = {p:.3g})"
    lost = "" if loss is None else f"; rank correlation {-100 * loss:+.1f} points to the base"
    ctx.progress.say(f"round {index}: {decision.metric} {', '.join(own)}  {told}{lost}: {word}")


def _value(name: str, found: Mapping[str, Any], metric: str) -> str:
    value, low, high = (100 * found[metric][key] for key in ("value", "low", "high"))
    return f"{name} {value:.1f} [{low:.1f}, {high:.1f}]"
