"""What a person reads: the funnel, the score table, the picture."""

from __future__ import annotations

import subprocess
import sys

import pytest

from recipes.report import funnel_text, plot_scores, show_text, summary_text
from synth.curate import CurateOptions, curate, funnel


def score(value):
    return {"value": value, "low": value - 0.04, "high": value + 0.04}


def scores(math, code):
    return {
        "math": {"pass@1": score(math), "pass@4": score(math + 0.1), "n": 500},
        "code": {"pass@1": score(code), "n": 400},
    }


BASE = scores(0.54, 0.315)
ROUNDS = [
    {"base": BASE, "model": scores(0.585, 0.41), "accepted": True},
    {"base": BASE, "model": scores(0.52, 0.36), "accepted": False},
    {"base": BASE, "model": scores(0.64, 0.47), "accepted": True},
]


def rows(count, **more):
    return [
        {
            "sample_id": f"s{i:03d}", "problem_id": "p", "domain": "math", "prompt": "Tom has 3 apples.\nHow many?",
            "completion": f"\x1b[31m{i}\u202e\ud800" + "x" * 300, "status": "fail", "reward": 0.0,
            "reason": "not_equal", **more,
        }
        for i in range(count)
    ]  # fmt: skip


def test_funnel_text_is_aligned_and_safe_to_print():
    given = rows(3) + rows(1, status="pass", reward=1.0, sample_id="t", reason="equal")
    text = funnel_text(funnel(given, curate(given, CurateOptions(decontaminate=None), {})), width=80)
    lines = text.split("\n")
    assert lines[0].split() == ["funnel", "asked", "generated", "parsed", "passed", "unique", "clean", "kept"]
    assert lines[1].split() == ["math", "4", "4", "4", "1", "1", "1", "1"]
    assert len(lines[0]) == len(lines[1])
    assert any(line.split()[:3] == ["failed:not_equal", "3", "75"] for line in lines)
    assert max(map(len, lines)) <= 80
    assert all(line.isprintable() for line in lines)
    assert "Tom has 3 apples.\\nHow many?" in text
    text.encode("utf-8")


def test_funnel_text_shows_the_top_reasons_and_counts_the_rest():
    given = [r for n in range(6) for r in rows(n + 1, reason=f"r{n}")]
    text = funnel_text(funnel(given, curate(given, CurateOptions(decontaminate=None), {})), reasons=2)
    assert text.index("failed:r5") < text.index("failed:r4")
    assert "failed:r3" not in text
    assert "4 further reasons: 10 samples" in text


def test_funnel_text_shows_no_line_for_a_prompt_that_a_row_never_had():
    example = {"sample_id": "1", "prompt": "", "completion": "def f(): ..."}
    found = {
        "it": {"asked": 1, "kept": 0},
        "reasons": {"it": {"too_short": {"count": 1, "example": example}}},
    }
    lines = funnel_text(found).split("\n")
    assert "   -> def f(): ..." in lines
    assert all(line.strip() for line in lines)


def test_funnel_text_of_nothing_still_says_so():
    assert "math" in funnel_text({"math": {"asked": 0}})
    assert funnel_text({"reasons": {}}).startswith("funnel")


@pytest.mark.parametrize("text", ["a" * 500, "\n" * 500, "\ud800" * 90, "\U000e0001" * 40, "", "ok"])
def test_show_text_fits(text):
    shown = show_text(text, 40)
    assert len(shown) <= 40
    assert shown.isprintable()
    assert show_text("ok") == "ok"


def test_summary_has_every_metric_round_and_the_gain():
    text = summary_text(ROUNDS)
    math, code = text.split("\n\n")
    assert math.split("\n")[0].split() == ["math", "(500", "problems)", "pass@1", "pass@4"]
    assert "54.0 [50.0, 58.0]" in math
    assert "round 1   rejected  52.0" in math
    assert "+10.0 points" in math
    assert "+15.5 points" in code
    assert summary_text([]) == "no model was measured"
    assert summary_text([{"base": None, "model": None, "accepted": None}]) == "no model was measured"


