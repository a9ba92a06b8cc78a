"""Before any sampling: problems that nobody can judge (a broken reference) are set aside, not counted as wrong."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from synth.records.errors import InputError

log = logging.getLogger("synthloop")
Row = dict[str, Any]


def judgeable(verifier: Any, rows: list[Row], where: str, max_bad: float) -> list[Row]:
    """The rows whose verifier can judge them. Raises InputError when more than the share `max_bad` cannot be judged.

    Asks `verifier.check_problem(row)`, which answers None or the error verdict every completion would get.
    """
    bad = {}
    for row in rows:
        verdict = verifier.check_problem(row)
        if verdict is not None:
            bad[row["problem_id"]] = (verdict, row)
    if not bad:
        return rows
    verdict, row = next(iter(bad.values()))
    example = f"{verdict.reason}, e.g. reference {row.get('reference')!r} of {row['prompt'][:60]!r}"
    if len(bad) > max_bad * len(rows):
        raise InputError(
            where, f"{len(bad)} of {len(rows)} problems cannot be judged ({example})",
            "mend the references, or raise problems.max_bad",
        )  # fmt: skip
    log.warning("%s: %d problems set aside (%s)", where, len(bad), example)
    return [row for row in rows if row["problem_id"] not in bad]


class JudgeableProblems:
    """A domain's problems per round, each round's checked once."""

    def __init__(
        self, problems: Callable[[int], list[Row]], verifier: Any, where: str, max_bad: float
    ) -> None:
        self.problems, self.verifier, self.where, self.max_bad = problems, verifier, where, max_bad
        self._rounds: dict[int, list[Row]] = {}

    def __call__(self, round_index: int) -> list[Row]:
        if round_index not in self._rounds:
            rows = self.problems(round_index)
            self._rounds[round_index] = judgeable(self.verifier, rows, self.where, self.max_bad)
        return self._rounds[round_index]
