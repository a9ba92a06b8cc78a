"""What every model of a run is measured on, and its scores: kept in a file, reused only for the same test."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.embedding.checks import sts_name
from recipes.embedding.pairs import distractor_texts, given_pairs
from recipes.embedding.schema import Beir, HeldOutShare
from recipes.retrieval.evaluation import RetrievalEvaluation, evaluate_retrieval, evaluate_sts
from recipes.retrieval.sets import RetrievalSet, pairs_set, read_beir
from recipes.retrieval.sts import StsSet, read_sts
from synth.records.errors import InputError, WorkError
from synth.records.ids import content_hash
from synth.records.jsonl import write_json
from synth.store import read_json

if TYPE_CHECKING:
    from recipes.embedding.schema import EmbeddingRecipe
    from synth.retrieval import Encode

Row = dict[str, Any]
SPEARMAN = "spearman"
READING = ("pooling", "max_length", "query_template", "document_template", "dtype")
"""Options of `train` that say how any model reads and encodes texts."""


@dataclass(frozen=True)
class Exam:
    """What stays the same from model to model. `own` are the recipe's domains and `sts` its sentence pairs, by which
    the gate decides; `further` the sets of mteb, which are only told. `reading`: how every model reads texts."""

    own: list[RetrievalSet]
    further: list[RetrievalSet | StsSet]
    sts: list[StsSet]
    metrics: list[str]
    ks: list[int]
    bootstrap: int
    rng_seed: int
    reading: dict[str, Any]

    @property
    def searched(self) -> list[RetrievalSet]:
        """All sets of queries and documents."""
        return [*self.own, *(each for each in self.further if isinstance(each, RetrievalSet))]

    @property
    def compared(self) -> list[StsSet]:
        """All sets of sentence pairs."""
        return [*self.sts, *(each for each in self.further if isinstance(each, StsSet))]

    @cached_property
    def digest(self) -> str:
        """Hash of all that the scores depend on besides the model."""
        sets = [
            [each.name, dict(each.queries), dict(each.corpus), {q: dict(g) for q, g in each.qrels.items()},
             each.instruction, dict(each.instructions)]
            for each in self.searched
        ]  # fmt: skip
        pairs = [
            [each.name, each.instruction, list(each.first), list(each.second), list(each.scores)]
            for each in self.compared
        ]
        return content_hash(sets, pairs, self.metrics, self.ks, self.bootstrap, self.rng_seed, self.reading)


def exam_of(recipe: EmbeddingRecipe, own: Mapping[str, RetrievalSet]) -> Exam:
    """The recipe's sets, its domains' handed in as `own`.

    Raises InputError for a set that cannot be read or has nothing to measure.
    """
    most = recipe.evaluate.max_queries
    return Exam(
        own=[_first(each, most) for each in own.values()],
        further=[
            _first(each, most) if isinstance(each, RetrievalSet) else each
            for name in recipe.evaluate.mteb
            for each in _mteb(name)
        ],
        sts=[read_scored(path, f"evaluate.sts.{at}") for at, path in enumerate(recipe.evaluate.sts)],
        metrics=recipe.metrics,
        ks=sorted(set(recipe.evaluate.k)),
        bootstrap=recipe.evaluate.bootstrap,
        rng_seed=recipe.rng_seed,
        reading={name: getattr(recipe.train, name) for name in READING},
    )


def fixed_sets(recipe: EmbeddingRecipe) -> dict[str, RetrievalSet]:
    """{domain: its held-out set} of the domains that are not measured on a share of their own pairs.

    Raises InputError at the recipe's key for a set that cannot be read or has nothing to measure.
    """
    found = {}
    for name, domain in recipe.domains.items():
        key = f"domains.{name}.held_out"
        if isinstance(domain.held_out, Beir):
            with _standing_at(f"{key}.beir", name):
                found[name] = read_beir(domain.held_out.beir, domain.held_out.split, name, domain.instruction)
        elif domain.held_out is not None and not isinstance(domain.held_out, HeldOutShare):
            rows, more = given_pairs(recipe, name, "held_out").rows, distractor_texts(recipe, name)
            with _standing_at(key, name):
                found[name] = pairs_set(name, rows, more)
    return found


@contextmanager
def _standing_at(key: str, name: str) -> Iterator[None]:
    """Let errors of the set `name` begin with the recipe's key; those of its files name the place in them, too."""
    try:
        yield
    except InputError as error:
        where = key if error.where == name else f"{key}, {error.where}"
        raise InputError(where, error.seen, error.fix) from None


