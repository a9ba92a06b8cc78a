"""`synth train`: the training stage alone."""

from __future__ import annotations

import argparse

from recipes.cli.options import Subparsers, add_recipe, load_any


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser("train", help="the training stage alone")
    add_recipe(parser)
    parser.add_argument(
        "--data",
        metavar="P",
        help="rows to train on: JSONL, parquet or a run directory (default: the recipe's)",
    )
    parser.add_argument("--out", metavar="DIR", required=True, help="folder of the trained model")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    recipe = load_any(args)
    from recipes import runner

    print(runner.train_stage(recipe, args.data, args.out))
    return 0
