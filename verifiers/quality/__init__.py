"""Cheap signs of a bad text: `verifiers.get("quality", language="en").verify({"completion": ...})`."""

from __future__ import annotations

from verifiers.quality.options import QualityOptions
from verifiers.quality.verifier import QualityVerifier

__all__ = ["QualityOptions", "QualityVerifier"]
