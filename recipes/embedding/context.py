"""What the stages of an `embedding` run share, and what must be right before any of them begins."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes import models
from recipes.context import LimitReached
from recipes.curation_files import check_files, named_sets
from recipes.embedding import writing
from recipes.embedding.beside import check_kind, model_hashes
from recipes.embedding.checks import COMPARED
from recipes.embedding.curated import held_out_ids, pair_verifier
from recipes.embedding.measure import fixed_sets, read_scored, texts_of
from recipes.embedding.pairs import distractor_texts, given_pairs
from recipes.embedding.schema import HeldOutShare
from recipes.problems import Loaded
from recipes.retrieval.mteb import PIP as MTEB
from recipes.side_files import side_hashes
from recipes.validation import TRACKER_PACKAGES, Finding
from synth.curate import evaluation_sets
from synth.records.errors import EMBEDDING_EXTRA, InputError
from synth.records.ids import content_hash, model_hash
from synth.store import RunFolder

if TYPE_CHECKING:
    from recipes.embedding.schema import EmbeddingRecipe
    from recipes.progress import Progress
    from recipes.retrieval.evaluation import RetrievalEvaluation
    from recipes.retrieval.sets import RetrievalSet
    from trainers import Encoder


class Encoders:
    """Holds at most one open model, encoding as the recipe's training does."""

    def __init__(self, recipe: EmbeddingRecipe) -> None:
        self._options = recipe.train_options()
        self._hub = {"trust_remote_code": recipe.model.trust_remote_code}
        self._path: Path | None = None
        self._encoder: Encoder | None = None

    def at(self, path: Path) -> Encoder:
        """The model at `path`; the one before is let go."""
        if self._encoder is None or self._path != path:
            import trainers

            self.close()
            self._encoder = trainers.open_encoder(str(path), options=self._options, hub=self._hub)
            self._path = path
        return self._encoder

    def close(self) -> None:
        """Let the model's memory go."""
        self._encoder = self._path = None


@dataclass(frozen=True)
class Tuned:
    """A model of this run with its scores; `round` is None for the base, scores are in a run that trains nothing."""

    path: Path
    hash: str
    scores: RetrievalEvaluation | None
    round: int | None


@dataclass
class Context:
    """What every stage needs. `given` are the pairs of domains without a generator, `sets` the held-out sets that need
    none of them."""

    recipe: EmbeddingRecipe
    folder: RunFolder
    base: Path
    base_hash: str
    given: dict[str, Loaded]
    sets: dict[str, RetrievalSet]
    workers: int
    progress: Progress
    encoders: Encoders
    example: tuple[str, str] = ("QUERY", "")
    """A held-out query and its instruction, once they are known, to try the model with."""
    started: float = field(default_factory=time.monotonic)

    @property
    def pairs_folder(self) -> RunFolder:
        """The nested run of the generators."""
        return RunFolder(self.folder.root / "pairs")

    def encode_base(self) -> Any:
        """The base model's `encode`, the model opened if need be."""
        return self.encoders.at(self.base).encode

    def check_limits(self) -> None:
        """Raises LimitReached."""
        hours = self.recipe.limits.hours
        if hours is not None and time.monotonic() - self.started >= hours * 3600:
            raise LimitReached(f"limits.hours: {hours} used")


def findings(recipe: EmbeddingRecipe) -> Iterator[Finding]:
    """What is not installed for this recipe, what its writer's engine lacks, or what it makes in vain: asked by
    `synth validate`, and before a run starts."""
    mine, trains = recipe.mine, recipe.train.method != "none"
    for package, key, needed in (
        ("sentence_transformers", "train.method", trains),
        ("sentence_transformers", "mine.method", mine.dense and not trains),
        ("sentence_transformers", "mine.rescore", mine.rescore and not (trains or mine.dense)),
        ("bm25s", "mine.method", mine.bm25),
        ("usearch", "mine.exact", mine.dense and mine.exact is False),
        ("mteb", "evaluate.mteb", bool(recipe.evaluate.mteb)),
    ):
        if needed and importlib.util.find_spec(package) is None:
            fix = MTEB if package == "mteb" else EMBEDDING_EXTRA
            yield Finding("error", key, f"needs the package {package.replace('_', '-')}", fix)
    for tracker in recipe.train.trackers:
        if importlib.util.find_spec(TRACKER_PACKAGES.get(tracker, tracker)) is None:
            fix = f"pip install 'synthloop[{tracker}]'"
            yield Finding("error", "train.trackers", f"{tracker} is not installed", fix)
    used = recipe.train.hard_negatives
    if trains and mine.method != "none" and mine.count > used:
        seen = f"{mine.count}, but train.hard_negatives uses {used}"
        yield Finding("warning", "mine.count", seen, "mine fewer, or use more")
    yield from writing.findings(recipe)


