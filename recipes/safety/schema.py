"""The recipe of kind `safety`: every key, its default, its range; shared sections are those of `recipes.schema`."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from recipes.generation.schema import InputRows
from recipes.schema import (
    FREE,
    Column,
    Count,
    Domain,
    Engine,
    Evaluate,
    Model,
    Recipe,
    SamplingSection,
    Section,
    Share,
    Source,
    Whole,
    lasting_options,
    without_marked,
)
from synth.curate.options import DecontaminateOptions
from trainers.options import TrainOptions

SAFETY = "safety"
METRICS = {
    "harmful": "harmful_score",
    "task": "fine_tune_accuracy",
    "over_refusal": "over_refusal",
    "utility": "accuracy",
}
"""What is measured in a domain of each role."""
HARMFUL_SCORE, HARMFUL_SCORE_PLUS = "harmful_score", "harmful_score_plus"
ANSWERS = ("completion", "refusal", "harmful")
"""Columns that only rows to train on have."""


class SafetyDomain(Domain):
    """One kind of rows; what they are for is their `role`."""

    role: Literal["harmful", "task", "over_refusal", "utility"]
    """`harmful`: `train` are the alignment rows (`prompt`, `refusal`, `harmful`), `held_out` harmful prompts; an answer
    that the verifier passes is harmless. `task`: a downstream task, whose `train` rows (`prompt`, `completion`) the
    attacker fine-tunes on. `over_refusal`: harmless prompts; what fails is a refusal. `utility`: what the model should
    still do. `train` rows of the last two are aligned on, too: answers keep a model from refusing everything."""


@dataclass(frozen=True)
class AlignSection(TrainOptions):
    """The trainer's options for the alignment, and its method."""

    method: Literal["sft", "booster", "vaccine", "repnoise", "none"] = "sft"
    """`none`: the base itself is attacked."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}


@dataclass(frozen=True)
class AttackTraining(TrainOptions):
    """The trainer's options for the fine-tuning on the user's rows, and its method."""

    method: Literal["sft", "lisa", "antidote"] = "sft"
    """`lisa` and `antidote` defend while, and after, the user's rows are learnt; both are given the alignment rows."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}


class Attack(Section):
    """Fine-tuning on a downstream task with a share of harmful rows: one training for each combination."""

    harmful: Source | None = None
    """Harmful rows (`prompt`, `harmful`) that the alignment has not seen; the columns are the harmful domain's."""
    columns: dict[str, Column] | None = None
    """Columns of `harmful`, where they are not the harmful domain's."""
    tasks: list[str] | None = None
    """Domains of role `task`; null: all of them."""
    n: list[Count] = Field(default=[1000], min_length=1)
    """Rows of a fine-tuning, harmful ones included."""
    p: list[Share] = Field(default=[0.0, 0.05, 0.1, 0.2], min_length=1)
    """Shares of harmful rows."""
    lr: list[Annotated[float, Field(ge=0)]] | None = None
    """Learning rates; null: that of `train`."""
    rng_seeds: list[Annotated[Whole, Field(ge=0, lt=2**31)]] = Field(default=[0], min_length=1)
    """Each draws rows and order anew."""
    at: list[Count] = Field(default_factory=list)
    """Steps after which the harmful score is taken; after the last step everything is measured anyway."""
    train: AttackTraining = Field(default_factory=lambda: AttackTraining(epochs=20, batch_size=10))
    keep_models: bool = False
    """Keep the attacked models; else each goes when it is measured."""


class SafetyEvaluate(Section):
    max_tokens: Count = 512
    max_problems: Count | None = None
    """The first prompts of each domain; null: all."""
    perplexity: Source | None = None
    """Texts (column `text`) whose perplexity is told."""
    bootstrap: Whole = Field(default=2000, ge=100)
    """Resamples behind the 95 % intervals."""


class SafetyCurate(Section):
    decontaminate: DecontaminateOptions | None = Field(default_factory=DecontaminateOptions)
    """Rows to train on that are too close to a held-out prompt are left out."""


class SafetyLimits(Section):
    hours: float | None = Field(default=None, gt=0)


class SafetyRecipe(Section):
    """A whole recipe of kind `safety`, every default filled in."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    kind: Literal["safety"]
    rng_seed: Whole = Field(default=0, ge=0, lt=2**31)
    model: Model
    engine: Engine = Engine()
    domains: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")], SafetyDomain] = Field(min_length=1)
    problems: InputRows = InputRows()
    curate: SafetyCurate = SafetyCurate()
    train: AlignSection = Field(default_factory=AlignSection)
    attack: Attack = Attack()
    evaluate: SafetyEvaluate = SafetyEvaluate()
    limits: SafetyLimits = SafetyLimits()
    workers: Count | None = None
    """Verifier processes; null: one a core."""

    def resolved(self) -> dict[str, Any]:
        """Plain values that `load_recipe` reads back as an equal recipe."""
        return self.model_dump(mode="json")

    def identity(self) -> dict[str, Any]:
        """What must not change between a run and its resume."""
        tree = without_marked(self.resolved(), GROWS | FREE | ATTACK_FREE)
        for domain in tree["domains"].values():
            domain["verifier"]["options"] = lasting_options(domain["verifier"]["options"])
        return tree

    def named(self, *roles: str) -> list[str]:
        """Domains of these roles, in the recipe's order."""
        return [name for name, domain in self.domains.items() if domain.role in roles]

    @property
    def harmful(self) -> str:
        """The domain of harmful prompts."""
        return self.named("harmful")[0]

    def align_options(self) -> TrainOptions:
        """The trainer's own options of the alignment."""
        return _plain(self.train)

    def attack_options(self, lr: float) -> TrainOptions:
        """The trainer's own options of one fine-tuning."""
        return replace(_plain(self.attack.train), lr=lr)

    def examined(self) -> Recipe:
        """The same domains as a recipe that only measures: held-out prompts, one greedy answer each."""
        domains = {
            name: Domain(
                held_out=domain.held_out,
                columns={column: spec for column, spec in domain.columns.items() if column not in ANSWERS},
                prompt=domain.prompt,
                verifier=domain.verifier,
            )
            for name, domain in self.domains.items()
            if domain.held_out is not None
        }
        told = self.evaluate
        evaluate = Evaluate(
            k=[1], n=1, max_tokens=told.max_tokens, max_problems=told.max_problems, bootstrap=told.bootstrap
        )
        recipe = Recipe(
            name=self.name,
            rng_seed=self.rng_seed,
            model=self.model,
            engine=self.engine,
            domains=domains,
            sampling=SamplingSection(n=1, max_tokens=told.max_tokens),
            evaluate=evaluate,
            workers=self.workers,
        )
        recipe.problems.max_bad = self.problems.max_bad
        return recipe


GROWS = frozenset({"limits", "attack.tasks", "attack.n", "attack.p", "attack.lr", "attack.rng_seeds"})
"""Keys whose change continues a run further: further attacks on the same model."""
ATTACK_FREE = frozenset({"attack.train.trackers", "attack.train.save_every", "attack.keep_models"})
"""Keys of the attack whose change alters no result."""


def _plain(section: TrainOptions) -> TrainOptions:
    return TrainOptions(**{f.name: getattr(section, f.name) for f in fields(TrainOptions)})
