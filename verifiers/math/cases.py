"""Rows whose verdicts are known: the math verifier's self-test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Case = tuple[Mapping[str, Any], str, str | None]


def _case(completion: str, reference: str, status: str, reason: str | None = None, **fields: Any) -> Case:
    return {"completion": completion, "reference": reference, **fields}, status, reason


SELF_TEST: list[Case] = [
    _case("so \\boxed{18}", "18", "pass", "equal"),
    _case("A: 1,000", "1000", "pass", "equal"),
    _case("The answer is $\\frac{1}{2}$.", "0.5", "pass", "equal"),
    _case("\\boxed{2\\sqrt{2}}", "\\sqrt{8}", "pass", "equal"),
    _case("\\boxed{x^2-1}", "(x-1)(x+1)", "pass", "equal"),
    _case("\\boxed{-2 \\le x \\le 7}", "[-2,7]", "pass", "equal"),
    _case("\\boxed{19}", "18", "fail", "not_equal"),
    _case("\\boxed{(x-1)^2}", "x^2-1", "fail", "not_equal"),
    _case("\\boxed{\\{1,2\\}}", "(1,2)", "fail", "not_equal"),
    _case("\\boxed{\\frac{1}{2006!}}", "\\frac{1}{2004!}", "fail", "not_equal"),
    _case("\\boxed{5}, hence \\boxed{6}", "6", "fail", "ambiguous"),
    _case("\\boxed{5}, \\boxed{6}, \\boxed{7}", "7", "fail", None),
    _case("<think>\\boxed{7}</think>", "7", "fail", "no_answer"),
    _case("<think>it is \\boxed{7}", "7", "fail", "no_answer"),
    _case("", "7", "fail", "no_answer"),
    _case("\\boxed{\\prod_{k=1}^{10^9} k}", "1", "fail", "too_complex"),
    _case("\\boxed{10^{10^{10^{10}}}}", "1", "fail", "too_complex"),
    _case("\\boxed{1}", "\\frac{1}{", "error", "unparsable_reference"),
    _case("\\boxed{1}", "\\frac{0}{0}", "error", "unparsable_reference"),
]
