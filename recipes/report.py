"""What a person reads of a run: the funnel, the table of scores, and the picture of the score over rounds."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from synth.records.jsonl import atomic_write
from synth.store import RunFolder, read_json

FUNNEL_STAGES = ("asked", "generated", "parsed", "passed", "unique", "clean", "kept")
# Okabe and Ito's colours: told apart by people who are colour-blind, too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LEVELS = 10
"""Levels of difficulty that are shown; where problems have more, they are in metrics.json alone."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
PERPLEXITY = "perplexity"


def show_text(text: Any, width: int = 72) -> str:
    """Any text on one line of at most `width` characters: control characters, line ends, lone surrogates and
    direction marks as escapes, the middle cut out of long ones."""
    raw = str(text)
    if len(raw) > 4 * width:
        raw = raw[: 2 * width] + raw[-2 * width :]
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in raw)
    if len(shown) <= width:
        return shown
    tail = (width - 1) // 3
    return f"{shown[: width - 1 - tail]}…{shown[-tail:]}"


def funnel_text(funnel: Mapping[str, Any], reasons: int = 4, width: int = 100) -> str:
    """The funnel of `synth.curate.funnel` as aligned lines, with the top reasons for loss and an example of each."""
    domains = [name for name in funnel if name != "reasons"]
    name_width = max([6, *map(len, domains)])
    head = " ".join(f"{stage:>9}" for stage in FUNNEL_STAGES)
    lines = [f"{'funnel':<{name_width}} {head}"]
    for domain in domains:
        counts = funnel[domain]
        lines.append(f"{domain:<{name_width}} " + " ".join(f"{counts.get(s, 0):>9,}" for s in FUNNEL_STAGES))
    for domain in domains:
        found = funnel.get("reasons", {}).get(domain, {})
        if found:
            lines.append(f"{domain}: why samples were lost")
            lines += _reason_lines(found, funnel[domain].get("asked", 0), reasons, width)
    return "\n".join(lines)


def _reason_lines(found: Mapping[str, Any], asked: int, most: int, width: int) -> list[str]:
    ranked = sorted(found.items(), key=lambda item: (-item[1]["count"], item[0]))
    label = max(len(name) for name, _ in ranked[:most])
    lines = []
    for name, entry in ranked[:most]:
        share = f"{100 * entry['count'] / asked:3.0f} %" if asked else ""
        lines.append(f"  {name:<{label}} {entry['count']:>8,} {share}")
        example = entry["example"]
        if example.get("sample_id") is None and example.get("evidence"):  # a row that never became a sample
            lines.append(f"      {show_text(example['evidence'], width - 6)}")
            continue
        if example.get("prompt"):  # what was mined or read answers none
            lines.append(f"      {show_text(example['prompt'], width - 6)}")
        lines.append(f"   -> {show_text(example.get('completion', ''), width - 6)}")
        if example.get("matched_id"):
            lines.append(f"      matches {show_text(example['matched_id'], width - 14)}")
    rest = ranked[most:]
    if rest:
        lines.append(f"  {len(rest)} further reasons: {sum(entry['count'] for _, entry in rest):,} samples")
    return lines


def summary_text(
    rounds: Sequence[Mapping[str, Any]],
    metric: str = "pass@1",
    base_details: Mapping[str, Any] | None = None,
    unit: str = "problems",
) -> str:
    """One table a domain: every metric of the base and of each round's model, in percent, with what the gate said.

    rounds: the metrics of closed rounds in order; base_details: the `details` of the base's evaluation. `metric` (the
    gate's) comes first, with its interval; so does the first of a domain that has no such metric. Where details are
    there: different solutions of a solved problem and the mean length in characters, and pass@1 by difficulty of the
    base and of the last accepted model. `unit` is what `n` counts.
    """
    entries = _entries(rounds)
    details = {f"round {index}": metrics.get("details") for index, metrics in enumerate(rounds)}
    details["base"] = base_details
    blocks = [_domain_table(domain, entries, metric, details, unit) for domain in _domains(entries)]
    return "\n\n".join(blocks) if blocks else "no model was measured"


