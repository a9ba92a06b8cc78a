"""`synth doctor`: what this machine can do, what is missing, what to do about it."""

from __future__ import annotations

import argparse
import json
import os
import sys


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "doctor", help="what this machine can do, what is missing, what to do about it"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Print the report. Exit status 0 if recipes can run here, 1 if not."""
    from recipes import doctor

    findings = doctor.examine()
    if args.json:
        print(json.dumps(doctor.as_json(findings)))
    else:
        print(doctor.as_text(findings, color=sys.stdout.isatty() and not os.environ.get("NO_COLOR")))
    return 0 if doctor.can_run(findings) else 1
