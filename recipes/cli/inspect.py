"""`synth inspect`: why a sample was kept or rejected, with its whole history."""

from __future__ import annotations

import argparse

from recipes.cli.options import Subparsers, add_json, print_json


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser("inspect", help="why a sample was kept or rejected, full lineage")
    parser.add_argument("folder", metavar="DIR", help="run directory")
    parser.add_argument("sample_id", metavar="SAMPLE_ID", nargs="?", help="a sample's id or its beginning")
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from recipes.lineage import inspect, inspect_text

    found = inspect(args.folder, args.sample_id)
    if args.json:
        print_json(found)
    else:
        print(inspect_text(found))
    return 0
