"""A run of kind `generate`: every domain's steps, verdicts of the finished rows, curation, one dataset.

1. Each generator writes its items step by step, every step a stage under DIR/round-00/steps/DOMAIN/.
2. The domain's verifier, if it has one, judges the rows they become: DIR/round-00/verdicts/.
3. Curation drops duplicates and what is too close to an evaluation; kept and rejected rows are DIR/round-00/dataset/.
4. DIR/round-00/metrics.json closes the run: the funnel, and what became of every step's tasks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from recipes.context import LimitReached
from recipes.generation.prepare import Prepared, facts, prepare
from recipes.generation.rows import Curated, curate_rows, dataset_rows, full_funnel, judged
from recipes.progress import Progress
from recipes.report import funnel_text
from recipes.running import running
from synth.records import schemas
from synth.records.errors import WorkError
from synth.records.jsonl import write_json
from synth.store import RunFolder, Stage

if TYPE_CHECKING:
    from recipes.generation.schema import GenerationRecipe
    from recipes.progress import Bar

Row = dict[str, Any]


def run_generation(
    recipe: GenerationRecipe, folder: RunFolder, check: Callable[[dict[str, Any]], None]
) -> str:
    """Run or resume the recipe in `folder`, which is locked. Returns the status it ends with: done or stopped.

    `check` is given the facts that a resumed run must find unchanged, before anything is asked or written.
    """
    from recipes.runner import package_versions

    progress = Progress()
    prepared = prepare(recipe, progress)
    try:
        found = facts(prepared)
        check(found)
    except BaseException:
        prepared.close()
        raise
    engine = prepared.engine.name if prepared.engine else None
    told = {**found, "engine": engine, "packages": package_versions()}
    with running(recipe, folder, told, progress, prepared.close) as end:
        _write(prepared, folder, progress)
    return end.status


def _write(prepared: Prepared, folder: RunFolder, progress: Progress) -> None:
    """Write, judge and curate every domain, and close the run. What is closed already is only read."""
    if folder.metrics(0) is not None:
        return
    begun, tokens = time.monotonic(), 0
    rows: list[Row] = []
    steps: dict[str, dict[str, Row]] = {}
    for writing in prepared.writings:
        place = folder.round(0) / "steps" / writing.name
        with progress.stage(writing.name) as bar:
            limits = _Limits(prepared.recipe, begun, tokens)
            session = prepared.session(
                writing, place, lambda *told, bar=bar, limits=limits: limits.show(bar, *told)
            )
            limits.session = session
            items = writing.generator.generate(session, writing.options, writing.items)
        rows += dataset_rows(writing.name, writing.generator, items)
        steps[writing.name], tokens = session.steps, tokens + session.tokens
    written = time.monotonic()
    with progress.stage("verifying", len(rows)) as bar:
        verdicts = judged(prepared, rows, folder.round(0) / "verdicts", bar)
    verified = time.monotonic()
    curated = curate_rows(prepared, rows, verdicts, folder.round(0))
    _store(prepared, folder, curated)
    metrics = {
        "base": None,
        "model": None,
        "accepted": None,
        "sampler": prepared.digest,
        "funnel": full_funnel(prepared.writings, steps, curated),
        "steps": steps,
        "timings": {"generate": round(written - begun, 3), "verify": round(verified - written, 3)},
        "tokens": {"sampled": tokens},
    }
    progress.say(funnel_text(metrics["funnel"]))
    if not curated.kept:
        fix = "see `synth inspect DIR`: every request is there with its raw reply and the cause"
        raise WorkError(prepared.recipe.name, "nothing was kept (funnel above)", fix)
    write_json(folder.round(0) / "metrics.json", metrics)
    paired = all("query" in writing.generator.compared for writing in prepared.writings)
    layout = "embedding" if paired else "messages"
    progress.say(
        f"{curated.kept:,} rows: synth export {folder.root} --format jsonl --layout {layout} --out PATH"
    )


def _store(prepared: Prepared, folder: RunFolder, curated: Curated) -> None:
    dataset = Stage(folder.round(0) / "dataset", schemas.generated)
    if not dataset.closed:
        dataset.write(curated.rows, {"model": prepared.digest, "kept": curated.kept})


class _Limits:
    """Tells the bar of every settled task, and stops the run where a limit is reached."""

    def __init__(self, recipe: GenerationRecipe, begun: float, tokens: int) -> None:
        self.limits, self.begun, self.tokens = recipe.limits, begun, tokens
        self.session: Any = None

    def show(self, bar: Bar, step: str, done: int, total: int | None) -> None:
        bar.update(done, total, f"{self.session.settings.domain}: {step}")
        sampled = self.tokens + self.session.tokens
        if self.limits.tokens is not None and sampled >= self.limits.tokens:
            raise LimitReached(f"limits.tokens: {sampled} of {self.limits.tokens} sampled")
        if self.limits.hours is not None and time.monotonic() - self.begun >= self.limits.hours * 3600:
            raise LimitReached(f"limits.hours: {self.limits.hours} used")
