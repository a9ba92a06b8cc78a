"""The built wheel holds everything a run needs and works outside the clone, in an environment of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """synthloop's wheel, built from this tree without network."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--no-index", "-q"]
    done = subprocess.run([*command, "-w", str(folder), str(ROOT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (found,) = folder.glob("synthloop-*.whl")
    return found


def test_wheel_holds_code_recipes_templates_model_and_licence(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "synth",
        "verifiers",
        "trainers",
        "recipes",
    }
    assert any(name.endswith("licenses/LICENSE") for name in names)
    for package in ("synth", "verifiers", "trainers", "recipes"):
        assert f"{package}/py.typed" in names
        here = (ROOT / package).rglob("*")
        files = {p.relative_to(ROOT).as_posix() for p in here if p.is_file() and "__pycache__" not in p.parts}
        tracked = subprocess.run(["git", "ls-files", package], cwd=ROOT, capture_output=True, text=True)
        wanted = files & set(tracked.stdout.splitlines()) if tracked.returncode == 0 else files
        assert wanted <= names, f"not in the wheel: {sorted(wanted - names)[:5]}"
    assert "recipes/library/demo.yaml" in names
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        assert f"recipes/models/tiny/{name}" in names


@pytest.fixture(scope="module")
def clean_synth(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`synth` of a new environment: the wheel, and the dependencies (not the clone) of this one."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, with_pip=True, symlinks=True)
    python = folder / "bin" / "python"
    done = subprocess.run(
        [str(python), "-m", "pip", "install", "-q", "--no-index", "--no-deps", str(wheel)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    # A .pth line adds the folder itself but not the .pth files in it, so an editable install of the clone stays out.
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    dependencies = sysconfig.get_paths()["purelib"]
    (folder / "lib" / version / "site-packages" / "dependencies.pth").write_text(dependencies + "\n")
    return folder / "bin" / "synth"


@pytest.mark.slow
def test_wheel_previews_the_demo_outside_the_clone(clean_synth: Path, tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= {"NO_COLOR": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    python = clean_synth.with_name("python")
    where = subprocess.run(
        [str(python), "-c", "import recipes, synth; print(recipes.__file__)"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert where.stdout.startswith(str(python.parent.parent)), where.stdout + where.stderr
    command = [str(clean_synth), "preview", "demo", "-n", "1", "--set", "engine.name=transformers"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for word in ("math", "code"):
        assert word in done.stdout
    assert "pass" in done.stdout or "fail" in done.stdout, "no verdict is shown"
    assert not list(tmp_path.iterdir()), "a preview leaves nothing behind"
