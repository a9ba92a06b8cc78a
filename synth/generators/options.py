"""Checks that several generators' options share; what they raise names field, value seen and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from synth.records.errors import InputError, did_you_mean


def at_least(options: Any, least: int, *names: str) -> None:
    """Whole numbers of at least `least`."""
    for name in names:
        value = getattr(options, name)
        if value < least:
            raise ValueError(f"{name}: seen {value}; use at least {least}")


def share(options: Any, *names: str) -> None:
    """Numbers from 0 to 1."""
    for name in names:
        value = getattr(options, name)
        if not 0 <= value <= 1:
            raise ValueError(f"{name}: seen {value}; use a number from 0 to 1")


def similarity(options: Any, *names: str) -> None:
    """Similarities above 0 and at most 1, from which two texts count as one."""
    for name in names:
        value = getattr(options, name)
        if not 0 < value <= 1:
            raise ValueError(f"{name}: seen {value}; use a number above 0 and at most 1")


def some_of(options: Any, known: Sequence[str], *names: str) -> None:
    """Lists of one or more of the known words."""
    for name in names:
        value = getattr(options, name)
        if not value:
            raise ValueError(f"{name}: seen an empty list; name one or more of {', '.join(known)}")
        for each in value:
            if each not in known:
                raise InputError(name, f"unknown '{each}'", did_you_mean(str(each), known))
