"""The math verifier: extraction, then comparison."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from verifiers.base import Verdict, Verifier, failed, passed, unjudged
from verifiers.math.compare import same_number
from verifiers.math.extract import extract
from verifiers.math.numbers import fold, read_number
from verifiers.math.options import MathOptions


class MathVerifier(Verifier):
    """Rows need `completion` and `reference`."""

    name: ClassVar[str] = "math"
    Options = MathOptions
    needs = ("completion", "reference")

    def judge(self, row: Mapping[str, Any], options: MathOptions) -> Verdict:
        found = extract(str(row["completion"]))
        reference = str(row["reference"]).strip()
        wanted = extract(reference)
        gold = read_number(fold(wanted.value)) if wanted else None
        if gold is None:
            return unjudged("unparsable_reference", reference=reference[:200])
        if found is None:
            return failed("no_answer")
        about = {"rule": found.rule, "span": list(found.span), "ambiguous": found.ambiguous, "answer": found.value}
        if found.ambiguous:
            return failed("ambiguous", **about)
        try:
            answer = read_number(fold(found.value))
        except OverflowError as error:
            return failed("too_complex", guard=str(error), **about)
        rule = same_number(gold, answer, options) if answer else None
        return passed("equal", compared=rule, **about) if rule else failed("not_equal", **about)
