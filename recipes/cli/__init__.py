"""The command `synth`: one file a verb, exit codes, and errors in one to three lines.

Exit codes: 0 done, 1 the work failed, 2 the input is wrong, 130 Ctrl-C, 143 SIGTERM. The last two leave a state
that the same command resumes. A traceback never reaches the terminal; the log file has it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from synth.records.errors import InputError, WorkError, did_you_mean

VERBS = (
    "validate",
    "preview",
    "run",
    "status",
    "inspect",
    "verify",
    "audit-verifier",
    "curate",
    "train",
    "evaluate",
    "attack",
    "export",
    "index",
    "search",
    "clean",
    "doctor",
)
DONE, FAILED, WRONG_INPUT, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143


class Parser(argparse.ArgumentParser):
    """argparse with errors of two lines: what is wrong, and where to look."""

    verbs: Mapping[str, Parser]

    def error(self, message: str) -> NoReturn:
        raise InputError(self.prog, message, f"see `{self.prog} --help`")

    def refuse(self, words: Sequence[str]) -> NoReturn:
        """The error of arguments that no verb takes."""
        known = [name for action in self._actions for name in action.option_strings if name.startswith("--")]
        hint = did_you_mean(words[0].partition("=")[0], known) if words[0].startswith("-") else ""
        self.error(f"does not take {' '.join(words)}" + (f"; {hint}" if hint.startswith("did") else ""))


def build_parser() -> Parser:
    """The whole command line. Imports every verb's module; those import nothing heavy."""
    parser = Parser(
        prog="synth",
        description="Sample completions, verify them, train on what passed, repeat while a held-out test improves.",
        epilog="RECIPE is a path if it has a / or ends in .yaml, else the name of a shipped recipe.",
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    subparsers = parser.add_subparsers(dest="verb", metavar="VERB", parser_class=Parser)
    for verb in VERBS:
        importlib.import_module(f"recipes.cli.{verb.replace('-', '_')}").add_parser(subparsers)
    parser.verbs = subparsers.choices
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    # Idle OpenMP threads must sleep: spinning ones take the cores from the engine and the verifiers beside them.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    args = argparse.Namespace()
    before = signal.getsignal(signal.SIGTERM)
    try:
        args = _parse(words)
        signal.signal(signal.SIGTERM, _terminate)
        return _run(args)
    except InputError as error:
        _tell(error, args)
        return WRONG_INPUT
    except WorkError as error:
        _tell(error, args)
        return FAILED
    except KeyboardInterrupt:
        _say(f"interrupted: {_onward(args)}")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (`| head`) has seen enough; Python must not complain about it when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except SystemExit as stop:
        if stop.code == TERMINATED:
            _say(f"terminated: {_onward(args)}")
        return stop.code if isinstance(stop.code, int) else DONE if stop.code is None else FAILED
    except Exception as error:
        what = str(error).strip().splitlines()
        path = _write_traceback(args)
        _say(
            f"error: {type(error).__name__}: {what[0] if what else 'no message'} (details: {path})", "error:"
        )
        return FAILED
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)


def _onward(args: argparse.Namespace) -> str:
    """What the same command does after one that was stopped."""
    anew = getattr(args, "begins_anew", False)
    return "the output is as it was" if anew else "the same command goes on from what is on disk"


def _parse(words: list[str]) -> argparse.Namespace:
    first = next((word for word in words if not word.startswith("-")), None)
    if first is not None and first not in VERBS:
        raise InputError("synth", f"no verb '{first}'", f"{did_you_mean(first, VERBS)}; see `synth --help`")
    parser = build_parser()
    args, unknown = parser.parse_known_args(words)
    if unknown:
        parser.verbs.get(args.verb, parser).refuse(unknown)
    args.parser = parser
    return args


def _run(args: argparse.Namespace) -> int:
    if args.version:
        from importlib.metadata import version

        print(f"synthloop {version('synthloop')}")
        return DONE
    if args.verb is None:
        args.parser.print_help()
        return DONE
    code = args.run(args)
    sys.stdout.flush()
    return code


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(TERMINATED)


def _tell(error: InputError | WorkError, args: argparse.Namespace) -> None:
    if getattr(args, "json", False):
        facts = {"where": error.where, "seen": error.seen, "fix": error.fix}
        print(json.dumps({"ok": False, "error": facts}, ensure_ascii=True))
    if _log_file(args) is not None:
        _write_traceback(args)
    from recipes.settings import MAX_REPORTED

    problems = getattr(error, "problems", None) or [error]
    for problem in problems[:MAX_REPORTED]:
        _say(f"error: {problem}", "error:")
    if len(problems) > MAX_REPORTED:
        _say(f"and {len(problems) - MAX_REPORTED} more")


def _say(text: str, marked: str = "") -> None:
    if marked and sys.stderr.isatty() and not os.environ.get("NO_COLOR"):
        text = text.replace(marked, f"\x1b[31m{marked}\x1b[0m", 1)
    print(text.encode("utf-8", "backslashreplace").decode("utf-8"), file=sys.stderr, flush=True)


def _log_file(args: argparse.Namespace) -> Path | None:
    """DIR/log.txt of the run the command works on, if there is one already."""
    folder = getattr(args, "folder", None)
    path = Path(folder) / "log.txt" if folder else None
    return path if path is not None and path.exists() else None


def _write_traceback(args: argparse.Namespace) -> Path:
    path = _log_file(args)
    if path is None:
        handle, name = tempfile.mkstemp(prefix="synth-", suffix=".log")
        os.close(handle)
        path = Path(name)
    with open(path, "a", encoding="utf-8", errors="backslashreplace") as log:
        log.write(traceback.format_exc())
    return path
