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
from dataclasses import dataclass
from typing import Any

from verifiers.code.compare import Rules, same_output, same_value
from verifiers.code.frames import (
    Outcome,
    Stop,
    TestsError,
    error_details,
    error_reason,
    function_case,
    names_of,
    out_of_turn,
    reply_of,
    stdio_case,
    tests_outcome,
)
from verifiers.sandbox.client import Limits
from verifiers.sandbox.session import Ended, LimitReached, SandboxError, Session

_BEGIN_SECONDS = 30.0
_SHOWN = 300
_TESTS_FRAME = 64 << 20


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
    weak: bool = True

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
        except Stop as stop:
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
            stop: Stop | None = None
            try:
                yield session
            except LimitReached as limit:
                stop = Stop(limit.reason)
            except Stop as known:
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
        if first["mode"] != "stdio":
            session.feed(b"")  # nobody will write: a program that reads gets its end at once
        try:
            frame = session.receive(time.monotonic() + _BEGIN_SECONDS, self.task.max_frame)
        except LimitReached:
            raise SandboxError("a job did not start in time") from None
        if frame is None or "begun" not in frame:
            raise SandboxError(f"a job did not start: {frame!r:.200}")
        return time.monotonic() + self.task.time_limit

    def _next(self, session: Session, deadline: float, where: str, more: int = 0) -> dict[str, Any]:
        """The next frame of the program; its failure or silent end is a verdict."""
        frame = session.receive(deadline, self.task.max_frame + more)
        if frame is None:
            session.wait(deadline)
            raise Stop("runtime_error", message=f"the program ended {where}", suspicions=["ended_early"])
        if frame.get("outcome") in ("compile_error", "runtime_error"):
            raise Stop(error_reason(frame), **error_details(frame), phase=where)
        return frame

    # --- function ---

    def _function(self) -> Outcome:
        tests = self.task.tests
        cases = [function_case(case, index) for index, case in enumerate(tests["cases"])]
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
                    raise Stop(limit.reason, first_failed=index) from None
                except Stop as stop:
                    stop.outcome.details["first_failed"] = index
                    raise
        return Outcome("accepted", {"cases": len(cases)})

    def _judge_reply(self, reply: dict[str, Any], expected: Any) -> None:
        if "raised" in reply:
            raise Stop(error_reason(reply), **error_details(reply))
        if "value" not in reply:
            refused = f"{reply.get('refused')}"[:200]
            raise Stop("wrong_answer", got=refused, expected=_shown(expected), suspicions=["foreign_value"])
        if not same_value(expected, reply["value"], self.task.rules):
            raise Stop("wrong_answer", got=_shown(reply["value"]), expected=_shown(expected))

    # --- stdio ---

    def _stdio(self) -> Outcome:
        cases = [stdio_case(case, index) for index, case in enumerate(self.task.tests["cases"])]
        for index, (stdin, choices) in enumerate(cases):
            try:
                self._stdio_case(stdin, choices)
            except Stop as stop:
                stop.outcome.details["first_failed"] = index
                raise
        return Outcome("accepted", {"cases": len(cases)})

    def _stdio_case(self, stdin: str, choices: list[str]) -> None:
        with self._job() as session:
            deadline = self._begin(session, self.task.program("stdio"))
            session.feed(stdin.encode("utf-8", "surrogatepass"))
            session.wait(deadline)
            frame = session.receive(deadline, self.task.max_frame)
            failed = session.exit_status != 0
            if failed and frame and frame.get("outcome") in ("compile_error", "runtime_error"):
                raise Stop(error_reason(frame), **error_details(frame))
            stdout = session.stdout
            if len(stdout) > self.task.limits.output:
                raise LimitReached("output_limit")
        ended = self.usage[-1]
        if ended.killed or ended.status != 0:
            stop = Stop("runtime_error", exit=_exit_text(ended.status))
            raise _with_output(_with_kill(stop, ended), session)
        printed = stdout.decode("utf-8", "surrogateescape")
        unordered = bool(self.task.tests.get("unordered", False))
        if not any(same_output(choice, printed, self.task.rules.tolerance, unordered) for choice in choices):
            raise _with_output(Stop("wrong_answer", expected=choices[0][:_SHOWN]), session)

    # --- assert programs ---

    def _assert(self) -> Outcome:
        tests = self.task.tests
        setup = str(tests.get("setup") or "")
        parts = {"setup": setup, "code": tests["code"], "entry_point": tests.get("entry_point")}
        texts = [
            text
            for text in (setup, self.task.source, self.task.whole, setup + "\n" + self.task.source)
            if text
        ]
        with self._job() as judge, self._job() as candidate:
            self._begin(judge, {"mode": "tests", **parts, "texts": texts})
            need = self._from_tests(judge, False)  # first: tests that are broken say nothing about a program
            if "outcome" in need:
                return tests_outcome(need, "strong")
            deadline = self._begin(candidate, self.task.program("function", setup=setup))
            self._next(candidate, deadline, "while it was loaded")
            outcome = self._relay(judge, candidate, need)
        if outcome.get("outcome") == "crossing":
            return self._weak(parts, str(outcome.get("message", "")))
        return tests_outcome(outcome, "strong")

    def _from_tests(self, judge: Session, fed: bool) -> dict[str, Any]:
        """The next frame of the tests' jail. Its end or its limits are the program's doing once it was `fed`."""
        try:
            frame = judge.receive(
                time.monotonic() + self.task.time_limit, max(self.task.max_frame, _TESTS_FRAME)
            )
        except LimitReached as limit:
            if not fed:
                raise TestsError(f"the tests themselves ended with {limit.reason}") from None
            raise
        if frame is not None:
            return frame
        if not fed:
            raise TestsError("the tests ended without an outcome")
        with contextlib.suppress(LimitReached):
            judge.wait(time.monotonic() + self.task.time_limit)
        raise Stop("runtime_error", message="the tests ended during a call", suspicions=["ended_early"])

    def _relay(self, judge: Session, candidate: Session, frame: dict[str, Any]) -> dict[str, Any]:
        """Carry calls from the tests to the program and results back, until the tests have an outcome."""
        while "outcome" not in frame:
            if "need" in frame:
                candidate.send({"describe": frame["need"]})
                reply = names_of(self._answer(candidate, "while it was loaded"), frame["need"])
            else:
                call = {"call": frame.get("call"), "args": frame.get("args"), "kwargs": frame.get("kwargs")}
                size = candidate.send({**call, "arguments_back": True})
                reply = reply_of(self._answer(candidate, "during a call", size))
            try:
                judge.send(reply)
            except RecursionError:
                raise out_of_turn() from None
            frame = self._from_tests(judge, True)
        return frame

    def _answer(self, candidate: Session, where: str, arguments: int = 0) -> dict[str, Any]:
        """The program's next frame; arguments it changed in place come back on top of what it may return."""
        return self._next(candidate, time.monotonic() + self.task.time_limit, where, arguments)

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
                raise Stop(
                    "runtime_error", message="the program ended during its tests", suspicions=["ended_early"]
                )
        if frame.get("outcome") == "passed" and frame.get("nonce") != nonce:
            return Outcome("wrong_answer", {"suspicions": ["forged_frame"], "trust": "weak"})
        outcome = tests_outcome(frame, "weak")
        if outcome.reason == "accepted" and not self.task.weak:
            raise TestsError(
                f"they need real objects of the program ({why}), and the option `weak` is `refuse`"
            )
        outcome.details["weak_because"] = why
        return outcome


def _with_kill(stop: Stop, ended: Ended) -> Stop:
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


def _with_output(stop: Stop, session: Session) -> Stop:
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
