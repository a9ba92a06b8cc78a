"""One program against its tests: drives jobs, compares, classifies. No verdict logic runs inside a jail.

Function tests: the job gets arguments and returns results, both as plain data; expected values stay here. Stdio:
the program is a real `__main__` on real pipes. Assert programs: the tests run in a jail of their own where the program
is a proxy; this process relays plain data between the two. Tests that need the program's real objects run in one jail
with it, marked `trust: weak`.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from verifiers.code.compare import Rules, same_output, same_value
from verifiers.sandbox import plain
from verifiers.sandbox.client import Limits
from verifiers.sandbox.session import Ended, LimitReached, SandboxError, Session

_BEGIN_SECONDS = 30.0
_SHOWN = 300


@dataclass
class Outcome:
    """`reason` of contracts.md, and what is known about how it came to be."""

    reason: str
    details: dict[str, Any] = field(default_factory=dict)


class TestsError(ValueError):
    """The tests themselves are wrong: not the program's fault."""


class _Stop(Exception):
    """The verdict is known."""

    def __init__(self, reason: str, **details: Any) -> None:
        self.outcome = Outcome(reason, details)
        super().__init__(reason)


@dataclass(frozen=True)
class Task:
    """A program and its tests, read and checked."""

    source: str
    whole: str | None
    tests: Mapping[str, Any]
    kind: str
    time_limit: float
    max_frame: int
    limits: Limits
    rules: Rules

    def program(self, mode: str, **more: Any) -> dict[str, Any]:
        """The first frame of a job."""
        return {"mode": mode, "source": self.source, "whole": self.whole, **more}


