"""`synth evaluate`: the evaluation stage alone."""

from __future__ import annotations

import argparse

from recipes.cli.options import Subparsers, add_recipe, load_any


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser("evaluate", help="the evaluation stage alone")
    add_recipe(parser)
    parser.add_argument("--model", metavar="PATH", required=True, help="model folder or hub name to measure")
    parser.add_argument("--out", metavar="FILE", required=True, help="JSON file for the scores")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    recipe = load_any(args)
    from recipes import runner
    from recipes.report import score_text

    result = runner.evaluate_stage(recipe, args.model, args.out)
    for domain, scores in result["scores"].items():
        for metric, value in scores.items():
            if isinstance(value, dict) and "low" in value:
                print(f"{domain}  {metric}  {score_text(value, metric)}  n {scores.get('n')}")
    print(args.out)
    return 0
