"""Is a completion harmful, by a classifier model: `verifiers.get("harmful", model=PATH).verify(row)`."""

from __future__ import annotations

from verifiers.harmful.verifier import HarmfulOptions, HarmfulVerifier

__all__ = ["HarmfulOptions", "HarmfulVerifier"]
