r"""Problems with an answer, varied from seed problems; the answer is what independent solutions agree on.

1. A seed problem is reworded, gets other numbers, is made harder or is composed with another one
   (as in MetaMath, Yu et al. 2023, arXiv 2309.12284, and WizardMath, Luo et al. 2023, arXiv 2308.09583).
2. `samples` sessions solve each new problem, each with its own seed. No answer is ever carried over from the seed.
3. Self-consistency (Wang et al. 2022, arXiv 2203.11171): every answer given is held against every solution by the
   verifier `math`; the one that most solutions pass is the reference, if `agreement` of all samples do, and no other
   answer has as many. `none` (it cannot be solved) is an answer, too, and drops the problem.
4. A rewording whose answer is not its seed's reference has changed the problem and is dropped.

The row's completion is the first solution that agrees.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from synth.generators.base import Generator, Item, Row, Sifted, Step, Task, Unusable
from synth.generators.options import at_least, share, similarity, some_of
from synth.generators.replies import TEXT, record
from synth.generators.session import Session
from synth.generators.variations import (
    check_numbers,
    different,
    grouped,
    problem_text,
    solving_tasks,
    variation_tasks,
)

OPERATORS = ("reword", "numbers", "harder", "compose")
_UNSOLVABLE = re.compile(r"(?i)(\\[a-z]+\{)?\s*none\W*")
"""What the prompt asks to answer where a problem has no solution, perhaps as `\\text{None}`."""
_SOLUTION = re.compile(r"\\boxed|####|(?im:^\s*(?:answer|solution)\s*:)")
_BATCH = 64  # problems whose solutions are judged at once


@dataclass(frozen=True)
class Options:
    """Options of the generator `math_problems`."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    count: int = 1000
    """Problems to write; seeds take turns."""
    operators: list[str] = field(default_factory=lambda: list(OPERATORS))
    """Operators to draw from, all equally likely: reword, numbers, harder, compose."""
    samples: int = 8
    """Solutions a problem gets."""
    agreement: float = 0.5
    """Share of the samples that must agree on the answer."""
    novelty: float = 0.9
    """ROUGE-L from which a problem with the same numbers is called a repetition."""

    def __post_init__(self) -> None:
        at_least(self, 1, "count")
        at_least(self, 2, "samples")
        share(self, "agreement")
        similarity(self, "novelty")
        some_of(self, OPERATORS, "operators")


def generate(session: Session, options: Options, seeds: list[Item]) -> list[Item]:
    """Rows `prompt, completion, reference, operator, votes, samples`."""
    vary = Step("vary", None, _read_problem, record(problem=TEXT))
    written = session.ask(vary, variation_tasks(session, options.operators, options.count, seeds))
    new = session.sift("novel", lambda: different(written, seeds, options.novelty))
    solve = Step(
        "solve", session.template("solve"), _reader(session), refusals=True, together=options.samples
    )
    solved = session.ask(solve, solving_tasks(new, options.samples))
    solutions = grouped(solved)
    agreed = session.weigh("agreed", new, lambda some: _agreed(session, options, some, solutions), _BATCH)
    return session.sift("unchanged", lambda: _unchanged(session, agreed))


def _read_problem(task: Task, reply: Any) -> Iterator[Row]:
    new = problem_text(task, reply, _SOLUTION)
    check_numbers(task.content["operator"], task.values["problem"], new)
    yield {"prompt": new}


def _reader(session: Session) -> Any:
    def read(task: Task, reply: Any) -> Iterator[Row]:
        answer = session.tools.final_answer(reply)
        if answer is None:  # a solution may say "cannot" as it likes, as long as it gives an answer
            refused = session.is_refusal(reply)
            raise Unusable("refused" if refused else "no_answer", f"it ends {reply[-120:]!r}")
        yield {"completion": reply, "answer": answer}

    return read


