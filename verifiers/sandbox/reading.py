"""What the texts of tests and programs say: names, imports, whether real objects are needed. Nothing is run here.

What the tests' text says is theirs; what the program's process says of itself is not to be trusted. So whether a
verdict may be weak, and which names a program may fill in, is read here.
"""

from __future__ import annotations

import ast
import builtins
import collections
import decimal
import dis
import fractions
import importlib.util
import types
from collections.abc import Iterator, Sequence

_PLAIN = (
    type(None), bool, int, float, complex, str, bytes, bytearray, list, tuple, set, frozenset, dict, range,
    collections.deque, decimal.Decimal, fractions.Fraction,
)  # fmt: skip
_NEVER_IMPORTED = {"builtins", "__main__", "solution", "tests", "_jail"}
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def globals_of(code: types.CodeType, top: bool = True) -> tuple[set[str], set[str]]:
    """Global names that a module's code reads, and those it binds itself."""
    reads: set[str] = set()
    binds: set[str] = set()
    own: set[str] = set()  # a class body's names are not the module's
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_NAME", "LOAD_GLOBAL"):
            reads.add(str(step.argval))
        elif step.opname in ("STORE_NAME", "STORE_GLOBAL"):
            (binds if top or step.opname == "STORE_GLOBAL" else own).add(str(step.argval))
    reads -= own
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            inner_reads, inner_binds = globals_of(constant, top=False)
            reads |= inner_reads
            binds |= inner_binds
    return reads, binds


def called_names(tree: ast.AST) -> set[str]:
    """Names that are called somewhere."""
    return {
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }


def stubs(tree: ast.Module) -> set[str]:
    """Functions that are only a head: a docstring, `pass` or `...` and nothing else. The program is to fill them."""
    found = set()
    for node in tree.body:
        if isinstance(node, _FUNCTIONS) and all(
            isinstance(line, ast.Pass)
            or (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant))
            for line in node.body
        ):
            found.add(node.name)
    return found


def _certain(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes that run whenever the tests do: not in a `try` with handlers, not in a helper that may never be called."""
    yield node
    if isinstance(node, ast.Try) and node.handlers:
        return
    if (
        isinstance(node, (*_FUNCTIONS, ast.Lambda, ast.ClassDef, ast.If))
        and getattr(node, "name", "") != "check"
    ):
        return
    for child in ast.iter_child_nodes(node):
        yield from _certain(child)


def missing_module(tree: ast.Module) -> str:
    """A module the tests import that is not installed, or nothing."""
    for node in _certain(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        for name in names:
            if importlib.util.find_spec(name.partition(".")[0]) is None:
                return name
    return ""


def data_names(tree: ast.Module) -> set[str]:
    """Names read with certainty and never called: the tests' own constants and modules, unless a program has them."""
    read = {
        node.id for node in _certain(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }
    return read - called_names(tree)


def has_star_import(tree: ast.AST) -> bool:
    """Whether a `from x import *` binds names nobody can read off the text."""
    return any(
        isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names)
        for node in ast.walk(tree)
    )


def imports(text: str) -> dict[str, tuple[str, str]]:
    """Name: (module, attribute or "") for each import of a program that binds its object's own name.

    A function renamed by its import is a function of the program's: `from os import _exit as solve` is no helper.
    """
    found: dict[str, tuple[str, str]] = {}
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return found
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.asname:
                    found[alias.asname] = (alias.name, "")
                else:
                    top = alias.name.partition(".")[0]
                    found[top] = (top, "")
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                if alias.asname in (None, alias.name):
                    found[alias.name] = (node.module, alias.name)
    return {
        name: origin
        for name, origin in found.items()
        if origin[0].partition(".")[0] not in _NEVER_IMPORTED and not hasattr(builtins, name)
    }


class Objects:
    """Which names the tests use in ways that no plain data could serve: as a class, or for results with methods."""

    def __init__(self, tree: ast.AST, candidate: str | None) -> None:
        self.sources: dict[str, list[ast.expr]] = {}
        self.needed: set[str] = set()
        used: dict[str, tuple[set[str], set[str]]] = {}
        for node in ast.walk(tree):
            self._note_binding(node)
        for node in ast.walk(tree):
            self.needed |= self._as_class(node)
            if isinstance(node, ast.Attribute):
                roots, attributes = used.setdefault(ast.dump(node.value), (set(), set()))
                roots |= self._roots(node.value, set())
                attributes.add(node.attr)
        for roots, attributes in used.values():
            if not any(attributes <= set(dir(kind)) for kind in _PLAIN):
                self.needed |= roots
        if candidate and "candidate" in self.needed:
            self.needed.add(candidate)

    def _note_binding(self, node: ast.AST) -> None:
        value = getattr(node, "value", None)
        targets: Sequence[ast.AST] = ()
        if isinstance(node, ast.Assign):
            targets = list(node.targets)
        elif isinstance(node, (ast.AnnAssign, ast.NamedExpr)):
            targets = [node.target]
        elif isinstance(node, (ast.For, ast.comprehension)):
            targets, value = [node.target], node.iter
        elif isinstance(node, ast.withitem) and node.optional_vars:
            targets, value = [node.optional_vars], node.context_expr
        for target in targets:
            for name in ast.walk(target):
                if isinstance(name, ast.Name) and isinstance(value, ast.expr):
                    self.sources.setdefault(name.id, []).append(value)

    def _roots(self, node: ast.AST, seen: set[str]) -> set[str]:
        """Names whose value, or whose result, the expression is made of."""
        if isinstance(node, ast.Name):
            if node.id in seen:
                return set()
            seen.add(node.id)
            found = {node.id}
            for value in self.sources.get(node.id, []):
                found |= self._roots(value, seen)
            return found
        if isinstance(node, ast.Call):  # of the arguments nothing is known to remain
            return self._roots(node.func, seen)
        if isinstance(node, (ast.Attribute, ast.Subscript)):
            return self._roots(node.value, seen)
        found = set()
        for child in ast.iter_child_nodes(node):
            found |= self._roots(child, seen)
        return found

    def _as_class(self, node: ast.AST) -> set[str]:
        """Names that stand where only a class (or, for `next`, an iterator) can."""
        places: Sequence[ast.AST | None] = ()
        if isinstance(node, ast.ClassDef):
            places = list(node.bases)
        elif isinstance(node, ast.ExceptHandler):
            places = [node.type]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in ("isinstance", "issubclass"):
                places = list(node.args[1:])
            elif node.func.id == "next" and node.args:
                return self._roots(node.args[0], set())
        return {
            name.id
            for place in places
            if place is not None
            for name in ast.walk(place)
            if isinstance(name, ast.Name)
        }
