"""A run of kind `embedding`: pairs, verdicts, curation, base evaluation, rounds of mining, training and the gate.

1. Generators write or mine their pairs in a run of their own (DIR/pairs); the other domains' pairs are given.
2. They are verified, set apart, curated (recipes/embedding/curated.py): DIR/round-00/verdicts, DIR/curated.
3. Rounds (recipes/embedding/rounds.py).

What is on disk is never made again: a stopped run goes on inside the step it was in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from recipes.embedding import writing
from recipes.embedding.context import Context, Tuned, prepare
from recipes.embedding.curated import HELD_OUT, Pairs, all_pairs, decided, judged
from recipes.embedding.measure import Exam, all_sets, exam_of, texts_of
from recipes.embedding.report import DOCUMENTS, end_lines, write_card
from recipes.embedding.rounds import run_rounds
from recipes.embedding.schema import Beir
from recipes.progress import Progress
from recipes.report import funnel_text, plot_scores, summary_text
from recipes.running import closed_rounds, running
from synth.curate.text import normalise
from synth.records import schemas
from synth.records.errors import WorkError
from synth.records.ids import content_hash
from synth.records.jsonl import write_jsonl
from synth.store import RunFolder, Stage

if TYPE_CHECKING:
    from recipes.embedding.schema import EmbeddingRecipe

Row = dict[str, Any]


def run_embedding(
    recipe: EmbeddingRecipe, folder: RunFolder, check: Callable[[Row], None], workers: int
) -> str:
    """Run or resume the recipe in `folder`, which is locked. Returns the status it ends with: done or stopped.

    `check` is given the facts that a resumed run must find unchanged, before anything is written.
    """
    from recipes.runner import package_versions

    progress = Progress()
    ctx, facts = prepare(recipe, folder, progress, workers)
    check(facts)
    closed, final = closed_rounds(folder), None
    engine = recipe.writer.engine.name if recipe.writer else None
    told = {**facts, "engine": engine, "packages": package_versions()}
    with running(recipe, folder, told, progress, ctx.encoders.close) as end:
        final = _work(ctx)
    if end.status == "done" and closed == closed_rounds(folder) > 0:
        progress.say(f"nothing was left to do: {closed} rounds are closed (rounds: {recipe.rounds})")
    _tell_end(ctx, final)
    return end.status


def _work(ctx: Context) -> Tuned:
    """Everything between the checks and the end of the run."""
    recipe = ctx.recipe
    ctx.check_limits()
    writing.write_pairs(recipe, ctx.pairs_folder)
    pairs, exam = curated_pairs(ctx)
    if closed_rounds(ctx.folder) < recipe.rounds:
        ctx.progress.say(funnel_text(pairs.funnel))
    if not pairs.kept:
        fix = "see `synth inspect DIR`, the sources and the recipe's `curate` section"
        raise WorkError(recipe.name, "no pair was kept, so there is nothing to train on (funnel above)", fix)
    written = ctx.pairs_folder.metrics(0) or {}
    tokens = written.get("tokens", {}).get("sampled", 0)
    return run_rounds(ctx, pairs, exam, tokens)


def _tell_end(ctx: Context, final: Tuned | None) -> None:
    """The table of scores, its picture, the model's card and path, and how to try it."""
    recipe, folder = ctx.recipe, ctx.folder
    rounds = [metrics for index in folder.rounds() if (metrics := folder.metrics(index))]
    if recipe.train.method == "none":
        if rounds:
            place = f"synth export {folder.root} --format jsonl --layout embedding --out PATH"
            ctx.progress.say(f"pairs with negatives: {place}")
        return
    if rounds:
        plot = plot_scores(rounds, folder.root / "score.png", recipe.gate.metric)
        ctx.progress.say(summary_text(rounds, recipe.gate.metric, unit="queries"))
        ctx.progress.say(f"score over rounds: {plot}")
    if final is not None:
        write_card(folder, recipe)
        ctx.progress.say("\n".join(end_lines(ctx)))


def curated_pairs(ctx: Context) -> tuple[Pairs, Exam | None]:
    """The run's pairs with their decisions, and what models are measured on (None in a run that trains nothing)."""
    recipe = ctx.recipe
    stage = Stage(ctx.folder.root / "curated", schemas.pairs)
    if not stage.closed:
        pairs = _decided(ctx)
        stage.write(pairs.rows, {"funnel": pairs.funnel})
    pairs = Pairs(stage.rows(), stage.manifest()["funnel"])
    documents = ctx.folder.root / DOCUMENTS
    if not documents.exists():
        write_jsonl(documents, documents_of(ctx, pairs))
    if recipe.train.method == "none":
        return pairs, None
    exam = exam_of(recipe, all_sets(recipe, ctx.sets, pairs.held_out))
    for first in exam.own[:1]:
        query = next(iter(first.judged))
        ctx.example = (first.queries[query], first.instructions.get(query, first.instruction))
    return pairs, exam


def documents_of(ctx: Context, pairs: Pairs) -> Iterator[Row]:
    """{id, text} of what the run's pairs and held-out pairs have for documents, each once (case and blanks aside): an
    index to try the model with. Folders in BEIR's layout have a corpus of their own."""
    texts = [row["positive"] for row in pairs.rows if row["decision"] in ("kept", HELD_OUT)]
    for name, found in ctx.sets.items():
        if not isinstance(ctx.recipe.domains[name].held_out, Beir):
            texts += found.corpus.values()
    first: dict[str, str] = {}
    for text in texts:
        first.setdefault(content_hash("document", normalise(text)), text)
    yield from ({"id": name, "text": text} for name, text in sorted(first.items()))


def _decided(ctx: Context) -> Pairs:
    recipe = ctx.recipe
    loaded = all_pairs(recipe, ctx.given, ctx.pairs_folder)
    verdicts: dict[str, Row] = {}
    if any(domain.verifier for domain in recipe.domains.values()):
        place = Stage(ctx.folder.round(0) / "verdicts", schemas.verdicts)
        with ctx.progress.stage("verifying", sum(len(each.rows) for each in loaded.values())) as bar:
            verdicts = judged(recipe, loaded, ctx.encode_base, place, bar, ctx.workers)

    def texts(held_out: dict[str, list[Row]]) -> dict[str, list[str]]:
        return texts_of(all_sets(recipe, ctx.sets, held_out))

    return decided(recipe, loaded, verdicts, texts, ctx.folder.round(0))
