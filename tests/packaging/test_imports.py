"""Who imports whom, and what importing costs: read from the sources and from a fresh process."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("synth", "verifiers", "trainers")
OURS = (*ROOMS, "recipes")
HEAVY = (
    "torch",
    "transformers",
    "vllm",
    "datasets",
    "pyarrow",
    "matplotlib",
    "sympy",
    "rich",
    "accelerate",
    "peft",
)


def imports(path: Path) -> Iterator[str]:
    """Every absolute module name imported anywhere in the file."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:  # a relative one cannot leave its room
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def sources(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_meet_only_in_the_pantry(room: str) -> None:
    for path in sources(room):
        for name in imports(path):
            top = name.partition(".")[0]
            allowed = top == room or top not in OURS or name.startswith("synth.records")
            assert allowed, f"{path.relative_to(ROOT)} imports {name}"


def test_the_pantry_imports_nothing_of_ours_and_only_pyarrow_besides() -> None:
    for path in sources("synth/records"):
        for name in imports(path):
            top = name.partition(".")[0]
            known = top in sys.stdlib_module_names or top == "pyarrow" or name.startswith("synth.records")
            assert known, f"{path.relative_to(ROOT)} imports {name}"


def test_synth_itself_is_empty() -> None:
    assert (ROOT / "synth" / "__init__.py").read_bytes() == b""


@pytest.mark.parametrize("package", OURS)
def test_packages_are_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").exists()


@pytest.mark.parametrize(
    "module",
    ["synth.records.jsonl", "synth.engines", "verifiers", "trainers", "recipes.schema", "recipes.cli"],
)
def test_importing_is_light(module: str) -> None:
    """The command must start at once, so nothing heavy is loaded before it is needed."""
    code = f"import sys, {module}; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
