"""`synth index`: documents of a file with their vectors, for `synth search`."""

from __future__ import annotations

import argparse

from recipes.cli.options import Subparsers


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "index",
        help="encode the documents of a file, to be searched",
        description="Encode the documents of a file and write a folder with vectors, ids and texts.",
    )
    parser.add_argument(
        "--model", metavar="M", required=True, help="folder or hub name of an embedding model"
    )
    parser.add_argument(
        "--input", metavar="DOCS", required=True,
        help=".jsonl, .json, .csv or .parquet rows (may be .gz), or a folder in BEIR's layout",
    )  # fmt: skip
    parser.add_argument(
        "--out", metavar="DIR", required=True, help="folder for the index; a former index is replaced"
    )
    parser.add_argument(
        "--text", metavar="FIELD", action="append", default=[],
        help="field with the text (repeatable: joined; default: title and text)",
    )  # fmt: skip
    parser.add_argument("--id", metavar="FIELD", help="field with the id (default: _id or id, else numbers)")
    parser.add_argument(
        "--instruction", metavar="TEXT", default="", help="what the model reads before each query"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from recipes.progress import Progress
    from recipes.retrieval.indexing import make_index

    with Progress().stage(f"index {args.input}") as bar:
        index = make_index(
            args.model, args.input, args.out, args.text, args.id, args.instruction, on_progress=bar.update
        )
    print(f"{index.manifest['rows']:,} documents, {index.manifest['dimensions']} dimensions: {args.out}")
    print(f"try: synth search {args.out} 'what you look for'")
    return 0
