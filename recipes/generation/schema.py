"""The recipe of kind `generate`: every key, its default, its range; shared sections are those of `recipes.schema`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from recipes.schema import (
    EXTEND,
    FREE,
    Column,
    Count,
    Engine,
    Inputs,
    Limits,
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

GENERATE = "generate"
NO_MODEL = "none"


class Generator(Section):
    """A plain string is short for `name`."""

    name: str = Field(min_length=1)
    """A generator of the package (`synth.generators.NAMES`)."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of that generator (`synth.generators.options_class(name)`)."""


class GenerationDomain(Section):
    """One kind of data to write."""

    train: Inputs | None = None
    """What it is made from: seed tasks, documents, prompts. A path with `*` means the text files it matches."""
    held_out: Source | None = None
    """Texts of an evaluation that nothing written may repeat (`curate.decontaminate`)."""
    columns: dict[str, Column] = Field(default_factory=dict)
    """Column the generator uses: column of the source."""
    generator: Generator
    templates: dict[str, str] = Field(default_factory=dict)
    """Step: a template file of yours in place of the shipped one."""
    chat: bool = True
    """Ask in a user's chat turn; false: plain text to continue."""
    system: str | None = None
    """System text before the user's turn."""
    verifier: Verifier | None = None
    """Judges the finished rows; what fails is kept in the dataset as rejected."""


class GenerationSampling(Section):
    temperature: float = Field(default=1.0, ge=0)
    top_k: Whole = Field(default=0, ge=0)
    """0: off."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: Count = 1024


class Parse(Section):
    """From replies to rows."""

    attempts: Count = 3
    """Tries until a reply can be read; with temperature 0 there is one."""
    structured: bool = True
    """Have the engine hold replies to their JSON schema; false: ask for it in the prompt alone."""
    min_yield: Share = 0.05
    """Stop when a smaller share of a step's first 200 tasks gives something usable."""


class InputRows(Section):
    max_bad: Share = 0.01
    """Share of input rows that may turn out unusable before the run stops."""


class GenerationRecipe(Section):
    """A whole recipe of kind `generate`, every default filled in."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    kind: Literal["generate"]
    rng_seed: Whole = Field(default=0, ge=0, lt=2**31)
    model: Model = Model(path=NO_MODEL)
    """`none`: no generator of the recipe asks one."""
    engine: Engine = Engine()
    domains: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")], GenerationDomain] = Field(min_length=1)
    sampling: GenerationSampling = GenerationSampling()
    parse: Parse = Parse()
    problems: InputRows = InputRows()
    curate: CurateOptions = Field(default_factory=CurateOptions)
    limits: Limits = Limits()
    workers: Count | None = None
    """Verifier processes; null: one a core."""

    def resolved(self) -> dict[str, Any]:
        """Plain values that `load_recipe` reads back as an equal recipe."""
        return self.model_dump(mode="json")

    def identity(self) -> dict[str, Any]:
        """What must not change between a run and its resume."""
        tree = without_marked(self.resolved(), EXTEND | FREE | {"parse.min_yield"})
        for domain in tree["domains"].values():
            if domain["verifier"] is not None:
                domain["verifier"]["options"] = lasting_options(domain["verifier"]["options"])
        return tree