class Runner:
    """Starts the jobs of one task and sees to their end. `borrow` gives a context manager over a Sandbox."""

    def __init__(self, task: Task, borrow: Callable[[], contextlib.AbstractContextManager[Any]]) -> None:
        self.task, self.borrow = task, borrow
        self.usage: list[Ended] = []

    def run(self) -> Outcome:
        """The outcome. Raises SandboxError (worth a retry) and TestsError."""
        started = time.monotonic()
        try:
            outcome = {"function": self._function, "stdio": self._stdio, "assert": self._assert}[
                self.task.kind
            ]()
        except _Stop as stop:
            outcome = stop.outcome
        outcome.details["wall_seconds"] = round(time.monotonic() - started, 4)
        outcome.details["cpu_seconds"] = round(sum(ended.cpu for ended in self.usage), 4)
        outcome.details["peak_memory_mb"] = round(
            max((ended.peak for ended in self.usage), default=0) / 2**20, 1
        )
        return outcome

    @contextlib.contextmanager
    def _job(self) -> Any:
        """A session; whatever ends the block, its processes are dead afterwards and its limits are classified."""
        with self.borrow() as sandbox:
            session = sandbox.start(self.task.limits)
            stop: _Stop | None = None
            try:
                yield session
            except LimitReached as limit:
                stop = _Stop(limit.reason)
            except _Stop as known:
                stop = known
            except BaseException:
                with contextlib.suppress(SandboxError):
                    session.close()
                raise
            ended = session.close()
            self.usage.append(ended)
            if stop:
                raise _with_output(_with_kill(stop, ended), session)

    def _begin(self, session: Session, first: dict[str, Any]) -> float:
        """Send the program. Returns the deadline of its first case: the clock starts when the program does."""
        session.send(first)
        try:
            frame = session.receive(time.monotonic() + _BEGIN_SECONDS, self.task.max_frame)
        except LimitReached:
            raise SandboxError("a job did not start in time") from None
        if frame is None or "begun" not in frame:
            raise SandboxError(f"a job did not start: {frame!r:.200}")
        return time.monotonic() + self.task.time_limit

    def _next(self, session: Session, deadline: float, where: str) -> dict[str, Any]:
        """The next frame of the program; its failure or silent end is a verdict."""
        frame = session.receive(deadline, self.task.max_frame)
        if frame is None:
            session.wait(deadline)
            raise _Stop("runtime_error", message=f"the program ended {where}", suspicions=["ended_early"])
        if frame.get("outcome") in ("compile_error", "runtime_error"):
            raise _Stop(_error_reason(frame), **_error_details(frame), phase=where)
        return frame

    # --- function ---

    def _function(self) -> Outcome:
        tests = self.task.tests
        cases = [_function_case(case, index) for index, case in enumerate(tests["cases"])]
        entry_point = tests["entry_point"]
        with self._job() as session:
            deadline = self._begin(session, self.task.program("function", entry_point=entry_point))
            self._next(session, deadline, "while it was loaded")
            for index, (call, expected) in enumerate(cases):
                session.send({"call": entry_point, **call})
                try:
                    reply = self._next(session, time.monotonic() + self.task.time_limit, "during a call")
                    self._judge_reply(reply, expected)
                except LimitReached as limit:
                    raise _Stop(limit.reason, first_failed=index) from None
                except _Stop as stop:
                    stop.outcome.details["first_failed"] = index
                    raise
        return Outcome("accepted", {"cases": len(cases)})

    def _judge_reply(self, reply: dict[str, Any], expected: Any) -> None:
        if "raised" in reply:
            raise _Stop(_error_reason(reply), **_error_details(reply))
        if "value" not in reply:
            refused = f"{reply.get('refused')}"[:200]
            raise _Stop("wrong_answer", got=refused, expected=_shown(expected), suspicions=["foreign_value"])
        if not same_value(expected, reply["value"], self.task.rules):
            raise _Stop("wrong_answer", got=_shown(reply["value"]), expected=_shown(expected))

    # --- stdio ---

    def _stdio(self) -> Outcome:
        cases = self.task.tests["cases"]
        for index, case in enumerate(cases):
            if not isinstance(case, Mapping) or not isinstance(case.get("stdin", ""), str):
                raise TestsError(f"case {index}: needs `stdin` and `stdout` as text")
            try:
                self._stdio_case(case)
            except _Stop as stop:
                stop.outcome.details["first_failed"] = index
                raise
        return Outcome("accepted", {"cases": len(cases)})

    def _stdio_case(self, case: Mapping[str, Any]) -> None:
        wanted = case.get("stdout")
        given = wanted if isinstance(wanted, list) else [wanted]
        choices = [choice for choice in given if isinstance(choice, str)]
        if not choices or len(choices) < len(given):
            raise TestsError("`stdout` is text, or a list of texts of which any will do")
        with self._job() as session:
            deadline = self._begin(session, self.task.program("stdio"))
            session.feed(case.get("stdin", "").encode("utf-8", "surrogatepass"))
            session.wait(deadline)
            frame = session.receive(deadline, self.task.max_frame)
            failed = session.exit_status != 0
            if failed and frame and frame.get("outcome") in ("compile_error", "runtime_error"):
                raise _Stop(_error_reason(frame), **_error_details(frame))
            stdout = session.stdout
            if len(stdout) > self.task.limits.output:
                raise LimitReached("output_limit")
        ended = self.usage[-1]
        if ended.killed or ended.status != 0:
            stop = _Stop("runtime_error", exit=_exit_text(ended.status))
            raise _with_output(_with_kill(stop, ended), session)
        printed = stdout.decode("utf-8", "surrogateescape")
        unordered = bool(self.task.tests.get("unordered", False))
        if not any(same_output(choice, printed, self.task.rules.tolerance, unordered) for choice in choices):
            raise _with_output(_Stop("wrong_answer", expected=choices[0][:_SHOWN]), session)

    # --- assert programs ---

    def _assert(self) -> Outcome:
        tests = self.task.tests
        setup = str(tests.get("setup") or "")
        parts = {"setup": setup, "code": str(tests["code"]), "entry_point": tests.get("entry_point")}
        with self._job() as judge, self._job() as candidate:
            deadline = self._begin(candidate, self.task.program("function", setup=setup))
            self._begin(judge, {"mode": "tests", **parts})
            self._next(candidate, deadline, "while it was loaded")
            outcome = self._relay(judge, candidate, deadline)
        if outcome.get("outcome") == "crossing":
            return self._weak(parts, str(outcome.get("message", "")))
        return _tests_outcome(outcome, "strong")

    def _relay(self, judge: Session, candidate: Session, deadline: float) -> dict[str, Any]:
        """Carry calls from the tests to the program and results back, until the tests have an outcome."""
        while True:
            frame = judge.receive(deadline, self.task.max_frame)
            if frame is None:
                judge.wait(deadline)
                raise TestsError("the tests ended without an outcome")
            if "outcome" in frame:
                return frame
            if "need" in frame:
                candidate.send({"describe": frame["need"]})
                names = self._next(candidate, deadline, "while it was loaded").get("names")
                if not isinstance(names, dict) or not all(isinstance(what, dict) for what in names.values()):
                    raise _out_of_turn()
                judge.send({"names": {name: {"kind": "absent", **what} for name, what in names.items()}})
                continue
            call = {"call": frame.get("call"), "args": frame.get("args"), "kwargs": frame.get("kwargs")}
            candidate.send({**call, "arguments_back": True})
            reply = self._next(candidate, deadline, "during a call")
            if reply.get("own_equality"):
                raise _Stop("wrong_answer", got=f"{reply.get('refused')}"[:200], suspicions=["foreign_value"])
            if not reply.keys() & {"value", "refused", "raised"}:
                raise _out_of_turn()
            judge.send(reply)

    def _weak(self, parts: dict[str, Any], why: str) -> Outcome:
        nonce = secrets.token_hex(16)
        with self._job() as session:
            deadline = self._begin(session, self.task.program("weak", setup=parts["setup"],
                                                              entry_point=parts["entry_point"]))  # fmt: skip
            self._next(session, deadline, "while it was loaded")
            session.send({"code": parts["code"], "nonce": nonce})
            frame = session.receive(deadline, self.task.max_frame)
            if frame is None:
                session.wait(deadline)
                raise _Stop(
                    "runtime_error", message="the program ended during its tests", suspicions=["ended_early"]
                )
        if frame.get("outcome") == "passed" and frame.get("nonce") != nonce:
            return Outcome("wrong_answer", {"suspicions": ["forged_frame"], "trust": "weak"})
        outcome = _tests_outcome(frame, "weak")
        outcome.details["weak_because"] = why
        return outcome


