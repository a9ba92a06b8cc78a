"""Mutants of a program: copies with one small mistake each, by which tests show that they notice mistakes.

Operators as in mutation analysis (DeMillo, Lipton and Sayward 1978; Offutt's sufficient set, 1996): comparison,
arithmetic and boolean operators exchanged, constants shifted, conditions negated, results lost, min and max taken for
one another. Programs are parsed and written out again, never run. A mutant may be equivalent to its program (x < 0 and
x <= 0 where nothing depends on it), so no tests can be asked to kill all.
"""

from __future__ import annotations

import ast
import copy
import warnings
from collections.abc import Callable, Iterator

from synth.generators.procedural.draw import Draw

_COMPARISONS: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_ARITHMETIC: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Add, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitOr,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip
_FUNCTIONS = {
    "min": "max",
    "max": "min",
    "any": "all",
    "all": "any",
    "sorted": "list",
    "floor": "ceil",
    "ceil": "floor",
}
Change = Callable[[ast.AST], None]


def parsed(program: str) -> ast.Module | None:
    """The syntax tree, or None for what is no program."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd escapes in strings are the program's business
            return ast.parse(program)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None


def defines(program: ast.Module, name: str) -> bool:
    """Whether the program has a function of that name at its top level."""
    return any(isinstance(each, ast.FunctionDef) and each.name == name for each in program.body)


def mutants(program: str, draw: Draw, most: int) -> list[str]:
    """Up to `most` different mutants of a program, drawn among all there are."""
    tree = parsed(program)
    try:
        return [] if tree is None else _mutants(tree, draw, most)
    except RecursionError:  # a sum of thousands of terms can be read, but not copied
        return []


def _mutants(tree: ast.Module, draw: Draw, most: int) -> list[str]:
    places = [(number, change) for number, node in enumerate(ast.walk(tree)) for change in _changes(node)]
    original, found = ast.unparse(tree), dict[str, None]()
    for number, change in draw.sample(places, len(places)):
        if len(found) == most:
            break
        mutant = copy.deepcopy(tree)
        change(next(node for place, node in enumerate(ast.walk(mutant)) if place == number))
        text = ast.unparse(ast.fix_missing_locations(mutant))
        if text != original:
            found.setdefault(text)
    return list(found)


def _changes(node: ast.AST) -> Iterator[Change]:
    """What can be done to one node."""
    if isinstance(node, ast.Compare):
        yield from (_compare(place) for place, op in enumerate(node.ops) if type(op) in _COMPARISONS)
    elif isinstance(node, (ast.BinOp, ast.AugAssign)) and type(node.op) in _ARITHMETIC:
        yield _exchange
    elif isinstance(node, ast.BoolOp):
        yield _and_or
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float, bool):
        yield _shift
    elif isinstance(node, (ast.If, ast.While, ast.IfExp)):
        yield _negate
    elif isinstance(node, ast.Name) and node.id in _FUNCTIONS:
        yield _other_function
    elif isinstance(node, ast.Return) and node.value is not None:
        yield _lose


def _compare(place: int) -> Change:
    def change(node: ast.AST) -> None:
        assert isinstance(node, ast.Compare)
        node.ops[place] = _COMPARISONS[type(node.ops[place])]()

    return change


def _exchange(node: ast.AST) -> None:
    assert isinstance(node, (ast.BinOp, ast.AugAssign))
    node.op = _ARITHMETIC[type(node.op)]()


def _and_or(node: ast.AST) -> None:
    assert isinstance(node, ast.BoolOp)
    node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()


def _shift(node: ast.AST) -> None:
    assert isinstance(node, ast.Constant)
    value = node.value
    assert isinstance(value, (int, float))
    node.value = not value if isinstance(value, bool) else value + 1


def _negate(node: ast.AST) -> None:
    assert isinstance(node, (ast.If, ast.While, ast.IfExp))
    node.test = ast.UnaryOp(ast.Not(), node.test)


def _other_function(node: ast.AST) -> None:
    assert isinstance(node, ast.Name)
    node.id = _FUNCTIONS[node.id]


def _lose(node: ast.AST) -> None:
    assert isinstance(node, ast.Return)
    node.value = ast.Constant(None)
