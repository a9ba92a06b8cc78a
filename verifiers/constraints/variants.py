"""Readings of one completion: as it is, or IFEval's eight loose variants."""

from __future__ import annotations


def variants(completion: str, leniency: str) -> list[str]:
    """The texts of which one must satisfy the constraint. Blank ones are left out: they follow nothing."""
    found = [completion]
    if leniency == "loose":
        lines = completion.split("\n")
        shorter = ["\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1])]
        found += shorter
        found += [text.replace("*", "") for text in (completion, *shorter)]
    return [text for text in dict.fromkeys(found) if text.strip()]
