"""Embedding pairs by a two-step taxonomy (Wang et al. 2024, "Improving Text Embeddings with LLMs", arXiv 2401.00368).

1. How many examples of each of six types there are follows `mixture`; a type is drawn for every index.
2. For the four asymmetric types the model brainstorms tasks, some twenty a session; equal ones count once.
3. In a session of its own it writes one example for a drawn task, with placeholders drawn from the paper's sets
   (appendix C: kind and length of the query, clarity, length, difficulty, language). Asking for everything in one
   prompt gave less variety (section 3.1).
4. STS and bitext need no tasks: one prompt each.

Departures: our own prompts and shorter keys; what breaks a rule of the prompt that can be checked (a query copied into
its document, a label in its text, a wrong language, half the length asked for) is tried again instead of kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from synth.generators.base import Generator, Item, Row, Sifted, Step, Task, Unusable
from synth.generators.checks import holds, long_enough
from synth.generators.languages import CODES, check_language, known_languages
from synth.generators.novelty import once, words
from synth.generators.options import at_least, share
from synth.generators.procedural.draw import Draw
from synth.generators.replies import TEXT, list_of, record
from synth.generators.session import Session
from synth.records.ids import content_hash

MIXTURE = {"short_long": 167, "long_short": 122, "short_short": 13, "long_long": 17, "sts": 99, "bitext": 89}
"""Thousands of examples a type in the paper (table 1)."""
ASYMMETRIC = ("short_long", "long_short", "short_short", "long_long")
INSTRUCTIONS = {"sts": "Retrieve semantically similar text.", "bitext": "Retrieve parallel sentences."}
CLARITY = ("clear", "understandable with some effort", "ambiguous")
QUERY_TYPES = ("extremely long-tail", "long-tail", "common")
QUERY_LENGTHS = ("less than 5 words", "5 to 15 words", "at least 10 words")
DOCUMENT_WORDS = (50, 100, 200, 300, 400, 500)
TEXT_WORDS = ("less than 10", "at least 10", "at least 50", "at least 100", "at least 200")
LEVELS = ("high school", "college", "PhD")
SYMMETRIC_LEVELS = ("elementary school", "high school", "college")
UNITS = ("sentence", "phrase", "passage")
HIGH = ("4", "4.5", "5")
LOW = {"sts": ("2.5", "3", "3.5"), "bitext": ("1.5", "2", "2.5")}
LONG_WORDS = 300
LANGUAGE_KEYS = ("language", "source_language", "target_language")
COPIED_WORDS = 4
"""Words from which a query that stands in its document is called copied."""
KEYS = {
    "short_long": ("query", "positive", "negative"),
    "long_short": ("text", "label", "wrong_label"),
    "short_short": ("given", "match"),
    "long_long": ("given", "match"),
    "sts": ("first", "second", "third"),
    "bitext": ("source", "good", "poor"),
}
"""Keys of a reply: query, positive and, where there is one, the hard negative."""


@dataclass(frozen=True)
class Options:
    """Options of the generator `embedding_pairs`."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    count: int = 1000
    """Examples to write."""
    mixture: dict[str, float] = field(default_factory=lambda: dict(MIXTURE))
    """Weight of each type: short_long, long_short, short_short, long_long, sts, bitext."""
    tasks_per_prompt: int = 20
    """Tasks a brainstorming session is asked for."""
    examples_per_task: int = 3
    """Examples a task gets on average."""
    languages: list[str] = field(default_factory=lambda: list(CODES))
    """Names of languages besides English, all equally likely."""
    english: float = 0.43
    """Share of the examples in English; of bitext, one side always is."""

    def __post_init__(self) -> None:
        at_least(self, 1, "count", "tasks_per_prompt", "examples_per_task")
        share(self, "english")
        known_languages(self.languages, "languages")
        unknown = [name for name in self.mixture if name not in MIXTURE]
        if unknown or not sum(self.mixture.values()) > 0 or min(self.mixture.values()) < 0:
            fix = f"weights of at least 0, not all 0, of {', '.join(MIXTURE)}"
            raise ValueError(f"mixture: seen {self.mixture}; {fix}")


