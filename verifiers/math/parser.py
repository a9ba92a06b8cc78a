"""Answers as trees: a strict grammar for LaTeX and plain notation, read whole or not at all.

A tree is a tuple whose first element names the node:

    num value decimals | sym name | const pi/e/i/oo | add a b.. | mul a b.. | neg a | div a b | pow a b | fn name args..
    apply name args.. | percent a | degree a | unit a words | based digits base | pm a b (a may be None)
    sum/prod var low high body | int var low high body | lim var point body
    list items (bare) | tuple items | pair open close a b | set items | union/inter/minus a b | number_set name
    rel ops sides | in a set | ratio items | matrix rows | text words

Values are exact Fractions. What the grammar does not know raises `Unparsable`; nothing is dropped silently.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

from verifiers.math.syntax import FUNCTIONS, Token, TooComplex, Unparsable, clean, tokens

Tree = tuple[Any, ...]

MAX_NUMBER_DIGITS = 1_000
RELATIONS = {
    "=": "=", "<": "<", ">": ">", "\\le": "<=", "\\leq": "<=", "\\leqslant": "<=", "\\ge": ">=", "\\geq": ">=",
    "\\geqslant": ">=", "\\lt": "<", "\\gt": ">", "\\ne": "!=", "\\neq": "!=", "\\approx": "~", "\\equiv": "=", "\\sim": "~",
}  # fmt: skip
GREEK = frozenset(
    (
        "alpha", "beta", "gamma", "delta", "epsilon", "varepsilon", "zeta", "eta", "theta", "vartheta", "iota", "kappa",
        "lambda", "mu", "nu", "xi", "rho", "sigma", "tau", "upsilon", "phi", "varphi", "chi", "psi", "omega", "Gamma",
        "Delta", "Theta", "Lambda", "Xi", "Sigma", "Upsilon", "Phi", "Psi", "Omega", "ell", "hbar",
    )
)  # fmt: skip
ACCENTS = frozenset(
    (
        "overline", "bar", "hat", "vec", "tilde", "dot", "overrightarrow", "widehat", "mathcal", "mathfrak", "mathscr",
        "overleftrightarrow", "underline",
    )
)  # fmt: skip
NUMBER_SETS = {"R": "R", "Z": "Z", "N": "N", "Q": "Q", "C": "C"}
APPLIED = frozenset("fghFGHW")
# To this grammar d/dx would be a quotient.
_DERIVATIVE = re.compile(r"\\frac\s*\{\s*(?:d|\\partial|\\mathrm\{d\})(?:\^\{?\d\}?)?[^{}]{0,9}\}\s*\{\s*(?:d|\\partial|\\mathrm\{d\})\s*[a-z]")
END = Token("end of text", "", False, -1)


def parse(text: str) -> Tree:
    """The tree of an answer. Raises Unparsable or TooComplex."""
    cleaned = clean(text)
    if _DERIVATIVE.search(cleaned):
        raise Unparsable("a derivative")
    return Parser(tokens(cleaned)).answer()


class Parser:
    """Recursive descent over tokens; every method returns a tree and leaves `self.at` behind what it read."""

    def __init__(self, found: list[Token]) -> None:
        self.found = found
        self.at = 0
        self.bars = 0  # open |...|
        self.integrals = 0  # inside an integrand the letters d x end the body

    @property
    def next(self) -> Token:
        return self.found[self.at] if self.at < len(self.found) else END

    def peek(self, ahead: int) -> Token:
        return self.found[self.at + ahead] if self.at + ahead < len(self.found) else END

    def take(self, kind: str) -> bool:
        if self.next.kind == kind:
            self.at += 1
            return True
        return False

    def expect(self, kind: str) -> None:
        if not self.take(kind):
            raise Unparsable(f"expected {kind}, found {self.next.value or self.next.kind}")

    def command(self, *names: str) -> bool:
        if self.next.kind == "command" and self.next.value[1:] in names:
            self.at += 1
            return True
        return False

    def answer(self) -> Tree:
        """The whole answer: a value, or a bare list."""
        if not self.found:
            raise Unparsable("empty")
        groups = [self.items()]
        while self.take(";"):
            groups.append(self.items())
        if self.next is not END:
            raise Unparsable(f"cannot read {self.next.value!r}")
        if len(groups) == 1:
            return groups[0][0] if len(groups[0]) == 1 else ("list", *groups[0])
        # "p=5,q=2; p=7,q=2": each group is one solution.
        return ("list", *(group[0] if len(group) == 1 else round_tuple(list(map(right_side, group))) for group in groups))

    def items(self) -> list[Tree]:
        found = [self.relation()]
        while self.separator():
            found.append(self.relation())
        return found

    def separator(self) -> bool:
        """A comma, "and" or "or", or a comma with one of them."""
        start = self.at
        self.take(",")
        if self._is_conjunction():
            self.at += 1
        return self.at > start

    def _is_conjunction(self) -> bool:
        token = self.next
        if token.kind in ("text", "word"):
            return token.value.strip(" ,").lower() in ("and", "or")
        return token.kind == "command" and token.value in ("\\lor", "\\vee", "\\land", "\\wedge")

    def relation(self) -> Tree:
        sides, ops = [self.union()], []
        while True:
            token = self.next
            op = RELATIONS.get(token.value) if token.kind in ("command", "=", "<", ">") else None
            if op:
                self.at += 1
                if self.next.kind == "=" and op in "<>":
                    self.at, op = self.at + 1, op + "="
                ops.append(op)
                sides.append(self.union())
            elif self.command("in"):
                if ops:
                    raise Unparsable("membership in a chain")
                return ("in", sides[0], self.union())
            elif self.command("notin"):
                return ("in", sides[0], ("minus", ("number_set", "R"), self.union()))
            else:
                return ("rel", tuple(ops), *sides) if ops else sides[0]

    def union(self) -> Tree:
        left = self.ratio()
        while True:
            if self.command("cup"):
                left = ("union", left, self.ratio())
            elif self.command("cap"):
                left = ("inter", left, self.ratio())
            elif self.command("setminus", "backslash"):
                left = ("minus", left, self.ratio())
            else:
                return left

    def ratio(self) -> Tree:
        parts = [self.sum()]
        while self.next.kind == ":":
            self.at += 1
            parts.append(self.sum())
        return parts[0] if len(parts) == 1 else ("ratio", *parts)

    def sum(self) -> Tree:
        if self.command("pm", "mp"):
            left: Tree = ("pm", None, self.product())
        else:
            left = self.product()
        terms = [left]
        while True:
            if self.take("+"):
                terms.append(self.product())
            elif self.take("-"):
                terms.append(("neg", self.product()))
            elif self.command("pm", "mp"):
                base = terms[0] if len(terms) == 1 else ("add", *terms)
                terms = [("pm", base, self.product())]
            else:
                return terms[0] if len(terms) == 1 else ("add", *terms)

    def product(self) -> Tree:
        left = self.signed()
        while True:
            if self.take("*") or self.command("cdot", "times", "ast"):
                left = ("mul", left, self.signed())
            elif self.take("/") or self.command("div"):
                left = ("div", left, self.signed(implicit=False))
            elif self.starts_atom():
                right = self.power()
                left = self.join(left, right)
            else:
                return left

    def join(self, left: Tree, right: Tree) -> Tree:
        """Juxtaposition: a mixed number, else a product."""
        if right[0] == "num":
            raise Unparsable("a number right after a value")
        if left[0] == "num" and left[2] is None and right[0] == "div" and right[1][0] == right[2][0] == "num":
            if right[1][1] < right[2][1] and right[1][2] is None and right[2][2] is None:
                return ("add", left, right)
        if left[0] == "neg" and left[1][0] == "num":
            return ("neg", self.join(left[1], right))
        return ("mul", left, right)

    def signed(self, implicit: bool = True) -> Tree:
        negative = False
        while self.next.kind in ("+", "-"):
            negative ^= self.next.kind == "-"
            self.at += 1
        # A plain mixed number: 2 1/2.
        first, second, slash, third = self.next, self.peek(1), self.peek(2), self.peek(3)
        if (first.kind == second.kind == third.kind == "number" and slash.kind == "/" and second.spaced
                and first.value.isdigit() and second.value.isdigit() and third.value.isdigit()):  # fmt: skip
            self.at += 4
            tree: Tree = ("add", number(first.value), ("div", number(second.value), number(third.value)))
        else:
            tree = self.power()
        return ("neg", tree) if negative else tree

    def starts_atom(self) -> bool:
        token = self.next
        if token.kind in ("number", "repeating", "letter", "(", "{", "roman", "begin"):
            return not (self.integrals and token.value == "d" and self.peek(1).kind in ("letter", "command"))
        if token.kind == "word":
            return token.value not in ("and", "or")
        if token.kind == "|":
            return self.bars == 0
        if token.kind != "command":
            return False
        name = token.value[1:]
        return (name in GREEK or name in FUNCTIONS or name in ACCENTS
                or name in ("frac", "sqrt", "pi", "infty", "binom", "sum", "prod", "int", "lim", "lfloor", "lceil", "overline"))  # fmt: skip

    def power(self) -> Tree:
        base = self.postfix()
        while self.take("^"):
            exponent = self.argument(signed=True)
            base = self.postfix_of(("pow", base, exponent))
        return base

    def postfix(self) -> Tree:
        return self.postfix_of(self.atom())

    def postfix_of(self, tree: Tree) -> Tree:
        while True:
            token = self.next
            if token.kind == "!":
                self.at += 1
                tree = ("fn", "factorial", tree)
            elif token.kind == "%":
                self.at += 1
                tree = ("percent", tree)
            elif token.kind == "°":
                self.at += 1
                tree = ("degree", tree)
            elif token.kind == "text" and not self._is_conjunction():
                tree = self.unit(tree)
            else:
                return tree

    def unit(self, tree: Tree) -> Tree:
        words = self.next.value.strip()
        self.at += 1
        if self.take("^"):
            power = self.argument(signed=True)
            if power[0] != "num":
                raise Unparsable("power of a unit")
            words += f"^{power[1]}"
        if re.fullmatch(r"(?:percent|pct|per cent|%|\\%)\.?", words, re.IGNORECASE):
            return ("percent", tree)
        if not words.strip(" .,"):
            return tree
        return ("unit", tree, words)

    def argument(self, signed: bool = False) -> Tree:
        """What a command or `^` applies to: a group, or one token."""
        if self.take("{"):
            items = self.items()
            self.expect("}")
            if len(items) != 1:
                raise Unparsable("a list as an argument")
            return items[0]
        if signed and self.next.kind in ("-", "+"):
            minus = self.next.kind == "-"
            self.at += 1
            inner = self.argument()
            return ("neg", inner) if minus else inner
        return self.atom()

    def digit_argument(self) -> Tree:
        """An argument as TeX reads it: without braces, one digit."""
        token = self.next
        if token.kind == "number" and token.value.isdigit() and len(token.value) > 1:
            self.found[self.at] = token._replace(value=token.value[1:], spaced=False)
            return number(token.value[0])
        return self.argument()

    def atom(self) -> Tree:
        token = self.next
        handler = getattr(self, _HANDLERS.get(token.kind, ""), None)
        if handler is None:
            raise Unparsable(f"cannot read {token.value or token.kind!r}")
        self.at += 1
        return handler(token)

    def on_number(self, token: Token) -> Tree:
        value = token.value
        if self.next.kind == "_":
            self.at += 1
            base = self.argument()
            if base[0] != "num" or not value.isdigit() or not 2 <= base[1] <= 36:
                raise Unparsable("subscript of a number")
            return based(value, int(base[1]))
        return number(value)

    def on_repeating(self, token: Token) -> Tree:
        match = re.fullmatch(r"(\d*)\.(\d*)\\\w+?\s*\{?(\d+)\}?", token.value)
        if match is None:
            raise Unparsable("repeating decimal")
        whole, fixed, cycle = match.groups()
        check_digits(whole + fixed + cycle)
        value = Fraction(int((whole or "0") + fixed), 10 ** len(fixed))
        value += Fraction(int(cycle), (10 ** len(cycle) - 1) * 10 ** len(fixed))
        return ("num", value, None)

    def on_letter(self, token: Token) -> Tree:
        name = token.value
        if self.next.kind in ("_", "'"):
            return self.called(self.subscripted(name))
        if name == "e":
            return ("const", "e")
        if name == "i":
            return ("const", "i")
        return self.called(name)

    def called(self, name: str) -> Tree:
        """A symbol, or an application such as f(x) or W(n) = (then the name stands for a function)."""
        if self.next.kind != "(":
            return ("sym", name)
        if name[0] not in APPLIED and not self._defines_function():
            return ("sym", name)
        start = self.at
        self.at += 1
        try:
            args = self.items()
            self.expect(")")
        except Unparsable:
            self.at = start
            return ("sym", name)
        return ("apply", name, *args)

    def _defines_function(self) -> bool:
        """`P(x) =` or `P(A) =` at the start of a side."""
        inner, close, after = self.peek(1), self.peek(2), self.peek(3)
        return inner.kind in ("letter", "number") and close.kind == ")" and after.kind == "="

    def subscripted(self, name: str) -> str:
        while True:
            if self.take("'"):
                name += "'"
            elif self.take("_"):
                name += "_" + self.raw_group()
            else:
                return name

    def raw_group(self) -> str:
        """The text of a group as a name, not read as a formula."""
        if not self.take("{"):
            token = self.next
            if token is END or token.kind in (")", "]", "}", ","):
                raise Unparsable("empty subscript")
            self.at += 1
            return token.value
        parts, depth = [], 1
        while depth:
            token = self.next
            if token is END:
                raise Unparsable("unclosed group")
            self.at += 1
            depth += (token.kind == "{") - (token.kind == "}")
            if depth:
                parts.append(token.value)
        return "".join(parts)

    def on_word(self, token: Token) -> Tree:
        word = token.value
        if word == "pi":
            return ("const", "pi")
        if word in ("oo", "inf", "infinity"):
            return ("const", "oo")
        if word in FUNCTIONS:
            return self.function(word)
        raise Unparsable(f"the word {word!r}")

    def on_text(self, token: Token) -> Tree:
        """Words at the start of a value: a name (`\\text{Area} = 5`)."""
        words = token.value.strip()
        if not words:
            return self.atom()
        if self.next.kind == "^" or not (self.next is END or self.next.kind in ("=", ",", "command", ")", "}", ";")):
            raise Unparsable(f"the words {words!r} before a value")
        return ("text", words)

    def on_roman(self, token: Token) -> Tree:
        name = token.value.strip()
        if name in ("e", "i", "d"):
            return ("const", name) if name != "d" else ("sym", name)
        if name in FUNCTIONS:
            return self.function(name)
        if len(name) == 1 and name.isalpha():
            return self.called(self.subscripted(name))
        return ("text", name)

    def on_dots(self, token: Token) -> Tree:
        return ("sym", "...")

    def on_command(self, token: Token) -> Tree:
        name = token.value[1:]
        if name in GREEK:
            return ("sym", self.subscripted(name))
        if name in FUNCTIONS and name != "sqrt":
            return self.function(name)
        if name in ACCENTS:
            return ("sym", self.subscripted(f"{name}:{self.raw_group()}"))
        handler = getattr(self, f"cmd_{name}", None)
        if handler is None:
            raise Unparsable(f"the command {token.value}")
        return handler()

    def cmd_pi(self) -> Tree:
        return ("const", "pi")

    def cmd_infty(self) -> Tree:
        return ("const", "oo")

    def cmd_ldots(self) -> Tree:
        return ("sym", "...")

    cmd_cdots = cmd_dots = cmd_dotsc = cmd_ldots

    def cmd_emptyset(self) -> Tree:
        return ("set",)

    cmd_varnothing = cmd_emptyset

    def cmd_mathbb(self) -> Tree:
        name = self.raw_group()
        if name not in NUMBER_SETS:
            raise Unparsable(f"the set {name}")
        if self.take("^"):
            return ("number_set", f"{name}^{self.raw_group()}")
        return ("number_set", name)

    def cmd_frac(self) -> Tree:
        top = self.digit_argument()
        return ("div", top, self.digit_argument())

    def cmd_binom(self) -> Tree:
        top = self.digit_argument()
        return ("fn", "binom", top, self.digit_argument())

    def cmd_sqrt(self) -> Tree:
        if self.take("["):
            degree = self.sum()
            self.expect("]")
            return ("fn", "root", self.argument(), degree)
        return ("fn", "sqrt", self.argument())

    def cmd_lfloor(self) -> Tree:
        inner = self.sum()
        if not self.command("rfloor"):
            raise Unparsable("unclosed floor")
        return ("fn", "floor", inner)

    def cmd_lceil(self) -> Tree:
        inner = self.sum()
        if not self.command("rceil"):
            raise Unparsable("unclosed ceiling")
        return ("fn", "ceil", inner)

    def cmd_sum(self) -> Tree:
        return self.bounded("sum")

    def cmd_prod(self) -> Tree:
        return self.bounded("prod")

    def bounded(self, kind: str) -> Tree:
        """A sum or product: variable and bounds, then one term as the body."""
        self.expect("_")
        self.expect("{")
        lower = self.relation()
        self.expect("}")
        self.expect("^")
        high = self.argument(signed=True)
        if lower[0] != "rel" or lower[1] != ("=",):
            raise Unparsable("bounds of a sum")
        name = {"const": lower[2][-1], "sym": lower[2][-1]}.get(lower[2][0])
        if name is None:
            raise Unparsable("variable of a sum")
        return (kind, name, lower[3], high, self.product())

    def cmd_int(self) -> Tree:
        self.expect("_")
        low = self.argument(signed=True)
        self.expect("^")
        high = self.argument(signed=True)
        self.integrals += 1
        # `\int dx` has the body 1.
        body: Tree = ("num", Fraction(1), None) if self._differential() else self.sum()
        self.integrals -= 1
        if not self._differential():
            raise Unparsable("integral without its variable")
        self.at += 1
        variable = self.next.value.lstrip("\\")
        self.at += 1
        return ("int", variable, low, high, body)

    def _differential(self) -> bool:
        return self.next.value == "d" and (self.peek(1).kind == "letter" or self.peek(1).value[1:] in GREEK)

    def cmd_lim(self) -> Tree:
        self.expect("_")
        self.expect("{")
        variable = self.atom()
        if variable[0] != "sym" or not self.command("to", "rightarrow"):
            raise Unparsable("limit")
        point = self.sum()
        self.expect("}")
        return ("lim", variable[1], point, self.product())

    def function(self, name: str) -> Tree:
        """sin x, sin^2 x, sin^{-1} x, log_2 8, f(...)."""
        name = {"asin": "arcsin", "acos": "arccos", "atan": "arctan"}.get(name, name)
        base = exponent = None
        if self.take("_"):
            base = self.argument()
        if self.take("^"):
            exponent = self.argument(signed=True)
        if name == "log" and base is None and self.take("_"):
            base = self.argument()
        if exponent == ("neg", ("num", Fraction(1), None)) and name in ("sin", "cos", "tan", "sec", "csc", "cot"):
            name, exponent = "arc" + name, None
        args = self.function_arguments(name)
        if base is not None:
            if name not in ("log", "lg") or len(args) != 1:
                raise Unparsable(f"subscript of {name}")
            args = [*args, base]
        if name == "lg" and len(args) == 1:
            args = [*args, ("num", Fraction(10), None)]
        tree: Tree = ("fn", "log" if name == "lg" else name, *args)
        return ("pow", tree, exponent) if exponent is not None else tree

    def function_arguments(self, name: str) -> list[Tree]:
        if self.next.kind in ("(", "{", "["):
            close = {"(": ")", "{": "}", "[": "]"}[self.next.kind]
            self.at += 1
            args = self.items()
            self.expect(close)
            if len(args) > 1 and name not in ("max", "min", "gcd", "lcm", "log"):
                raise Unparsable(f"{name} of several arguments")
            # sin(x)^2 is (sin x)^2 to most writers; the caller's `power` reads that exponent.
            return args
        tree = self.signed() if self.next.kind in ("-", "+") else self.power()
        while self.starts_atom() and not self._is_function_next():
            tree = self.join(tree, self.power())
        return [tree]

    def _is_function_next(self) -> bool:
        token = self.next
        return token.value.lstrip("\\") in FUNCTIONS or token.kind == "("

    def on_open(self, token: Token) -> Tree:
        """( or [: grouping, a pair (point or interval), or a tuple."""
        if self.next.kind in (")", "]"):
            raise Unparsable("empty brackets")
        bars, self.bars = self.bars, 0
        integrals, self.integrals = self.integrals, 0
        found = self.items()
        while self.take(";"):
            found.extend(self.items())
        self.bars, self.integrals = bars, integrals
        close = self.next.kind
        if close not in (")", "]"):
            raise Unparsable("unclosed bracket")
        self.at += 1
        if len(found) == 1:
            if (token.kind, close) not in (("(", ")"), ("[", "]")):
                raise Unparsable("brackets that do not match")
            return found[0]
        if len(found) == 2:
            return ("pair", token.kind, close, *found)
        if (token.kind, close) not in (("(", ")"), ("[", "]")):
            raise Unparsable("brackets that do not match")
        return round_tuple(found)

    def on_brace(self, token: Token) -> Tree:
        found = self.items()
        self.expect("}")
        return found[0] if len(found) == 1 else ("list", *found)

    def on_set(self, token: Token) -> Tree:
        if self.take("\\}"):
            return ("set",)
        bars, self.bars = self.bars, 1
        found = self.items()
        self.bars = bars
        if self.take("|") or self.take(":"):
            condition = self.items()
            self.expect("\\}")
            if len(condition) != 1 or len(found) != 1:
                raise Unparsable("set builder with several conditions")
            return condition[0] if found[0][0] == "sym" else ("inter", found[0][2], condition[0])
        self.expect("\\}")
        if len(found) == 1 and found[0][0] == "ratio" and len(found[0]) == 3 and found[0][2][0] in ("rel", "in"):
            return found[0][2]
        return ("set", *found)

    def on_bar(self, token: Token) -> Tree:
        self.bars += 1
        inner = self.sum()
        self.bars -= 1
        self.expect("|")
        return ("fn", "abs", inner)

    def on_begin(self, token: Token) -> Tree:
        kind = token.value.rstrip("*")
        if kind not in ("matrix", "pmatrix", "bmatrix", "vmatrix", "Bmatrix", "array", "smallmatrix"):
            raise Unparsable(f"the environment {token.value}")
        if kind == "array" and self.next.kind == "{":
            self.raw_group()
        rows: list[tuple[Tree, ...]] = []
        row: list[Tree] = []
        while self.next.kind != "end":
            row.append(self.relation())
            if self.take("&"):
                continue
            rows.append(tuple(row))
            row = []
            if not self.take("\\\\"):
                break
        if self.next.kind != "end" or self.next.value != token.value:
            raise Unparsable("unclosed matrix")
        self.at += 1
        if len({len(r) for r in rows}) != 1:
            raise Unparsable("rows of different length")
        matrix: Tree = ("matrix", *rows)
        return ("fn", "det", matrix) if kind == "vmatrix" else matrix


_HANDLERS = {
    "number": "on_number", "repeating": "on_repeating", "letter": "on_letter", "word": "on_word", "text": "on_text",
    "roman": "on_roman", "dots": "on_dots", "command": "on_command", "(": "on_open", "[": "on_open", "{": "on_brace",
    "\\{": "on_set", "|": "on_bar", "begin": "on_begin",
}  # fmt: skip


def check_digits(text: str) -> None:
    """Refuse numbers whose digits alone would be work."""
    if len(text) > MAX_NUMBER_DIGITS:
        raise TooComplex(f"a number of more than {MAX_NUMBER_DIGITS} digits")


def number(text: str) -> Tree:
    """A literal with its exact value and the decimals it was written with."""
    check_digits(text)
    mantissa, _, exponent = text.lower().partition("e")
    whole, point, tail = mantissa.partition(".")
    value = Fraction(int((whole or "0") + tail), 10 ** len(tail))
    if exponent:
        if abs(int(exponent)) > 4_000:
            raise TooComplex("a decimal exponent beyond 4000")
        return ("num", value * Fraction(10) ** int(exponent), None)
    return ("num", value, len(tail) if point and tail else None)


def based(digits: str, base: int) -> Tree:
    """A number with its base as a subscript."""
    try:
        check_digits(digits)
        return ("based", digits, base, Fraction(int(digits, base)))
    except ValueError as error:
        if isinstance(error, TooComplex):
            raise
        raise Unparsable(f"{digits} is not a number of base {base}") from None


def round_tuple(items: list[Tree]) -> Tree:
    """Items in round brackets; two of them may also be an open interval."""
    return ("pair", "(", ")", *items) if len(items) == 2 else ("tuple", *items)


def right_side(tree: Tree) -> Tree:
    """`x = 5` as 5, `x = 2 + 3 = 5` as 5; anything else as it is."""
    if tree[0] == "rel" and set(tree[1]) <= {"=", "~"} and is_name(tree[2]):
        # x = 1/3 ~ 0.33: the approximation explains the value, it is not the value.
        exact = [side for op, side in zip(tree[1], tree[3:], strict=True) if op == "="]
        return exact[-1] if exact else tree[3]
    return tree


def is_name(tree: Tree) -> bool:
    """What may stand left of an assignment: a symbol, f(x), words, a tuple or ratio of names."""
    if tree[0] in ("sym", "text"):
        return True
    if tree[0] == "apply":
        return True
    if tree[0] == "mul":
        return all(is_name(part) for part in tree[1:])
    if tree[0] == "pair":
        return is_name(tree[3]) and is_name(tree[4])
    if tree[0] in ("tuple", "ratio"):
        return all(is_name(part) for part in tree[1:])
    return False
