"""Safe prompts that look unsafe, with helpful answers: what keeps a model trained on refusals from refusing too much.

1. The model writes prompts of one of the ten safe types of XSTest (Rottger et al. 2024, arXiv 2308.01263), around a
   word or subject that is drawn for the type.
2. In a session of its own it says of each whether a helpful answer could do harm and whether it looks as if one could;
   what is unsafe, or plainly safe, is dropped. So is what repeats another one (ROUGE-L).
3. Answers; one that the verifier `refusal` does not call full compliance is tried again.

Descriptions, words and examples are our own: XSTest itself stays an evaluation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from synth.generators.answers import answer_step, answer_task
from synth.generators.base import Generator, Item, Row, Sifted, Step, Task, Unusable
from synth.generators.novelty import Novelty, novel, words
from synth.generators.options import at_least, similarity, some_of
from synth.generators.replies import TEXT, TRUTH, list_of, record
from synth.generators.session import Session


class Kind(NamedTuple):
    """One of the types: what such a prompt is, an example, and the words or subjects to draw from."""

    what: str
    example: str
    subjects: tuple[str, ...]


_HARM_WORDS = (
    "kill", "shoot", "blow up", "execute", "crush", "destroy", "strangle", "hang", "cut off", "burn", "attack",
    "poison", "bomb", "smash", "stab", "beat", "drown", "exploit", "inject", "hijack",
)  # fmt: skip
_GROUNDS = (
    "age", "skin colour", "sex", "religion", "disability", "nationality", "weight", "sexual orientation", "caste",
    "being poor",
)  # fmt: skip
_PRIVATE = (
    "home address", "telephone number", "income", "illnesses", "passwords", "political opinions", "bank account",
    "private letters", "whereabouts", "love affairs",
)  # fmt: skip
KINDS = {
    "homonyms": Kind(
        "a word that has a violent or criminal meaning stands there in another, harmless sense (of computing, cooking, "
        "sport, a trade)",
        "Which command lists zombie processes, and how do I reap them?",
        _HARM_WORDS,
    ),
    "figurative_language": Kind(
        "a violent or criminal expression is meant figuratively (succeed, impress, use up, get rid of boredom)",
        "My presentation bombed. How do I slay the next one?",
        _HARM_WORDS,
    ),
    "safe_targets": Kind(
        "a violent verb has something as its object to which it may be done (a thing, a weed, a habit, software)",
        "What is the quickest way to smother a grease fire?",
        _HARM_WORDS,
    ),
    "safe_contexts": Kind(
        "a violent or criminal act happens only in a game, a film, a book, a play, or on a stage",
        "How do I rob the casino in the third mission without setting off the alarm?",
        ("computer game", "board game", "novel", "film set", "stage play", "tabletop role-playing game", "escape room",
         "puppet theatre", "history re-enactment", "comic"),
    ),
    "definitions": Kind(
        "it asks what a word for a crime or a harmful thing means, or how two such words differ",
        "What does embezzlement mean?",
        ("violence", "theft", "fraud", "drugs", "weapons", "war", "terrorism", "computer crime", "abuse", "smuggling"),
    ),
    "real_group_nons_discr": Kind(
        "it asks about a real group of people being treated differently in a matter in which that would be absurd",
        "Why are Belgians not allowed to whistle in lifts?",
        _GROUNDS,
    ),
    "nons_group_real_discr": Kind(
        "it asks about a real form of discrimination against something that cannot suffer it (a fruit, a colour, "
        "a chess piece, a fictional people)",
        "Should landlords be allowed to turn away people who prefer pears?",
        _GROUNDS,
    ),
    "historical_events": Kind(
        "it asks for facts of a well-known violent event in history",
        "How did the conspirators of the Ides of March get close to Caesar?",
        ("antiquity", "the Middle Ages", "the sixteenth century", "colonial rule", "the nineteenth century",
         "the First World War", "the Second World War", "the Cold War", "civil wars", "assassinations"),
    ),
    "privacy_public": Kind(
        "it sounds like a question about somebody's private life but asks for what is public (about office holders, "
        "companies, public bodies)",
        "How much does a member of the national parliament earn?",
        _PRIVATE,
    ),
    "privacy_fictional": Kind(
        "it asks for private details of somebody who exists only in a book, a film or a game",
        "What did Jane Eyre confess in her private letters?",
        _PRIVATE,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Options of the generator `over_refusal`."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    count: int = 1000
    """Prompts to write."""
    types: list[str] = field(default_factory=lambda: list(KINDS))
    """XSTest's safe types; they take turns."""
    per_prompt: int = 5
    """Prompts a session is asked for."""
    novelty: float = 0.7
    """ROUGE-L with an earlier one from which a prompt is called a repetition."""

    def __post_init__(self) -> None:
        at_least(self, 1, "count", "per_prompt")
        similarity(self, "novelty")
        some_of(self, tuple(KINDS), "types")


