"""Sections of textbooks and exercises with solutions, as in "Textbooks Are All You Need" (Gunasekar et al. 2023, arXiv
2306.11644), where variety comes from constraints on topic and audience.

1. A session draws a topic and an audience, and the model lists units of such a book; equal ones of a topic count once.
2. In a session of its own it writes one section on a drawn unit, in a drawn style, length and language.
3. Exercises with worked solutions on each section.
4. In a session of its own it solves each exercise and compares: what is not called sound is dropped.

Departures: topics of all fields, not programming alone; the paper's exercises are functions to be completed from their
docstrings and are not checked. For programs with tests see the generators of code problems.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from synth.generators.base import Generator, Item, Row, Sifted, Step, Task, Unusable
from synth.generators.checks import long_enough, points_at_source
from synth.generators.languages import check_language, known_languages
from synth.generators.novelty import once, words
from synth.generators.options import at_least
from synth.generators.replies import TEXT, list_of, one_of, record
from synth.generators.session import Session
from synth.records.ids import content_hash

TOPICS = (
    "arithmetic and fractions", "algebra", "geometry", "calculus", "linear algebra", "probability", "statistics",
    "number theory", "logic and proof", "discrete mathematics", "mechanics", "electricity and magnetism",
    "thermodynamics", "optics and waves", "quantum physics", "astronomy", "general chemistry", "organic chemistry",
    "biochemistry", "genetics", "evolution", "ecology", "human physiology", "microbiology", "medicine", "nutrition",
    "geology", "meteorology", "programming in Python", "data structures and algorithms", "databases",
    "operating systems", "computer networks", "machine learning", "information security", "software engineering",
    "electronics", "mechanical engineering", "civil engineering", "materials science", "microeconomics",
    "macroeconomics", "accounting", "finance", "business management", "marketing", "law", "political science",
    "sociology", "psychology", "linguistics", "philosophy", "ethics", "ancient history", "modern history", "geography",
    "literature", "writing", "music theory", "art history", "education", "agriculture", "crafts and repair", "cooking",
)  # fmt: skip
AUDIENCES = (
    "children of ten years", "pupils of a middle school", "pupils of a high school",
    "undergraduates in their first year", "undergraduates of the subject", "graduate students",
    "researchers of a neighbouring field", "adults who learn for themselves", "people who need it for their trade",
    "teachers who prepare a lesson",
)  # fmt: skip
STYLES = (
    "as a plain textbook: definition, explanation, worked example",
    "as a conversation between a teacher and a pupil who asks what readers would ask",
    "around one problem from practice that is solved step by step",
    "as a story in which somebody has to find it out",
    "by questions that lead the reader to the result, each with its answer",
    "by contrast: the usual mistake first, then why it fails and what is right",
    "tersely, as lecture notes with every step of the reasoning",
    "by several examples from different fields, then what they have in common",
)
SOUND = "sound"
VERDICTS = (SOUND, "wrong", "unclear")


@dataclass(frozen=True)
class Options:
    """Options of the generator `textbooks`."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    count: int = 1000
    """Sections to write."""
    topics: list[str] = field(default_factory=lambda: list(TOPICS))
    audiences: list[str] = field(default_factory=lambda: list(AUDIENCES))
    styles: list[str] = field(default_factory=lambda: list(STYLES))
    lengths: list[int] = field(default_factory=lambda: [300, 600, 1000])
    """Words a section is asked to have; half of them are enough."""
    languages: list[str] = field(default_factory=lambda: ["English"])
    """Names of languages, all equally likely."""
    units_per_prompt: int = 20
    """Units a session is asked for."""
    sections_per_unit: int = 3
    """Sections a unit gets on average."""
    exercises: int = 2
    """Exercises on each section; 0: none."""

    def __post_init__(self) -> None:
        at_least(self, 1, "count", "units_per_prompt", "sections_per_unit")
        at_least(self, 0, "exercises")
        known_languages(self.languages, "languages")
        for name in ("topics", "audiences", "styles"):
            if not getattr(self, name) or not all(text.strip() for text in getattr(self, name)):
                raise ValueError(f"{name}: seen {getattr(self, name)!r}; give a list of texts")
        if not self.lengths or min(self.lengths) < 1:
            raise ValueError(f"lengths: seen {self.lengths}; give numbers of words")


def generate(session: Session, options: Options, nothing: list[Item]) -> list[Item]:
    """Rows `prompt, completion, kind (section, exercise), topic, audience, unit, style, language`."""
    units = _units(session, options)
    if not units:
        lost = [Item(content_hash("section", index), {"index": index}) for index in range(options.count)]
        return session.sift("lost", lambda: [Sifted(item, "no_unit") for item in lost])
    step = Step(
        "section", session.template("section"), _section_reader(session), record(title=TEXT, text=TEXT)
    )
    asked = [_section_task(session, options, units, index) for index in range(options.count)]
    sections = [_as_row(session, item) for item in session.ask(step, asked)]
    return [*sections, *(_exercises(session, options, sections) if options.exercises else [])]


# ---- Units -------------------------------------------------------------------------------------------------------


