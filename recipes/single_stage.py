"""One training on given rows, and single stages from the command line (`synth train`, `synth evaluate`)."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes import models
from recipes.context import Clock, Context, Model
from recipes.engine_handle import EngineHandle
from recipes.evaluation import evaluate, examination
from recipes.improve import Task, closed_model, improve, measured_base, point_at, split_validation
from recipes.problems import load_domains
from recipes.sampling import GREEDY
from recipes.supervised import curate_given, mix_rows, supervised_rows, trainable
from synth.export import read_rows as export_rows
from synth.records import schemas
from synth.records.errors import InputError, WorkError
from synth.records.jsonl import write_json
from synth.store import RunFolder, Stage, read_parts

log = logging.getLogger("synthloop")

if TYPE_CHECKING:
    from recipes.progress import Progress
    from recipes.sampling import Row
    from recipes.schema import Recipe


def train_once(ctx: Context) -> Model:
    """Kind `sft`: train on the domains' own `train` rows (they carry `completion`), measured before and after.

    One round: curate, train, probe, evaluate, gate. Where the gate calls the trained model worse, DIR/model stays the
    base; the trained one is left in its round's folder, because it is all that such a run makes.
    """
    base = measured_base(ctx)
    metrics = ctx.folder.metrics(0)
    if metrics is None:
        ctx.check_limits()
        metrics = _only_round(ctx, base)
    accepted = closed_model(ctx, 0) if metrics["accepted"] else base
    point_at(ctx, accepted)
    return accepted


def _only_round(ctx: Context, base: Model) -> dict[str, Any]:
    from recipes.report import funnel_text

    folder, clock = ctx.folder.round(0), Clock()
    rows, funnel = curate_given(ctx.recipe, ctx.domains, Stage(folder / "dataset", schemas.dataset))
    ctx.progress.say(funnel_text(funnel))
    clock.lap("curate")
    kept = [trainable(row) for row in rows if row["decision"] == "kept"]
    if not kept:
        fix = "see `synth inspect DIR`, the data sources and the recipe's `curate` section"
        raise WorkError("round 0", "no row was kept, so there is nothing to train on (funnel above)", fix)
    left_out = folder / "training" / "mix_left_out.jsonl"
    task = Task(
        start=base,
        rows=[*kept, *mix_rows(ctx.recipe, ctx.domains, left_out, ctx.progress.say)],
        lineage={},
        sequences=_sampled_tokens(ctx.folder.base / "evaluation" / "completions"),
        rng_seed=ctx.recipe.rng_seed,
    )
    improved = improve(ctx, 0, base, task, clock)
    metrics = {
        "base": base.evaluation.scores if base.evaluation else None,
        "sampler": ctx.base_hash,
        "funnel": funnel,
        "timings": clock.seconds,
        **improved,
        "tokens": {**improved["tokens"], "completions_saved": 0},
    }
    write_json(folder / "metrics.json", metrics)
    return metrics


def _sampled_tokens(completions: Path) -> list[list[int]]:
    """Prompt and greedy completion of held-out problems as token ids, where the engine gives them."""
    return [
        [*row["prompt_token_ids"], *row["completion_token_ids"]]
        for row in read_parts(completions)
        if row["index"] == GREEDY and row["prompt_token_ids"] and row["completion_token_ids"]
    ]


def train_alone(recipe: Recipe, data: str | None, out: Path, progress: Progress) -> Path:
    """`synth train`: rows of `data` (JSONL or parquet file, run or stage directory), else of the recipe's `train`.

    Raises InputError when there are none.
    """
    import trainers
    from recipes.runner import make_folder

    make_folder(out.parent, "--out")
    rows = [trainable(row) for row in read_rows(Path(data))[0]] if data else None
    if recipe.model.path == "scratch":
        base = _scratch(recipe, out)
    else:
        base = models.resolve(recipe.model.path, recipe.model.revision)
    if rows is None:
        rows = [r for domain in load_domains(recipe, base) for r in supervised_rows(domain, domain.train(0))]
    rows, validation = split_validation(rows, recipe)
    lineage = {"base model": recipe.model.path, "recipe": recipe.name, "rows": len(rows)}
    with progress.stage(f"training on {len(rows)} rows") as bar:
        trainers.train(
            str(base),
            rows,
            str(out),
            recipe.train_options(),
            recipe.rng_seed,
            validation=validation,
            lineage=lineage,
            on_step=lambda entry: bar.update(entry["step"], entry["steps"]),
            log=log.info,
            hub={"trust_remote_code": recipe.model.trust_remote_code},
        )
    progress.say(f"model: {out}")
    return out


def _scratch(recipe: Recipe, out: Path) -> Path:
    """A new model beside `out`: tokenizer trained on the recipe's own rows, weights drawn from `rng_seed`."""
    import trainers.scratch

    assert recipe.model.scratch is not None
    start = out.with_name(f"{out.name}.scratch")
    if not (start / "config.json").exists():
        domains = load_domains(recipe, None)
        rows = [row for domain in domains for row in supervised_rows(domain, domain.train(0))]
        texts = [row["prompt"] + row["completion"] for row in rows]
        trainers.scratch.create(str(start), texts, recipe.model.scratch, recipe.rng_seed)
    return start


