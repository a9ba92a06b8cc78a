"""Recipes from Python: `recipes.run("demo", out="runs/demo", set=["rounds=1"])`, `recipes.load_recipe("demo")`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recipes.runner import run
    from recipes.settings import load_recipe

__all__ = ["load_recipe", "run"]

_HOMES = {"run": "recipes.runner", "load_recipe": "recipes.settings"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'recipes' has no attribute '{name}'")
