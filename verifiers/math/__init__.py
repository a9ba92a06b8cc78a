"""The math verifier: does a completion's final answer equal the reference?"""

from __future__ import annotations

from verifiers.math.options import MathOptions
from verifiers.math.verifier import MathVerifier

__all__ = ["MathOptions", "MathVerifier"]
