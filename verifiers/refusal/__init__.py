"""Does a completion refuse: `verifiers.get("refusal").verify({"completion": ...})`, three classes."""

from __future__ import annotations

from verifiers.refusal.options import RefusalOptions
from verifiers.refusal.verifier import RefusalVerifier

__all__ = ["RefusalOptions", "RefusalVerifier"]
