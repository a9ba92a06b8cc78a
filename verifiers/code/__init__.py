"""Judge model-written programs by running them: `verifiers.get("code").verify({"completion": ..., "tests": ...})`."""

from __future__ import annotations

from verifiers.code.options import CodeOptions
from verifiers.code.verifier import CodeVerifier

__all__ = ["CodeOptions", "CodeVerifier"]
