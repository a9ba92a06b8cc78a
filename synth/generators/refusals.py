"""Triples (harmful prompt, refusal, harmful continuation) for safety alignment, from prompts that the user supplies.

1. For each prompt a form, a first move, a length and a manner are drawn, and the model writes a refusal in them: so the
   refusals differ by more than their wording, decline without preaching, and offer what can be offered.
2. The verifier `refusal` must call it a full refusal (option `accept`), else it is tried again.
3. Refusals that repeat an earlier one (ROUGE-L), or that begin like too many others, are dropped: what a model learns
   should be to refuse, not one sentence.
4. On demand each prompt gets counterparts: safe prompts with its words, of one of XSTest's ten types, with helpful
   answers (as in `over_refusal`), so that a model learns to tell the two apart.

The harmful continuation is never written here and no prompt asks for one. It is the column `harmful` of the source:
of a data set of the user's, or completions of a model of the user's choice (generator `answers`). A continuation that
itself refuses, all or in part, is dropped, as it teaches the opposite.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from synth.generators.base import Generator, Item, Row, Sifted, Step, Task, Unusable
from synth.generators.novelty import Novelty, words
from synth.generators.options import at_least, share, similarity, some_of
from synth.generators.over_refusal import KINDS, answered, read_prompts
from synth.generators.replies import TEXT, list_of, record
from synth.generators.session import Session

CLASSES = ("full_refusal", "partial_refusal")
FORMS = (
    "declines, and says why this could hurt someone",
    "declines, and offers a specific safe thing that it could do instead",
    "declines, and points to the kind of people or service who could really help here",
    "declines, and asks what the person is trying to achieve, so that it can help with that",
    "declines, and explains what the law or the rules of a profession say about it in general",
    "declines, and names a legitimate way to an understandable goal behind the message",
    "declines because of the people it is about, taking their side without attacking the person who asks",
    "declines, and says which neighbouring question it would gladly answer",
)
BEGINNINGS = (
    "with the refusal itself",
    "with the concern or need that may be behind the message",
    "with what could happen to somebody",
    "with an apology",
    "with what the assistant can do, and only then what it will not do",
    "with the subject of the message, not with the assistant",
)
LENGTHS = ("one sentence", "two sentences", "three to four sentences", "a paragraph")
MANNERS = ("warm and plain", "matter-of-fact", "formal and polite", "brief and friendly", "calm and serious")
OPENING_WORDS = 4
COUNTERPART_NOVELTY = 0.7
# Words that scold. A refusal is meant to be read by somebody who may have meant no harm.
_SCOLDS = re.compile(
    r"(?i)\b(shame on you|how dare you|you should be ashamed|disgusting|you people|evil person|sick person|pathetic)\b"
)


@dataclass(frozen=True)
class Options:
    """Options of the generator `refusals`."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    n: int = 1
    """Refusals a prompt gets, each of another form."""
    harmful: bool = True
    """Make triples: every row needs the column `harmful`. False: pairs of prompt and refusal."""
    accept: list[str] = field(default_factory=lambda: ["full_refusal"])
    """Classes of the verifier `refusal` that count: full_refusal, partial_refusal."""
    min_words: int = 6
    """Shorter refusals are no help to anyone."""
    novelty: float = 0.8
    """ROUGE-L with an earlier refusal from which one is called a repetition."""
    counterparts: int = 0
    """Safe prompts asked for beside each prompt."""
    same_opening: float = 0.1
    """Share of all refusals that may begin with the same four words; ten may in any case."""

    def __post_init__(self) -> None:
        at_least(self, 1, "n", "min_words")
        at_least(self, 0, "counterparts")
        share(self, "same_opening")
        similarity(self, "novelty")
        some_of(self, CLASSES, "accept")
        if self.n > len(FORMS):
            raise ValueError(f"n: seen {self.n}; use at most {len(FORMS)}, the number of forms")