def prepare(
    recipe: EmbeddingRecipe, folder: RunFolder, progress: Progress, workers: int
) -> tuple[Context, dict[str, Any]]:
    """Read pairs and held-out sets, find the model, check verifiers and files; nothing is written or trained yet.

    Returns what the run needs and the facts that a resumed run must find unchanged. Raises InputError for what refuses
    the run.
    """
    for finding in findings(recipe):
        if finding.level == "error":
            raise InputError(finding.where, finding.seen, finding.fix)
        progress.say(finding.text())
    check_tasks(recipe)
    given = {
        name: given_pairs(recipe, name, "train")
        for name, domain in recipe.domains.items()
        if domain.generator is None and domain.train is not None
    }
    held_out_ids(recipe, given)
    sets = fixed_sets(recipe)
    for number, path in enumerate(recipe.evaluate.sts):
        read_scored(path, f"evaluate.sts.{number}")
    # Decontamination fails closed: an evaluation set that cannot be used stops the run before any work.
    evaluation_sets(
        recipe.curate.decontaminate, {**known_texts(recipe, texts_of(sets)), **named_sets(recipe)}
    )
    check_files(recipe.curate, [COMPARED])
    written = writing.inputs_hashes(recipe)
    base = models.resolve(recipe.model.path, recipe.model.revision)
    check_training(recipe, base)
    context = Context(
        recipe, folder, base, model_hash(base), given, sets, workers, progress, Encoders(recipe)
    )
    for name in recipe.domains:
        verifier = pair_verifier(recipe, name, context.encode_base)
        if verifier is not None:
            verifier.close()
    data = {
        name: {
            "train": written.get(name) or _pairs_hash(given.get(name)),
            "held_out": _set_hash(sets[name]) if name in sets else _apart_hash(recipe, name),
        }
        for name in recipe.domains
    }
    files = {**side_hashes(recipe), **model_hashes(recipe)}
    return context, {
        "model": {"path": recipe.model.path, "hash": context.base_hash},
        "data": data,
        "files": files,
    }


def check_training(recipe: EmbeddingRecipe, base: Path) -> None:
    """Raise InputError where `base` is no embedder, or lacks dimensions or layers asked for; no weights are read."""
    check_kind("model.path", recipe.model.path, base, "bi")
    options, lora = recipe.train_options(), recipe.train.lora
    named = lora is not None and lora.target_modules != "all-linear"
    if recipe.train.method != "none" and (options.matryoshka or named):
        import trainers

        trainers.check_embedder(str(base), options, trust_remote_code=recipe.model.trust_remote_code)


def check_tasks(recipe: EmbeddingRecipe) -> None:
    """Raise InputError for a name of `evaluate.mteb` that is no such task; no data are fetched."""
    from recipes.retrieval.mteb import find_task

    for name in recipe.evaluate.mteb:
        find_task(name)


def known_texts(recipe: EmbeddingRecipe, texts: dict[str, list[str]]) -> dict[str, list[str]]:
    """Held-out texts by domain, with something in place of those that come with the pairs set apart for them."""
    later = [n for n, domain in recipe.domains.items() if isinstance(domain.held_out, HeldOutShare)]
    return {**texts, **{name: ["any text"] for name in later}}


def _pairs_hash(loaded: Loaded | None) -> str:
    told = ("sample_id", "negatives", "group", "source")
    return content_hash([[row[name] for name in told] for row in loaded.rows] if loaded else [])


def _set_hash(given: RetrievalSet) -> str:
    graded = {query: dict(grades) for query, grades in given.qrels.items()}
    return content_hash(dict(given.queries), dict(given.corpus), graded)


def _apart_hash(recipe: EmbeddingRecipe, name: str) -> str:
    """What a domain measured on a share of its own pairs, or not at all, has beside them."""
    return content_hash(distractor_texts(recipe, name))
