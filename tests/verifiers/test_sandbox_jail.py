"""The jail from inside: what a program sees, may write, may use up; what is left of it afterwards; and the tiers."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.verifiers.hostile import descendants
from verifiers import sandbox as sandbox_package
from verifiers.code import CodeVerifier
from verifiers.sandbox import Limits, Sandbox, SandboxError, kernel, probe

_TIERS = [
    tier for tier, here in (("T1", probe()["tier"] == "T1"), ("T2", probe()["landlock_abi"] > 0)) if here
]
pytestmark = pytest.mark.skipif(not _TIERS, reason=f"no isolation here: {probe()['errors']}")


@pytest.fixture(scope="module", params=_TIERS)
def jail(request: pytest.FixtureRequest) -> Iterator[CodeVerifier]:
    with CodeVerifier(tier=request.param, time_limit=20) as verifier:
        yield verifier


def run(jail: CodeVerifier, program: str, **tests: object) -> str:
    """What the program prints (or why it failed): its output is never the expected one."""
    tests = {"type": "stdio", "cases": [{"stdin": "", "stdout": "\0"}], **tests}
    verdict = jail.verify({"completion": program, "tests": tests})
    assert verdict.status == "fail", verdict
    return verdict.details.get("stdout", "").strip() if verdict.reason == "wrong_answer" else verdict.reason


def attempt(jail: CodeVerifier, statement: str) -> str:
    """Name of the exception that one statement raises in the jail, `done` for none."""
    program = f"try:\n    {statement}\n    print('done')\nexcept Exception as error:\n    print(type(error).__name__)"
    return run(jail, program)


def test_no_network(jail: CodeVerifier) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        port = server.getsockname()[1]
        assert "Error" in attempt(jail, f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)")
        with pytest.raises(TimeoutError):
            server.accept()
    for family in ("AF_INET, socket.SOCK_DGRAM", "AF_INET6", "AF_UNIX", "AF_NETLINK, socket.SOCK_RAW"):
        assert attempt(jail, f"import socket; socket.socket(socket.{family})") == "PermissionError"
    assert (
        attempt(jail, "import socket; socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)")
        == "PermissionError"
    )
    assert (
        attempt(jail, "import socket; a, b = socket.socketpair(); a.send(b'x'); assert b.recv(1) == b'x'")
        == "done"
    )
    started = time.monotonic()
    assert "error" in attempt(jail, "import socket; socket.gethostbyname('example.com')").lower()
    assert time.monotonic() - started < 15


def test_no_writes_outside_the_scratch_folder(jail: CodeVerifier, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    target = tmp_path / "victim"
    target.write_text("whole")
    target.chmod(0o666)
    refused = ("FileNotFoundError", "PermissionError", "OSError")
    folders = ("", "/usr", "/etc", "/dev", "/var/tmp")
    for path in (tmp_path / "new", target, *(f"{folder}/escape" for folder in folders)):
        assert attempt(jail, f"open({str(path)!r}, 'w').write('x')") in refused
    assert "Error" in attempt(jail, f"import os; os.unlink({str(target)!r})")
    assert "Error" in attempt(jail, "import os; os.link('/usr/bin/env', 'mine')")
    assert attempt(jail, "open('here', 'w').write('x')") == "done"
    assert target.read_text() == "whole"
    assert [p.name for p in tmp_path.iterdir()] == ["victim"]
    assert not any(Path(folder, "escape").exists() for folder in ("/usr", "/etc", "/dev", "/", "/var/tmp"))


@pytest.mark.parametrize("tier", _TIERS)
def test_the_environment_does_not_cross(tier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    with CodeVerifier(tier=tier, time_limit=20) as fresh:  # its fork server starts with the variable set
        assert (
            run(fresh, "import os; print(os.environ.get('SECRET_TOKEN'), os.environ['LANG'])")
            == "None C.UTF-8"
        )
        look = "print(b'hunter2' in open('/proc/self/environ', 'rb').read())"
        assert run(fresh, look) in ("False", "runtime_error")


def test_host_files_and_secrets_cannot_be_read(jail: CodeVerifier, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    tmp_path.chmod(0o755)
    secret.chmod(0o644)
    for path in (secret, Path.home() / ".bashrc", __file__, "/etc/shadow", "/proc/1/mem"):
        assert "Error" in attempt(jail, f"open({str(path)!r}).read()")
    places = [f"{Path.home()}/*", "/home/*/*", f"{tmp_path.parent}/*", f"{tmp_path}/*"]
    look = f"import os, glob; print(dict(os.environ), [glob.glob(place) for place in {places!r}])"
    assert "hunter2" not in run(jail, look)
    assert run(jail, "import os\nprint(sorted(os.listdir('.')))") == "[]"
    scan = "import os\ntry: print([p for p in os.listdir('/proc') if p.isdigit()])\nexcept OSError: print('none')"
    assert run(jail, scan) in ("['1', '2']", "none")


def test_one_job_leaves_nothing_to_the_next(jail: CodeVerifier) -> None:
    assert run(jail, "open('left', 'w').write('x'); import os; print(os.path.exists('left'))") == "True"
    assert run(jail, "import os; print(os.path.exists('left'))") == "False"


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("ptrace(0, 0, 0, 0)", "EPERM"), ("unshare(0x10000000)", "EPERM"),
        ("setns(os.open('/proc/self/ns/user', os.O_RDONLY), 0)", "EPERM"),
        ("mount(b'a', b'/tmp', b'tmpfs', 0, 0)", "EPERM"), ("syscall(321, 0, None, 0)", "EPERM"),
        ("syscall(425, 8, ctypes.create_string_buffer(120))", "EPERM"), ("syscall(250, 0, -3, 0)", "EPERM"),
        ("syscall(298, None, 0, -1, -1, 0)", "EPERM"), ("syscall(0x40000000 | 41, 2, 1, 0)", "ENOSYS"),
        ("syscall(41, 2, 1, 0)", "EPERM"), ("syscall(435, None, 0)", "ENOSYS"),
        ("syscall(56, 0x10000000 | 17, 0, 0, 0, 0)", "EPERM"), ("syscall(319, b'x', 0)", "EPERM"),
        ("chroot(b'/tmp')", "EPERM"), ("syscall(29, 0, 4096, 0o1600)", "EPERM"),
        ("sethostname(b'x', 1)", "EPERM"), ("syscall(302, os.getppid() or 1, 7, None, None)", "EPERM"),
    ],
)  # fmt: skip
def test_system_calls_that_reach_out_are_refused(jail: CodeVerifier, call: str, error: str) -> None:
    if "syscall" in call and kernel.machine() != "x86_64":
        pytest.skip("numbers of another machine")
    program = f"import ctypes, errno, os\nr = ctypes.CDLL(None, use_errno=True).{call}\n"
    assert run(jail, program + "print(r, errno.errorcode.get(ctypes.get_errno()))") == f"-1 {error}"


@pytest.mark.parametrize("deep", [2500])
def test_deep_folders_cost_the_program_and_nobody_else(jail: CodeVerifier, deep: int) -> None:
    program = f"import os\nfor i in range({deep}):\n    os.mkdir('d'); os.chdir('d')\nprint('made')"
    assert run(jail, program) in ("made", "runtime_error")
    assert run(jail, "import os\nprint(os.listdir('.'))") == "[]"


def test_no_capabilities_and_no_way_to_gain_any(jail: CodeVerifier) -> None:
    look = (
        "import ctypes, os, struct\nlib = ctypes.CDLL(None)\nhead = struct.pack('=Ii', 0x20080522, 0)\n"
        "data = ctypes.create_string_buffer(24)\nassert lib.syscall(125, head, data) == 0\n"
        "print(data.raw.strip(b'\\0'), lib.prctl(39, 0, 0, 0, 0), os.getuid() != 0)"
    )
    if kernel.machine() == "x86_64":
        got = run(jail, look)
        # T2 keeps CAP_DAC_READ_SEARCH (bit 2) when root's interpreter lies in a closed folder; Landlock bounds it
        kept = r"b'\x04\x00\x00\x00\x04' 1 True" if jail.tier() == "T2" and os.geteuid() == 0 else ""
        assert got in ("b'' 1 True", kept)


def test_fork_bombs_are_bounded(jail: CodeVerifier) -> None:
    count = (
        "import os, time\nn = 0\ntry:\n    while n < 200:\n        if os.fork() == 0: time.sleep(60)\n        n += 1\n"
        "except OSError: pass\nprint(n)"
    )
    assert 8 <= int(run(jail, count)) <= 40
    started = time.monotonic()
    assert run(jail, "import os\nwhile True: os.fork()", time_limit=2) in ("runtime_error", "time_limit")
    assert time.monotonic() - started < 15


def test_memory_of_all_processes_together_is_limited(jail: CodeVerifier) -> None:
    many = (
        "import os, time\nfor _ in range(5):\n    if os.fork() == 0:\n        x = b'x' * (90 << 20); time.sleep(20)\n"
        "time.sleep(20)\n"
    )
    assert run(jail, many, memory_limit=200) == "memory_limit"
    assert run(jail, "x = b'x' * (400 << 20)", memory_limit=200) == "memory_limit"
    assert run(jail, "x = b'x' * (100 << 20)\nprint(len(x))", memory_limit=200) == str(100 << 20)


def test_disk_and_file_counts_are_limited(jail: CodeVerifier) -> None:
    fill = "i = 0\nwhile i < 400:\n    open(f'f{i}', 'wb').write(b'a' * (2 << 20)); i += 1\nprint('filled')"
    assert run(jail, fill) == "runtime_error"
    flood = "i = 0\nwhile i < 10**6:\n    open(str(i), 'w').close(); i += 1"
    assert run(jail, flood, time_limit=5) in ("runtime_error", "time_limit")


def test_a_job_may_have_another_disk_than_the_one_before(jail: CodeVerifier) -> None:
    fill = "open('f', 'wb').write(b'x' * (2 << 20))"
    with contextlib.closing(Sandbox(jail.tier())) as sandbox:
        for disk, wrong in ((1 << 20, True), (64 << 20, False), (1 << 20, True)):
            session = sandbox.start(Limits(disk=disk))
            session.send({"mode": "stdio", "source": f"{fill}\n"})
            session.wait(time.monotonic() + 20)
            assert (session.close().status != 0) == wrong


IDLE = {"T1": 4, "T2": 2}
"""Processes of a sandbox between two jobs: the fork server, its next job's ready process, and who holds namespaces."""