def generate(session: Session, options: Options, prompts: list[Item]) -> list[Item]:
    """Rows `prompt, refusal` and `harmful`, with the form, beginning, length and manner that were asked for, and rows
    `prompt, completion, type, counterpart_of`."""
    usable = session.sift("usable", lambda: _usable(session, options, prompts))
    step = Step(
        "refusal", session.template("refusal"), _reader(session, options), record(refusal=TEXT), refusals=True
    )
    tasks = [task for index, item in enumerate(usable) for task in _tasks(session, options, index, item)]
    written = session.ask(step, tasks)
    refusals = session.sift("varied", lambda: _varied(options, written))
    return refusals + _counterparts(session, options, usable) if options.counterparts else refusals


def _counterparts(session: Session, options: Options, prompts: list[Item]) -> list[Item]:
    schema = record(prompts=list_of(TEXT, options.counterparts))
    step = Step("counterparts", session.template("counterparts"), read_prompts, schema)
    tasks = []
    for index, item in enumerate(prompts):
        name = session.draw("counterparts", index).pick(tuple(KINDS))
        kind = KINDS[name]
        values = {
            "prompt": item["prompt"],
            "what": kind.what,
            "example": kind.example,
            "count": options.counterparts,
        }
        content = {"type": name, "counterpart_of": item.id}
        tasks.append(Task(values, content, (item.id,), wanted=options.counterparts))
    return answered(session, session.ask(step, tasks), COUNTERPART_NOVELTY)


def _usable(session: Session, options: Options, prompts: list[Item]) -> Iterator[Sifted]:
    """Drop rows without a continuation, and continuations that refuse."""
    if not options.harmful:
        yield from map(Sifted, prompts)
        return
    rows = [{"completion": str(item.get("harmful", ""))} for item in prompts]
    verdicts = session.tools.judge("refusal", rows, accept=["full_compliance"])
    for item, row, verdict in zip(prompts, rows, verdicts, strict=True):
        if not words(row["completion"]):
            yield Sifted(item, "no_harmful", "the column `harmful` is empty")
        elif verdict["status"] == "pass":
            yield Sifted(item)
        else:
            told = "harmful_refuses" if verdict["status"] == "fail" else verdict["reason"]
            yield Sifted(item, told, row["completion"][:200])


def _tasks(session: Session, options: Options, index: int, item: Item) -> Iterator[Task]:
    draw = session.draw("refusal", index)
    for form in draw.sample(FORMS, options.n):
        drawn = {
            "form": form,
            "beginning": draw.pick(BEGINNINGS),
            "length": draw.pick(LENGTHS),
            "manner": draw.pick(MANNERS),
        }
        values = {"prompt": item["prompt"], **drawn}
        yield Task(values, {**item.content, **drawn}, (item.id,))


def _reader(session: Session, options: Options) -> Any:
    def read(task: Task, reply: Any) -> Iterator[Row]:
        text = reply["refusal"].strip()
        size = len(words(text))
        if size < options.min_words:
            raise Unusable("too_short" if size else "empty", repr(text[:80]))
        if scold := _SCOLDS.search(text):
            raise Unusable("scolds", scold[0])
        row = {"prompt": task.values["prompt"], "completion": text}
        verdict = session.tools.judge("refusal", [row], accept=options.accept)[0]
        if verdict["status"] != "pass":
            raise Unusable(verdict["reason"], text[:200])
        yield {"refusal": text, "completion": text}  # the second is what supervised fine-tuning reads

    return read


def _varied(options: Options, written: list[Item]) -> Iterator[Sifted]:
    known, openings = Novelty(options.novelty), Counter[tuple[str, ...]]()
    most = max(10, int(options.same_opening * len(written)))
    for item in written:
        text = item["refusal"]
        opening, match = tuple(words(text)[:OPENING_WORDS]), known.nearest(text)
        if match is not None:
            yield Sifted(item, "not_novel", f"ROUGE-L {match.score:.3f}", match.name)
        elif openings[opening] >= most:
            yield Sifted(item, "same_opening", f"{most} others begin '{' '.join(opening)}'")
        else:
            known.add(item.id, text)
            openings[opening] += 1
            yield Sifted(item)


GENERATOR = Generator(
    name="refusals",
    options=Options,
    generate=generate,
    rows_from=("refusal", "answer"),
    templates=("refusals/refusal", "refusals/counterparts", "over_refusal/check"),
    needs=("prompt",),
    verifiers=("refusal",),
)
