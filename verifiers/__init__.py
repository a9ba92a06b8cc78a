"""Verifiers judge rows: `verifiers.get("math").verify({"completion": ..., "reference": ...})`."""

from __future__ import annotations

from verifiers.base import Verdict, Verifier
from verifiers.registry import get, names, options_class

__all__ = ["Verdict", "Verifier", "get", "names", "options_class"]