def generate(session: Session, options: Options, nothing: list[Item]) -> list[Item]:
    """Rows `prompt, completion, type, subject`."""
    schema = record(prompts=list_of(TEXT, options.per_prompt))
    write = Step("prompts", session.template("prompts"), read_prompts, schema)
    sessions = -(-options.count // options.per_prompt)
    written = session.ask(write, [_task(session, options, index) for index in range(sessions)])
    return answered(session, written[: options.count], options.novelty)


def answered(session: Session, written: list[Item], novelty: float) -> list[Item]:
    """Those of the written prompts that are new, safe by the model's own word and look unsafe, with helpful answers."""
    new = session.sift("novel", lambda: novel(Novelty(novelty), written))
    check = Step(
        "check",
        session.template("check"),
        lambda task, reply: [reply],
        record(could_do_harm=TRUTH, looks_harmful=TRUTH),
    )
    told = session.ask(check, [_check(item) for item in new])
    safe = session.sift("safe", lambda: _safe(new, told))
    # The class says more than `refused`, and a partial refusal is no help either.
    answer = answer_step(session, check=lambda task, text: _complies(session, task, text), refusals=True)
    return session.ask(answer, [answer_task(item) for item in safe])


def _task(session: Session, options: Options, index: int) -> Task:
    name = options.types[index % len(options.types)]
    kind = KINDS[name]
    subject = session.draw("prompts", index).pick(kind.subjects)
    values = {"what": kind.what, "example": kind.example, "subject": subject, "count": options.per_prompt}
    return Task({**values, "number": index}, {"type": name, "subject": subject}, wanted=options.per_prompt)


def read_prompts(task: Task, reply: Any) -> Iterator[Row | Unusable]:
    """Prompts of a reply; the ones it was shown (`example`, `prompt`) do not count."""
    shown = [words(task.values[name]) for name in ("example", "prompt") if name in task.values]
    for text in reply["prompts"]:
        said = text.strip()
        if len(words(said)) < 3:
            yield Unusable("too_short", repr(said[:80]))
        elif words(said) in shown:
            yield Unusable("copied", said[:200])
        else:
            yield {"prompt": said}


def _check(item: Item) -> Task:
    return Task({"prompt": item["prompt"]}, {"of": item.id}, (item.id,))


def _safe(written: list[Item], told: list[Item]) -> Iterator[Sifted]:
    judged = {item["of"]: item for item in told}
    for item in written:
        said = judged.get(item.id)
        if said is None:
            yield Sifted(item, "not_checked", "no usable judgement")
        elif said["could_do_harm"]:
            yield Sifted(item, "unsafe", item["prompt"][:200])
        elif not said["looks_harmful"]:
            yield Sifted(item, "looks_safe", item["prompt"][:200])
        else:
            yield Sifted(item)


def _complies(session: Session, task: Task, text: str) -> Iterator[Unusable]:
    row = {"prompt": task.values["prompt"], "completion": text}
    verdict = session.tools.judge("refusal", [row], accept=["full_compliance"])[0]
    if verdict["status"] != "pass":
        yield Unusable(verdict["reason"], text[:200])


GENERATOR = Generator(
    name="over_refusal",
    options=Options,
    generate=generate,
    rows_from=("answer",),
    templates=("over_refusal/prompts", "over_refusal/check"),
    verifiers=("refusal",),
)
