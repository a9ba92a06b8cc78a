"""The recipe of kind `embedding`: every key, its default, its range; shared sections are those of `recipes.schema`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag

from recipes.generation.schema import GenerationSampling, Generator, InputRows, Parse
from recipes.schema import (
    ENGINE_FREE,
    EXTEND,
    FREE,
    Column,
    Count,
    Engine,
    Inputs,
    Keep,
    Model,
    Section,
    Share,
    Source,
    Verifier,
    Whole,
    lasting_options,
    without_marked,
)
from synth.curate.options import CurateOptions
from synth.retrieval.options import MiningOptions
from trainers.contrastive_options import ContrastiveOptions
from trainers.options import EarlyStopping

EMBEDDING = "embedding"
METRICS = ("ndcg", "mrr", "recall")
BASE = "base"
"""As the `model` of the verifier `pairs`: the run's base model is the guide."""


class Embedder(Section):
    """The model to tune. A plain string is short for `path`."""

    path: str = Field(min_length=1)
    """Local folder or hub name: sentence-transformers' layout, or a plain encoder or decoder of transformers."""
    trust_remote_code: bool = False
    revision: str | None = None
    """Branch, tag or commit on the hub."""


class Beir(Section):
    """A folder in BEIR's layout: corpus.jsonl, queries.jsonl, qrels/SPLIT.tsv."""

    beir: str = Field(min_length=1)
    split: str = "test"


class HeldOutShare(Section):
    """A share of the domain's own pairs, set apart so that no document, query or group is on both sides."""

    share: float = Field(gt=0, lt=1)


def _held_out_kind(value: Any) -> str:
    """Which kind of held-out set a value means. Kinds start with `#` so that error paths can leave them out."""
    keys = value if isinstance(value, dict) else getattr(type(value), "model_fields", ())
    return next((f"#{key}" for key in ("beir", "share") if key in keys), "#rows")


HeldOut = Annotated[
    Annotated[Source, Tag("#rows")] | Annotated[Beir, Tag("#beir")] | Annotated[HeldOutShare, Tag("#share")],
    Discriminator(_held_out_kind),
]


class EmbeddingDomain(Section):
    """One kind of pairs."""

    train: Inputs | None = None
    """Pairs (`query`, `positive`), or a finished run of kind `generate` that wrote some; with `generator` what it makes
    them from."""
    generator: Generator | None = None
    """Writes or mines the pairs; null: `train` holds them."""
    columns: dict[str, Column] = Field(default_factory=dict)
    """Column the program uses: column of the source. Those that are no part of a pair are the generator's."""
    instruction: str = ""
    """What the domain's queries ask for; a row's own instruction wins."""
    verifier: Verifier | None = Verifier(name="pairs")
    """Judges the pairs; what fails is kept in the dataset as rejected. Null: all are taken."""
    held_out: HeldOut | None = None
    """Measured on: rows of pairs, a folder in BEIR's layout, or a share of the domain's own pairs."""
    distractors: Source | None = None
    """Further documents (column `positive` or `text`) among which held-out queries must find theirs."""


class Writer(Section):
    """The language model that generators ask."""

    model: Model
    engine: Engine = Engine()
    sampling: GenerationSampling = GenerationSampling()
    parse: Parse = Parse()
    chat: bool = True
    """Ask in a user's chat turn; false: plain text to continue."""
    system: str | None = None
    """System text before the user's turn."""


class Rescore(Section):
    """A model that scores mined negatives anew. A plain string is short for `model`."""

    model: str = Field(min_length=1)
    """Folder or hub name."""
    kind: Literal["bi", "cross"] = "bi"
    """`bi`: an embedder, cosines. `cross`: a cross-encoder that reads query and document together."""


@dataclass(frozen=True)
class CurateSection(CurateOptions):
    """Curation's options; a query may have any number of documents."""

    cap_per_problem: int | None = None
    """At most this many pairs a query; null: no cap."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}


@dataclass(frozen=True)
class MineSection(MiningOptions):
    """Mining's options and the model that checks what was found."""

    rescore: Rescore | None = None
    """Margins then hold for its scores; null: for those of the search."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}


@dataclass(frozen=True)
class SearchStopping(EarlyStopping):
    """Stop when a search among validation pairs gets no better."""

    mode: Literal["max"] = "max"
    """Of all that is measured of a search, more is better."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}


