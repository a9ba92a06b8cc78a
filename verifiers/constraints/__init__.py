"""Instruction following: rows with `completion`, `prompt` and `constraints`, judged by rules."""

from __future__ import annotations

from verifiers.constraints.options import ConstraintsOptions
from verifiers.constraints.verifier import ConstraintsVerifier

__all__ = ["ConstraintsOptions", "ConstraintsVerifier"]
