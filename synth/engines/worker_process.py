"""A child process on the other end of a socket, and its certain end."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from typing import IO

from synth.engines.frames import Channel


class WorkerProcess:
    """`python -m MODULE FD PARENT_PID main|thread` with a socket at FD; ends with `kill`, or with this process.

    The last argument says whether it was started by the main thread: the kernel's parent-death signal follows threads.
    """

    def __init__(self, module: str, environment: dict[str, str], log: IO[bytes]) -> None:
        ours, theirs = socket.socketpair()
        where = "main" if threading.current_thread() is threading.main_thread() else "thread"
        command = [
            sys.executable,
            "-m",
            "synth.engines.vllm_worker",
            str(theirs.fileno()),
            str(os.getpid()),
            where,
        ]
        with theirs:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # Ctrl-C is the parent's business: it decides when the engine ends
            )
        self.channel = Channel(ours)
        self.owner = os.getpid()
        atexit.register(self.kill)

    def kill(self) -> None:
        """End the worker and everything it started. Does nothing in a fork of the process that owns it."""
        if os.getpid() != self.owner:
            return
        atexit.unregister(self.kill)
        self.channel.close()
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def ending(self) -> str:
        """How the dead process ended, in words."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self.process.wait(timeout=5)
            return f"was killed by signal {-code}" if code < 0 else f"exited with status {code}"
        return "closed its socket"