@dataclass(frozen=True)
class ContrastiveSection(ContrastiveOptions):
    """The trainer's options and what only the loop over rounds knows."""

    method: Literal["infonce", "none"] = "infonce"
    """`none`: a round ends after mining."""
    start_from: Literal["base", "previous"] = "base"
    """`previous`: the last accepted model."""
    data: Literal["round", "all_rounds"] = "round"
    """`all_rounds`: a pair has the negatives of earlier rounds, too, behind this round's."""
    validation_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the pairs that is not trained on but searched during training (for `early_stopping`)."""
    early_stopping: SearchStopping | None = None
    """Stop on a metric of that search; needs `eval_every`."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}


class EmbeddingEvaluate(Section):
    k: list[Count] = Field(default=[10], min_length=1)
    """Ranks that count."""
    metrics: list[Literal["ndcg", "mrr", "recall"]] = Field(default=list(METRICS), min_length=1)
    sts: list[str] = Field(default_factory=list)
    """Files of sentence pairs with scores (Spearman's rank correlation)."""
    mteb: list[str] = Field(default_factory=list)
    """Retrieval and STS tasks of the package mteb, by name."""
    max_queries: Count | None = None
    """The first queries of each set; null: all."""
    bootstrap: Whole = Field(default=2000, ge=100)
    """Resamples behind the 95 % intervals."""


class EmbeddingGate(Section):
    metric: str = Field(default="ndcg@10", pattern=r"^(ndcg|mrr|recall)@[1-9][0-9]*$")
    alpha: float = Field(default=0.05, gt=0, lt=1)
    patience: Whole = Field(default=2, ge=0)
    """Stop after so many rounds without a significant gain; 0: never."""
    max_sts_loss: Share | None = None
    """Reject a model whose rank correlation on a set of `evaluate.sts` is lower than the base's by more (0.01: one
    point); null: never."""


class EmbeddingLimits(Section):
    hours: float | None = Field(default=None, gt=0)


class EmbeddingRecipe(Section):
    """A whole recipe of kind `embedding`, every default filled in."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    kind: Literal["embedding"]
    rng_seed: Whole = Field(default=0, ge=0, lt=2**31)
    rounds: Count = 1
    model: Embedder
    writer: Writer | None = None
    """Null: no generator of the recipe asks a model."""
    domains: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")], EmbeddingDomain] = Field(min_length=1)
    problems: InputRows = InputRows()
    curate: CurateSection = Field(default_factory=CurateSection)
    mine: MineSection = Field(default_factory=MineSection)
    train: ContrastiveSection = Field(default_factory=ContrastiveSection)
    evaluate: EmbeddingEvaluate = EmbeddingEvaluate()
    gate: EmbeddingGate = EmbeddingGate()
    limits: EmbeddingLimits = EmbeddingLimits()
    keep: Keep = Keep()
    workers: Count | None = None
    """Verifier processes; null: one a core."""

    def resolved(self) -> dict[str, Any]:
        """Plain values that `load_recipe` reads back as an equal recipe."""
        return self.model_dump(mode="json")

    def identity(self) -> dict[str, Any]:
        """What must not change between a run and its resume."""
        tree = without_marked(self.resolved(), EXTEND | FREE | WRITER_FREE)
        for domain in tree["domains"].values():
            if domain["verifier"] is not None:
                domain["verifier"]["options"] = lasting_options(domain["verifier"]["options"])
        return tree

    def mining_options(self) -> MiningOptions:
        """The options of the search alone."""
        return MiningOptions(**{f.name: getattr(self.mine, f.name) for f in fields(MiningOptions)})

    def train_options(self) -> ContrastiveOptions:
        """The trainer's own options: the loop's part left out."""
        return ContrastiveOptions(**{f.name: getattr(self.train, f.name) for f in fields(ContrastiveOptions)})

    @property
    def metrics(self) -> list[str]:
        """What is measured of a search, the gate's first."""
        named = [f"{metric}@{k}" for metric in self.evaluate.metrics for k in self.evaluate.k]
        return sorted(dict.fromkeys(named), key=lambda name: name != self.gate.metric)


WRITER_FREE = frozenset(
    {"writer.parse.min_yield", *(f"writer.engine.options.{option}" for option in ENGINE_FREE)}
)
"""Keys of the writer whose change alters no result."""