def _domain_table(
    domain: str,
    entries: list[tuple[str, Mapping[str, Any], bool | None]],
    metric: str,
    details: Mapping[str, Mapping[str, Any] | None],
    unit: str,
) -> str:
    scored = [(label, scores[domain], accepted) for label, scores, accepted in entries if domain in scores]
    told = {label: (details.get(label) or {}).get(domain, {}) for label, _, _ in scored}
    names = list(dict.fromkeys(name for _, s, _ in scored for name in s if isinstance(s[name], Mapping)))
    names.sort(key=lambda name: name != metric)
    problems, unit = scored[0][1].get("n", "?"), "pairs" if "spearman" in names else unit
    label_width = max(len(f"{domain} ({problems} {unit})"), 20)
    columns = [[name, *(_cell(s.get(name), name == names[0]) for _, s, _ in scored)] for name in names]
    columns += _diversity_columns(list(told.values()))
    widths = [max(map(len, column)) for column in columns]
    notes = {True: "accepted", False: "rejected", None: ""}
    labels = [f"{domain} ({problems} {unit})", *(f"  {label:<9} {notes[a]}" for label, _, a in scored)]
    table = [
        "  ".join([label.ljust(label_width), *(c[i].ljust(w) for c, w in zip(columns, widths, strict=True))])
        for i, label in enumerate(labels)
    ]
    last, final = [(label, s) for label, s, accepted in scored if accepted or label == "base"][-1]
    first = scored[0][1]
    told_by = names[0] if names else metric
    if final is not first and told_by in first and told_by in final:
        gain = 100 * (final[told_by]["value"] - first[told_by]["value"])
        table.append(f"  {told_by}: {gain:+.1f} points from the base to the last accepted model")
    table += _difficulty_lines(
        {label: told[label] for label in dict.fromkeys(("base", last)) if label in told}
    )
    return "\n".join(line.rstrip() for line in table)


def base_details(run: RunFolder) -> Mapping[str, Any] | None:
    """The `details` of a run's base model, which stand in its evaluation alone."""
    return (read_json(run.base / "evaluation" / "evaluation.json") or {}).get("details")


