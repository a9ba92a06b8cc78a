"""Runs assert programs in a jail of their own, with the candidate as a proxy; or beside it, marked as weak."""

from __future__ import annotations

import ast
import builtins
import contextlib
import importlib
import types
from collections.abc import Callable
from typing import Any

from . import plain
from .loading import Channel, describe, load, new_module


class _Crossing(BaseException):
    """The tests need a real object of the candidate's. Not an Exception: test code must not swallow it."""


def _names(code: types.CodeType) -> set[str]:
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= _names(constant)
    return found


def _counted(source: str) -> tuple[ast.Module, int]:
    """The tests with a call counted before each assert, and how many asserts they hold."""
    tree = ast.parse(source, "tests.py")
    count = 0

    class Count(ast.NodeTransformer):
        def visit_Assert(self, node: ast.Assert) -> list[ast.stmt]:
            nonlocal count
            count += 1
            tick = ast.Expr(ast.Call(ast.Name("__tick__", ast.Load()), [], []))
            return [ast.copy_location(ast.fix_missing_locations(ast.copy_location(tick, node)), node), node]

    tree = Count().visit(tree)
    return ast.fix_missing_locations(tree), count


class _Proxy:
    """The candidate as the tests' jail sees it."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel

    def function(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            return self._call(name, arguments, named)

        call.__name__ = call.__qualname__ = name
        return call

    def _call(self, name: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        try:
            trees = [plain.encode(value) for value in arguments]
            named_trees = {key: plain.encode(value) for key, value in named.items()}
        except plain.NotPlain as error:
            raise _Crossing(f"argument: {error}") from None
        self.channel.send({"call": name, "args": trees, "kwargs": named_trees, "arguments_back": True})
        reply = self.channel.receive()
        if "refused" in reply:
            raise _Crossing(f"result: {reply['refused']}")
        if "raised" in reply:
            kind = getattr(builtins, str(reply.get("builtin")), None)
            if not (isinstance(kind, type) and issubclass(kind, BaseException)):
                kind = RuntimeError
            error = _rebuild(kind, str(reply.get("message", "")))
            error.__candidate__ = reply  # type: ignore[attr-defined]
            raise error
        for value, tree in zip(arguments, reply.get("args") or [], strict=False):
            _copy_back(value, tree)
        return plain.decode(reply["value"])


def _rebuild(kind: type[BaseException], message: str) -> BaseException:
    try:
        return kind(message)
    except TypeError:  # UnicodeDecodeError and its like need more
        return RuntimeError(message)


def _copy_back(value: Any, tree: Any) -> None:
    if tree is None:
        return
    after = plain.decode(tree)
    if type(after) is not type(value) or after == value:
        return
    if isinstance(value, (list, bytearray)):
        value[:] = after
    else:
        value.clear()
        value.update(after)


def run_tests(channel: Channel, job: dict[str, Any]) -> int:
    namespace = new_module("tests")
    setup = job.get("setup") or ""
    with contextlib.suppress(BaseException):  # the head of a program; the candidate's jail has it whole
        exec(compile(setup, "setup.py", "exec", dont_inherit=True), namespace)
    try:
        tree, asserts = _counted(job["code"])
        code = compile(tree, "tests.py", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError) as error:
        channel.send({"outcome": "infra_error", "where": "tests", **describe(error)})
        return 1
    names = _describe_names(channel, _names(code), job.get("entry_point"))
    problem = _bind(namespace, _Proxy(channel), names)
    if problem:
        channel.send({"outcome": "crossing", "message": problem})
        return 1
    return _judge(channel, job, namespace, code, asserts, {})


def _describe_names(channel: Channel, used: set[str], entry_point: str | None) -> dict[str, dict[str, Any]]:
    """What the program calls the names the tests use.

    A builtin stays the tests' own, or a program could redefine `set`; unless it is what is tested (a task may well
    ask for a function `sum`): the entry point, or the only name of the program's that is used.
    """
    plain_names = {name for name in used if not hasattr(builtins, name)} | (
        {entry_point} if entry_point else set()
    )
    channel.send({"need": sorted(plain_names)})
    names = channel.receive()["names"]
    if entry_point or any(what["kind"] in ("function", "object") for what in names.values()):
        return names
    channel.send({"need": sorted(used - plain_names)})
    shadowing = channel.receive()["names"]
    return names | {name: what for name, what in shadowing.items() if what["kind"] == "function"}


def _bind(namespace: dict[str, Any], proxy: _Proxy, names: dict[str, dict[str, Any]]) -> str:
    """Put what the program defines under the tests' names. Returns what cannot cross, if anything."""
    for name, what in names.items():
        kind = what["kind"]
        if kind == "object":
            return f"{name} is an object of the program"
        try:
            if kind == "function":
                namespace[name] = proxy.function(name)
            elif kind == "module":
                namespace[name] = importlib.import_module(what["name"])
            elif kind == "import":
                namespace[name] = getattr(importlib.import_module(what["module"]), what["name"])
            elif kind == "value":
                namespace[name] = plain.decode(what["value"])
        except (ImportError, AttributeError):
            return f"{name} cannot be imported"
    return ""


def _judge(
    channel: Channel,
    job: dict[str, Any],
    namespace: dict[str, Any],
    code: types.CodeType,
    asserts: int,
    extra: dict,
) -> int:
    """Run the tests and say how they ended; `ran` counts the asserts that were reached."""
    ran = 0

    def tick() -> None:
        nonlocal ran
        ran += 1

    namespace["__tick__"] = tick
    try:
        exec(code, namespace)
        check = namespace.get("check")
        if callable(check) and job.get("entry_point"):
            check(namespace[job["entry_point"]])
        outcome: dict[str, Any] = {"outcome": "passed"}
    except _Crossing as error:
        outcome = {"outcome": "crossing", "message": str(error)}
    except BaseException as error:
        theirs = getattr(error, "__candidate__", None)
        if isinstance(error, AssertionError) and theirs is None:
            outcome = {"outcome": "wrong_answer", **describe(error)}
        else:
            outcome = {"outcome": "runtime_error", **(theirs or describe(error))}
        outcome["line"] = _test_line(error)
    channel.send({**outcome, "asserts": asserts, "ran": ran, **extra})
    return 0


def _test_line(error: BaseException) -> int | None:
    line, trace = None, error.__traceback__
    while trace:
        if trace.tb_frame.f_code.co_filename == "tests.py":
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def run_weak(channel: Channel, job: dict[str, Any]) -> int:
    """Program and tests in one process. A determined program can forge this verdict: it is marked as weak."""
    loaded = load(channel, job)
    if loaded is None:
        return 1
    channel.send({"loaded": True})
    secret = channel.receive()  # the tests and the nonce arrive after the program's top level has run
    tree, asserts = _counted(secret["code"])
    code = compile(tree, "tests.py", "exec", dont_inherit=True)
    return _judge(channel, job, loaded["namespace"], code, asserts, {"nonce": secret["nonce"]})