def idle(sandbox: Sandbox, tier: str) -> list[int]:
    """The sandbox's processes, once the next job's is ready; the fork server makes that after it has answered."""
    deadline = time.monotonic() + 10
    while len(found := sorted(descendants([sandbox._process.pid]))) != IDLE[tier]:
        assert time.monotonic() < deadline, found
        time.sleep(0.01)
    return found


@pytest.mark.parametrize("which", ["program", "holder"])
def test_a_waiting_process_that_is_killed_is_replaced(jail: CodeVerifier, which: str) -> None:
    if jail.tier() != "T1" and which == "holder":
        pytest.skip("only a pid namespace has a process that holds it")
    with contextlib.closing(Sandbox(jail.tier())) as sandbox:
        for _ in range(3):
            sandbox.self_check()
            found = idle(sandbox, jail.tier())
            deadline = time.monotonic() + 10
            os.kill(killed := found[-1 if which == "program" else -2], signal.SIGKILL)
            while killed in descendants([sandbox._process.pid]):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            sandbox.self_check()


def test_a_job_killed_at_once_is_one_job_and_no_more(jail: CodeVerifier) -> None:
    with contextlib.closing(Sandbox(jail.tier())) as sandbox:
        sandbox.self_check()
        assert idle(sandbox, jail.tier())
        for _ in range(20):
            ended = sandbox.start(Limits()).close()  # killed before or after its process took it
            assert (ended.status, ended.killed) in ((None, None), (signal.SIGKILL, None))
        assert idle(sandbox, jail.tier())  # none is left over, none is missing
        session = sandbox.start(Limits())
        session.send({"mode": "stdio", "source": "print(6 * 7)\n"})
        session.wait(time.monotonic() + 20)
        assert session.close().status == 0
        assert session.stdout == b"42\n"