def _agreed(
    session: Session, options: Options, problems: Sequence[Item], solved: dict[str, list[Item]]
) -> Iterator[Sifted]:
    for item, ballots in zip(problems, _votes(session, problems, solved), strict=True):
        yield _decided(options, item, solved.get(item.id, []), ballots)


def _votes(
    session: Session, problems: Sequence[Item], solved: dict[str, list[Item]]
) -> Iterator[dict[str, tuple[int, ...]]]:
    """For each problem {answer: places of the solutions that pass against it}, answers in the order given."""
    ballots: list[tuple[int, str, int]] = []
    rows: list[Row] = []
    for number, item in enumerate(problems):
        solutions = solved.get(item.id, [])
        for answer in dict.fromkeys(each["answer"] for each in solutions):
            for place, each in enumerate(solutions):
                ballots.append((number, answer, place))
                rows.append({"completion": each["completion"], "reference": answer})
    passed: list[dict[str, tuple[int, ...]]] = [{} for _ in problems]
    verdicts = session.tools.judge("math", rows) if rows else []
    for (number, answer, place), verdict in zip(ballots, verdicts, strict=True):
        if verdict["status"] == "pass":
            passed[number][answer] = (*passed[number].get(answer, ()), place)
    yield from passed


def _decided(
    options: Options, item: Item, solutions: list[Item], ballots: dict[str, tuple[int, ...]]
) -> Sifted:
    """The problem with its reference and a solution, or why the solutions settle nothing."""
    enough = max(2, options.agreement * options.samples)
    if len(solutions) < enough:
        return Sifted(item, "not_solved", f"{len(solutions)} of {options.samples} replies hold an answer")
    # Two spellings of one answer (1/2, 0.5) have the same voters: they are one candidate, not rivals.
    voters: dict[tuple[int, ...], str] = {}
    for answer, places in ballots.items():
        voters.setdefault(places, answer)
    ranked = sorted(voters.items(), key=lambda each: -len(each[0]))
    told = ", ".join(f"{len(places)} say {answer[:40]}" for places, answer in ranked[:3])
    told = f"of {options.samples}: {told or 'no answer can be judged'}"
    if (
        not ranked
        or len(ranked[0][0]) < enough
        or (len(ranked) > 1 and len(ranked[1][0]) == len(ranked[0][0]))
    ):
        return Sifted(item, "no_majority", told)
    places, answer = ranked[0]
    if _UNSOLVABLE.fullmatch(answer):
        return Sifted(item, "unsolvable", told)
    solution = solutions[places[0]]
    content = {**item.content, "completion": solution["completion"], "reference": answer}
    content |= {"votes": len(places), "samples": options.samples}
    return Sifted(Item(solution.id, content, (item.id,)))


def _unchanged(session: Session, agreed: list[Item]) -> Iterator[Sifted]:
    """Hold rewordings against the references of their seeds; what has none, or is no rewording, passes."""
    held = [
        each for each in agreed if each["operator"] == "reword" and each.get("seed_reference") is not None
    ]
    rows = [{"completion": each["completion"], "reference": each["seed_reference"]} for each in held]
    verdicts = session.tools.judge("math", rows) if rows else []
    told = {item.id: verdict for item, verdict in zip(held, verdicts, strict=True)}
    for item in agreed:
        kept = {name: value for name, value in item.content.items() if name != "seed_reference"}
        verdict = told.get(item.id)
        if verdict is None or verdict["status"] == "pass":
            yield Sifted(Item(item.id, kept, item.parents))
        else:
            cause = "other_answer" if verdict["status"] == "fail" else verdict["reason"]
            detail = f"{item['reference'][:80]}, but the seed's reference is {item['seed_reference'][:80]}"
            yield Sifted(item, cause, detail)


GENERATOR = Generator(
    name="math_problems",
    options=Options,
    generate=generate,
    rows_from=("vary",),
    templates=tuple(f"math_problems/{name}" for name in (*OPERATORS, "solve")),
    needs=("prompt",),
    compared=("prompt",),
    verifiers=("math", "refusal"),
    votes=True,
)
