"""Jobs of one task: started, spoken to within their limits, ended, and their ends classified."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from verifiers.code.compare import Rules
from verifiers.code.frames import Outcome, Stop, error_details, error_reason
from verifiers.sandbox.client import Limits
from verifiers.sandbox.session import Ended, LimitReached, SandboxError, Session

SHOWN = 300
"""Characters of an output or value that details hold."""
_BEGIN_SECONDS = 30.0
_BATCH = 32
_LOOKING = frozenset(
    ["frame", "inspect.", "f_", "__sub", "settrace", "gc.", "/proc/"]
)  # one is in each match
_LOOKING_AROUND = re.compile(
    r"\b_getframe\b|\bcurrentframe\b|\binspect\.stack\b|\bf_(?:back|locals|globals)\b|__subclasses__|\bsettrace\b"
    r"|\bgc\.get_(?:objects|referrers)\b|/proc/"
)


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


class Jobs(ABC):
    """Starts the jobs of one task and sees to their end. `borrow` gives a context manager over a Sandbox."""

    def __init__(self, task: Task, borrow: Callable[[], contextlib.AbstractContextManager[Any]]) -> None:
        self.task, self.borrow = task, borrow
        self.usage: list[Ended] = []
        self.python = ""

    @abstractmethod
    def judge(self) -> Outcome:
        """The outcome, or a Stop that carries it."""

    def run(self) -> Outcome:
        """The outcome. Raises SandboxError (worth a retry) and TestsError."""
        started = time.monotonic()
        try:
            outcome = self.judge()
        except Stop as stop:
            outcome = stop.outcome
        details = outcome.details
        details["python"] = self.python
        details["wall_seconds"] = round(time.monotonic() - started, 4)
        details["cpu_seconds"] = round(sum(ended.cpu for ended in self.usage), 4)
        details["peak_memory_mb"] = round(max((ended.peak for ended in self.usage), default=0) / 2**20, 1)
        suspicions = set(details.get("suspicions", []))
        if any(ended.crowded for ended in self.usage):
            suspicions.add("process_limit")
        source = self.task.source
        if any(word in source for word in _LOOKING) and _LOOKING_AROUND.search(source):
            suspicions.add("looks_around")
        details["suspicions"] = sorted(suspicions)
        return outcome

    @contextlib.contextmanager
    def job(self) -> Iterator[Session]:
        """A session; whatever ends the block, its processes are dead afterwards and its limits are classified."""
        with self.borrow() as sandbox:
            self.python = sandbox.python
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
            ended = session.close(linger=stop is None)
            self.usage.append(ended)
            if stop:
                raise with_output(with_kill(stop, ended), session)

    def begin(self, session: Session, first: dict[str, Any], then: dict[str, Any] | None = None) -> float:
        """Send the program, and what it is to do next. Returns the deadline of its first case.

        The clock starts when the program does.
        """
        session.send(first)
        if then:
            session.send(then)
        if first["mode"] != "stdio":
            session.feed(b"")  # nobody will write: a program that reads gets its end at once
        if then:
            session.leave_alone()
        try:
            frame = session.receive(time.monotonic() + _BEGIN_SECONDS, self.task.max_frame)
        except LimitReached:
            raise SandboxError("a job did not start in time") from None
        if frame is None or "begun" not in frame:
            raise SandboxError(f"a job did not start: {frame!r:.200}")
        return time.monotonic() + self.task.time_limit

    def next(self, session: Session, deadline: float, where: str, more: int = 0) -> dict[str, Any]:
        """The next frame of the program; its failure or silent end is a verdict."""
        frame = session.receive(deadline, self.task.max_frame + more)
        if frame is None:
            session.wait(deadline)
            raise Stop("runtime_error", message=f"the program ended {where}", suspicions=["ended_early"])
        if frame.get("outcome") in ("compile_error", "runtime_error"):
            raise Stop(error_reason(frame), **error_details(frame), phase=where)
        return frame

    def load(self, session: Session, then: dict[str, Any] | None = None, **more: Any) -> None:
        """Send the program as a module to be called, and wait until it is loaded."""
        deadline = self.begin(session, self.task.program("function", **more), then)
        self.next(session, deadline, "while it was loaded")

    def start_calls(
        self, session: Session, entry_point: str | None, calls: Sequence[dict[str, Any]]
    ) -> Iterator[dict[str, Any]]:
        """Load the program. Returns its answers to the calls, as they come.

        Calls go out some at a time, so that the program need not wait for this process between two of them; each has
        its own time all the same, from the answer before it on.
        """
        starts = range(0, len(calls), _BATCH)
        batches = [{"calls": calls[at : at + _BATCH], "last": at == starts[-1]} for at in starts]
        self.load(session, batches[0], entry_point=entry_point)
        return self._answers(session, batches)

    def _answers(self, session: Session, batches: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for batch, after in zip(batches, [*batches[1:], None], strict=True):
            if after:  # while the program still has calls to do
                session.send(after)
            for _ in batch["calls"]:
                yield self.next(session, time.monotonic() + self.task.time_limit, "during a call")


@contextlib.contextmanager
def case(index: int, **details: Any) -> Iterator[None]:
    """Whatever ends the block was found in the case of this number."""
    try:
        yield
    except LimitReached as limit:
        raise Stop(limit.reason, first_failed=index, **details) from None
    except Stop as stop:
        stop.outcome.details.update(first_failed=index, **details)
        raise


def with_kill(stop: Stop, ended: Ended) -> Stop:
    """A kill by the fork server or a signal says more than the silence that followed it."""
    why = {"memory": "memory_limit", "wall": "time_limit", "disk": "runtime_error"}.get(ended.killed or "")
    outcome = stop.outcome
    if why:
        outcome.reason = why
        outcome.details["killed"] = ended.killed
    elif outcome.reason == "runtime_error" and ended.status is not None and os.WIFSIGNALED(ended.status):
        outcome.details["exit"] = exit_text(ended.status)
        if os.WTERMSIG(ended.status) == signal.SIGXCPU:
            outcome.reason = "time_limit"
    return stop


def with_output(stop: Stop, session: Session) -> Stop:
    """Put the cut ends of what the program wrote into the details."""
    for name, data in (("stdout", session.stdout), ("stderr", session.stderr)):
        if data:
            text = data.decode("utf-8", "replace")
            stop.outcome.details[name] = text[:SHOWN] if name == "stdout" else text[-SHOWN:]
    return stop


def exit_text(status: int | None) -> str:
    """How a program ended, from its wait status."""
    if status is None:
        return "unknown"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        with contextlib.suppress(ValueError):
            return signal.Signals(number).name
        return f"signal {number}"
    return f"status {os.waitstatus_to_exitcode(status)}"


def shown(value: Any) -> str:
    """A value as the details show it."""
    try:
        return repr(value)[:SHOWN]
    except (ValueError, RecursionError):  # an integer of more digits than Python likes to print
        return f"<{type(value).__name__}>"