def read_rows(path: Path) -> tuple[list[Row], list[Row]]:
    """Rows of a JSONL or parquet file, a stage directory, or the last round of a run directory: those to train on, and
    those that were not kept.

    Raises InputError where there are none to train on.
    """
    kept: list[Row] = []
    others: list[Row] = []
    for row in _rows_in(path):
        (kept if row.get("decision", "kept") == "kept" else others).append(row)
    if not kept:
        seen = (
            f"{path} holds {len(others)} rows, and none of them is kept"
            if others
            else f"{path} holds no rows"
        )
        raise InputError("--data", seen, "name a JSONL or parquet file with rows, or a run that kept some")
    return kept, others


def _rows_in(path: Path) -> Iterable[Row]:
    if path.is_dir():
        if (path / "manifest.json").exists() and list(path.glob("part-*.parquet")):
            return read_parts(path)
        run = RunFolder(path)
        rounds = [i for i in run.rounds() if (run.round(i) / "dataset" / "manifest.json").exists()]
        if rounds:
            return read_parts(run.round(rounds[-1]) / "dataset")
        raise InputError(
            "--data", f"{path} is a folder without a dataset", "name a run directory, a stage or a file"
        )
    if not path.exists():
        raise InputError(
            "--data", f"{path} does not exist", "name a JSONL or parquet file, or a run directory"
        )
    return export_rows(path)


def evaluate_alone(recipe: Recipe, model: str, out: Path, progress: Progress) -> dict[str, Any]:
    """`synth evaluate`: completions and verdicts are kept beside `out`, so that a second call goes on."""
    from recipes.runner import check_domain, engine_choice, make_folder, workers_of

    if out.is_dir():
        raise InputError("--out", f"{out} is a folder", "name the JSON file that the scores go to")
    if not any(domain.held_out for domain in recipe.domains.values()):
        seen = "no domain with `held_out`, so there is nothing to measure on"
        raise InputError("domains", seen, "give held-out problems: --set domains.NAME.held_out=FILE")
    make_folder(out.parent, "--out")
    path, digest = models.locate(recipe.engine.name, model, field="--model")
    domains = load_domains(recipe, path)
    engine = EngineHandle(*engine_choice(recipe, progress), model)
    try:
        for domain in domains:
            check_domain(recipe, domain)
        exam = examination(recipe, domains, workers_of(recipe))
        folder = out.with_name(f"{out.name}.work") / digest
        with progress.stage("evaluating") as bar:
            result = evaluate(exam, lambda: engine.at(path), folder, digest, bar.update)
    finally:
        engine.close()
        for domain in domains:
            domain.verifier.close()
    return {"model": str(path), "model_hash": digest, "scores": result.scores, "details": result.details}
