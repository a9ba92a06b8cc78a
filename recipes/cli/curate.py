"""`synth curate`: deduplicate, decontaminate and select the rows of a file."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from recipes.cli.options import Subparsers, add_set

if TYPE_CHECKING:
    from synth.curate import CurateOptions
    from synth.curate.files import Summary


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "curate", help="deduplicate, decontaminate, select the rows of a JSONL or parquet file"
    )
    parser.add_argument("--input", metavar="A", required=True, help="JSONL (may be .gz) or .parquet rows")
    parser.add_argument(
        "--output",
        metavar="B",
        required=True,
        help="the kept rows; the others go to B.dropped.jsonl, a report to B.report.md",
    )
    add_set(parser, "set an option of the curation, e.g. --set dedup.method=minhash (repeatable)")
    parser.add_argument(
        "--compare",
        metavar="C",
        help="rows (a file or a run) whose length and diversity the report compares with",
    )
    parser.set_defaults(run=run, begins_anew=True)


def run(args: argparse.Namespace) -> int:
    from recipes.curation import curation_options
    from recipes.curation_files import open_embed, read_sets
    from recipes.progress import Progress
    from synth.curate.files import curate_file
    from verifiers.language import detect

    options = curation_options(args.set)
    chosen = options.decontaminate
    sets = read_sets(chosen.against, chosen) if chosen else {}
    with Progress().stage(f"curate {args.input}") as bar:
        summary = curate_file(
            args.input,
            args.output,
            options,
            sets,
            embed=open_embed(options, "embed"),
            language=detect,
            compare=args.compare,
            on_rows=lambda stage, rows: bar.update(rows, title=f"{stage} {args.input}"),
        )
    print("\n".join(_lines(summary, options)))
    print(f"report: {args.output}.report.md")
    return 0


def _lines(summary: Summary, options: CurateOptions) -> list[str]:
    lines = [f"{summary.rows:,} rows: kept {summary.kept:,}"]
    lines += [f"  {reason}: {count:,}" for reason, count in summary.reasons.most_common()]
    if summary.repaired:
        lines.append(f"  text_repaired: {summary.repaired:,} kept rows held half of a surrogate pair")
    if not (options.decontaminate and options.decontaminate.against):
        lines.append("not decontaminated: name evaluation sets with --set 'decontaminate.against=[...]'")
    return lines + [f"warning: {warning}" for warning in summary.warnings]
