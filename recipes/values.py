"""Settings as users write them: YAML files and `--set a.b=c`, under one scalar rule.

The rule: a plain scalar is JSON if it parses as JSON, else a string. So `1e-6` is a number, `no`, `1_000` and
`2024-01-01` are strings, and quoting always makes a string. An empty value is null. Anything YAML adds beyond
maps, lists and scalars (tags, Python objects) is refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from synth.records.errors import InputError

Path_ = tuple[str | int, ...]
"""A dotted path, taken apart: `("domains", "math", "train", "path")`."""


def parse_value(text: str) -> Any:
    """A scalar by the rule above. NaN and infinities are no JSON, so they stay strings."""
    try:
        value = json.loads(text, parse_constant=_not_json)
    except (ValueError, RecursionError):
        return text
    return value if _finite(value) else text


def _not_json(name: str) -> Any:
    raise ValueError(name)


def _finite(value: Any) -> bool:
    """False where a number is too large for a float (`1e999`)."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, list):
        return all(map(_finite, value))
    return not isinstance(value, dict) or all(map(_finite, value.values()))


def dotted(path: Iterable[str | int]) -> str:
    return ".".join(map(str, path))


class Lines(dict[Path_, int]):
    """Which line of the YAML file (from 1) each path stands on."""

    def of(self, path: Path_) -> int | None:
        """The line of `path`, or of the nearest enclosing key that stands in the file."""
        for end in range(len(path), 0, -1):
            if path[:end] in self:
                return self[path[:end]]
        return None


def read_yaml(path: Path) -> tuple[Any, Lines]:
    """The value of a YAML file and the line of each key. Raises InputError naming the line."""
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise InputError(str(path), f"cannot be read ({error.strerror or error})", "check the path") from None
    except UnicodeDecodeError:
        raise InputError(str(path), "not UTF-8", "save the file as UTF-8") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, name: str) -> tuple[Any, Lines]:
    """Like `read_yaml`, from text; `name` stands in error messages."""
    lines = Lines()
    try:
        # BaseLoader resolves no scalar on its own, so a tag other than its defaults was written by hand.
        node = yaml.compose(text, Loader=yaml.BaseLoader)
        return (None if node is None else _value(node, (), lines, name, ())), lines
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(
            f"{name}{line}", f"not YAML ({error.problem or error.context})", "check indentation and quotes"
        ) from None
    except yaml.YAMLError as error:
        raise InputError(
            name, f"not YAML ({str(error).splitlines()[0]})", "remove control characters"
        ) from None
    except RecursionError:
        raise InputError(name, "nested too deeply", "flatten the file") from None


_TAGS = {yaml.ScalarNode: "str", yaml.SequenceNode: "seq", yaml.MappingNode: "map"}


def _value(node: yaml.Node, path: Path_, lines: Lines, name: str, inside: tuple[int, ...]) -> Any:
    line = node.start_mark.line + 1
    where = f"{name}, line {line}"
    if node.tag != f"tag:yaml.org,2002:{_TAGS[type(node)]}":
        raise InputError(
            where, f"the tag {node.tag}", "tags are not supported; quote a value to make it a string"
        )
    if id(node) in inside:
        raise InputError(where, "an anchor that contains itself", "write the value out")
    inside = (*inside, id(node))
    if isinstance(node, yaml.ScalarNode):
        if node.style is not None:
            return node.value
        return parse_value(node.value) if node.value else None
    if isinstance(node, yaml.SequenceNode):
        return [_item(child, (*path, index), lines, name, inside) for index, child in enumerate(node.value)]
    result: dict[str, Any] = {}
    for key, child in node.value:
        key_line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise InputError(f"{name}, line {key_line}", "a key that is not a name", "keys are plain names")
        if key.value in result:
            raise InputError(f"{name}, line {key_line}", f"the key '{key.value}' twice", "keep one")
        lines[(*path, key.value)] = key_line
        result[key.value] = _value(child, (*path, key.value), lines, name, inside)
    return result


def _item(node: yaml.Node, path: Path_, lines: Lines, name: str, inside: tuple[int, ...]) -> Any:
    lines[path] = node.start_mark.line + 1
    return _value(node, path, lines, name, inside)


def parse_set(text: str) -> tuple[Path_, Any]:
    """`a.b.0=value` as a path and a value, split at the first `=`. Raises InputError without `=` or key."""
    key, equals, value = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise InputError(f"--set {text}", "not KEY=VALUE", "for example --set train.lr=1e-5")
    return tuple(parts), parse_value(value)


def apply_set(
    tree: dict[str, Any], path: Path_, value: Any, default: Callable[[Path_], Any] = lambda path: None
) -> None:
    """Set `value` at `path` in place; list items by index (one past the end appends).

    What the path goes through and is not there (or null) is made: `default(path)` says with what, null meaning an
    empty map. Raises InputError when the path goes through a plain value or past the end of a list.
    """
    here: Any = tree
    for depth, part in enumerate(path):
        last = depth == len(path) - 1
        where = f"--set {dotted(path)}"
        if isinstance(here, dict):
            key: Any = part
            missing = here.get(part) is None
        elif isinstance(here, list):
            if not str(part).isdecimal() or int(part) > len(here):
                raise InputError(
                    where, f"'{part}' in a list of {len(here)}", f"use an index from 0 to {len(here)}"
                )
            key = int(part)
            if key == len(here):
                here.append(None)
            missing = here[key] is None
        else:
            seen = f"'{dotted(path[:depth])}' is {json.dumps(here)}, not a map or list"
            raise InputError(where, seen, f"set {dotted(path[:depth])} itself")
        if last:
            here[key] = value
        elif missing:
            made = deepcopy(default(path[: depth + 1]))
            here[key] = made if isinstance(made, dict | list) else {}
        here = here[key]


class _Dumper(yaml.SafeDumper):
    """Writes strings so that `read_yaml` gives them back: quoted where the scalar rule would see something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    visible = text.replace("\n", "")
    if text == "" or parse_value(text) is not text or not visible.isprintable():
        style = '"'  # would read back as something else, or holds what only an escape can carry
    else:
        style = "|" if "\n" in text else None  # a template reads better as a block
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def to_yaml(value: Mapping[str, Any]) -> str:
    """YAML text that `parse_yaml` reads back as the same value. Keys keep their order."""
    return yaml.dump(dict(value), Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)
