"""Function and stdin/stdout tests: drives jobs, compares, classifies. No verdict logic runs inside a jail.

Function tests: the job gets arguments and returns results, both as plain data; expected values stay here. Stdio:
the program is a real `__main__` on real pipes; a checker, if the tests bring one, runs in a jail of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from verifiers.code.asserts import AssertRunner
from verifiers.code.compare import same_output, same_value
from verifiers.code.frames import (
    Checker,
    Outcome,
    Stop,
    TestsError,
    checker_of,
    error_details,
    error_reason,
    function_case,
    printed_verdict,
    stdio_case,
)
from verifiers.code.jobs import SHOWN, Jobs, Task, case, exit_text, shown, with_kill, with_output
from verifiers.sandbox.session import LimitReached


def runner(task: Task, borrow: Callable[[], AbstractContextManager[Any]]) -> Jobs:
    """The runner for the tests' kind."""
    kinds = {"function": FunctionRunner, "stdio": StdioRunner, "assert": AssertRunner}
    return kinds[task.kind](task, borrow)


class FunctionRunner(Jobs):
    """Calls the program's function case by case, in one process."""

    def judge(self) -> Outcome:
        tests = self.task.tests
        cases = [function_case(one, index) for index, one in enumerate(tests["cases"])]
        entry_point = tests["entry_point"]
        calls = [{"call": entry_point, **call} for call, _ in cases]
        with self.job() as session:
            replies = self.start_calls(session, entry_point, calls)
            for index, (_, expected) in enumerate(cases):
                with case(index):
                    self._judge_reply(next(replies), expected)
        return Outcome("accepted", {"cases": len(cases)})

    def _judge_reply(self, reply: dict[str, Any], expected: Any) -> None:
        if "raised" in reply:
            raise Stop(error_reason(reply), **error_details(reply))
        if "value" not in reply:
            refused = f"{reply.get('refused')}"[:200]
            raise Stop("wrong_answer", got=refused, expected=shown(expected), suspicions=["foreign_value"])
        if not same_value(expected, reply["value"], self.task.rules):
            raise Stop("wrong_answer", got=shown(reply["value"]), expected=shown(expected))


class StdioRunner(Jobs):
    """Runs the program once for each case and compares all it printed, or has a checker look at it."""

    def judge(self) -> Outcome:
        tests = self.task.tests
        checker = checker_of(tests)
        cases = [stdio_case(one, index, checker is not None) for index, one in enumerate(tests["cases"])]
        for index, (stdin, choices) in enumerate(cases):
            with case(index):
                self._judge_case(stdin, choices, checker)
        return Outcome("accepted", {"cases": len(cases)})

    def _judge_case(self, stdin: str, choices: list[str], checker: Checker | None) -> None:
        with self.job() as session:
            session.feed(stdin.encode("utf-8", "surrogatepass"))
            session.leave_alone()
            deadline = self.begin(session, self.task.program("stdio"))
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
            stop = Stop("runtime_error", exit=exit_text(ended.status))
            raise with_output(with_kill(stop, ended), session)
        printed = stdout.decode("utf-8", "surrogateescape")
        if checker:
            right, details = self._ask(checker, stdin, choices[0], printed), {"checked": True}
        else:
            unordered, details = bool(self.task.tests.get("unordered", False)), {}
            tolerance = self.task.rules.tolerance
            right = any(same_output(choice, printed, tolerance, unordered) for choice in choices)
        if not right:
            stop = Stop("wrong_answer", expected=choices[0][:SHOWN], **details)
            raise with_output(stop, session)

    def _ask(self, checker: Checker, stdin: str, expected: str, printed: str) -> bool:
        """What the checker says of an output.

        One that fails at it is asked about the expected output. If it fails there, too, it is broken (TestsError); else
        the program's output is wrong: its form must not decide that it is not judged.
        """
        try:
            return self._run_checker(checker, stdin, expected, printed)
        except _CheckerFailed as failure:
            try:
                self._run_checker(checker, stdin, expected, expected)
            except _CheckerFailed:
                raise TestsError(f"the checker fails: {failure}") from None
            raise Stop("wrong_answer", message=f"the checker fails at the output: {failure}",
                       expected=expected[:SHOWN], suspicions=["checker_failed"]) from None  # fmt: skip

    def _run_checker(self, checker: Checker, stdin: str, expected: str, printed: str) -> bool:
        texts = {"input": stdin, "expected": expected, "output": printed}
        first = {"mode": "checker", "source": checker.code, "files": texts, "arguments": checker.arguments}
        jobs = StdioRunner(self.task, self.borrow)  # its own: what a checker uses is not the program's
        try:
            with jobs.job() as session:
                session.leave_alone()
                deadline = jobs.begin(session, first)
                session.wait(deadline)
                frame = session.receive(deadline, self.task.max_frame)
        except Stop as stop:
            raise _CheckerFailed(stop.outcome.reason) from None
        if frame and frame.get("outcome") in ("compile_error", "runtime_error"):
            details = error_details(frame)
            raise _CheckerFailed(f"{details.get('exception')}: {details.get('message')}"[:200])
        status, verdict = jobs.usage[-1].status, None
        if checker.verdict == "printed":
            verdict = printed_verdict(session.stdout) if status == 0 else None
        elif status is not None and os.WIFEXITED(status):
            verdict = {0: True, 1: False, 2: False}.get(os.WEXITSTATUS(status))
        if verdict is None:
            raise _CheckerFailed(f"no verdict: {exit_text(status)}, printed {session.stdout[-80:]!r}")
        return verdict


class _CheckerFailed(Exception):
    """The checker ended without a verdict."""
