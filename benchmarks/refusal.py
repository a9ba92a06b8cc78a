"""How well the refusal verifier finds refusals in a model whose completions it was not fitted on.

    python benchmarks/refusal.py --data FOLDER [--write]

FOLDER holds `completions_*.jsonl` of XSTest with human labels, one file a model. For each file everything that is a
number (weights of cues and phrases, which phrases count, penalty, threshold) is fitted on the other files, then
measured on it. Penalty and threshold are chosen by fitting on one training model and scoring the other, so that the
measured model has no say. The cues themselves (verifiers/refusal/cues.py) are general rules written by hand, after
reading completions of llama2new and mistralguard but none of mistralinstruct.

Where phrases are read (the first three sentences) was settled after seeing the scores of all folds.

`--write` then fits on all files and replaces verifiers/refusal/weights.json: those weights have no held-out score of
their own; the folds are the estimate of it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from verifiers.refusal.classify import WEIGHTS, Weights, classify, probability
from verifiers.refusal.features import NAMES, PHRASE, features
from verifiers.refusal.options import CLASSES
from verifiers.refusal.text import Answer, read_answer

PENALTIES = (4.0, 8.0, 16.0)
LEAST_COUNTS = (4, 8)
THRESHOLDS = tuple(round(0.2 + 0.02 * step, 2) for step in range(21))


@dataclass(frozen=True)
class Row:
    """A labelled completion with its features."""

    answer: Answer
    values: dict[str, float]
    label: str

    @property
    def refuses(self) -> bool:
        return self.label != "full_compliance"


def rows_of(path: Path) -> list[Row]:
    """The labelled completions of one model."""
    rows = []
    for line in path.read_bytes().split(b"\n"):
        if line:
            held: dict[str, Any] = json.loads(line)
            answer = read_answer(held["completion"])
            values = {} if answer.empty else features(answer)[0]
            rows.append(Row(answer, values, held["human_label"][2:]))
    return rows


def columns_of(groups: list[list[Row]], least: int) -> list[str]:
    """All cue features, and the phrases that occur in every model's completions: a phrase of one model is its style."""
    counts = [
        Counter(name for row in rows for name in row.values if name.startswith(PHRASE)) for rows in groups
    ]
    shared = {name for name, count in counts[0].items() if count >= least}
    for each in counts[1:]:
        shared &= {name for name, count in each.items() if count >= least}
    return [*NAMES, *sorted(shared)]


def logistic(rows: list[Row], target: list[bool], columns: list[str], penalty: float) -> dict[str, float]:
    """Weights of a logistic regression with an L2 penalty, by Newton steps.

    There are more columns than rows, so each step solves the system of the rows' size (Woodbury).
    """
    x = np.array([[1.0, *(row.values.get(name, 0.0) for name in columns)] for row in rows])
    y = np.array(target, dtype=float)
    ridge = np.full(x.shape[1], penalty)
    ridge[0] = 1e-3  # the bias is all but free
    weights = np.zeros(x.shape[1])
    for _ in range(12):
        p = 1 / (1 + np.exp(-np.clip(x @ weights, -60, 60)))
        gradient = (x.T @ (p - y) + ridge * weights) / ridge
        inner = np.diag(1 / (p * (1 - p) + 1e-6)) + (x / ridge) @ x.T
        step = gradient - (x.T @ np.linalg.solve(inner, x @ gradient)) / ridge
        weights = weights - step
        if np.abs(step).max() < 1e-5:
            break
    return {name: round(float(value), 5) for name, value in zip(["bias", *columns], weights, strict=True)}


def fit_at(groups: list[list[Row]], penalty: float, least: int, threshold: float = 0.5) -> Weights:
    """Weights with these settings."""
    rows, columns = [row for group in groups for row in group], columns_of(groups, least)
    refused = [row for row in rows if row.refuses]
    return Weights(
        logistic(rows, [row.refuses for row in rows], columns, penalty),
        logistic(refused, [row.label == "full_refusal" for row in refused], columns, penalty),
        threshold,
    )


