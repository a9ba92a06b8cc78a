"""Programming problems with tests, varied from seed problems; a test counts if independent solutions agree with it.

1. A seed problem is reworded, changed, made harder or composed with another one.
2. `samples` sessions write a solution each, and `test_writers` further ones write tests without seeing a solution.
3. Every solution is run against every test by the verifier `code`. A test counts if `agreement` of all samples pass it
   (as in CodeT, Chen et al. 2022, arXiv 2207.10397); a solution is right if it passes all tests that count. The
   problem is kept with `min_tests` of them and `agreement` of right solutions.
4. The tests must notice mistakes: of up to `mutants` small changes to a right solution they must fail `mutation_score`.

The row's completion is the first right solution. Model-written text is parsed here and run in the sandbox alone.
"""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

from synth.generators.base import Generator, Item, Row, Sifted, Step, Task, Unusable
from synth.generators.code_tests import function_tests, killed, outcomes, read_test
from synth.generators.mutants import defines, mutants, parsed
from synth.generators.options import at_least, share, similarity, some_of
from synth.generators.replies import TEXT, list_of, record
from synth.generators.session import Session
from synth.generators.variations import different, grouped, problem_text, solving_tasks, variation_tasks

OPERATORS = ("reword", "change", "harder", "compose")
_SOLUTION = re.compile(r"(?m)^\s*(?:return\b|assert\b|import\b|class \w+:)")
_PYTHON = ("", "py", "python", "python3")
_BATCH = 8  # problems whose solutions are run at once