def _units(session: Session, options: Options) -> list[Item]:
    """Different units {topic, audience, unit}, enough for `sections_per_unit` sections each."""
    size = options.units_per_prompt
    schema = record(units=list_of(TEXT, size))
    step = Step("units", session.template("units"), _read_units, schema)
    sessions = -(-options.count // (options.sections_per_unit * size))
    written = session.ask(step, [_units_task(session, options, number) for number in range(sessions)])
    return session.sift("different", lambda: once(written, lambda item: f"{item['topic']}: {item['unit']}"))


def _units_task(session: Session, options: Options, number: int) -> Task:
    draw = session.draw("units", number)
    drawn = {"topic": draw.pick(options.topics), "audience": draw.pick(options.audiences)}
    size = options.units_per_prompt
    return Task({**drawn, "count": size, "session": number}, content=drawn, wanted=size)


def _read_units(task: Task, reply: Any) -> Iterator[Row | Unusable]:
    for text in reply["units"]:
        said = " ".join(text.split())
        yield {"unit": said} if words(said) else Unusable("empty", said)


# ---- Sections ----------------------------------------------------------------------------------------------------


def _section_task(session: Session, options: Options, units: list[Item], index: int) -> Task:
    draw = session.draw("section", index)
    unit = draw.pick(units)
    drawn = {
        **unit.content,
        "style": draw.pick(options.styles),
        "num_words": draw.pick(options.lengths),
        "language": draw.pick(options.languages),
    }
    return Task(drawn, content={**drawn, "kind": "section"}, parents=(unit.id,))


def _section_reader(session: Session) -> Callable[[Task, Any], Iterator[Row]]:
    def read(task: Task, reply: Any) -> Iterator[Row]:
        title, text = " ".join(reply["title"].split()), reply["text"].strip()
        if not words(title):
            raise Unusable("empty", "a section without a title")
        long_enough(text, task.values["num_words"])
        check_language(session.tools, text, task.values["language"])
        yield {"title": title, "text": text}

    return read


def _as_row(session: Session, item: Item) -> Item:
    """The section as an answer to what was drawn for it; title and text are its completion."""
    known = {key: value for key, value in item.content.items() if key not in ("title", "text")}
    asked = ("unit", "topic", "audience", "style", "num_words", "language")
    prompt = session.template("request").render(**{name: item[name] for name in asked})
    return Item(
        item.id,
        {**known, "prompt": prompt, "completion": f"# {item['title']}\n\n{item['text']}"},
        item.parents,
    )


# ---- Exercises ---------------------------------------------------------------------------------------------------


def _exercises(session: Session, options: Options, sections: list[Item]) -> list[Item]:
    """Exercises on the sections whose solutions were called sound."""
    pair = record(exercise=TEXT, solution=TEXT)
    schema = record(exercises=list_of(pair, options.exercises))
    step = Step("exercises", session.template("exercises"), _read_exercises, schema)
    written = session.ask(step, [_exercises_task(item, options.exercises) for item in sections])
    schema = record(working=TEXT, verdict=one_of(*VERDICTS))
    step = Step("review", session.template("review"), lambda task, reply: [reply], schema)
    reviewed = session.ask(step, [_review_task(item) for item in written])
    return session.sift("sound", lambda: _sound(written, reviewed))


def _exercises_task(section: Item, count: int) -> Task:
    values = {name: section[name] for name in ("topic", "audience", "language")}
    content = {name: section[name] for name in ("topic", "audience", "unit", "language")}
    return Task(
        {**values, "section": section["completion"], "count": count},
        content={**content, "kind": "exercise"},
        parents=(section.id,),
        wanted=count,
    )


def _read_exercises(task: Task, reply: Any) -> Iterator[Row | Unusable]:
    for each in reply["exercises"]:
        exercise, solution = each["exercise"].strip(), each["solution"].strip()
        if not words(exercise) or not words(solution):
            yield Unusable("empty", exercise[:200])
        elif words(exercise) == words(solution):
            yield Unusable("copied", exercise[:200])
        elif points_at_source(exercise):
            yield Unusable("refers_to_text", exercise[:200])
        else:
            yield {"prompt": exercise, "completion": solution}


def _review_task(item: Item) -> Task:
    values = {"exercise": item["prompt"], "solution": item["completion"]}
    return Task(values, content={"of": item.id}, parents=(item.id,))


def _sound(written: list[Item], reviewed: list[Item]) -> Iterator[Sifted]:
    found = {item["of"]: item for item in reviewed}
    for item in written:
        review = found.get(item.id)
        if review is None:
            yield Sifted(item, "not_checked", "no usable check")
        else:
            sound = review["verdict"] == SOUND
            yield Sifted(item, None if sound else review["verdict"], "" if sound else review["working"][:200])


GENERATOR = Generator(
    name="textbooks",
    options=Options,
    generate=generate,
    rows_from=("section", "sound", "lost"),
    templates=tuple(f"textbooks/{name}" for name in ("units", "section", "request", "exercises", "review")),
    verifiers=("refusal",),
)