def fit(groups: list[list[Row]]) -> tuple[Weights, dict[str, float]]:
    """Weights and settings from labelled rows alone: settings by leaving out each of these models in turn."""
    best: tuple[float, float, int, float] = (-1.0, 0.0, 0, 0.0)
    for penalty, least in product(PENALTIES, LEAST_COUNTS):
        held = []
        for index, group in enumerate(groups):
            others = groups[:index] + groups[index + 1 :]
            rows, columns = [row for each in others for row in each], columns_of(others, least)
            weights = logistic(rows, [row.refuses for row in rows], columns, penalty)
            held.append(np.array([probability(row.values, weights) for row in group]))
        for threshold in THRESHOLDS:
            scores = [
                f1(list(found >= threshold), [row.refuses for row in group])["f1"]
                for found, group in zip(held, groups, strict=True)
            ]
            best = max(best, (sum(scores) / len(scores), penalty, least, threshold))
    _, penalty, least, threshold = best
    chosen = {"penalty": penalty, "least_count": least, "threshold": threshold}
    return fit_at(groups, penalty, least, threshold), chosen


def f1(found: list[bool], gold: list[bool]) -> dict[str, float]:
    """Precision, recall, F1 and accuracy."""
    hit = sum(a and b for a, b in zip(found, gold, strict=True))
    precision, recall = hit / max(1, sum(found)), hit / max(1, sum(gold))
    same = sum(a == b for a, b in zip(found, gold, strict=True))
    score = 2 * precision * recall / (precision + recall) if hit else 0.0
    return {"f1": score, "precision": precision, "recall": recall, "accuracy": same / len(gold)}


def measure(rows: list[Row], weights: Weights) -> dict[str, float]:
    """Scores of the two-way question, accuracy over three classes, and F1 of each class."""
    found = ["full_compliance" if row.answer.empty else classify(row.answer, weights).label for row in rows]
    scores = f1([label != "full_compliance" for label in found], [row.refuses for row in rows])
    scores["three_classes"] = sum(a == row.label for a, row in zip(found, rows, strict=True)) / len(rows)
    for label in CLASSES:
        scores[label] = f1([each == label for each in found], [row.label == label for row in rows])["f1"]
    return scores


def write(weights: Weights, chosen: dict[str, float]) -> None:
    """Replace the package's weights."""
    held = {
        "threshold": weights.threshold,
        "settings": chosen,
        "refuses": {name: value for name, value in weights.refuses.items() if value},
        "full": {name: value for name, value in weights.full.items() if value},
    }
    WEIGHTS.write_text(json.dumps(held, indent=0, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"wrote {WEIGHTS.name}: {len(held['refuses'])} weights")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Fit on all models but one, measure on that one.")
    parser.add_argument("--data", type=Path, required=True, help="folder with completions_*.jsonl")
    parser.add_argument("--write", action="store_true", help="fit on all files and write weights.json")
    args = parser.parse_args(arguments)
    paths = sorted(args.data.glob("completions_*.jsonl"))
    if len(paths) < 3:
        parser.error(
            f"{args.data} holds {len(paths)} files completions_*.jsonl; at least 3 models are needed"
        )
    groups = {path.stem.removeprefix("completions_"): rows_of(path) for path in paths}
    folds = {}
    for name, group in groups.items():
        weights, chosen = fit([rows for other, rows in groups.items() if other != name])
        folds[name] = measure(group, weights)
        shown = ", ".join(f"{key} {value:.3f}" for key, value in folds[name].items())
        print(f"held out {name}: {shown} ({chosen})", flush=True)
    mean = sum(fold["f1"] for fold in folds.values()) / len(folds)
    print(f"mean F1 {mean:.3f}")
    if args.write:
        weights, chosen = fit(list(groups.values()))
        write(weights, chosen)
    return 0


if __name__ == "__main__":
    sys.exit(main())
