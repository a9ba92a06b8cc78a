"""What makes two solutions the same reasoning path (RFT, arXiv 2308.01825, section 3.3).

Text: the list of its equations, in order (`3+4=7` and `4+3=7` differ). A program: its syntax tree without comments,
docstrings and the names of local variables. Without equations and without a program: the normal form of the text.
"""

from __future__ import annotations

import ast
import re
import warnings

from synth.curate.text import normalise

_FENCE = re.compile(r"```[ \t]*(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)
_CALCULATOR = re.compile(r"<<([^<>\n]*)>>")
_SENTENCE = re.compile(r"[\n;]|[.!?](?=\s|$)")
_TOKEN = re.compile(r"\\[a-z]+|\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+|[a-z]+|[-+*/^=%(){}\[\]<>!|]")
_OPERATORS = {
    "\\times": "*",
    "\\cdot": "*",
    "\\div": "/",
    "\\frac": "/",
    "\\dfrac": "/",
    "×": "*",
    "÷": "/",
    "−": "-",
}
MAX_PROGRAM = 100_000
"""Longer programs are compared as text: the parser's time and stack are bounded this way."""


def reasoning_key(completion: str, is_program: bool) -> str:
    """A text that two completions share exactly if they count as the same reasoning path."""
    if is_program:
        tree = program_form(_program(completion))
        if tree is not None:
            return f"program {tree}"
    listed = equations(completion)
    if listed and not is_program:
        return "equations " + " ; ".join(listed)
    return f"text {normalise(completion)}"


def equations(text: str) -> list[str]:
    """Equations in order of appearance, blanks and thousands separators removed.

    Calculator annotations (`<<3+4=7>>`, GSM8K) are taken if there are any. Otherwise each line or sentence with an
    `=` gives its numbers, operators and variables; words between them (units) are skipped. Numbers that are not
    part of the equation stay in, so two different equation lists are never called equal.
    """
    annotated = _CALCULATOR.findall(text)
    pieces = annotated if annotated else _SENTENCE.split(text)
    return [form for piece in pieces if "=" in piece and (form := _equation(piece))]


def _equation(piece: str) -> str:
    for sign in ("×", "÷", "−"):
        piece = piece.replace(sign, f" {_OPERATORS[sign]} ")
    found = list(_TOKEN.finditer(piece.lower()))
    tokens = [_OPERATORS.get(match[0], match[0].replace(",", "")) for match in found]
    kept = [
        token
        for place, token in enumerate(tokens)
        if not token[0].isalpha() or _is_variable(tokens, found, place)
    ]
    joined = " ".join(token for token in kept if not token.startswith("\\"))
    return joined if any(character.isdigit() for character in joined) else ""


def _is_variable(tokens: list[str], found: list[re.Match[str]], place: int) -> bool:
    """A single letter beside an operator or glued to a number (`2x`), not the article `a` in a sentence."""
    if len(tokens[place]) != 1:
        return False
    before = tokens[place - 1] if place else ""
    after = tokens[place + 1] if place + 1 < len(tokens) else ""
    glued = bool(place) and before[-1:].isdigit() and found[place - 1].end() == found[place].start()
    return glued or (before != "" and before in "+-*/^=(") or (after != "" and after in "+-*/^=)")


def _program(completion: str) -> str:
    """The last fenced Python block (an unclosed fence runs to the end), else the whole text."""
    blocks = _FENCE.findall(completion)
    return blocks[-1] if blocks else completion


def program_form(source: str) -> str | None:
    """The program's syntax tree as text, local names numbered by first appearance; None if it does not parse."""
    if len(source) > MAX_PROGRAM:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
        return ast.dump(_Anonymous(tree).visit(tree))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


class _Anonymous(ast.NodeTransformer):
    """Drops docstrings and renames what the program itself binds (arguments, assigned names)."""

    def __init__(self, tree: ast.AST) -> None:
        bound = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        self.bound = bound | {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)}
        self.names: dict[str, str] = {}

    def _rename(self, name: str) -> str:
        return self.names.setdefault(name, f"v{len(self.names)}") if name in self.bound else name

    def visit_Name(self, node: ast.Name) -> ast.AST:
        node.id = self._rename(node.id)
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.arg = self._rename(node.arg)
        node.annotation = None
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            return None
        return self.generic_visit(node)
