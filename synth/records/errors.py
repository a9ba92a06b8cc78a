"""Errors that are shown to users without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EMBEDDING_EXTRA = "pip install 'synthloop[embedding]'"
"""What to do where a package of that extra is missing: in all rooms the same words."""


class InputError(ValueError):
    """Something the user gave is wrong (recipe, option, file, column). The command line exits 2.

    `where` names the field, file or line; `seen` what stood there; `fix` what to do about it.
    """

    def __init__(self, where: str, seen: str, fix: str = "") -> None:
        self.where, self.seen, self.fix = where, seen, fix
        super().__init__(f"{where}: {seen}" + (f"\n  {fix}" if fix else ""))

    def __reduce__(self) -> tuple[type[InputError], tuple[str, str, str]]:
        return type(self), (self.where, self.seen, self.fix)


class WorkError(RuntimeError):
    """The input was right but the work failed (engine died, disk full). The command line exits 1."""

    def __init__(self, where: str, seen: str, fix: str = "") -> None:
        self.where, self.seen, self.fix = where, seen, fix
        super().__init__(f"{where}: {seen}" + (f"\n  {fix}" if fix else ""))

    def __reduce__(self) -> tuple[type[WorkError], tuple[str, str, str]]:
        return type(self), (self.where, self.seen, self.fix)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint for an unknown name: the nearest known one, or the list of all."""
    names = sorted(set(known))
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean '{near[0]}'?"
    return f"known: {', '.join(names)}" if names else "nothing is known here"
