"""`synth search`: the documents of an index that are nearest to a query."""

from __future__ import annotations

import argparse
import shutil
import sys
from typing import TYPE_CHECKING

from recipes.cli.options import Subparsers, add_json, at_least_one, print_json

if TYPE_CHECKING:
    from synth.retrieval.index import Hit


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser("search", help="the documents of an index that are nearest to a query")
    # Not `folder`: an error must not be logged into what is only read.
    parser.add_argument("index", metavar="DIR", help="folder that `synth index` made")
    parser.add_argument("query", metavar="QUERY", nargs="+", help="what to look for")
    parser.add_argument("-k", type=at_least_one, default=10, metavar="N", help="documents shown (default 10)")
    parser.add_argument("--bm25", action="store_true", help="search by words instead of the model")
    parser.add_argument("--model", metavar="M", help="where the index's model is now, if it moved")
    parser.add_argument("--instruction", metavar="TEXT", help="in place of the index's own")
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from recipes.retrieval.indexing import search_index

    query = " ".join(args.query)
    hits = search_index(
        args.index, query, args.k, bm25=args.bm25, model=args.model, instruction=args.instruction
    )
    if args.json:
        print_json({"ok": True, "query": query, "results": [hit._asdict() for hit in hits]})
    else:
        print("\n".join(_lines(hits)) or "nothing found: no document has a word of the query")
    return 0


def _lines(hits: list[Hit]) -> list[str]:
    """Rank, score, id and the text's first line; on a terminal a line is cut to its width."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    rows = [
        (str(hit.rank), f"{hit.score:.4f}", _plain(hit.id), _plain(_first_line(hit.text))) for hit in hits
    ]
    ranks, scores, ids = (max((len(row[column]) for row in rows), default=0) for column in range(3))
    return [
        f"{rank:>{ranks}}  {score:>{scores}}  {id:<{ids}}  {text}"[:width] for rank, score, id, text in rows
    ]


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def _plain(text: str) -> str:
    """What a terminal can show: no control codes, no half surrogate pairs."""
    return "".join(sign if sign.isprintable() else " " for sign in text)
