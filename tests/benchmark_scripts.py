"""The scripts of benchmarks/ as modules, for tests of what they compute."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"


def script(name: str) -> ModuleType:
    """`benchmarks/NAME.py`, loaded once, under a name that no other module has."""
    full = f"benchmark_{name}"
    if full in sys.modules:
        return sys.modules[full]
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))  # scripts import one another
    spec = importlib.util.spec_from_file_location(full, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[full] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
