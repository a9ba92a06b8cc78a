"""What runs inside the job: loads the program and serves calls, or is the program, or runs the tests.

Speaks frames over the channel: 4 bytes of length, then JSON. The trusted process believes nothing that is said here
beyond "the program returned this data": whoever owns this process can forge every frame.
"""

from __future__ import annotations

import ast
import builtins
import io
import json
import os
import struct
import sys
import types
from collections.abc import Callable
from typing import Any, NoReturn

from . import plain

_SOURCE = "main.py"
MAX_FRAME = 1 << 26


class Channel:
    """Length-prefixed JSON over one stream socket."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.owner = os.getpid()

    def send(self, message: dict[str, Any]) -> None:
        if os.getpid() != self.owner:
            return  # a child the program forked runs on through this code; it has no say
        data = json.dumps(message).encode()
        view = memoryview(struct.pack("=I", len(data)) + data)
        while view:
            view = view[os.write(self.descriptor, view) :]

    def receive(self) -> dict[str, Any]:
        """The next frame; ends the process when the other side is gone."""
        if os.getpid() != self.owner:
            os._exit(0)
        length = struct.unpack("=I", self._exactly(4))[0]
        return json.loads(self._exactly(length))

    def _exactly(self, count: int) -> bytes:
        parts = []
        while count:
            part = os.read(self.descriptor, min(count, 1 << 20))
            if not part:
                os._exit(0)
            parts.append(part)
            count -= len(part)
        return b"".join(parts)


def main(descriptor: int) -> NoReturn:
    """Serve what the first frame asks for, then end this process."""
    channel = Channel(descriptor)
    code = 1
    try:
        _fresh_interpreter()
        job = channel.receive()
        channel.send({"begun": True})  # from here on the program's clock runs
        mode = {"function": _serve_calls, "stdio": _be_main, "tests": _run_tests, "weak": _run_weak}[job["mode"]]
        code = mode(channel, job)
    except BaseException as error:
        try:
            channel.send({"outcome": "runtime_error", **_describe(error)})
        except BaseException:
            code = 1
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except BaseException:
            code = code or 120  # what Python itself exits with
        os._exit(code)


def _fresh_interpreter() -> None:
    """Standard streams on the job's own descriptors; no module of the fork server left to find."""
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, "r")), "utf-8", "surrogateescape")
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, "w")), "utf-8", "surrogateescape")
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(io.FileIO(2, "w")), "utf-8", "backslashreplace", line_buffering=True
    )
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]
    sys.argv = [_SOURCE]
    for name in [name for name in sys.modules if name.split(".")[0] == "_jail"]:
        del sys.modules[name]


def _describe(error: BaseException) -> dict[str, Any]:
    """Type, message and last line in the program of an exception, without trusting its methods."""
    line, trace = None, error.__traceback__
    while trace:
        if trace.tb_frame.f_code.co_filename == _SOURCE:
            line = trace.tb_lineno
        trace = trace.tb_next
    try:
        message = str(error)[:500]
    except BaseException:
        message = ""
    kind = next((base for base in type(error).__mro__ if base.__module__ == "builtins"), Exception)
    return {"exception": type(error).__name__[:80], "builtin": kind.__name__, "message": message, "line": line}