@dataclass(frozen=True)
class Options:
    """Options of the generator `code_problems`."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    count: int = 1000
    """Problems to write; seeds take turns."""
    operators: list[str] = field(default_factory=lambda: list(OPERATORS))
    """Operators to draw from, all equally likely: reword, change, harder, compose."""
    samples: int = 6
    """Solutions a problem gets."""
    test_writers: int = 2
    """Sessions that write tests for a problem."""
    tests_per_writer: int = 8
    """Tests each is asked for."""
    agreement: float = 0.5
    """Share of the samples that must pass a test, and that must pass all tests that count."""
    min_tests: int = 4
    """Tests that must count."""
    mutants: int = 12
    """Mutants of a right solution at most; 0: do not look."""
    mutation_score: float = 0.6
    """Share of the mutants that the tests must fail; some are the program again and cannot fail."""
    time_limit: float = 2.0
    """Seconds a test may take."""
    novelty: float = 0.9
    """ROUGE-L from which a problem with the same numbers is called a repetition."""

    def __post_init__(self) -> None:
        at_least(self, 1, "count", "test_writers", "tests_per_writer", "min_tests")
        at_least(self, 2, "samples")
        at_least(self, 0, "mutants")
        share(self, "agreement", "mutation_score")
        similarity(self, "novelty")
        some_of(self, OPERATORS, "operators")
        if self.time_limit <= 0:
            raise ValueError(f"time_limit: seen {self.time_limit}; use a number of seconds above 0")


def generate(session: Session, options: Options, seeds: list[Item]) -> list[Item]:
    """Rows `prompt, completion, tests, entry_point, operator, votes, samples, mutants, killed`."""
    vary = Step("vary", None, _read_problem, record(problem=TEXT, entry_point=TEXT))
    written = session.ask(vary, variation_tasks(session, options.operators, options.count, seeds))
    new = session.sift("novel", lambda: different(written, seeds, options.novelty))
    names = {item.id: item["entry_point"] for item in new}
    solve = Step(
        "solve", session.template("solve"), _solution_reader(session), refusals=True, together=options.samples
    )
    solved = session.ask(solve, [_named(task, names) for task in solving_tasks(new, options.samples)])
    schema = record(tests=list_of(TEXT, options.tests_per_writer))
    test = Step("test", session.template("tests"), _read_tests, schema, together=options.test_writers)
    tests = session.ask(test, _test_tasks(options, new, names))
    agreed = session.weigh(
        "agreed", new, _Agreement(session, options, grouped(solved), grouped(tests)), _BATCH
    )
    if not options.mutants:
        return agreed
    return session.weigh("mutants", agreed, lambda some: _tough(session, options, some), 1)


# ---- Problems, solutions, tests ----------------------------------------------------------------------------------


def _read_problem(task: Task, reply: Any) -> Iterator[Row]:
    new, name = problem_text(task, reply, _SOLUTION), reply["entry_point"].strip()
    if not name.isidentifier() or keyword.iskeyword(name):
        raise Unusable("no_function", f"no name of a function: {name[:80]!r}")
    if not re.search(rf"\b{re.escape(name)}\b", new):
        raise Unusable("no_function", f"the problem does not name {name}")
    yield {"prompt": new, "entry_point": name}


def _named(task: Task, names: dict[str, str]) -> Task:
    values = {**task.values, "entry_point": names[task.content["of"]]}
    return Task(values, task.content, task.parents)


def _solution_reader(session: Session) -> Any:
    def read(task: Task, reply: Any) -> Iterator[Row]:
        program = program_of(reply)
        tree = parsed(program)
        if tree is None:
            refused = session.is_refusal(reply)
            raise Unusable("refused" if refused else "compile_error", f"no Python program: {program[:160]!r}")
        if not defines(tree, task.values["entry_point"]):
            raise Unusable("no_function", f"it does not define {task.values['entry_point']}")
        yield {"completion": reply}

    return read


def program_of(reply: str) -> str:
    """The program of a reply: its last fenced block of Python (unclosed, it runs to the end), or all of it."""
    found, inside, language = None, None, ""
    for line in reply.split("\n"):
        mark = line.strip()
        if inside is None and mark.startswith("```"):
            inside, language = [], mark[3:].strip().lower()
        elif inside is not None and mark != "```":
            inside.append(line)
        elif inside is not None:
            found, inside = ("\n".join(inside) if language in _PYTHON else found), None
    if inside is not None and language in _PYTHON:
        found = "\n".join(inside)
    return reply if found is None else found


def _test_tasks(options: Options, problems: list[Item], names: dict[str, str]) -> list[Task]:
    tasks = solving_tasks(problems, options.test_writers, count=options.tests_per_writer)
    return [
        Task({**named.values}, named.content, named.parents, wanted=options.tests_per_writer)
        for named in (_named(task, names) for task in tasks)
    ]


def _read_tests(task: Task, reply: Any) -> Iterator[Row | Unusable]:
    for text in reply["tests"]:
        try:
            yield {"case": read_test(text, task.values["entry_point"])}
        except Unusable as reason:
            yield reason


# ---- What they agree on ------------------------------------------------------------------------------------------


class _Agreement:
    """Runs the solutions of some problems against their tests and says which settle anything."""

    def __init__(
        self, session: Session, options: Options, solved: dict[str, list[Item]], tests: dict[str, list[Item]]
    ) -> None:
        self.session, self.options, self.solved = session, options, solved
        self.cases = {of: _cases(written) for of, written in tests.items()}

    def __call__(self, problems: Sequence[Item]) -> Iterator[Sifted]:
        runs: list[tuple[str, Row]] = []
        for item in problems:
            if cases := self.cases.get(item.id):
                asked = function_tests(item["entry_point"], cases, self.options.time_limit)
                runs += [(each["completion"], asked) for each in self.solved.get(item.id, [])]
        passed = iter(outcomes(partial(self.session.tools.judge, "code"), runs))
        for item in problems:
            programs, cases = self.solved.get(item.id), self.cases.get(item.id)
            if programs and cases:
                yield _decided(self.options, item, programs, cases, [next(passed) for _ in programs])
            else:
                told = "no reply holds a test" if programs else "no reply holds a program"
                yield Sifted(item, "no_tests" if programs else "not_solved", told)


def _cases(tests: list[Item]) -> list[Row]:
    """The different cases of a problem. Two that contradict each other stay: solutions decide."""
    different_ones = {json.dumps(each["case"], sort_keys=True): each["case"] for each in tests}
    return list(different_ones.values())


def _decided(
    options: Options, item: Item, programs: list[Item], cases: list[Row], passed: list[list[bool] | None]
) -> Sifted:
    enough = max(2, options.agreement * options.samples)
    judged = [each for each in passed if each is not None]
    counting = [k for k in range(len(cases)) if sum(each[k] for each in judged) >= enough]
    if len(programs) < enough:
        told = f"{len(programs)} of {options.samples} replies hold a program"
        return Sifted(item, "not_solved", told)
    if len(judged) < enough:
        return Sifted(
            item, "not_judged", f"the sandbox could judge {len(judged)} of {len(programs)} solutions"
        )
    if len(counting) < options.min_tests:
        told = f"{len(counting)} of {len(cases)} tests count, {options.min_tests} are needed"
        return Sifted(item, "tests_disagree", told)
    right = [
        place for place, each in enumerate(passed) if each is not None and all(each[k] for k in counting)
    ]
    if len(right) < enough:
        told = f"{len(right)} of {options.samples} solutions pass the {len(counting)} tests that count"
        return Sifted(item, "no_majority", told)
    solution = programs[right[0]]
    tests = function_tests(item["entry_point"], [cases[k] for k in counting], options.time_limit)
    content = {**item.content, "completion": solution["completion"], "tests": tests}
    content |= {"votes": len(right), "samples": options.samples}
    return Sifted(Item(solution.id, content, (item.id,)))


def _tough(session: Session, options: Options, agreed: Sequence[Item]) -> Iterator[Sifted]:
    for item in agreed:
        draw = session.draw("mutants", item.id)
        made = mutants(program_of(item["completion"]), draw, options.mutants)
        fell, judged = killed(partial(session.tools.judge, "code"), made, item["tests"])
        held = Item(item.id, {**item.content, "mutants": judged, "killed": fell}, item.parents)
        if not judged:
            yield Sifted(held, "no_mutants", "the solution has nothing that could be changed")
        elif fell < options.mutation_score * judged:
            yield Sifted(held, "mutants_survive", f"the tests fail {fell} of {judged} mutants")
        else:
            yield Sifted(held)


GENERATOR = Generator(
    name="code_problems",
    options=Options,
    generate=generate,
    rows_from=("vary",),
    templates=(*(f"code_problems/{name}" for name in (*OPERATORS, "solve", "tests")),),
    needs=("prompt",),
    compared=("prompt",),
    verifiers=("code", "refusal"),
    votes=True,
)