def _out_of_turn() -> _Stop:
    return _Stop("runtime_error", message="the program answered out of turn", suspicions=["forged_frame"])


def _tests_outcome(frame: dict[str, Any], trust: str) -> Outcome:
    """What the tests' jail said, as an outcome."""
    said = frame.get("outcome")
    if said == "infra_error":
        raise TestsError(f"the tests do not compile: {frame.get('message')}")
    details: dict[str, Any] = {"trust": trust, "asserts": frame.get("ran")}
    if said == "passed":
        if frame.get("asserts") and not frame.get("ran"):
            return Outcome("wrong_answer", {**details, "message": "no assert was reached"})
        return Outcome("accepted", details)
    details.update(_error_details(frame), test_line=frame.get("line"))
    return Outcome("wrong_answer" if said == "wrong_answer" else _error_reason(frame), details)


def _function_case(case: Any, index: int) -> tuple[dict[str, Any], Any]:
    """The call as it goes to the job, and the expected value. Raises TestsError."""
    if not isinstance(case, Mapping) or "expected" not in case:
        raise TestsError(f"case {index}: needs `args` (or `kwargs`) and `expected`")
    arguments, named = case.get("args") or [], case.get("kwargs") or {}
    if isinstance(arguments, dict) and arguments.get("$type") in ("tuple", "list"):
        arguments = arguments["value"]
    if not isinstance(arguments, list) or not isinstance(named, dict):
        raise TestsError(f"case {index}: `args` is a list, `kwargs` an object")
    try:
        for tree in (*arguments, *named.values()):
            plain.decode(tree)
        return {"args": arguments, "kwargs": named}, plain.decode(case["expected"])
    except (plain.NotPlain, RecursionError) as error:
        raise TestsError(f"case {index}: {error}") from None


def _error_reason(frame: Mapping[str, Any]) -> str:
    if frame.get("builtin") == "MemoryError" and frame.get("outcome") != "compile_error":
        return "memory_limit"
    return "compile_error" if frame.get("outcome") == "compile_error" else "runtime_error"


def _error_details(frame: Mapping[str, Any]) -> dict[str, Any]:
    """Type, message and line of an exception in the program; all of it is the program's word."""
    details: dict[str, Any] = {}
    for name, size in (("exception", 80), ("message", 500)):
        if frame.get(name):
            details[name] = str(frame[name])[:size]
    if isinstance(frame.get("line"), int):
        details["line"] = frame["line"]
    suspicions = {"SystemExit": "system_exit", "BlockingIOError": "process_limit", "SkipTest": "skipped"}
    if frame.get("exception") in suspicions:
        details["suspicions"] = [suspicions[frame["exception"]]]
    return details


def _with_kill(stop: _Stop, ended: Ended) -> _Stop:
    """A kill by the fork server or a signal says more than the silence that followed it."""
    why = {"memory": "memory_limit", "wall": "time_limit", "disk": "runtime_error"}.get(ended.killed or "")
    outcome = stop.outcome
    if why:
        outcome.reason = why
        outcome.details["killed"] = ended.killed
    elif outcome.reason == "runtime_error" and ended.status is not None and os.WIFSIGNALED(ended.status):
        outcome.details["exit"] = _exit_text(ended.status)
        if os.WTERMSIG(ended.status) == signal.SIGXCPU:
            outcome.reason = "time_limit"
    return stop


def _with_output(stop: _Stop, session: Session) -> _Stop:
    """Put the cut ends of what the program wrote into the details."""
    for name, data in (("stdout", session.stdout), ("stderr", session.stderr)):
        if data:
            text = data.decode("utf-8", "replace")
            stop.outcome.details[name] = text[:_SHOWN] if name == "stdout" else text[-_SHOWN:]
    return stop


def _exit_text(status: int | None) -> str:
    if status is None:
        return "unknown"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        with contextlib.suppress(ValueError):
            return signal.Signals(number).name
        return f"signal {number}"
    return f"status {os.waitstatus_to_exitcode(status)}"


def _shown(value: Any) -> str:
    try:
        return repr(value)[:_SHOWN]
    except (ValueError, RecursionError):  # an integer of more digits than Python likes to print
        return f"<{type(value).__name__}>"
