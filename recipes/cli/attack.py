"""`synth attack`: fine-tune any checkpoint with harmful rows among its task's, and tell what survived."""

from __future__ import annotations

import argparse

from recipes.cli.options import Subparsers, add_recipe, load_any


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "attack", help="harmful fine-tuning of any checkpoint: harmful score, accuracy, over-refusal"
    )
    add_recipe(parser)
    parser.add_argument("--model", metavar="PATH", required=True, help="model folder or hub name to attack")
    parser.add_argument("--out", metavar="DIR", required=True, help="folder of results, answers and picture")
    parser.add_argument(
        "--compare",
        metavar="DIR",
        action="append",
        default=[],
        help="draw the results of this run or attack beside (repeatable)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    recipe = load_any(args)
    from recipes import runner

    runner.attack_stage(recipe, args.model, args.out, args.compare)
    print(args.out)
    return 0
