"""What can be known of a recipe before any work (`synth validate`): every finding, not just the first."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from recipes.embedding.schema import EmbeddingRecipe
from recipes.engine_handle import not_ready
from recipes.models import BUILTIN, is_served
from recipes.prompting import Prompter, open_tokenizer
from recipes.safety.schema import SafetyRecipe
from recipes.schema import Recipe
from synth.records.errors import InputError, WorkError
from synth.records.lint import lint
from verifiers.base import self_test_problems

if TYPE_CHECKING:
    from recipes.generation.schema import GenerationRecipe
    from recipes.kinds import AnyRecipe
    from recipes.sampling import Domain

SHOWN_PROMPTS = 200
"""Problems a set whose rendered prompts are linted and measured."""


NOT_YET = "is not on this machine yet; its download comes with the run"


@dataclass(frozen=True)
class Finding:
    """One thing to know. An `error` refuses the recipe, a `warning` does not."""

    level: Literal["error", "warning"]
    where: str
    seen: str
    fix: str = ""

    def as_dict(self) -> dict[str, str]:
        return asdict(self)

    def text(self) -> str:
        return f"{self.level}: {self.where}: {self.seen}" + (f"\n  {self.fix}" if self.fix else "")


def validate(recipe: AnyRecipe) -> list[Finding]:
    """Check model, engine, data, prompts and verifiers. Nothing is sampled or trained; hub data may be fetched."""
    if isinstance(recipe, EmbeddingRecipe):
        from recipes.embedding.validation import validate as validate_embedding

        return validate_embedding(recipe)
    if isinstance(recipe, SafetyRecipe):
        from recipes.safety.validation import validate as validate_safety

        return validate_safety(recipe)
    if not isinstance(recipe, Recipe):
        from recipes.generation.validation import validate as validate_generation

        return validate_generation(recipe)
    findings = [*engine_findings(recipe), *training_findings(recipe)]
    tokenizer, found = tokenizer_at_hand(recipe)
    findings += found
    for check in (
        *(partial(domain_findings, recipe, name, tokenizer) for name in recipe.domains),
        partial(_curation, recipe),
        partial(_attack, recipe),
    ):
        try:
            findings += check()
        except InputError as error:
            findings.append(Finding("error", error.where, error.seen, error.fix))
        except WorkError as error:
            findings.append(Finding("warning", error.where, f"not checked: {error.seen}", error.fix))
    return findings


def _curation(recipe: Recipe) -> tuple[()]:
    """Raise InputError where a set or file that curation reads cannot be used."""
    from recipes.curation_files import check_files, named_sets
    from synth.curate import evaluation_sets

    measured = [name for name, section in recipe.domains.items() if section.held_out is not None]
    try:
        sets = {name: ["any text"] for name in measured} | named_sets(recipe)
        evaluation_sets(recipe.curate.decontaminate, sets)
    except InputError as error:
        raise InputError(f"curate.{error.where}", error.seen, error.fix) from None
    check_files(recipe.curate)
    return ()


def _attack(recipe: Recipe) -> Iterator[Finding]:
    """What is wrong with the attack that each round's model is to go through."""
    if recipe.attack is None:
        return
    from recipes.safety.rounds import attack_recipe
    from recipes.safety.validation import findings_of_attack

    for each in findings_of_attack(attack_recipe(recipe)):
        yield replace(each, where=f"attack, {each.where}")


# ---- Engine and model --------------------------------------------------------------------------------------------


def engine_findings(recipe: Recipe) -> Iterator[Finding]:
    """What the engine lacks for this recipe: asked by `synth validate`, and before a run starts."""
    from synth import engines

    name = engine_name(recipe)
    can = engines.capabilities(name)
    if recipe.train.method != "none" and not can.loads_weights:
        if name == "replay" and recipe.attack is None:
            seen = "replays a file, whatever the trained model would say"
            yield Finding("warning", "engine.name", seen, "train.method: none only verifies and curates")
        else:
            seen = f"{name} cannot load the weights that a round trains"
            instead = "leave `attack` out" if name == "replay" else "train.method: none"
            yield Finding("error", "engine.name", seen, f"use vllm or transformers, or {instead}")
    yield from installation_findings(recipe)
    if recipe.limits.tokens is not None and not can.token_ids and name != "replay":
        fix = "use limits.hours, or problems.per_round and sampling.n"
        yield Finding("error", "limits.tokens", f"the engine {name} tells no tokens to count", fix)
    if is_served(name, recipe.model.path):
        for domain in (d for d, section in recipe.domains.items() if section.prompt.max_prompt_tokens):
            seen = "the server's tokenizer is not known here, so prompts are not measured"
            fix = "give a folder with its tokenizer as model.path, or leave it to the server to refuse them"
            yield Finding("warning", f"domains.{domain}.prompt.max_prompt_tokens", seen, fix)


def engine_name(recipe: Recipe | GenerationRecipe) -> str:
    """The engine that the recipe means on this machine."""
    from synth import engines

    return engines.choose_engine()[0] if recipe.engine.name == "auto" else recipe.engine.name


def installation_findings(recipe: Recipe | GenerationRecipe) -> Iterator[Finding]:
    """What an engine needs of this machine, whatever the recipe does with it."""
    for key, seen, fix in not_ready(engine_name(recipe), recipe.engine.options):
        yield Finding("error", f"engine.{key}", seen, fix)


TRACKER_PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio", "mlflow": "mlflow"}


