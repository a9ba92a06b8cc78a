"""`synth status`: how far a run is."""

from __future__ import annotations

import argparse

from recipes.cli.options import Subparsers, add_json, print_json


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser("status", help="progress and funnel of a run")
    parser.add_argument("folder", metavar="DIR", help="run directory")
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from recipes.status import status, status_text

    found = status(args.folder)
    if args.json:
        print_json(found)
    else:
        print(status_text(found))
    return 0
