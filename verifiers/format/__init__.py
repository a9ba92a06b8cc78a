"""Judge the form of an answer: `verifiers.get("format", tags=["think", "answer"]).verify({"completion": ...})`."""

from __future__ import annotations

from verifiers.format.options import FormatOptions
from verifiers.format.verifier import FormatVerifier

__all__ = ["FormatOptions", "FormatVerifier"]
