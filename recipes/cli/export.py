"""`synth export`: a run's curated rows as a dataset with its card."""

from __future__ import annotations

import argparse
from pathlib import Path

from recipes.cli.options import Subparsers

FORMATS = ("jsonl", "parquet", "datasets")
LAYOUTS = ("messages", "prompt_completion", "preference", "sharegpt", "alpaca", "embedding")


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser("export", help="a run's curated rows as a dataset with its card")
    parser.add_argument("folder", metavar="DIR", help="run directory")
    parser.add_argument("--format", required=True, choices=FORMATS)
    parser.add_argument("--layout", required=True, choices=LAYOUTS)
    parser.add_argument(
        "--out", metavar="PATH", required=True, help="folder, or a file with the format's ending"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from recipes.lineage import card_info, dataset_rows
    from recipes.status import open_run
    from synth.export import export

    folder = open_run(args.folder)
    result = export(dataset_rows(folder), args.format, args.layout, Path(args.out), card_info(folder))
    print(f"{result.rows} rows: {result.data}")
    print(f"card: {result.card}")
    for reason, count in sorted(result.left_out.items(), key=lambda item: (-item[1], item[0])):
        print(f"left out: {count} {reason}")
    if result.repaired:
        print(f"text repaired in {result.repaired} rows (lone surrogates became U+FFFD)")
    return 0
