"""Embedding pairs that a corpus holds already: nothing is written, so no model is asked.

Kinds: `docstring_function` (Python files: the docstring's first paragraph, and the function without it),
`name_function` (Python files: the words of a function's name, and the function without name and docstring),
`heading_section` (Markdown: the `#` headings that lead to a section, and its text), `question_answer` and `title_body`
(two columns). Pairs whose sides are too short, too long or the same, and further pairs of one query, are left out.
"""

from __future__ import annotations

import ast
import re
import tokenize
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from synth.generators.base import Generator, Item, Sifted
from synth.generators.novelty import words
from synth.generators.options import at_least
from synth.generators.passages import identified
from synth.generators.session import Session
from synth.records.errors import InputError, did_you_mean
from synth.records.ids import content_hash

Pair = tuple[str, str, dict[str, Any]]
INSTRUCTIONS = {
    "docstring_function": "Given a description of what a function does, retrieve the Python function that does it.",
    "name_function": "Given the name of a function, retrieve the Python function that bears it.",
    "heading_section": "Given the headings of a section, retrieve the text of the section.",
    "question_answer": "Given a question, retrieve the text that answers it.",
    "title_body": "Given the title of a text, retrieve the text.",
}
COLUMNS = {
    "docstring_function": ("text",),
    "name_function": ("text",),
    "heading_section": ("text",),
    "question_answer": ("question", "answer"),
    "title_body": ("title", "body"),
}
_HEADING = re.compile(r"^(#{1,6})[ \t]+(.+?)[ \t#]*$")
# Between the words of get_file, getFile and HTTPError.
_BETWEEN = re.compile(r"_+|(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
# What a string of several lines cannot do without.
_LONG_STRING = re.compile(r"\"{3}|'{3}|\\\n")
_FENCE = re.compile(r"^ {0,3}(```+|~~~+)")


@dataclass(frozen=True)
class Options:
    """Options of the generator `mined_pairs`."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    kind: str = "question_answer"
    """docstring_function, name_function, heading_section, question_answer or title_body."""
    instruction: str | None = None
    """What the query asks for; null: a sentence that fits the kind; empty: nothing."""
    count: int | None = None
    """Stop at so many pairs; null: all."""
    min_words: int = 3
    """Fewest words of either side."""
    max_words: int = 1000
    """Most words of the positive."""
    hide_names: bool = False
    """Let the function of `docstring_function` be called `f`, in its definition and where it refers to itself: names
    repeat what their docstrings say, so that words alone would match them. That of `name_function` always is."""

    def __post_init__(self) -> None:
        if self.kind not in INSTRUCTIONS:
            raise InputError("kind", f"unknown '{self.kind}'", did_you_mean(self.kind, INSTRUCTIONS))
        at_least(self, 1, "min_words")
        at_least(self, self.min_words, "max_words")
        if self.count is not None:
            at_least(self, 1, "count")
        if self.hide_names and not self.kind.endswith("_function"):
            raise ValueError(
                f"hide_names: seen true with kind {self.kind}; only functions have names to hide"
            )


def generate(session: Session, options: Options, corpus: list[Item]) -> list[Item]:
    """Rows `query, positive, negatives (none), instruction, kind` and the corpus row's other columns."""
    return session.sift("mined", lambda: _first(_mined(options, corpus), options.count))


def _first(decided: Iterator[Sifted], count: int | None) -> Iterator[Sifted]:
    """Decisions up to and with the `count`-th pair that is kept."""
    kept = 0
    for sifted in decided:
        yield sifted
        kept += sifted.cause is None
        if kept == count:
            return


def _mined(options: Options, corpus: list[Item]) -> Iterator[Sifted]:
    columns, first = COLUMNS[options.kind], dict[str, str]()
    instruction = INSTRUCTIONS[options.kind] if options.instruction is None else options.instruction
    for item in corpus:
        missing = [name for name in columns if not isinstance(item.get(name), str)]
        if missing:
            yield Sifted(item, "no_column", f"no text in {missing[0]}")
            continue
        other = {key: value for key, value in item.content.items() if key not in columns}
        other = identified(other, *(item[name] for name in columns))
        try:
            found = list(_FIND[options.kind](item))
            if options.hide_names or options.kind == "name_function":
                found = [(query, nameless(text, more["function"]), more) for query, text, more in found]
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            yield Sifted(Item(item.id, other), "unreadable", f"{type(error).__name__}: {error}")
            continue
        for query, positive, more in found:
            content = {"query": query, "positive": positive, "negatives": [], "instruction": instruction}
            content |= {"kind": options.kind, **other, **more}
            pair = Item(content_hash("pair", item.id, query, positive), content, (item.id,))
            yield _judge(options, pair, first)


def _judge(options: Options, pair: Item, first: dict[str, str]) -> Sifted:
    query, positive = words(pair["query"]), words(pair["positive"])
    if min(len(query), len(positive)) < options.min_words:
        return Sifted(pair, "too_short", f"{len(query)} and {len(positive)} words")
    if len(positive) > options.max_words:
        return Sifted(pair, "too_long", f"{len(positive)} words")
    if query == positive:
        return Sifted(pair, "copied", "both sides are the same")
    asked = " ".join(query)
    if asked in first:
        return Sifted(pair, "duplicate", "the query stands before", first[asked])
    first[asked] = pair.id
    return Sifted(pair)


Function = ast.FunctionDef | ast.AsyncFunctionDef


def _functions(item: Item) -> Iterator[Pair]:
    """Functions that have a docstring and something else to do."""
    for lines, node in _definitions(item):
        docstring = ast.get_docstring(node)
        if docstring and len(node.body) > 1 and _stands_alone(lines, node.body[0]):
            query = " ".join(re.split(r"\n\s*\n", docstring.strip())[0].split())
            yield query, _without_docstring(lines, node), {"function": node.name}


def _named(item: Item) -> Iterator[Pair]:
    """Functions whose names say what they do: special methods are all called the same."""
    for lines, node in _definitions(item):
        if node.name.startswith("__"):
            continue
        if ast.get_docstring(node) is None:
            written = _lines(lines, node)
        elif len(node.body) > 1 and _stands_alone(lines, node.body[0]):
            written = _without_docstring(lines, node)
        else:
            continue
        yield _BETWEEN.sub(" ", node.name).strip().lower(), written, {"function": node.name}


def _definitions(item: Item) -> Iterator[tuple[list[str], Function]]:
    """The functions of a source file, each with the file's lines."""
    source = re.sub(r"\r\n?", "\n", item["text"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd escapes in strings are the file's business
        tree = ast.parse(source)
    lines = source.split("\n")  # as the parser counts them: a form feed or U+2028 ends none
    yield from ((lines, node) for node in _statements(tree) if isinstance(node, Function))


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    """All statements, as `ast.walk` orders them, which spends its time on expressions: they hold no function."""
    waiting: deque[ast.AST] = deque([tree])
    while waiting:
        node = waiting.popleft()
        for name in ("body", "handlers", "orelse", "finalbody", "cases"):
            waiting.extend(getattr(node, name, ()))
        yield node


def _stands_alone(lines: list[str], stated: ast.stmt) -> bool:
    """Whether the docstring has its lines for itself."""
    last = (stated.end_lineno or stated.lineno) - 1
    before = lines[stated.lineno - 1].encode()[: stated.col_offset]  # offsets count bytes
    after = lines[last].encode()[stated.end_col_offset :].strip()
    return not before.strip() and (not after or after.startswith(b"#"))


def _without_docstring(lines: list[str], node: Function) -> str:
    stated = node.body[0]
    return _lines(lines, node, range(stated.lineno, (stated.end_lineno or stated.lineno) + 1))


def _lines(lines: list[str], node: Function, cut: range = range(0)) -> str:
    """The function's lines but for those of `cut`, decorators included, shifted to the left margin."""
    begin = min([node.lineno, *(each.lineno for each in node.decorator_list)])
    margin = len(lines[begin - 1]) - len(lines[begin - 1].lstrip())
    written = [lines[n - 1] for n in range(begin, (node.end_lineno or begin) + 1) if n not in cut]
    quoted = _inside_strings(written) if _LONG_STRING.search("\n".join(written)) else set[int]()
    shifted = [
        line if number in quoted or line[:margin].strip() else line[margin:]
        for number, line in enumerate(written)
    ]
    return "\n".join(shifted).strip()


def nameless(function: str, name: str) -> str:
    """The function called `f` where it is defined, by its plain name, and as a method of `self`, `cls` or `super()`."""
    if function.count(name) == 1 and f"def {name}(" in function:  # then nothing need be parsed
        return function.replace(name, "f")
    lines = [line.encode() for line in function.split("\n")]
    old, spans = name.encode(), []
    defined = False
    for node in ast.walk(ast.parse(function)):
        if isinstance(node, Function) and node.name == name and not defined:
            defined, at = True, node.lineno - 1
            found = re.compile(rb"\bdef\s+").search(lines[at], node.col_offset)
            spans += [(at, found.end())] if found else []
        elif isinstance(node, ast.Name) and node.id == name:
            spans.append((node.lineno - 1, node.col_offset))
        elif isinstance(node, ast.Attribute) and node.attr == name and _itself(node.value):
            spans.append(((node.end_lineno or node.lineno) - 1, (node.end_col_offset or 0) - len(old)))
    for line, begin in sorted(spans, reverse=True):
        lines[line] = lines[line][:begin] + b"f" + lines[line][begin + len(old) :]
    return b"\n".join(lines).decode()


def _itself(owner: ast.expr) -> bool:
    """Whether an expression is the function's own object: self, cls or super()."""
    if isinstance(owner, ast.Call):
        return isinstance(owner.func, ast.Name) and owner.func.id == "super"
    return isinstance(owner, ast.Name) and owner.id in ("self", "cls")


def _inside_strings(lines: list[str]) -> set[int]:
    """Lines, counted from 0, that begin inside a string: their white space is the string's."""
    inside, begun = set[int](), list[int]()
    for token in tokenize.generate_tokens(iter([f"{line}\n" for line in lines]).__next__):
        kind, first, last = tokenize.tok_name[token.type], token.start[0], token.end[0]
        if kind in ("FSTRING_START", "TSTRING_START"):  # later Pythons take such strings apart
            begun.append(first)
        elif kind in ("FSTRING_END", "TSTRING_END"):
            inside.update(range(begun.pop(), last))
        elif kind == "STRING":
            inside.update(range(first, last))
    return inside


def _sections(item: Item) -> Iterator[Pair]:
    """Sections of a Markdown text; a heading inside a fenced block is none."""
    path: list[tuple[int, str]] = []
    body: list[str] = []
    fence: str | None = None
    for line in item["text"].split("\n"):
        mark = _FENCE.match(line)
        heading = _HEADING.match(line) if fence is None else None
        if mark and (fence is None or mark[1].startswith(fence)):
            fence = mark[1] if fence is None else None
        if heading is None:
            body.append(line)
            continue
        if path:
            yield _section(path, body)
        level = len(heading[1])
        path, body = [*(each for each in path if each[0] < level), (level, heading[2].strip())], []
    if path:
        yield _section(path, body)


def _section(path: list[tuple[int, str]], body: list[str]) -> Pair:
    return ": ".join(title for _, title in path), "\n".join(body).strip(), {}


def _two_columns(query: str, positive: str) -> Callable[[Item], Iterator[Pair]]:
    return lambda item: iter([(item[query].strip(), item[positive].strip(), {})])


_FIND: dict[str, Callable[[Item], Iterator[Pair]]] = {
    "docstring_function": _functions,
    "name_function": _named,
    "heading_section": _sections,
    "question_answer": _two_columns(*COLUMNS["question_answer"]),
    "title_body": _two_columns(*COLUMNS["title_body"]),
}

GENERATOR = Generator(
    name="mined_pairs",
    options=Options,
    generate=generate,
    rows_from=("mined",),
    needs=(),
    compared=("query", "positive"),
    asks=False,
)
