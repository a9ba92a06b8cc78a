"""Verifiers by name: shipped ones, those of installed packages, and `path/to/file.py:name`.

A package brings verifiers as entry points of group `synthloop.verifiers`. A shipped name is always the shipped
verifier; a name that several packages bring is refused. Either is reached as `PACKAGE:NAME`, as is every other.
Nothing is imported before it is asked for: `names()` and `--help` stay cheap.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from synth.records.errors import InputError, did_you_mean
from verifiers.base import NoOptions, Verdict, Verifier, broken, failed, passed, unjudged

SHIPPED = {
    "math": "verifiers.math:MathVerifier",
    "code": "verifiers.code:CodeVerifier",
    "format": "verifiers.format:FormatVerifier",
    "quality": "verifiers.quality:QualityVerifier",
    "all_of": "verifiers.composition:AllOf",
    "any_of": "verifiers.composition:AnyOf",
    "weighted": "verifiers.composition:Weighted",
    "first_decided": "verifiers.composition:FirstDecided",
    "constraints": "verifiers.constraints:ConstraintsVerifier",
    "refusal": "verifiers.refusal:RefusalVerifier",
    "harmful": "verifiers.harmful:HarmfulVerifier",
    "judge": "verifiers.judge:JudgeVerifier",
    "reward_model": "verifiers.reward_model:RewardModelVerifier",
    "pairs": "verifiers.pairs:PairsVerifier",
    "words": "verifiers.words:WordsVerifier",
}
PURE_PYTHON = frozenset({"constraints", "format", "math", "quality", "refusal", "words"})
"""Shipped verifiers that judge in Python alone and hold nothing costly: copies of them use more cores."""
ENTRY_POINTS = "synthloop.verifiers"


def names() -> list[str]:
    """Names that `get` knows: shipped verifiers and those of installed packages (`PACKAGE:NAME` where names clash)."""
    points = _entry_points()
    known = set(SHIPPED)
    for name, found in points.items():
        known |= {name} if name not in SHIPPED and len(found) == 1 else {_full_name(point) for point in found}
    return sorted(known)


def get(name: str, /, **options: Any) -> Any:
    """The verifier `name` with these options.

    `name` is a shipped verifier, an entry point of group `synthloop.verifiers` (also as `PACKAGE:NAME`), or
    `path/to/file.py:name`: a function `row -> bool | float | dict | Verdict`, a verifier class or a verifier. Raises
    InputError if it is not there or cannot be loaded, or an option is unknown.
    """
    return build(name, find(name), options)


def build(name: str, found: Any, options: Mapping[str, Any]) -> Any:
    """The verifier that `find(name)` gave, with these options. Raises InputError for an unknown option."""
    if isinstance(found, type):
        try:
            made = found(**options)
        except InputError:
            raise
        except TypeError as error:
            # A user's class need not go through build_options; its own signature is the option check then.
            raise InputError(f"verifier {name}", str(error), "check the options") from None
        except Exception as error:
            seen = f"cannot be made ({_first_line(error)})"
            raise InputError(f"verifier {name}", seen, "check the options, or mend the class") from None
        return _whole(name, made)
    if not inspect.isroutine(found) and callable(getattr(found, "verify", None)):
        if options:
            seen = f"a verifier already made, which takes no option '{next(iter(options))}'"
            raise InputError(f"verifier {name}", seen, "name its class instead")
        return _whole(name, found)
    try:
        inspect.signature(found).bind(None, **options)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"verifier {name}", str(error), "the function takes a row and its options by name"
        ) from None
    return FunctionVerifier(name, found, **options).describe(found)


def _whole(name: str, verifier: Any) -> Any:
    """A user's object with `verify` alone gets batches, options and error verdicts like every other verifier."""
    if isinstance(verifier, Verifier):
        return verifier
    if not callable(getattr(verifier, "verify", None)):
        raise InputError(
            f"verifier {name}", "the class has no method 'verify'", "write verify(row) -> Verdict"
        )
    return FunctionVerifier(name, verifier.verify).describe(verifier)


def copyable(name: str, verifier: Any) -> bool:
    """Whether copies of the verifier `get(name)` in several processes judge like one, only faster.

    So it is where judging is Python code that keeps nothing between rows and holds nothing costly: the shipped
    `PURE_PYTHON`, compositions of them, and what says so itself by an attribute `processes = True`.
    """
    parts = getattr(verifier, "parts", None)
    if name in SHIPPED and isinstance(parts, list):
        names = [part["name"] for part in verifier.options.parts]
        return all(copyable(own, part) for own, part in zip(names, parts, strict=True))
    return name in PURE_PYTHON or bool(getattr(verifier, "processes", False))