def all_sets(
    recipe: EmbeddingRecipe, fixed: Mapping[str, RetrievalSet], held_out: Mapping[str, list[Row]]
) -> dict[str, RetrievalSet]:
    """The fixed sets and those of the pairs that were set apart (`held_out`, by domain), in the recipe's order."""
    found = {}
    for name, domain in recipe.domains.items():
        if name in fixed:
            found[name] = fixed[name]
        elif isinstance(domain.held_out, HeldOutShare):
            if not held_out.get(name):
                where = f"domains.{name}.held_out"
                raise WorkError(
                    where, "no pair that was held out passed its verifier", "see `synth inspect DIR`"
                )
            found[name] = pairs_set(name, held_out[name], distractor_texts(recipe, name))
    return found


def texts_of(sets: Mapping[str, RetrievalSet]) -> dict[str, list[str]]:
    """{domain: its held-out queries and the documents that answer them}: what no training pair may repeat."""
    return {
        name: [
            *(each.queries[query] for query in each.judged),
            *dict.fromkeys(
                each.corpus[document]
                for grades in each.judged.values()
                for document in grades
                if document in each.corpus
            ),
        ]
        for name, each in sets.items()
    }


def read_scored(path: str, where: str) -> StsSet:
    """Sentence pairs with scores. Raises InputError at `where` if there is no such file."""
    if not Path(path).expanduser().is_file():
        raise InputError(where, f"no such file: {path}", "name a .jsonl or tab-separated file")
    return read_sts(Path(path).expanduser(), sts_name(path))


def _mteb(name: str) -> list[RetrievalSet | StsSet]:
    from recipes.retrieval.mteb import read_mteb

    return read_mteb(name)


def _first(given: RetrievalSet, most: int | None) -> RetrievalSet:
    """The set with its first queries, in order of their ids."""
    if most is None:
        return given
    return replace(given, queries={query: given.queries[query] for query in list(given.judged)[:most]})


def measured(encode: Encode, exam: Exam) -> RetrievalEvaluation:
    """Scores of the model behind `encode`."""
    given = {"bootstrap": exam.bootstrap, "rng_seed": exam.rng_seed}
    found = evaluate_retrieval(encode, exam.searched, exam.ks, **given)
    scores = {
        name: {metric: told[metric] for metric in exam.metrics} | {"n": told["n"]}
        for name, told in found.scores.items()
    }
    own = {each.name: found.outcomes[each.name] for each in exam.own}
    outcomes = {
        name: {query: {m: values[m] for m in exam.metrics} for query, values in queries.items()}
        for name, queries in own.items()
    }
    return RetrievalEvaluation({**scores, **evaluate_sts(encode, exam.compared, **given)}, outcomes)


def read_scores(folder: Path, digest: str, exam: Exam) -> RetrievalEvaluation | None:
    """The scores of the model `digest` in this test that `folder` holds, if it holds them."""
    found = read_json(folder / "evaluation.json")
    if found is None or (found["model"], found["examination"]) != (digest, exam.digest):
        return None
    return RetrievalEvaluation(found["scores"], found["outcomes"])


def kept_scores(encode_at: Any, exam: Exam, folder: Path, digest: str) -> RetrievalEvaluation:
    """The scores that `folder` holds, or new ones, which are then kept there. encode_at: opens the model.

    Raises InputError where the folder's scores are another model's or another test's.
    """
    before = read_json(folder / "evaluation.json")
    if before is not None:
        wrong = [key for key, now in (("model", digest), ("examination", exam.digest)) if before[key] != now]
        if wrong:
            seen = f"holds scores made with another {wrong[0]}"
            raise InputError(str(folder), seen, "delete that folder, or choose another --out")
        return RetrievalEvaluation(before["scores"], before["outcomes"])
    scores = measured(encode_at(), exam)
    folder.mkdir(parents=True, exist_ok=True)
    made_with = {"model": digest, "examination": exam.digest}
    # First, so that scores never stand without it.
    write_json(folder / "manifest.json", made_with)
    told = {**made_with, "scores": scores.scores, "outcomes": scores.outcomes}
    write_json(folder / "evaluation.json", told)
    return scores


def sts_loss(exam: Exam, base: RetrievalEvaluation, candidate: RetrievalEvaluation) -> float:
    """By how much the candidate's rank correlation is below the base's on the set where it lost most."""
    names: Iterable[str] = (each.name for each in exam.sts)
    losses = (base.scores[n][SPEARMAN]["value"] - candidate.scores[n][SPEARMAN]["value"] for n in names)
    return max(losses)