def details(distinct, length, *levels):
    by_level = {name: {"pass@1": score(value), "n": 9} for name, value in levels}
    return {
        "math": {
            "diversity": {"distinct_per_solved": distinct, "mean_length": length},
            "by_difficulty": by_level,
        }
    }


def test_diversity_stands_beside_the_scores_so_that_collapse_shows():
    """Law 5, and pass@1 by difficulty of the base and of the model that a run leaves."""
    base = details(2.5, 80.4, ("1", 0.7), ("2", 0.3))
    told = [
        details(2.1, 75, ("1", 0.8), ("2", 0.4)),
        details(9, 9),
        details(1.04, 30, ("1", 0.9), ("3", 0.2)),
    ]
    rounds = [{**metrics, "details": each} for metrics, each in zip(ROUNDS, told, strict=True)]
    math, code = (block.split("\n") for block in summary_text(rounds, base_details=base).split("\n\n"))
    assert math[0].split()[-2:] == ["distinct", "length"]
    assert [line.split()[-2:] for line in math[1:5]] == [
        ["2.50", "80"],
        ["2.10", "75"],
        ["9.00", "9"],
        ["1.04", "30"],
    ]
    assert [part.strip() for part in math[-3].split("  ") if part] == [
        "by difficulty",
        "1 (n 9)",
        "2 (n 9)",
        "3 (n 9)",
    ]
    assert math[-2].split() == ["base", "70.0", "30.0", "-"]
    assert math[-1].split() == ["round", "2", "90.0", "-", "20.0"]
    assert "distinct" not in code[0]
    many = details(1, 1, *((f"l{i}", 0.5) for i in range(11)))
    assert "by difficulty" not in summary_text(rounds, base_details=many).split("\n\n")[0]


def test_gain_is_of_the_last_accepted_model():
    assert "+4.5 points" in summary_text(ROUNDS[:2])
    assert "points" not in summary_text([ROUNDS[1]])


def test_the_gates_metric_comes_first():
    assert summary_text(ROUNDS, "pass@4").split("\n")[0].split()[3] == "pass@4"


def test_plot_is_a_picture_and_the_same_for_the_same_scores(tmp_path):
    first = plot_scores(ROUNDS, tmp_path / "a.png")
    second = plot_scores(ROUNDS, tmp_path / "b.png")
    data = first.read_bytes()
    assert data.startswith(b"\x89PNG")
    assert data == second.read_bytes()
    assert data != plot_scores(ROUNDS[:1], tmp_path / "c.png").read_bytes()


def drawn(monkeypatch, rounds, metric, path):
    from matplotlib.axes import Axes

    calls = []
    original = Axes.errorbar

    def spy(self, x, y, *args, **kwargs):
        calls.append((kwargs["color"], round(x[0]), round(y[0], 1), kwargs["markerfacecolor"]))
        return original(self, x, y, *args, **kwargs)

    monkeypatch.setattr(Axes, "errorbar", spy)
    plot_scores(rounds, path, metric)
    return calls


def test_base_stands_first_and_rejected_rounds_are_hollow(tmp_path, monkeypatch):
    calls = drawn(monkeypatch, ROUNDS, "pass@1", tmp_path / "a.png")
    colours = list(dict.fromkeys(colour for colour, *_ in calls))
    assert len(colours) == 2
    math = [(x, y, face == "white") for colour, x, y, face in calls if colour == colours[0]]
    assert math == [(0, 54.0, False), (1, 58.5, False), (2, 52.0, True), (3, 64.0, False)]


def test_a_metric_nobody_measured_falls_back(tmp_path, monkeypatch):
    calls = drawn(monkeypatch, ROUNDS[:1], "maj@64", tmp_path / "a.png")
    assert [y for _, _, y, _ in calls] == [54.0, 58.5, 31.5, 41.0]


def test_plots_of_little_do_not_fail(tmp_path):
    for name, rounds in (("none", []), ("base", [{"base": BASE, "model": None, "accepted": None}])):
        assert plot_scores(rounds, tmp_path / f"{name}.png").stat().st_size > 1000


def test_importing_the_report_stays_light():
    heavy = ("matplotlib", "numpy", "pyarrow", "torch")
    code = f"import sys, recipes.report; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
