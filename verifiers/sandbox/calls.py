"""Serves calls of a loaded program: arguments and results as plain data."""

from __future__ import annotations

import sys
import types
from typing import Any

from . import plain
from .loading import Channel, describe, load


def serve_calls(channel: Channel, job: dict[str, Any]) -> int:
    loaded = load(channel, job)
    if loaded is None:
        return 1
    namespace = loaded["namespace"]
    entry_point = job.get("entry_point")
    if entry_point and not callable(_lookup(namespace, entry_point)):
        channel.send(
            {"outcome": "runtime_error", "exception": "NameError", "message": f"no function {entry_point}"}
        )
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
        return {"raised": True, **describe(error)}
    try:
        reply: dict[str, Any] = {"value": plain.encode(result)}
    except plain.NotPlain as error:
        own_equality = type(result).__module__ == "solution" and type(result).__eq__ is not object.__eq__
        return {"refused": str(error)[:200], "own_equality": own_equality}
    except BaseException as error:  # a value whose own methods fail while it is read
        return {"raised": True, **describe(error)}
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
        return (
            {"kind": "function"}
            if name == "candidate" or callable(_lookup(namespace, name))
            else {"kind": "absent"}
        )
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
    module = getattr(value, "__module__", None)
    name = getattr(value, "__qualname__", None) or getattr(value, "_name", "")
    if (
        isinstance(module, str)
        and isinstance(name, str)
        and getattr(sys.modules.get(module), name, None) is value
    ):
        return {"kind": "import", "module": module, "name": name}
    return {"kind": "function"} if callable(value) and not isinstance(value, type) else {"kind": "object"}