def generate(session: Session, options: Options, nothing: list[Item]) -> list[Item]:
    """Rows `query, positive, negatives, instruction, type`, the placeholders drawn and `language` (a code), or
    `source_language` and `target_language`."""
    types = [_type(session, options, index) for index in range(options.count)]
    tasks = _brainstorm(session, options, Counter(types))
    rows: list[Item] = []
    for name in MIXTURE:
        numbers = [index for index, each in enumerate(types) if each == name]
        if not numbers:
            continue
        if name in ASYMMETRIC and not tasks[name]:
            lost = [Item(content_hash(name, index), {"type": name, "index": index}) for index in numbers]
            session.sift(f"lost_{name}", lambda lost=lost: [Sifted(item, "no_task") for item in lost])
            continue
        asked = [_example(session, options, name, index, tasks.get(name, [])) for index in numbers]
        schema = record(**dict.fromkeys(KEYS[name], TEXT))
        rows += session.ask(Step(name, session.template(name), _reader(session, name), schema), asked)
    return rows


def _type(session: Session, options: Options, index: int) -> str:
    names = list(options.mixture)
    return names[session.draw("type", index).weighted([options.mixture[name] for name in names])]


# ---- Step one: tasks ---------------------------------------------------------------------------------------------


def _brainstorm(session: Session, options: Options, wanted: Counter[str]) -> dict[str, list[Item]]:
    """{type: different tasks} for the asymmetric types, enough for `examples_per_task` each."""
    found = {}
    for name in ASYMMETRIC:
        if wanted[name]:
            size = options.tasks_per_prompt
            sessions = -(-wanted[name] // (options.examples_per_task * size))
            template = session.template(f"brainstorm_{name}")
            step = Step(f"tasks_{name}", template, _read_tasks, record(tasks=list_of(TEXT, size)))
            asked = [Task({"count": size, "session": number}, wanted=size) for number in range(sessions)]
            written = session.ask(step, asked)
            found[name] = session.sift(
                f"different_{name}", lambda written=written: once(written, lambda item: item["task"])
            )
    return found


def _read_tasks(task: Task, reply: Any) -> Iterator[Row | Unusable]:
    for text in reply["tasks"]:
        said = " ".join(text.split())
        yield {"task": said} if len(words(said)) >= 3 else Unusable("too_short", said)


# ---- Step two: examples ------------------------------------------------------------------------------------------


def _example(session: Session, options: Options, name: str, index: int, tasks: list[Item]) -> Task:
    """The task of writing example `index`, for one of the brainstormed tasks where its type has any."""
    draw = session.draw("example", index)
    task = draw.pick(tasks) if tasks else None
    drawn = _PLACEHOLDERS[name](draw, options)
    codes = {key: CODES[value] for key, value in drawn.items() if key in LANGUAGE_KEYS}
    content = {**drawn, **codes, "instruction": task["task"] if task else INSTRUCTIONS[name], "type": name}
    if task is None:
        return Task(drawn, content)
    return Task({"task": task["task"], **drawn}, content, (task.id,))


def _language(draw: Draw, options: Options) -> str:
    english = draw.chance(options.english)
    return "English" if english else draw.pick(options.languages)


def _short_long(draw: Draw, options: Options) -> Row:
    return {
        "query_type": draw.pick(QUERY_TYPES),
        "query_length": draw.pick(QUERY_LENGTHS),
        "clarity": draw.pick(CLARITY),
        "num_words": draw.pick(DOCUMENT_WORDS),
        "difficulty": draw.pick(LEVELS),
        "language": _language(draw, options),
    }


def _long_short(draw: Draw, options: Options) -> Row:
    return {
        "num_words": draw.pick(TEXT_WORDS),
        "clarity": draw.pick(CLARITY),
        "difficulty": draw.pick(LEVELS),
        "language": _language(draw, options),
    }


def _matching(draw: Draw, options: Options) -> Row:
    return {"language": _language(draw, options)}


def _sts(draw: Draw, options: Options) -> Row:
    return {
        "unit": draw.pick(UNITS),
        "high_score": draw.pick(HIGH),
        "low_score": draw.pick(LOW["sts"]),
        "difficulty": draw.pick(SYMMETRIC_LEVELS),
        "language": _language(draw, options),
    }


def _bitext(draw: Draw, options: Options) -> Row:
    other = draw.pick([name for name in options.languages if name != "English"] or ["German"])
    pair = draw.sample(["English", other], 2)
    return {
        "unit": draw.pick(UNITS),
        "high_score": draw.pick(HIGH),
        "low_score": draw.pick(LOW["bitext"]),
        "difficulty": draw.pick(SYMMETRIC_LEVELS),
        "source_language": pair[0],
        "target_language": pair[1],
    }


_PLACEHOLDERS: dict[str, Callable[[Draw, Options], Row]] = {
    "short_long": _short_long,
    "long_short": _long_short,
    "short_short": _matching,
    "long_long": _matching,
    "sts": _sts,
    "bitext": _bitext,
}


# ---- What a reply must hold --------------------------------------------------------------------------------------


def _reader(session: Session, name: str) -> Callable[[Task, Any], Iterator[Row]]:
    def read(task: Task, reply: Any) -> Iterator[Row]:
        texts = [reply[key].strip() for key in KEYS[name]]
        for key, text in zip(KEYS[name], texts, strict=True):
            if not words(text):
                raise Unusable("empty", f"{key} has no words")
        query, positive, negatives = texts[0], texts[1], texts[2:]
        if len({tuple(words(text)) for text in texts}) < len(texts):
            raise Unusable("duplicate", "two of the texts are the same")
        if name in _RULES:
            _RULES[name](task, query, positive, negatives)
        asked = (
            ("source_language", "target_language", "target_language")
            if name == "bitext"
            else ("language",) * 3
        )
        for text, key in zip(texts, asked, strict=False):
            check_language(session.tools, text, task.values[key])
        yield {"query": query, "positive": positive, "negatives": negatives}

    return read


def _rule_short_long(task: Task, query: str, positive: str, negatives: list[str]) -> None:
    asked = words(query)
    for document in (positive, *negatives):
        if len(asked) >= COPIED_WORDS and holds(words(document), asked):
            raise Unusable("copied", f"the query stands in a document: {query[:120]}")
    long_enough(positive, task.values["num_words"])


def _rule_long_short(task: Task, text: str, label: str, wrong: list[str]) -> None:
    for each in (label, *wrong):
        if holds(words(text), words(each)):
            raise Unusable("label_in_text", each[:120])
    number = task.values["num_words"].rpartition(" ")
    if number[0] == "at least":
        long_enough(text, int(number[2]))


def _rule_long_long(task: Task, given: str, match: str, none: list[str]) -> None:
    for text in (given, match):
        long_enough(text, LONG_WORDS)


def _rule_sts(task: Task, first: str, second: str, third: list[str]) -> None:
    if not set(words(first)) & set(words(second)) or not set(words(first)) & set(words(third[0])):
        raise Unusable("no_overlap", "two texts share no word")


_RULES: dict[str, Callable[[Task, str, str, list[str]], None]] = {
    "short_long": _rule_short_long,
    "long_short": _rule_long_short,
    "long_long": _rule_long_long,
    "sts": _rule_sts,
}


GENERATOR = Generator(
    name="embedding_pairs",
    options=Options,
    generate=generate,
    rows_from=(*MIXTURE, *(f"lost_{name}" for name in ASYMMETRIC)),
    templates=(
        *(f"embedding_pairs/brainstorm_{name}" for name in ASYMMETRIC),
        *(f"embedding_pairs/{name}" for name in MIXTURE),
    ),
    compared=("query", "positive"),
    verifiers=("refusal",),
    preview_spread=sum(MIXTURE.values()) // min(MIXTURE.values()),
)
