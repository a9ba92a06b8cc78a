"""Packages that cannot load are removed from an environment; those that can, and torch's own fault, are left alone."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A virtual environment with pip: its Python and its site-packages."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return folder / "bin" / "python", folder / "lib" / version / "site-packages"


def add(site: Path, name: str, code: str) -> None:
    """Install a distribution of one module by hand."""
    (site / f"{name}.py").write_text(code)
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "INSTALLER").write_text("pip\n")
    (info / "RECORD").write_text("".join(f"{name}{tail},,\n" for tail in (".py", "-1.0.dist-info/METADATA")))


def check(python: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(python), str(ROOT / "tools" / "check_packages.py"), *words], capture_output=True, text=True
    )


def test_only_what_cannot_load_goes(environment: tuple[Path, Path]) -> None:
    python, site = environment
    add(site, "torch", "")
    add(site, "torchvision", "raise RuntimeError('operator torchvision::nms does not exist')")
    add(site, "torchaudio", "import os; os.abort()")
    add(site, "xformers", "")
    dry = check(python, "--dry-run")
    assert dry.returncode == 0
    assert "would remove torchvision 1.0" in dry.stdout
    assert (site / "torchvision.py").exists()
    done = check(python)
    assert done.returncode == 0, done.stderr
    assert "removed torchvision 1.0: it does not load here (RuntimeError: operator" in done.stdout
    assert "removed torchaudio 1.0" in done.stdout
    assert [
        (site / f"{name}.py").exists() for name in ("torchvision", "torchaudio", "xformers", "torch")
    ] == [
        False,
        False,
        True,
        True,
    ]
    again = check(python)
    assert (again.returncode, again.stdout) == (0, "")


def test_a_broken_torch_is_not_blamed_on_its_companions(environment: tuple[Path, Path]) -> None:
    python, site = environment
    add(site, "torch", "raise OSError('libcudart.so.13: cannot open shared object file')")
    add(site, "torchvision", "import torch")
    done = check(python)
    assert done.returncode == 1
    assert "libcudart.so.13" in done.stderr
    assert (site / "torchvision.py").exists()
