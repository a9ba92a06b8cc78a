"""What a person reads of a `safety` run: tables of scores, and the harmful score against p and attack steps."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recipes.report import COLOURS, MARKERS, score_text
from recipes.safety.schema import HARMFUL_SCORE
from synth.records.jsonl import atomic_write

Row = Mapping[str, Any]
Lines = Mapping[str, Sequence[Row]]
"""{model: rows of `over_seeds`}."""
PICTURE = "harmful_score.png"


def _cell(score: Row | None, name: str = "") -> str:
    return "-" if score is None else score_text(score, name)


def scores_table(metrics: Row) -> str:
    """Every metric of the base and of the aligned model, one a line."""
    columns = [
        (label, metrics[key]) for label, key in (("base", "base"), ("aligned", "model")) if metrics[key]
    ]
    rows = [["", *(label for label, _ in columns)]]
    for domain, scores in columns[0][1].items():
        for name in (name for name, value in scores.items() if isinstance(value, Mapping)):
            cells = [_cell(found.get(domain, {}).get(name), name) for _, found in columns]
            rows.append([f"{domain} {name} (n {scores['n']})", *cells])
    return _aligned(rows)


def attack_table(summary: Sequence[Row], harmful: str) -> str:
    """One line for each attack: harmful score after each step that was measured, and everything after the last."""
    if not summary:
        return "no attack"
    last = [row["steps"][_steps(row)[-1]] for row in summary]
    others = [
        (domain, name)
        for domain, scores in last[0].items()
        for name, value in scores.items()
        if isinstance(value, Mapping) and (domain, name) != (harmful, HARMFUL_SCORE)
    ]
    steps = sorted({step for row in summary for step in row["steps"]}, key=int)
    rows = [["task", "n", "p", "lr", "seeds", *(f"HS @{step}" for step in steps), *(n for _, n in others)]]
    for row, found in zip(summary, last, strict=True):
        scores = [_cell(row["steps"].get(step, {}).get(harmful, {}).get(HARMFUL_SCORE)) for step in steps]
        told = [_cell(found[domain].get(name), name) for domain, name in others]
        facts = [row["task"], str(row["n"]), f"{row['p']:g}", f"{row['lr']:g}", str(len(row["rng_seeds"]))]
        rows.append([*facts, *scores, *told])
    return _aligned(rows)


def _steps(row: Row) -> list[str]:
    return sorted(row["steps"], key=int)


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return "\n".join("  ".join(t.ljust(w) for t, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def plot_attacks(lines: Lines, path: str | os.PathLike[str], harmful: str) -> Path:
    """Draw the harmful score against p (after the last step) and against attack steps (at the largest p), one line a
    model with 95 % intervals, as a PNG at `path` (written atomically); returns the path.

    Of several tasks, n or learning rates the first attack's are drawn.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 4.0), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    against_p, against_steps = figure.subplots(1, 2, sharey=True)
    for number, (label, summary) in enumerate(lines.items()):
        drawn = _first_setting(summary)
        style = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
        shift = number - (len(lines) - 1) / 2
        points = [(100 * row["p"] + 0.12 * shift, _score(row, _steps(row)[-1], harmful)) for row in drawn]
        _draw(against_p, points, label, style)
        worst = max(drawn, key=lambda row: row["p"])
        points = [(int(step) * (1 + 0.006 * shift), _score(worst, step, harmful)) for step in _steps(worst)]
        _draw(against_steps, points, None, style)
    first = next(iter(lines.values()))
    last, most = _steps(first[0])[-1], max(row["p"] for row in _first_setting(first))
    _frame(against_p, f"after {last} attack steps", "harmful rows p, %")
    _frame(against_steps, f"with p = {100 * most:g} %", "attack steps")
    against_steps.set_xlim(left=0)
    against_p.set_ylabel("harmful score, %")
    figure.legend(frameon=False, loc="outside lower center", ncols=4, fontsize=8.5)
    picture = io.BytesIO()
    # Without the software's name and version equal scores give equal bytes.
    figure.savefig(picture, format="png", metadata={"Software": None})
    with atomic_write(path) as handle:
        handle.write(picture.getvalue())
    return Path(path)


def _first_setting(summary: Sequence[Row]) -> list[Row]:
    first = summary[0]
    same = [row for row in summary if all(row[key] == first[key] for key in ("task", "n", "lr"))]
    return sorted(same, key=lambda row: row["p"])


def _score(row: Row, step: str, harmful: str) -> Row:
    return row["steps"][step][harmful][HARMFUL_SCORE]


def _draw(axes: Any, points: list[tuple[float, Row]], label: str | None, style: dict[str, str]) -> None:
    x = [place for place, _ in points]
    y = [100 * score["value"] for _, score in points]
    reach = [
        [100 * (score["value"] - max(score["low"], 0)) for _, score in points],
        [100 * (min(score["high"], 1) - score["value"]) for _, score in points],
    ]
    axes.errorbar(
        x,
        y,
        yerr=reach,
        label=label,
        capsize=2.5,
        elinewidth=1,
        linewidth=1.7,
        markersize=5,
        clip_on=False,
        **style,
    )


def _frame(axes: Any, title: str, label: str) -> None:
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel(label)
    axes.set_ylim(-2, 102)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
