"""What the schema found wrong, in the user's words: dotted path, value seen, what to do."""

from __future__ import annotations

import dataclasses
import json
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, TypeAdapter, ValidationError

from recipes.schema import Recipe
from recipes.values import Path_
from synth.records.errors import InputError, did_you_mean

_MISSING = object()


def explain(error: ValidationError, cls: type, tree: Any) -> Iterator[tuple[Path_, str, str]]:
    """(path, what was seen, what to do) of each problem that validating `tree` as `cls` found."""
    for found in error.errors():
        path = tuple(part for part in found["loc"] if not str(part).startswith("#"))
        kind, value, context = found["type"], found["input"], found.get("ctx", {})
        if kind in ("extra_forbidden", "unexpected_keyword_argument"):
            known = keys_at(cls, found["loc"][:-1])
            yield path, f"unknown key '{path[-1]}'", did_you_mean(str(path[-1]), known)
        elif kind in ("missing", "missing_argument"):
            yield path, "missing", f"add `{path[-1]}:`"
        elif kind == "value_error":
            yield own_words(context["error"], path, tree)
        else:
            yield path, f"seen {shown(value)}", _advice(kind, found["msg"], context, value)


def own_words(error: Exception, path: Path_, tree: Any) -> tuple[Path_, str, str]:
    """A room's own complaint about its options: an InputError, or a ValueError "field: seen X; what to do"."""
    if isinstance(error, InputError):
        return _join(path, error.where, tree), error.seen, error.fix
    name, colon, rest = str(error).partition(": ")
    if not colon or " " in name.replace(", ", ""):
        return path, str(error), ""
    seen, _, fix = rest.partition("; ")
    return _join(path, name.split(", ")[0], tree), seen, fix


def _join(path: Path_, where: str, tree: Any) -> Path_:
    """`where` below `path`, without the part of it that `path` already says (`dedup` + `dedup.method`)."""
    inner = tuple(where.split("."))
    return (*path, *(inner[1:] if path and inner[0] == path[-1] else inner))


_WANTED = {
    "int": "a whole number", "float": "a number", "string": "text (quote it)", "bool": "true or false",
    "list": "a list [a, b]", "tuple": "a list [a, b]", "dict": "a map of keys", "model": "a map of keys",
    "dataclass": "a map of keys", "model_attributes": "a map of keys",
}  # fmt: skip
_BOUNDS = {
    "greater_than_equal": "at least {ge}", "greater_than": "above {gt}", "less_than_equal": "at most {le}",
    "less_than": "below {lt}", "string_too_short": "at least {min_length} character",
    "too_short": "at least {min_length} entry", "string_pattern_mismatch": "text like {pattern}",
}  # fmt: skip


def _advice(kind: str, message: str, context: Mapping[str, Any], value: Any) -> str:
    if kind in _BOUNDS:
        return f"use {_BOUNDS[kind].format(**context)}"
    if kind == "literal_error":
        choices = context["expected"].replace("'", "")
        near = did_you_mean(str(value), choices.replace(" or ", ", ").split(", "))
        return f"use {choices}" + (f" ({near})" if near.startswith("did") else "")
    wanted = _WANTED.get(kind.rpartition("_")[0])
    if wanted:
        return f"needs {wanted}"
    return message[:1].lower() + message[1:]


def shown(value: Any) -> str:
    """A value as the user might have written it, cut to a readable length."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


# ---- Which keys a place in the schema has ------------------------------------------------------------------------


def default_at(path: Path_, cls: Any = Recipe) -> Any:
    """The default of a recipe key if it is a list or map, as a plain value, else None: where `--set` starts from.

    With `cls` the path starts at those options instead of the recipe's top.
    """
    holder = _class_at(cls, path[:-1])
    for section in _sections(holder):
        value = _defaults(section).get(str(path[-1]), _MISSING)
        if value is not _MISSING and value is not None:
            plain = TypeAdapter(Any).dump_python(value, mode="json")
            return plain if isinstance(plain, list | dict) else None
    return None


def keys_at(cls: Any, path: Path_) -> list[str]:
    """Keys that a map at `path` inside `cls` may have; empty where any key may stand."""
    return [name for section in _sections(_class_at(cls, path)) for name in _hints(section)]


def leaf_keys(cls: Any = Recipe, prefix: str = "") -> Iterator[str]:
    """Every dotted key of the schema that holds a value of its own; `*` stands for a free name or an index."""
    for name, hint in _hints(cls).items():
        yield from _leaves(hint, f"{prefix}{name}")


def _leaves(hint: Any, path: str) -> Iterator[str]:
    sections = list(_sections(hint))
    inner = _inner(hint)
    if not sections and inner is not None and list(_sections(inner)):
        sections, path = list(_sections(inner)), f"{path}.*"
    if not sections:
        yield path
    for section in sections:
        yield from leaf_keys(section, f"{path}.")


def _class_at(cls: Any, path: Path_) -> Any:
    for part in path:
        if str(part).startswith("#"):
            continue
        names = [hints[part] for section in _sections(cls) if part in (hints := _hints(section))]
        cls = names[0] if names else _inner(cls)
    return cls


def _hints(cls: Any) -> dict[str, Any]:
    """Fields of a section and their types."""
    hints = get_type_hints(cls, include_extras=False)
    if isinstance(cls, type) and issubclass(cls, BaseModel):
        return {name: hints[name] for name in cls.model_fields}
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _defaults(cls: Any) -> dict[str, Any]:
    if isinstance(cls, type) and issubclass(cls, BaseModel):
        return {name: info.get_default(call_default_factory=True) for name, info in cls.model_fields.items()}
    result = {}
    for field in dataclasses.fields(cls):
        made = field.default_factory is not dataclasses.MISSING
        result[field.name] = field.default_factory() if made else field.default  # type: ignore[misc]
    return result


def _members(hint: Any) -> list[Any]:
    """The types a hint allows, unions taken apart."""
    origin = get_origin(hint)
    if origin is Annotated:
        return _members(get_args(hint)[0])
    if origin is Union or origin is types.UnionType:
        return [member for arg in get_args(hint) for member in _members(arg)]
    return [hint]


def _sections(hint: Any) -> Iterator[Any]:
    for member in _members(hint):
        if isinstance(member, type) and (issubclass(member, BaseModel) or dataclasses.is_dataclass(member)):
            yield member


def _inner(hint: Any) -> Any:
    """What a list or map holds, or None."""
    for member in _members(hint):
        if get_origin(member) in (list, tuple, dict) and get_args(member):
            return get_args(member)[-1] if get_args(member)[-1] is not ... else get_args(member)[0]
    return None