def _diversity_columns(details: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Different solutions per solved problem, and characters a completion: both fall when a model collapses."""
    found = [each.get("diversity") or {} for each in details]
    shown = (("distinct", "distinct_per_solved", ".2f"), ("length", "mean_length", ".0f"))
    return [
        [title, *(format(each[key], form) if key in each else "-" for each in found)]
        for title, key, form in shown
        if any(key in each for each in found)
    ]


def _difficulty_lines(details: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """pass@1 of each level of difficulty, where problems have one and there are few levels."""
    found = {label: each.get("by_difficulty") or {} for label, each in details.items()}
    levels = list(dict.fromkeys(level for each in found.values() for level in each))
    if not 1 < len(levels) <= LEVELS:
        return []
    heads = [f"{level} (n {next(e[level]['n'] for e in found.values() if level in e)})" for level in levels]
    lines = [f"  {'by difficulty':<18}  {'  '.join(heads)}"]
    for label, each in found.items():
        cells = [_cell(each[level]["pass@1"] if level in each else None, False) for level in levels]
        row = "  ".join(cell.ljust(len(head)) for cell, head in zip(cells, heads, strict=True))
        lines.append(f"    {label:<16}  {row}")
    return lines


def _cell(score: Mapping[str, float] | None, with_interval: bool) -> str:
    if score is None:
        return "-"
    return score_text(score) if with_interval else f"{100 * score['value']:.1f}"


def score_text(score: Mapping[str, float], metric: str = "") -> str:
    """A score with its interval: in percent, but for a perplexity, which is no share."""
    factor = 1.0 if metric == PERPLEXITY else 100.0
    value, low, high = (f"{factor * score[key]:.1f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _entries(rounds: Sequence[Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any], bool | None]]:
    """(label, S, accepted) of the base and of every round that has a model."""
    entries: list[tuple[str, Mapping[str, Any], bool | None]] = []
    base = next((metrics["base"] for metrics in rounds if metrics.get("base")), None)
    if base is not None:
        entries.append(("base", base, None))
    for index, metrics in enumerate(rounds):
        if metrics.get("model"):
            entries.append((f"round {index}", metrics["model"], metrics.get("accepted")))
    return entries


def _domains(entries: list[tuple[str, Mapping[str, Any], bool | None]]) -> list[str]:
    return list(dict.fromkeys(domain for _, scores, _ in entries for domain in scores))


def plot_scores(
    rounds: Sequence[Mapping[str, Any]], path: str | os.PathLike[str], metric: str = "pass@1"
) -> Path:
    """Draw `metric` over rounds as a PNG at `path` (written atomically) and return the path.

    One line a domain from the base through the accepted models, with 95 % intervals; a rejected round's model is a
    hollow mark off the line. A metric nobody measured falls back to `pass@1`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    entries = _entries(rounds)
    domains = _domains(entries)
    if not any(metric in scores.get(domain, {}) for _, scores, _ in entries for domain in domains):
        metric = "pass@1"
    figure = Figure(figsize=(6.4, 4.0), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    rejected = False
    for number, domain in enumerate(domains):
        # Side by side, so that the intervals of two domains do not cover each other.
        shift = 0.06 * (number - (len(domains) - 1) / 2)
        rejected |= _draw_domain(axes, domain, entries, metric, number, shift)
    if rejected:
        axes.plot([], [], "o", color="#555555", markerfacecolor="white", label="rejected, rolled back")
    _frame(axes, entries, metric)
    if domains:
        figure.legend(frameon=False, loc="outside lower center", ncols=3, fontsize=8.5)
    picture = io.BytesIO()
    # Without the software's name and version equal scores give equal bytes.
    figure.savefig(picture, format="png", metadata={"Software": None})
    with atomic_write(path) as handle:
        handle.write(picture.getvalue())
    return Path(path)


def _draw_domain(
    axes: Any,
    domain: str,
    entries: list[tuple[str, Mapping[str, Any], bool | None]],
    metric: str,
    number: int,
    shift: float,
) -> bool:
    """One domain's line; returns whether a rejected round was among them."""
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    solid: list[tuple[float, float]] = []
    rejected = False
    for place, (_, scores, accepted) in enumerate(entries):
        score = scores.get(domain, {}).get(metric)
        if score is None:
            continue
        x, value = place + shift, 100 * score["value"]
        reach = [[max(value - 100 * score["low"], 0)], [max(100 * score["high"] - value, 0)]]
        face = "white" if accepted is False else colour
        axes.errorbar(
            [x], [value], yerr=reach, fmt=marker, color=colour, markerfacecolor=face, markersize=6.5, capsize=3,
            elinewidth=1.1, zorder=3,
        )  # fmt: skip
        if accepted is False:
            rejected = True
            if solid:
                axes.plot([solid[-1][0], x], [solid[-1][1], value], ":", color=colour, linewidth=1, zorder=1)
            continue
        solid.append((x, value))
        _label(axes, f"{value:.1f}", x, 100 * score["high"], colour)
    if solid:
        problems = next(scores[domain].get("n", "?") for _, scores, _ in entries if domain in scores)
        label = f"{domain} (n = {problems})"
        axes.plot(
            *zip(*solid, strict=True), color=colour, linewidth=1.8, marker=marker, label=label, zorder=2
        )
    return rejected


def _label(axes: Any, text: str, x: float, top: float, colour: str) -> None:
    """A value above its interval, with a white rim where a line crosses it."""
    from matplotlib.patheffects import withStroke

    axes.annotate(
        text, (x, top), xytext=(0, 3), textcoords="offset points", ha="center", fontsize=8, color=colour,
        path_effects=[withStroke(linewidth=2.5, foreground="white")], zorder=4,
    )  # fmt: skip


def _frame(axes: Any, entries: list[tuple[str, Mapping[str, Any], bool | None]], metric: str) -> None:
    axes.set_xticks(range(len(entries)), [label for label, _, _ in entries])
    axes.set_xlim(-0.4, max(len(entries) - 1, 0) + 0.5)
    low, high = axes.get_ylim()
    axes.set_ylim(max(low - 2, -2), min(high + 4, 106))
    axes.set_ylabel(f"{metric}, %")
    axes.set_title(f"{metric} on held-out problems over rounds (95 % intervals)", fontsize=10, loc="left")
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
