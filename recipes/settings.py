"""Reading a recipe: by name or path, with `--set`, checked as a whole; every problem is reported at once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from recipes.checks import (
    Problem,
    check_parts,
    check_rooms,
    cross_checks,
    fill_options,
    secrets,
    verifier_options_class,
)
from recipes.embedding.checks import cross_checks as embedding_cross_checks
from recipes.embedding.schema import EmbeddingRecipe
from recipes.expand import expand_paths, expand_shorthand, fill_splits, fill_verifiers
from recipes.explain import default_at, explain
from recipes.generation.checks import cross_checks as generation_cross_checks
from recipes.kinds import KINDS, AnyRecipe, schema_of
from recipes.safety.checks import cross_checks as safety_cross_checks
from recipes.safety.schema import SafetyRecipe
from recipes.schema import Recipe
from recipes.values import Lines, Path_, apply_set, dotted, parse_set, read_yaml, to_yaml
from synth.records.errors import InputError, did_you_mean
from synth.records.jsonl import repair_text

MAX_REPORTED = 5
T = TypeVar("T")


class RecipeError(InputError):
    """One or more problems of one recipe, each an InputError of its own in `problems`."""

    def __init__(self, problems: Sequence[InputError]) -> None:
        self.problems = list(problems)
        first = self.problems[0]
        super().__init__(first.where, first.seen, first.fix)
        shown = [str(problem) for problem in self.problems[:MAX_REPORTED]]
        if len(self.problems) > MAX_REPORTED:
            shown.append(f"and {len(self.problems) - MAX_REPORTED} more")
        self.args = ("\n".join(shown),)

    def __reduce__(self) -> tuple[type[RecipeError], tuple[list[InputError]]]:  # type: ignore[override]
        return type(self), (self.problems,)


def library() -> dict[str, Path]:
    """Shipped recipes by name."""
    folder = Path(str(resources.files("recipes"))) / "library"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def recipe_path(name_or_path: str) -> Path:
    """A path if it has a `/` or ends in .yaml, else the name of a shipped recipe."""
    if "/" in name_or_path or name_or_path.endswith((".yaml", ".yml")):
        return Path(name_or_path)
    shipped = library()
    if name_or_path not in shipped:
        hint = did_you_mean(name_or_path, shipped)
        raise InputError(
            "RECIPE", f"no shipped recipe '{name_or_path}'", f"{hint} (a path needs a / or .yaml)"
        )
    return shipped[name_or_path]


def load_recipe(name_or_path: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """Like `load_any`, for what needs a language model to train or measure: recipes of other kinds are refused."""
    return language_model(load_any(name_or_path, overrides))


def language_model(recipe: AnyRecipe) -> Recipe:
    """The recipe, if it trains or measures a language model. Raises InputError."""
    if isinstance(recipe, Recipe):
        return recipe
    if isinstance(recipe, SafetyRecipe):
        seen = "'safety', where one training or one set of held-out problems is meant"
        raise InputError("kind", seen, "use a recipe of kind self_training or sft")
    what, fix = "language model", "`synth run`, `preview` and `validate` take it"
    if not isinstance(recipe, EmbeddingRecipe):
        what, fix = "model", f"{fix}; train on what `synth export` makes of its run"
    raise InputError("kind", f"'{recipe.kind}' trains and measures no {what}", fix)


def load_any(name_or_path: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> AnyRecipe:
    """The recipe of a name, path or mapping, with `--set` strings applied, defaults filled in and everything checked.

    Raises RecipeError (an InputError) listing what is wrong: field, line, value seen, what to do.
    """
    if isinstance(name_or_path, Mapping):
        tree, lines, file, folder = json.loads(json.dumps(dict(name_or_path))), Lines(), "recipe", None
    else:
        path = recipe_path(str(name_or_path))
        tree, lines = read_yaml(path)
        file, folder = str(path), path.parent
    if not isinstance(tree, dict):
        raise InputError(file, "not a map of keys", "a recipe is a YAML map: name, model, domains, ...")
    expand_shorthand(tree)
    origins: dict[Path_, str] = {}
    for text in overrides:
        key, value = parse_set(text)
        apply_set(tree, key, value, partial(default_at, cls=schema_of(tree)))
        origins[key] = f"--set {text}"
        expand_shorthand(tree)
    report = _Report(file, lines, origins)
    for path_, seen, fix in secrets(tree):
        report.add(path_, seen, fix)
    report.stop()
    for path_, seen, fix in expand_paths(tree, folder):
        report.add(path_, seen, fix)
    for path_, seen, fix in secrets(tree):  # what came out of the environment is written into the run, too
        report.add(path_, seen, fix)
    fill_splits(tree)
    fill_verifiers(tree)
    return _validate(tree, report)


def _validate(tree: dict[str, Any], report: _Report) -> AnyRecipe:
    schema, recipe = schema_of(tree), None
    for path, text in _texts(tree):
        if repair_text(text)[1]:
            report.add(path, f"{text[:40]!a} has half of a surrogate pair", "write the whole character")
    report.stop()
    try:
        recipe = schema.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        for path, seen, fix in explain(error, schema, tree):
            report.add(path, seen, _kinds(tree["kind"]) if path == ("kind",) else fix)
    for path, seen, fix in check_rooms(tree, recipe):
        report.add(path, seen, fix)
    report.stop()
    assert recipe is not None
    for path, seen, fix in _together(recipe):
        report.add(path, seen, fix)
    report.stop()
    return recipe


def _together(recipe: AnyRecipe) -> Iterator[Problem]:
    """Keys that are each right but not together."""
    if isinstance(recipe, Recipe):
        return cross_checks(recipe)
    if isinstance(recipe, EmbeddingRecipe):
        return embedding_cross_checks(recipe)
    if isinstance(recipe, SafetyRecipe):
        return safety_cross_checks(recipe)
    return generation_cross_checks(recipe)


def _kinds(seen: Any) -> str:
    """All kinds, those of other schemas too."""
    near = did_you_mean(str(seen), KINDS)
    return f"use {', '.join(KINDS)}" + (f" ({near})" if near.startswith("did") else "")


def _texts(tree: Any, path: Path_ = ()) -> Iterator[tuple[Path_, str]]:
    """Every text of a tree with where it is."""
    if isinstance(tree, str):
        yield path, tree
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield from _texts(value, (*path, key))


def dump_yaml(recipe: AnyRecipe) -> str:
    """The resolved recipe, every default written out, as YAML that `load_recipe` reads back as the same recipe."""
    return to_yaml(recipe.resolved())


def read_resolved(path: Path) -> AnyRecipe:
    """The recipe a run was started with (DIR/recipe.yaml), as it was written then: nothing is looked up again."""
    tree, _ = read_yaml(path)
    schema = schema_of(tree)
    try:
        return schema.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        key, seen, _ = next(explain(error, schema, tree))
        fix = "the run was made by another version or edited by hand: choose another --out"
        raise InputError(f"{path}, {dotted(key)}", seen, fix) from None


def verifier_options(
    name: str, overrides: Sequence[str], base: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Options of the verifier `name`: `base`, changed by `--set` strings whose paths start at its options.

    Raises RecipeError or InputError for an unknown verifier, option or value.
    """
    cls = verifier_options_class(name)
    tree: dict[str, Any] = deepcopy(dict(base or {}))
    origins: dict[Path_, str] = {}
    for text in overrides:
        key, value = parse_set(text)
        apply_set(tree, key, value, partial(default_at, cls=cls))
        origins[key] = f"--set {text}"
    report = _Report("verifier", Lines(), origins)
    for path, seen, fix in secrets(tree):
        report.add(path, seen, fix)
    report.stop()
    filled = tree
    if cls is not None:
        try:
            filled = fill_options(cls, tree)
            for path, seen, fix in check_parts(cls, (), filled):
                report.add(path, seen, fix)
        except ValidationError as error:
            for path, seen, fix in explain(error, cls, tree):
                report.add(path, seen, fix)
    report.stop()
    return filled


