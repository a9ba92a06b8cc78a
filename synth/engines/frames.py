"""Frames between the parent and the vLLM worker process: four length bytes, then JSON in ASCII.

ASCII escapes carry every string a model can produce, lone surrogates included.
"""

from __future__ import annotations

import json
import select
import socket
import struct
from typing import Any

_LENGTH = struct.Struct("!I")
_CHUNK = 1 << 16


class Channel:
    """One end of a stream socket that carries JSON objects."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._buffer = bytearray()

    def send(self, message: dict[str, Any]) -> None:
        """Send one object. Raises OSError when the other end is gone."""
        body = json.dumps(message, separators=(",", ":")).encode("ascii")
        self.connection.sendall(_LENGTH.pack(len(body)) + body)

    def receive(self, timeout: float | None = None) -> dict[str, Any] | None:
        """The next object, or None when the other end is gone. Raises TimeoutError after `timeout` idle seconds."""
        while True:
            if len(self._buffer) >= _LENGTH.size:
                end = _LENGTH.size + _LENGTH.unpack_from(self._buffer)[0]
                if len(self._buffer) >= end:
                    message = json.loads(self._buffer[_LENGTH.size : end])
                    del self._buffer[:end]
                    return message
            if timeout is not None and not select.select([self.connection], [], [], timeout)[0]:
                raise TimeoutError
            try:
                data = self.connection.recv(_CHUNK)
            except ConnectionError:
                return None
            if not data:
                return None
            self._buffer += data

    def close(self) -> None:
        self.connection.close()