def training_findings(recipe: Recipe) -> Iterator[Finding]:
    """What training lacks: asked by `synth validate`, and before a run starts."""
    for tracker in recipe.train.trackers:
        package = TRACKER_PACKAGES.get(tracker, tracker)
        if importlib.util.find_spec(package) is None:
            fix = f"pip install 'synthloop[{tracker}]'"
            yield Finding("error", "train.trackers", f"{tracker} is not installed", fix)
    files = any(d.train and not d.train.path.startswith("procedural:") for d in recipe.domains.values())
    if recipe.problems.fresh and recipe.problems.per_round is None and files:
        seen = "every round has all problems of a file anyway"
        yield Finding("warning", "problems.fresh", seen, "set problems.per_round")


def tokenizer_at_hand(recipe: Recipe) -> tuple[Any, list[Finding]]:
    """The model's tokenizer where it can be had without a download."""
    from recipes import models

    path = recipe.model.path
    if path == "scratch" or models.is_served(recipe.engine.name, path):
        return None, []
    try:
        if on_this_machine(path):
            folder = models.resolve(path, recipe.model.revision)
        else:
            cached = in_hub_cache(path, recipe.model.revision)
            if cached is None:
                return None, [Finding("warning", "model.path", f"{path} {NOT_YET}")]
            folder = cached
        return open_tokenizer(folder, recipe.model.trust_remote_code), []
    except InputError as error:
        return None, [Finding("error", error.where, error.seen, error.fix)]


def means_folder(path: str) -> bool:
    """Whether a model's name can only be a folder here, or is one."""
    return path.startswith((".", "/", "~")) or path.count("/") > 1 or Path(path).is_dir()


def on_this_machine(path: str) -> bool:
    """Whether no hub is asked for a model of this name: a shipped one, or a folder."""
    return path.startswith(BUILTIN) or means_folder(path)


def in_hub_cache(name: str, revision: str | None) -> Path | None:
    """The folder of a hub model that was fetched before."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json", revision=revision)
    return Path(found).parent if isinstance(found, str) else None


# ---- Domains -----------------------------------------------------------------------------------------------------


def domain_findings(recipe: Recipe, name: str, tokenizer: Any) -> Iterator[Finding]:
    """What is wrong with a domain's verifier, problems or prompts. Raises what loading them raises."""
    from recipes.gate import check_metric
    from recipes.problem_checks import judgeable
    from recipes.problems import load, load_domain

    domain = load_domain(recipe, name, tokenizer)
    try:
        check_metric(recipe, domain)
        missing = list(_unfetched(domain.verifier, f"domains.{name}.verifier.options"))
        for where, model in missing:
            yield Finding("warning", where, f"{model} {NOT_YET}")
        for wrong in () if missing else self_test_problems(domain.verifier):  # it would fetch them
            fix = "mend the verifier or its options; `synth doctor` shows what this machine lacks"
            yield Finding("error", f"domains.{name}.verifier", f"fails its self-test: {wrong}", fix)
        for part, rows in (("train", domain.train(0)), ("held_out", domain.held_out)):
            if part == "held_out" or recipe.kind != "sft":
                judgeable(domain.verifier, rows, f"domains.{name}.{part}", recipe.problems.max_bad)
            yield from _prompts(recipe, domain, rows, f"domains.{name}.{part}")
    finally:
        domain.verifier.close()
    yield from _overlap(domain)
    source = (recipe.train.mix or {}).get(name)
    if source is not None:
        load(recipe, name, recipe.domains[name], source, "mix")


def _unfetched(verifier: Any, path: str) -> Iterator[tuple[str, str]]:
    """Classifiers of a verifier and its parts that would have to be fetched: (recipe key, name on the hub)."""
    from verifiers.composition import Composition
    from verifiers.harmful import HarmfulVerifier
    from verifiers.reward_model import RewardModelVerifier

    if isinstance(verifier, HarmfulVerifier | RewardModelVerifier):
        name = verifier.options.model
        if name and not means_folder(name) and in_hub_cache(name, None) is None:
            yield f"{path}.model", name
    for index, part in enumerate(verifier.parts if isinstance(verifier, Composition) else ()):
        yield from _unfetched(part, f"{path}.parts.{index}.options")


def _prompts(recipe: Recipe, domain: Domain, rows: list[dict[str, Any]], where: str) -> Iterator[Finding]:
    """Control characters, and prompts that leave no room for a completion."""
    prompter = domain.render
    assert isinstance(prompter, Prompter)
    section = recipe.domains[domain.name].prompt
    own = "\n".join(
        [section.template, section.system or "", *(s.prompt + s.completion for s in prompter.shots)]
    )
    for wrong in lint(own):
        yield Finding("error", f"domains.{domain.name}.prompt", wrong, "")
    ours = {line.split(" at ")[0] for line in lint(own)}
    longest = 0
    for row in rows[:SHOWN_PROMPTS]:
        prompt = prompter(row)
        longest = max(longest, len(prompt.token_ids or ()))
        wrong = [each for each in lint(prompt.text) if each.split(" at ")[0] not in ours]
        if wrong:
            yield Finding("warning", f"{where}, problem {row['problem_id']}", wrong[0], "see `synth preview`")
            break
    limit = getattr(prompter.tokenizer, "model_max_length", None)
    if recipe.engine.name != "replay" and limit and longest + recipe.sampling.max_tokens > limit:
        asked = f"a prompt of {longest} tokens and sampling.max_tokens {recipe.sampling.max_tokens}"
        seen = f"{asked} exceed the model's {limit}"
        yield Finding("warning", where, seen, "lower sampling.max_tokens, or set prompt.max_prompt_tokens")


def _overlap(domain: Domain) -> Iterator[Finding]:
    held_out = {row["prompt"] for row in domain.held_out}
    shared = sum(row["prompt"] in held_out for row in domain.train(0))
    if shared:
        seen = f"{shared} training problems are held-out problems too"
        fix = "their samples will be removed by curate.decontaminate; better split the data"
        yield Finding("warning", f"domains.{domain.name}", seen, fix)