def section_options(cls: type[T], overrides: Sequence[str], name: str, defaults: Mapping[str, Any]) -> T:
    """An options class from `--set` strings whose paths start at it; `defaults` stand where they say nothing.

    Raises RecipeError for unknown keys and wrong values.
    """
    tree: dict[str, Any] = json.loads(json.dumps(defaults))
    origins: dict[Path_, str] = {}
    for text in overrides:
        key, value = parse_set(text)
        apply_set(tree, key, value, partial(default_at, cls=cls))
        origins[key] = f"--set {text}"
    try:
        return TypeAdapter(cls).validate_json(json.dumps(tree), strict=True)
    except ValidationError as error:
        report = _Report(name, Lines(), origins)
        for path, seen, fix in explain(error, cls, tree):
            report.add(path, seen, fix)
        raise RecipeError(report.problems) from None


class _Report:
    """Collects problems and names where each value came from."""

    def __init__(self, file: str, lines: Lines, origins: dict[Path_, str]) -> None:
        self.file, self.lines, self.origins = file, lines, origins
        self.problems: list[InputError] = []

    def add(self, path: Path_, seen: str, fix: str) -> None:
        self.problems.append(InputError(self._where(path), seen, fix))

    def _where(self, path: Path_) -> str:
        names = tuple(map(str, path))
        for key, text in reversed(self.origins.items()):
            if key[: len(names)] == names:  # the option itself, or something inside what is wrong
                return text.partition("=")[0]
            if names[: len(key)] == key:
                return f"{dotted(path)} ({text.partition('=')[0]})"
        line = self.lines.of(path)
        return f"{self.file}{f', line {line}' if line else ''}, {dotted(path) or 'recipe'}"

    def stop(self) -> None:
        if self.problems:
            raise RecipeError(self.problems)