def test_the_environment_is_the_same_everywhere(jail: CodeVerifier) -> None:
    look = "import os, time\nprint(os.environ['LANG'], time.tzname[0], os.environ['PYTHONHASHSEED'])"
    assert run(jail, look) == "C.UTF-8 UTC 0"
    hashes = "print(hash('x'), hash('synth'), [*{'a', 'b', 'c', 'd', 'e'}])"
    with CodeVerifier(tier=jail.tier(), time_limit=20) as other:
        assert run(jail, hashes) == run(jail, hashes) == run(other, hashes)
    here = subprocess.run(
        [sys.executable, "-c", hashes],
        env={"PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run(jail, hashes) == here.stdout.strip()
    assert "''" not in run(jail, "import sys\nprint(sys.path)")


def _descendants(jail: CodeVerifier) -> set[int]:
    """Processes below this verifier's own fork servers: other test processes have theirs."""
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                parents[int(name)] = int(Path(f"/proc/{name}/stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
    found = {sandbox._process.pid for sandbox in jail._idle}
    while below := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= below
    return found


def test_nothing_is_left_of_many_jobs(jail: CodeVerifier) -> None:
    tests = {"type": "stdio", "cases": [{"stdin": "1\n", "stdout": "1\n"}]}
    programs = [
        "print(input())",
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0: time.sleep(60)\n"
        "    os._exit(0)\nprint(1)",
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\nprint(1)",
        "open('f', 'w').write('x' * 10**6)\nprint(1)",
        "import os\nos.kill(0, 9)",
        "1 / 0",
    ]
    run(jail, "print()")
    time.sleep(0.1)
    before = (len(os.listdir("/proc/self/fd")), len(Path("/proc/self/mounts").read_text().splitlines()))
    processes = _descendants(jail)
    assert processes
    rows = [{"completion": p + f"\n# {i}", "tests": tests} for i in range(8) for p in programs]
    verdicts = list(jail.verify_batch(rows))
    assert [v.reason for v in verdicts[:6]] == ["accepted"] * 4 + ["runtime_error"] * 2
    after = (len(os.listdir("/proc/self/fd")), len(Path("/proc/self/mounts").read_text().splitlines()))
    assert after == before
    # a fork server makes the first process of its next job's pid namespace after it has answered
    deadline = time.monotonic() + 10
    while len(_descendants(jail)) != len(processes) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(_descendants(jail)) == len(processes)


def test_close_ends_every_process_and_folder() -> None:
    sandbox = Sandbox("T2" if "T2" in _TIERS else _TIERS[0])
    pid, scratch = sandbox._process.pid, sandbox.scratch
    session = sandbox.start(Limits())
    session.send({"mode": "stdio", "source": "import time\ntime.sleep(60)"})
    assert session.receive(time.monotonic() + 20, 1 << 16) == {"begun": True}
    session.close()
    sandbox.close()
    sandbox.close()
    assert not Path(f"/proc/{pid}").exists()
    assert not scratch or not Path(scratch).exists()


def test_works_without_root() -> None:
    """In a user namespace this process has no power over the host and another user id."""
    if not probe()["primitives"]["user_namespace"] or probe()["tier"] != "T1":
        pytest.skip("no user namespaces")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            uid, gid = os.geteuid(), os.getegid()
            kernel.unshare(kernel.NEWUSER)
            kernel.write_id_maps(1234, uid, gid)
            sandbox = Sandbox("T1")
            sandbox.self_check()
            sandbox.close()
            code = 0 if os.geteuid() == 1234 else 2
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0


def test_probe_reports_what_the_doctor_shows() -> None:
    found = sandbox_package.probe()
    assert found["tier"] in ("T1", "T2")
    assert {"user_namespace", "pid_namespace", "landlock", "seccomp", "cgroup"} <= set(found["primitives"])
    assert all(isinstance(value, bool) for value in found["primitives"].values())
    assert found["python"].count(".") == 2


def test_an_unknown_tier_or_broken_preload_is_an_error() -> None:
    with pytest.raises(SandboxError, match="no_such_module"):
        Sandbox(_TIERS[0], preload=("no_such_module",))
