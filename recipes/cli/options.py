"""Arguments that several verbs share."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recipes.kinds import AnyRecipe

Subparsers = argparse._SubParsersAction


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """RECIPE and --set."""
    parser.add_argument("recipe", metavar="RECIPE", help="a shipped recipe's name, or a path to a .yaml file")
    add_set(parser, "change a recipe key, e.g. --set train.lr=1e-5 (repeatable)")


def add_set(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--set", metavar="K=V", action="append", default=[], help=text)


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def add_workers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers",
        type=at_least_one,
        metavar="N",
        help="rows judged at the same time (default: one a core)",
    )


def at_least_one(text: str) -> int:
    """An argument's whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"seen '{text}', needs a whole number of at least 1")
    return int(text)


def load_any(args: argparse.Namespace) -> AnyRecipe:
    """A recipe of any kind."""
    from recipes.settings import load_any

    return load_any(args.recipe, args.set)


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object on one line, in ASCII: any terminal and any pipe can hold it."""
    print(json.dumps(value, ensure_ascii=True, default=str))
