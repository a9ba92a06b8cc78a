"""Generators: every kind of training data that is written, not sampled for given problems; one file a kind.

`find(name)` gives a `Generator`; `synth.generators.base` says what that is and what it is handed. `procedural` makes
problems without a model and is a source of problems instead.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from synth.records.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from synth.generators.base import Generator

__all__ = ["NAMES", "find", "options_class"]

# Each module has `GENERATOR`.
NAMES = (
    "answers",
    "back_translation",
    "code_problems",
    "document_queries",
    "embedding_pairs",
    "evol_instruct",
    "knowledge",
    "magpie",
    "math_problems",
    "mined_pairs",
    "over_refusal",
    "persona",
    "refusals",
    "self_instruct",
    "textbooks",
)


def find(name: str) -> Generator:
    """The generator `name`. Raises InputError for an unknown one."""
    if name not in NAMES:
        raise InputError("generator.name", f"unknown generator '{name}'", did_you_mean(name, NAMES))
    return importlib.import_module(f"synth.generators.{name}").GENERATOR


def options_class(name: str) -> type:
    """The options dataclass of the generator `name`."""
    return find(name).options
