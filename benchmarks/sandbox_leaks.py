"""Whether anything is left of ten thousand programs.

    python benchmarks/sandbox_leaks.py [--runs 10000] [--tier T1]

Programs of every kind, most of them ill-behaved; afterwards processes, descriptors, mounts, files, control groups and
shared memory must be what they were. Exit status 1 if they are not.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from verifiers.code import CodeVerifier
from verifiers.sandbox import probe

WORKERS = 2
STDIO = {
    "completion": "print(sum(map(int, input().split())))\n",
    "tests": {"type": "stdio", "cases": [{"stdin": "1 2\n", "stdout": "3\n"}]},
}
_ADD = {
    "type": "function",
    "entry_point": "add",
    "cases": [{"args": [1, 2], "expected": 3}, {"args": [5, 7], "expected": 12}],
}
_LOOP = {"type": "assert", "code": "for a in (1, 2):\n    assert add(a, 2) == a + 2\n", "entry_point": "add"}
_SUM = STDIO["tests"]
_CHECKED = {**_SUM, "checker": {"code": "import sys\nsys.exit(open('output.txt').read().strip() != '3')"}}
_GOOD = "def add(a, b):\n    return a + b\n"
_DAEMON = """import os, time
print(3, flush=True)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0: time.sleep(60)
"""
_THREADS = """import threading, time
for _ in range(5): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
print(3)
"""
_FILES = """import os
os.makedirs('a/b/c')
for n in range(50): open(f'a/b/c/{n}', 'w').write('x' * 9999)
os.mkfifo('f')
print(3)
"""
ILL_BEHAVED: list[tuple[str, dict[str, Any]]] = [
    (_GOOD, _ADD), (_GOOD, _LOOP), (STDIO["completion"], _SUM), (STDIO["completion"], _CHECKED),
    (_DAEMON, _SUM),
    ("import os, time\nfor _ in range(99):\n    if os.fork() == 0: time.sleep(60)", _SUM),
    (_THREADS, _SUM),
    (_FILES, _SUM),
    ("import os\ndef add(a, b): os.kill(0, 9)", _ADD),
    ("import os\ndef add(a, b): os._exit(0)", _LOOP),
    ("import ctypes\nctypes.string_at(0)", _SUM),
    ("import os\nos.closerange(0, 99)\nos.fork()", _SUM),
    ("import os\nwhile True: os.write(1, b'x' * 65536)", _SUM),
    ("x = 'x' * 10 ** 10", _SUM),
    ("import mmap\nm = mmap.mmap(-1, 64 << 20)\nm.write(b'x' * (64 << 20))\ndef add(a, b): return a + b", _ADD),
    ("import multiprocessing as m\nwith m.get_context('fork').Pool(2) as p: print(sum(p.map(abs, [1, 2])))", _SUM),
    ("import subprocess\nsubprocess.Popen(['sleep', '60'], start_new_session=True)\nprint(3)", _SUM),
    ("import time\ntime.sleep(60)", {**_SUM, "time_limit": 0.1}),
]  # fmt: skip


def parents_of() -> dict[int, int]:
    """The parent of each process of this machine."""
    found: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                found[int(name)] = int(Path(f"/proc/{name}/stat").read_text().rsplit(")", 1)[1].split()[1])
    return found


def traces(code: CodeVerifier | None = None) -> dict[str, Any]:
    """What of this process, its children and its machine must be the same after any number of jobs."""
    parents = parents_of()
    below = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in below} - below:
        below |= more
    groups = Path("/sys/fs/cgroup").rglob(f"synthloop-{os.getpid()}-*")
    scratch = Path(tempfile.gettempdir()).glob(f"synthloop-job-{os.getpid()}-*/*")
    return {
        "processes": len(below),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "mounts": sorted(Path("/proc/self/mounts").read_text().splitlines()),
        "scratch": sorted(str(path) for path in scratch),
        "groups": sorted(str(path) for path in groups),
        "shared memory": sorted(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else [],
        "segments": [Path(f"/proc/sysvipc/{kind}").read_text() for kind in ("msg", "sem", "shm")],
        "server descriptors": [len(os.listdir(f"/proc/{pid}/fd")) for pid in servers(code, parents)],
    }  # fmt: skip


def servers(code: CodeVerifier | None, parents: dict[int, int]) -> Iterator[int]:
    """The fork servers proper: in T1 each is the child of the process that made its namespaces."""
    for sandbox in code._idle if code else []:
        pid = sandbox._process.pid
        yield min((child for child, parent in parents.items() if parent == pid), default=pid)


def leaks(runs: int, tier: str) -> dict[str, tuple[Any, Any]]:
    """Judge `runs` programs, two at a time. Returns what differs afterwards: name -> (before, after)."""
    rows = [
        {"completion": f"{program}\n# {number}", "tests": {"time_limit": 20, **tests, "memory_limit": 256}}
        for number in range(runs)
        for program, tests in [ILL_BEHAVED[number % len(ILL_BEHAVED)]]
    ]
    outside = traces()
    with CodeVerifier(tier=tier) as code:
        list(
            code.verify_batch(
                [{**row, "completion": row["completion"] + "!"} for row in rows[:4]], workers=WORKERS
            )
        )
        with contextlib.ExitStack() as stack:  # as many fork servers as two workers can come to use
            servers = [stack.enter_context(code._borrow()) for _ in range(2 * WORKERS)]
            assert len(servers) == 2 * WORKERS
        before = settled(code)
        verdicts = list(code.verify_batch(rows, workers=WORKERS))
        after = settled(code, before)
    ended = settled(None, outside)
    counts: dict[str, int] = {}
    for verdict in verdicts:
        counts[verdict.reason] = counts.get(verdict.reason, 0) + 1
    print(f"{len(verdicts)} verdicts in {tier}: {dict(sorted(counts.items()))}", file=sys.stderr)
    different = {name: (before[name], after[name]) for name in before if before[name] != after[name]}
    different |= {
        f"{name}, closed": (outside[name], ended[name]) for name in outside if outside[name] != ended[name]
    }
    if counts.get("infra_error"):
        different["infra_error"] = (0, counts["infra_error"])
    return different


def settled(code: CodeVerifier | None, wanted: dict[str, Any] | None = None) -> dict[str, Any]:
    """The traces, once nothing more is about to end."""
    deadline = time.monotonic() + 5
    found = traces(code)
    while time.monotonic() < deadline:
        time.sleep(0.1)
        before, found = found, traces(code)
        if found == (wanted or before):
            break
    return found


def main(arguments: list[str] | None = None) -> int:
    """The command line above."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--tier", default=probe()["tier"])
    args = parser.parse_args(arguments)
    different = leaks(args.runs, args.tier)
    for name, (before, after) in different.items():
        print(f"left: {name}: {before} -> {after}")
    print("nothing is left" if not different else f"{len(different)} kinds of traces")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
