"""Instruction following: `verifiers.get("constraints").verify({"completion": ..., "prompt": ..., "constraints": [...]})`."""

from __future__ import annotations

from verifiers.constraints.options import ConstraintsOptions
from verifiers.constraints.verifier import ConstraintsVerifier

__all__ = ["ConstraintsOptions", "ConstraintsVerifier"]