def options_class(name: str) -> type:
    """The dataclass of the verifier's options."""
    found = find(name)
    return getattr(found, "Options", NoOptions) if isinstance(found, type) else NoOptions


def find(name: str) -> Any:
    """The class, function or verifier behind a name. Raises InputError."""
    if ".py:" in name or name.endswith(".py"):
        return _from_file(name)
    if name in SHIPPED:
        module, _, attribute = SHIPPED[name].partition(":")
        return getattr(importlib.import_module(module), attribute)
    points = _entry_points()
    package, colon, plain = name.partition(":")
    found = points.get(plain, []) if colon else points.get(name, [])
    if colon:
        found = [point for point in found if _normal(_package(point)) == _normal(package)]
    if not found:
        raise InputError(f"verifier {name}", "unknown verifier", did_you_mean(name, names()))
    if len(found) > 1:
        raise InputError(
            f"verifier {name}",
            f"{len(found)} installed packages bring it ({', '.join(map(_package, found))})",
            f"write {' or '.join(map(_full_name, found))}",
        )
    return _from_entry_point(name, found[0])


def _entry_points() -> dict[str, list[importlib.metadata.EntryPoint]]:
    """Entry points by name; the same one found twice on the path is one."""
    points: dict[str, dict[tuple[str, str], importlib.metadata.EntryPoint]] = {}
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        points.setdefault(point.name, {}).setdefault((_package(point), point.value), point)
    return {name: list(found.values()) for name, found in points.items()}


