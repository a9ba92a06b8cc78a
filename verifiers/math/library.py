"""LaTeX beyond our grammar (derivatives, determinants ...), read by latex2sympy2-extended in a worker.

The library refuses what it cannot read to the end; what it reads becomes a `library` node: its text and its
free symbols.
"""

from __future__ import annotations

import functools
from typing import Any

from verifiers.math.nodes import Tree
from verifiers.math.syntax import Unparsable, clean

COMMANDS = ("\\int", "\\iint", "\\frac{d}", "\\frac{\\partial", "\\lim", "\\sum", "\\prod", "\\det")
MAX_LENGTH = 400


def may_read(text: str) -> bool:
    """Whether the text has something that only the library knows."""
    return len(text) <= MAX_LENGTH and any(command in text for command in COMMANDS)


def read(text: str) -> Tree:
    """The text as a library node. Raises Unparsable."""
    expression = expression_of(text)
    return ("library", text, *sorted(str(symbol) for symbol in expression.free_symbols))


@functools.lru_cache(maxsize=256)
def expression_of(text: str) -> Any:
    """The SymPy expression of a text, its operations not yet carried out. Raises Unparsable."""
    import sympy
    from latex2sympy2_extended import latex2sympy

    try:
        found = latex2sympy(clean(text))
    except Exception as error:
        raise Unparsable(
            f"latex2sympy: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from None
    if not isinstance(found, sympy.Expr):
        raise Unparsable("latex2sympy: not an expression")
    # Symbols without assumptions are the same symbols as ours.
    return found.subs({symbol: sympy.Symbol(str(symbol)) for symbol in found.free_symbols})
