"""Runs assert programs in a jail of their own, with the candidate as a proxy; or beside it, marked as weak.

Every value here comes from the tests or crossed as plain data. What the program says of itself never decides which
jail is used, what a name of the tests' own means, or which module is imported: the tests' text and, for imports, the
program's text do.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import os
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from . import plain, reading
from .loading import Channel, describe, load, new_module

_VIEWS: dict[str, Callable[[list[Any]], Any]] = {
    "iterator": iter,
    "dict_keys": lambda items: dict.fromkeys(items).keys(),
    "dict_values": lambda items: dict(enumerate(items)).values(),
    "dict_items": lambda items: dict(items).items(),
    "match": lambda _: object(),  # of a match only its truth is known here
}


def _leave(channel: Channel, outcome: str, message: str) -> NoReturn:
    """End the tests here, past any `except` of theirs."""
    channel.send({"outcome": outcome, "message": message[:300]})
    os._exit(0)


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


@dataclass
class _Tests:
    """The tests, read: their code, the names they want from the program, and what their text says of them."""

    code: types.CodeType
    asserts: int
    entry_point: str | None
    wanted: set[str]
    data: set[str]
    needed: set[str]
    namespace: dict[str, Any]
    absent: set[str] = field(default_factory=set)
    bound: bool = False
    """Whether a value of the program's, not only its functions, was put among the tests' names."""


class _Proxy:
    """The candidate as the tests' jail sees it."""

    def __init__(self, channel: Channel, needed: set[str]) -> None:
        self.channel, self.needed = channel, needed
        self.calls = 0
        self.remade = False

    def function(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            self.calls += 1
            return self._call(name, arguments, named)

        call.__name__ = call.__qualname__ = name
        return call

    def foreign(self, name: str, what: str) -> NoReturn:
        """Something of the program's that does not cross. One jail for both only where the tests' text asks for it."""
        if name in self.needed:
            _leave(self.channel, "crossing", f"{name}: {what}")
        _leave(self.channel, "foreign", f"{name}: {what}")

    def _call(self, name: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        try:
            trees = [plain.encode(value) for value in arguments]
            named_trees = {key: plain.encode(value) for key, value in named.items()}
        except plain.NotPlain as error:
            # an iterator the program returned and the tests hand on is no reason of the tests' own
            _leave(self.channel, "foreign" if self.remade else "crossing", f"argument: {error}")
        self.channel.send({"call": name, "args": trees, "kwargs": named_trees})
        reply = self.channel.receive()
        if "raised" in reply:
            raise _rebuild(reply)
        if "value" not in reply:
            self.foreign(name, f"result: {reply.get('refused')}")
        try:
            for value, tree in zip(arguments, reply["args"], strict=False):
                _copy_back(value, tree)
            result = plain.decode(reply["value"])
            if form := reply.get("form"):
                if form == "match" and name in self.needed:
                    self.foreign(name, "result: a value of type Match")
                self.remade = True
                result = _VIEWS[form](result)
        except Exception as error:  # no process that only runs the program sends such a thing
            _leave(self.channel, "foreign", f"{name}: result: {error}")
        return result


def _rebuild(reply: dict[str, Any]) -> BaseException:
    """The exception of the program as one of Python's own."""
    kind = getattr(builtins, str(reply.get("builtin")), None)
    if not (isinstance(kind, type) and issubclass(kind, BaseException)):
        kind = RuntimeError
    message = str(reply.get("message", ""))
    try:
        error = kind(message)
    except TypeError:  # UnicodeDecodeError and its like need more
        error = RuntimeError(message)
    error.__candidate__ = reply  # type: ignore[attr-defined]
    return error


def _copy_back(value: Any, tree: Any) -> None:
    if tree is None:
        return
    after = plain.decode(tree)
    if type(after) is not type(value):
        return
    if isinstance(value, (list, bytearray)):
        value[:] = after
    else:
        value.clear()
        value.update(after)


def run_tests(channel: Channel, job: dict[str, Any]) -> int:
    try:
        tests = _read_tests(job)
    except _Broken as error:
        channel.send({"outcome": "infra_error", "message": str(error)[:300]})
        return 1
    channel.send({"need": sorted(tests.wanted)})
    said = channel.receive()["names"]
    names = {name: said.get(name) or {"kind": "absent"} for name in tests.wanted}
    tests.absent = {name for name, what in names.items() if what["kind"] == "absent"}
    if undefined := tests.absent & tests.data:
        message = f"nobody defines {', '.join(sorted(undefined))}"
        channel.send({"outcome": "infra_error", "message": message})
        return 1
    proxy = _Proxy(channel, tests.needed)
    known: dict[str, tuple[str, str]] = {}
    for text in job.get("texts") or []:
        known |= reading.imports(text)
    for name, what in names.items():
        _bind(tests, proxy, name, what, known)
    return _judge(channel, tests, {}, lambda: proxy.calls)


class _Broken(Exception):
    """The tests themselves cannot be run."""


def _read_tests(job: dict[str, Any]) -> _Tests:
    """Compile the tests and run their setup. Raises _Broken."""
    setup, entry_point = job.get("setup") or "", job.get("entry_point") or None
    try:
        original = ast.parse(job["code"], "tests.py")
        plain_code = compile(original, "tests.py", "exec", dont_inherit=True)
        tree, asserts = _counted(job["code"])
        code = compile(tree, "tests.py", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise _Broken(f"the tests do not compile: {error}") from None
    namespace = new_module("tests")
    before = set(namespace)
    head, setup_reads = ast.Module([], []), set()
    try:
        head = ast.parse(setup, "setup.py")
        setup_code = compile(head, "setup.py", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError):
        setup_code = None  # the head of a program; the candidate's jail has it whole
    if setup_code:
        setup_reads = reading.globals_of(setup_code)[0]
        try:
            exec(setup_code, namespace)
        except BaseException as error:
            raise _Broken(f"the setup raises {type(error).__name__}: {error}") from None
    if module := reading.missing_module(original):
        raise _Broken(f"the tests import {module}, which is not installed")
    reads, binds = reading.globals_of(plain_code)
    own = (set(namespace) - before - reading.stubs(head)) | binds
    wanted = {
        name for name in (reads | setup_reads) - own if not hasattr(builtins, name) and name[:2] != "__"
    }
    called = reading.called_names(original)
    data = wanted & reading.data_names(original) - {entry_point}
    if not (entry_point or wanted & called) or reading.has_star_import(original):
        data = set()
    if (
        not (entry_point or wanted)
        and len(shadowed := {name for name in called - own if hasattr(builtins, name)}) == 1
    ):
        wanted = shadowed  # a task may well ask for a function `sum`: then it is the one thing its tests call
    if entry_point:
        wanted.add(entry_point)
    needed = reading.Objects(original, entry_point).needed
    return _Tests(code, asserts, entry_point, wanted, data, needed, namespace)


def _bind(
    tests: _Tests, proxy: _Proxy, name: str, what: dict[str, Any], known: dict[str, tuple[str, str]]
) -> None:
    """Put what the program has under a name of the tests'."""
    kind, callable_ = what["kind"], bool(what.get("callable"))
    if kind == "absent":
        return
    if kind == "value" and not hasattr(builtins, name):
        try:
            tests.namespace[name] = plain.decode(what.get("value"))
        except plain.NotPlain as error:
            proxy.foreign(name, str(error))
        tests.bound = True
        return
    if kind == "other" and name in known and name != tests.entry_point:
        # the entry point stays a proxy: it is the program's, and is to run where the program runs
        module, attribute = known[name]
        try:
            found = importlib.import_module(module)
            tests.namespace[name] = getattr(found, attribute) if attribute else found
        except (ImportError, AttributeError):
            proxy.foreign(name, "it cannot be imported")
        tests.bound = True
        return
    if kind == "other" and (name in tests.needed or not callable_):
        proxy.foreign(name, "an object of the program")
    tests.namespace[name] = proxy.function(name)


def _judge(channel: Channel, tests: _Tests, extra: dict[str, Any], calls: Callable[[], int]) -> int:
    """Run the tests and say how they ended; `ran` counts the asserts that were reached."""
    ran = 0

    def tick() -> None:
        nonlocal ran
        ran += 1

    namespace, entry_point = tests.namespace, tests.entry_point
    namespace["__tick__"] = tick
    try:
        exec(tests.code, namespace)
        check = namespace.get("check")
        if callable(check) and entry_point:
            if entry_point not in namespace:
                raise NameError(f"name {entry_point!r} is not defined")
            check(namespace[entry_point])
        outcome: dict[str, Any] = {"outcome": "passed"}
    except BaseException as error:
        theirs = getattr(error, "__candidate__", None)
        if isinstance(error, AssertionError) and theirs is None:
            outcome = {"outcome": "wrong_answer", **describe(error)}
        else:
            outcome = {**(theirs or describe(error)), "outcome": "runtime_error"}
            if not (
                theirs or calls() or tests.bound or tests.absent
            ):  # nothing of the program's had any part in it
                outcome["outcome"] = "infra_error"
        outcome["line"] = _test_line(error)
    used = {"calls": calls(), "bound": tests.bound}
    channel.send({**outcome, "asserts": tests.asserts, "ran": ran, **used, **extra})
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
    namespace = loaded["namespace"]
    tests = _Tests(code, asserts, job["entry_point"], set(), set(), set(), namespace, bound=True)
    return _judge(channel, tests, {"nonce": secret["nonce"]}, lambda: 0)