def _compile(channel: Channel, job: dict[str, Any]) -> types.CodeType | None:
    """The program as code. Text with fences in it that is a program as a whole was one: a docstring may hold fences."""
    for text in filter(None, (job.get("whole"), job["source"])):
        try:
            return compile(text, _SOURCE, "exec", dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
            continue
    try:
        return compile(job["source"], _SOURCE, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as error:
        described = _describe(error)
        if isinstance(error, SyntaxError):
            described["line"] = error.lineno
        channel.send({"outcome": "compile_error", **described})
        return None


def _module(name: str) -> dict[str, Any]:
    module = types.ModuleType(name)
    module.__file__ = _SOURCE
    module.__builtins__ = builtins  # type: ignore[attr-defined]
    sys.modules[name] = module
    return module.__dict__


# --- a real `__main__` on real pipes ---


def _be_main(channel: Channel, job: dict[str, Any]) -> int:
    code = _compile(channel, job)
    if code is None:
        return 1
    namespace = _module("__main__")
    status = 0
    try:
        exec(code, namespace)
    except SystemExit as exit_:
        status = _exit_status(exit_)
    except BaseException as error:
        _print_traceback(error)
        channel.send({"outcome": "runtime_error", **_describe(error)})
        status = 1
    return _finalize(status)


def _exit_status(exit_: SystemExit) -> int:
    if exit_.code is None:
        return 0
    if isinstance(exit_.code, int):
        return exit_.code & 0xFF
    try:
        sys.stderr.write(f"{exit_.code}\n")
    except BaseException:
        return 1
    return 1


def _print_traceback(error: BaseException) -> None:
    try:
        import traceback

        trace = error.__traceback__.tb_next if error.__traceback__ else None  # without this file's own frame
        traceback.print_exception(type(error), error, trace)
    except BaseException:
        return


def _finalize(status: int) -> int:
    """What the interpreter does at its end: threads joined, exit functions run, streams flushed."""
    try:
        if "threading" in sys.modules:
            sys.modules["threading"]._shutdown()
        if "atexit" in sys.modules:
            sys.modules["atexit"]._run_exitfuncs()
    except BaseException:
        status = status or 1
    try:
        sys.stdout.flush()
    except BaseException:
        return status or 120
    return status


# --- calls from outside, arguments and results as plain data ---


def _compiles(text: str) -> bool:
    try:
        compile(text, _SOURCE, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return False
    return True


def _load(channel: Channel, job: dict[str, Any]) -> dict[str, Any] | None:
    """Run the program as a module. None when it did not load; the reason has been sent."""
    setup = job.get("setup") or ""
    namespace = _module("solution")
    before: dict[str, Any] = {}
    if setup and _compiles(setup) and _compiles(job["source"]):
        exec(compile(setup, _SOURCE, "exec", dont_inherit=True), namespace)
        before = dict(namespace)
    elif setup:  # the head of the completion, as HumanEval's prompts are
        job = {"source": setup + ("" if setup.endswith("\n") else "\n") + job["source"]}
    code = _compile(channel, job)
    if code is None:
        return None
    try:
        exec(code, namespace)
    except BaseException as error:
        channel.send({"outcome": "runtime_error", "while": "load", **_describe(error)})
        return None
    changed = {name for name, value in namespace.items() if name not in before or before[name] is not value}
    return {"namespace": namespace, "changed": changed}


def _serve_calls(channel: Channel, job: dict[str, Any]) -> int:
    loaded = _load(channel, job)
    if loaded is None:
        return 1
    namespace = loaded["namespace"]
    entry_point = job.get("entry_point")
    if entry_point and not callable(_lookup(namespace, entry_point)):
        channel.send({"outcome": "runtime_error", "exception": "NameError", "message": f"no function {entry_point}"})
        return 1
    channel.send({"loaded": True})
    while True:
        frame = channel.receive()
        if "describe" in frame:
            reply = {"names": {name: _kind(loaded, name) for name in frame["describe"]}}
        else:
            reply = _call(namespace, frame)
        _flush()  # the process may be killed before it gets to its end
        channel.send(reply)


def _flush() -> None:
    try:
        sys.stdout.flush()
    except BaseException:
        return


def _lookup(namespace: dict[str, Any], dotted: str) -> Any:
    """`name`, `Class.method` or the method of a fresh `Solution()`."""
    first, *rest = dotted.split(".")
    found = namespace.get(first)
    if found is None and not rest and isinstance(namespace.get("Solution"), type):
        return getattr(namespace["Solution"](), first, None)
    if rest and isinstance(found, type):
        found = found()
    for name in rest:
        found = getattr(found, name, None)
    return found


def _call(namespace: dict[str, Any], frame: dict[str, Any]) -> dict[str, Any]:
    arguments = [plain.decode(tree) for tree in frame.get("args", [])]
    named = {name: plain.decode(tree) for name, tree in frame.get("kwargs", {}).items()}
    try:
        result = _lookup(namespace, frame["call"])(*arguments, **named)
    except BaseException as error:
        return {"raised": True, **_describe(error)}
    try:
        reply: dict[str, Any] = {"value": plain.encode(result)}
    except plain.NotPlain as error:
        own_equality = type(result).__module__ == "solution" and type(result).__eq__ is not object.__eq__
        return {"refused": str(error)[:200], "own_equality": own_equality}
    except BaseException as error:  # a value whose own methods fail while it is read
        return {"raised": True, **_describe(error)}
    if frame.get("arguments_back"):
        reply["args"] = [_after(value) for value in arguments]
    return reply


def _after(value: Any) -> Any:
    """A mutable argument as the call left it, None for the others."""
    if type(value) not in (list, dict, set, bytearray):
        return None
    try:
        return plain.encode(value)
    except plain.NotPlain:
        return None


def _kind(loaded: dict[str, Any], name: str) -> dict[str, Any]:
    """How a global of the program may be used by the tests' jail."""
    namespace = loaded["namespace"]
    if name not in namespace:
        return {"kind": "function"} if name == "candidate" or callable(_lookup(namespace, name)) else {"kind": "absent"}
    if name not in loaded["changed"]:
        return {"kind": "setup"}
    value = namespace[name]
    if isinstance(value, types.ModuleType):
        return {"kind": "module", "name": value.__name__}
    if isinstance(value, type):
        return {"kind": "object"} if value.__module__ == "solution" else _importable(value)
    if callable(value):
        return {"kind": "function"} if getattr(value, "__module__", "") == "solution" else _importable(value)
    try:
        return {"kind": "value", "value": plain.encode(value)}
    except plain.NotPlain:
        return _importable(value)


def _importable(value: Any) -> dict[str, Any]:
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None) or getattr(value, "_name", "")
    if isinstance(module, str) and isinstance(name, str) and getattr(sys.modules.get(module), name, None) is value:
        return {"kind": "import", "module": module, "name": name}
    return {"kind": "function"} if callable(value) and not isinstance(value, type) else {"kind": "object"}


# --- tests in a jail of their own; the candidate is a proxy ---


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


def _run_tests(channel: Channel, job: dict[str, Any]) -> int:
    namespace = _module("tests")
    setup = job.get("setup") or ""
    try:
        exec(compile(setup, "setup.py", "exec", dont_inherit=True), namespace)
    except BaseException:
        pass  # the head of a program; the candidate's jail has it whole
    try:
        tree, asserts = _counted(job["code"])
        code = compile(tree, "tests.py", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError) as error:
        channel.send({"outcome": "infra_error", "where": "tests", **_describe(error)})
        return 1
    wanted = _names(code) | {job.get("entry_point") or ""}
    channel.send({"need": sorted(name for name in wanted if name and not hasattr(builtins, name))})
    proxy = _Proxy(channel)
    problem = _bind(namespace, proxy, channel.receive()["names"])
    if problem:
        channel.send({"outcome": "crossing", "message": problem})
        return 1
    return _judge(channel, job, namespace, code, asserts, {})


def _bind(namespace: dict[str, Any], proxy: _Proxy, names: dict[str, dict[str, Any]]) -> str:
    """Put what the program defines under the tests' names. Returns what cannot cross, if anything."""
    import importlib

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
    channel: Channel, job: dict[str, Any], namespace: dict[str, Any], code: types.CodeType, asserts: int, extra: dict
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
            outcome = {"outcome": "wrong_answer", **_describe(error)}
        else:
            outcome = {"outcome": "runtime_error", **(theirs or _describe(error))}
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


def _run_weak(channel: Channel, job: dict[str, Any]) -> int:
    """Program and tests in one process. A determined program can forge this verdict: it is marked as weak."""
    loaded = _load(channel, job)
    if loaded is None:
        return 1
    channel.send({"loaded": True})
    secret = channel.receive()  # the tests and the nonce arrive after the program's top level has run
    tree, asserts = _counted(secret["code"])
    code = compile(tree, "tests.py", "exec", dont_inherit=True)
    return _judge(channel, job, loaded["namespace"], code, asserts, {"nonce": secret["nonce"]})
