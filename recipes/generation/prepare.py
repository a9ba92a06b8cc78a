"""What a run or a preview of kind `generate` needs before anything is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes import models
from recipes.curation_files import check_files, named_sets
from recipes.engine_handle import EngineHandle
from recipes.generation.checks import asks
from recipes.generation.inputs import held_out_texts, input_items
from recipes.generation.schema import GenerationRecipe
from recipes.generation.tools import ChatTurns, VerifierPool, no_turns, tools
from recipes.generation.validation import engine_findings
from recipes.judging import fetch_models
from recipes.side_files import side_hashes
from recipes.validation import engine_name
from synth import engines, generators
from synth.curate import evaluation_sets
from synth.engines import Sampling
from synth.generators.base import Generator, Item
from synth.generators.session import Session, Settings
from synth.records.errors import InputError
from synth.records.ids import content_hash, model_hash
from verifiers.base import self_test_problems

if TYPE_CHECKING:
    from recipes.progress import Progress
    from synth.engines import Engine


@dataclass
class Writing:
    """One domain, ready to be written."""

    name: str
    generator: Generator
    options: Any
    templates: dict[str, Any]
    items: list[Item]


@dataclass
class Prepared:
    """Everything a run or a preview needs; nothing was asked yet."""

    recipe: GenerationRecipe
    writings: list[Writing]
    engine: EngineHandle | None
    """None where no generator asks a model."""
    base: Path
    digest: str
    pool: VerifierPool
    evaluation: dict[str, list[str] | Mapping[str, str]]
    """What curation keeps the rows away from: held-out texts by domain, and the sets that the recipe names."""

    def session(
        self,
        writing: Writing,
        folder: Path,
        on_progress: Callable[[str, int, int | None], None],
        limit: int | None = None,
    ) -> Session:
        """The session of one domain, its stages in `folder`; with `limit` at most so many tasks a step."""
        recipe, domain = self.recipe, self.recipe.domains[writing.name]
        sampling = recipe.sampling
        settings = Settings(
            domain=writing.name,
            rng_seed=recipe.rng_seed,
            model_hash=self.digest,
            sampling=Sampling(sampling.temperature, sampling.top_k, sampling.top_p, sampling.max_tokens),
            attempts=recipe.parse.attempts,
            structured=recipe.parse.structured,
            min_yield=recipe.parse.min_yield,
            chat=domain.chat,
            system=domain.system,
            limit=limit,
        )
        turns = (
            ChatTurns(self.base, recipe.model.trust_remote_code) if writing.generator.reads_turn else no_turns
        )
        handed = tools(self.pool, turns)
        return Session(settings, folder, self._engine_at, handed, writing.templates, on_progress)

    def _engine_at(self) -> Engine:
        assert self.engine is not None
        return self.engine.at(self.base)

    def close(self) -> None:
        """End engine and verifiers."""
        if self.engine is not None:
            self.engine.close()
        self.pool.close()


def prepare(recipe: GenerationRecipe, progress: Progress) -> Prepared:
    """Load inputs, templates and evaluation texts, choose the engine. Raises InputError for what refuses the run."""
    from recipes.runner import engine_choice, workers_of

    for finding in engine_findings(recipe):
        if finding.level == "error":
            raise InputError(finding.where, finding.seen, finding.fix)
    writings = [writing_of(recipe, name) for name in recipe.domains]
    # Decontamination fails closed: an evaluation set that cannot be used stops the run before anything is asked.
    evaluation = {**held_out_texts(recipe), **named_sets(recipe)}
    evaluation_sets(recipe.curate.decontaminate, evaluation)
    check_files(recipe.curate, (writing.generator.compared for writing in writings))
    base, digest = _model(recipe, writings)
    pool = VerifierPool(workers_of(recipe))
    try:
        check_verifiers(recipe, writings, pool)
        engine = EngineHandle(*engine_choice(recipe, progress), recipe.model.path) if asks(recipe) else None
    except BaseException:
        pool.close()
        raise
    return Prepared(recipe, writings, engine, base, digest, pool, evaluation)


def writing_of(recipe: GenerationRecipe, name: str) -> Writing:
    """A domain's generator, options, templates and input items. Raises InputError."""
    domain = recipe.domains[name]
    generator = generators.find(domain.generator.name)
    return Writing(
        name=name,
        generator=generator,
        options=generator.options(**domain.generator.options),
        templates=generator.templates_with(domain.templates, f"domains.{name}.templates"),
        items=input_items(recipe, name, generator.needs) if generator.needs is not None else [],
    )


def _model(recipe: GenerationRecipe, writings: list[Writing]) -> tuple[Path, str]:
    """The model's folder and hash. A server's model is known by its name alone, and is not fetched for its sake."""
    if asks(recipe) and engines.capabilities(engine_name(recipe)).loads_weights:
        base = models.resolve(recipe.model.path, recipe.model.revision)
        return base, model_hash(base)
    digest = content_hash("served", recipe.model.path, recipe.model.revision)
    if any(writing.generator.reads_turn for writing in writings):
        return models.resolve(recipe.model.path, recipe.model.revision), digest
    return Path(recipe.model.path), digest


def check_verifiers(recipe: GenerationRecipe, writings: list[Writing], pool: VerifierPool) -> None:
    """Refuse verifiers that fail their own self-tests."""
    for writing in writings:
        section = recipe.domains[writing.name].verifier
        asked = [(name, {}, "generator") for name in writing.generator.verifiers]
        asked += [(section.name, section.options, "verifier")] if section else []
        for name, options, key in asked:
            where = f"domains.{writing.name}.{key}"
            verifier = pool.open(name, options, f"{where}.options")
            wrong = self_test_problems(verifier)
            fetch_models(verifier)
            if wrong:
                raise InputError(where, f"{name} fails its self-test: {wrong[0]}", "see `synth doctor`")


def facts(prepared: Prepared) -> dict[str, Any]:
    """What a resumed run must find unchanged."""
    recipe = prepared.recipe
    data = {
        writing.name: {
            "train": content_hash([item.id for item in writing.items]),
            "held_out": content_hash(prepared.evaluation.get(writing.name, [])),
        }
        for writing in prepared.writings
    }
    return {
        "model": {"path": recipe.model.path, "hash": prepared.digest},
        "data": data,
        "files": side_hashes(recipe),
    }