def _package(point: importlib.metadata.EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "unknown package"


def _full_name(point: importlib.metadata.EntryPoint) -> str:
    return f"{_package(point)}:{point.name}"


def _normal(package: str) -> str:
    """Names of packages are equal without regard to case, hyphens, dots and underscores."""
    return re.sub(r"[-_.]+", "-", package).lower()


def _from_entry_point(name: str, point: importlib.metadata.EntryPoint) -> Any:
    where, fix = f"verifier {name}", f"mend or uninstall the package {_package(point)}"
    try:
        found = point.load()
    except (Exception, SystemExit) as error:
        raise InputError(where, f"{point.value} cannot be loaded ({_first_line(error)})", fix) from None
    return _checked(where, point.value, found, fix)


def _checked(where: str, named: str, found: Any, fix: str) -> Any:
    """`found` if it can be a verifier. Raises InputError."""
    if not callable(found) and not callable(getattr(found, "verify", None)):
        raise InputError(where, f"'{named}' is a {type(found).__name__}, not a function or a class", fix)
    return found


def _first_line(error: BaseException) -> str:
    """An error's type and the first line of what it says."""
    said = (str(error).strip().splitlines() or [""])[0][:200]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _from_file(name: str) -> Any:
    path, _, attribute = name.rpartition(":") if ".py:" in name else (name, "", "")
    if not attribute:
        raise InputError(f"verifier {name}", "no function named", f"write {name}:FUNCTION")
    module = _load_module(path)
    found = getattr(module, attribute, None)
    if found is None:
        known = [n for n in vars(module) if not n.startswith("_")]
        raise InputError(f"verifier {name}", f"{path} has no '{attribute}'", did_you_mean(attribute, known))
    return _checked(f"verifier {name}", attribute, found, "name a function or a class")


def source_hashes(name: str, options: Mapping[str, Any]) -> list[str]:
    """SHA-256 of the .py files behind a name and the parts among its options; none for names that are no file."""
    path = name.rpartition(":")[0]
    own = [hashlib.sha256(Path(path).expanduser().read_bytes()).hexdigest()] if path.endswith(".py") else []
    parts = options.get("parts")
    for part in parts if isinstance(parts, list) else ():
        inner, given = (part, {}) if isinstance(part, str) else (part["name"], part.get("options") or {})
        own += source_hashes(inner, given)
    return own


def _load_module(path: str) -> ModuleType:
    file = Path(path).expanduser().resolve()
    if not file.is_file():
        raise InputError(f"verifier file {path}", "no such file", "check the path")
    module_name = "verifier_file_" + hashlib.sha256(str(file).encode()).hexdigest()[:12]
    spec = importlib.util.spec_from_file_location(module_name, file)
    if spec is None or spec.loader is None:
        raise InputError(f"verifier file {path}", "not a Python file", "check the path")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and typing look their module up by name while the file runs.
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        sys.modules.pop(module_name, None)
        raise InputError(f"verifier file {path}", _first_line(error), "mend the file") from None
    return module


class FunctionVerifier(Verifier):
    """A user's function as a verifier: `row -> bool | float | dict | Verdict`, options as keyword arguments.

    A number is the reward (pass from 1 on); a dict has `status` or `reward`, and optionally `reason` and
    `details`; None means "not judged". What it raises becomes `error/verifier_error`.
    """

    needs = ()

    def __init__(self, name: str, function: Callable[..., Any], **options: Any) -> None:
        super().__init__()
        self.label, self._function, self._given = name, function, options
        self._owner: Any = None
        self.processes = False

    def describe(self, owner: Any) -> FunctionVerifier:
        """Take over what the user's function or object says of itself, where it does: `needs`, `names_answers`,
        `processes`, `verify_batch`, `self_test`, `check_problem` and `close`."""
        self._owner = owner
        self.processes = bool(getattr(owner, "processes", False))
        needs = getattr(owner, "needs", ())
        needs = (needs,) if isinstance(needs, str) else needs
        if not isinstance(needs, (list, tuple)) or not all(isinstance(name, str) for name in needs):
            raise InputError(
                f"verifier {self.label}", f"its `needs` is {needs!r}", "a tuple of names of row fields"
            )
        self.needs = tuple(needs)
        self.names_answers = getattr(owner, "names_answers", None)  # type: ignore[misc]
        return self

    def verify(self, row: Mapping[str, Any]) -> Verdict:
        """Call the function on the row and read what it says."""
        if lacks := self.missing(row):
            return lacks
        try:
            return as_verdict(self._function(row, **self._given))
        except Exception as error:
            return broken(error)

    def verify_batch(
        self, rows: Iterable[Mapping[str, Any]], workers: int | None = None
    ) -> Iterator[Verdict]:
        """The user's own, if there is one: it has to yield one verdict a row, in order."""
        own = self._own("verify_batch")
        return map(_read, own(rows, workers=workers)) if own else super().verify_batch(rows, workers)

    def self_test(self) -> Any:
        """The user's own, if there is one."""
        own = self._own("self_test")
        return own() if own else []

    def check_problem(self, row: Mapping[str, Any]) -> Verdict | None:
        """The user's own, if there is one."""
        own = self._own("check_problem")
        return own(row) if own else super().check_problem(row)

    def close(self) -> None:
        """The user's own, if there is one."""
        own = self._own("close")
        if own:
            own()

    def _own(self, method: str) -> Any:
        found = getattr(self._owner, method, None)
        return found if callable(found) else None


def _read(value: Any) -> Verdict:
    try:
        return as_verdict(value)
    except ValueError as error:
        return broken(error)


def as_verdict(value: Any) -> Verdict:
    """What a user's function may return, as a Verdict. Raises ValueError for anything else."""
    if isinstance(value, Verdict):
        return value
    if value is None:
        return unjudged("not_judged")
    if isinstance(value, Mapping):
        return _from_mapping(value)
    if isinstance(value, bool) or (hasattr(value, "dtype") and str(getattr(value, "dtype", "")) == "bool"):
        return passed("accepted") if value else failed("rejected")
    try:
        reward = float(value)
    except (TypeError, ValueError):
        raise ValueError(
            f"a verifier function returns bool, float, dict or Verdict, not {type(value).__name__}"
        ) from None
    if not math.isfinite(reward):
        return unjudged("not_judged", message=f"reward {reward}")
    return Verdict("pass" if reward >= 1.0 else "fail", reward, "accepted" if reward >= 1.0 else "rejected")


def _from_mapping(value: Mapping[str, Any]) -> Verdict:
    unknown = set(value) - {"status", "reward", "reason", "details"}
    if unknown:
        raise ValueError(f"unknown key '{min(unknown)}' in a verdict; known: status, reward, reason, details")
    details = dict(value.get("details") or {})
    status, reward = value.get("status"), value.get("reward")
    if status is None:
        base = as_verdict(reward)
        return Verdict(
            base.status, base.reward, str(value.get("reason") or base.reason), {**base.details, **details}
        )
    if status == "error":
        reward = None
    elif reward is None:
        reward = 1.0 if status == "pass" else 0.0
    default = {"pass": "accepted", "fail": "rejected"}.get(str(status), "not_judged")
    return Verdict(
        str(status), None if reward is None else float(reward), str(value.get("reason") or default), details
    )
