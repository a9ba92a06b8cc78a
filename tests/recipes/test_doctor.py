"""`synth doctor`: every lack is seen, named and answered; the exit status says whether recipes can run."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from recipes import doctor
from recipes.cli import doctor as verb
from recipes.doctor import Finding

GOOD_TORCH = {"version": "2.13.0", "cuda": "13.0", "gpus": 1}
GPU = {"name": "H100", "memory_mib": 81920, "driver": "550"}


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    verb.add_parser(parser.add_subparsers())
    return parser.parse_args(["doctor", *arguments])


@pytest.mark.slow
def test_the_real_machine_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    code = verb.run(parse("--json"))
    report = json.loads(capsys.readouterr().out)
    topics = [finding["topic"] for finding in report["findings"]]
    assert topics == [
        "python",
        "names",
        "torch",
        "vllm",
        "transformers",
        "gpu",
        "cores",
        "memory",
        "sandbox",
        "disk",
    ]
    assert code == (0 if report["can_run"] else 1)
    facts = {finding["topic"]: finding["facts"] for finding in report["findings"]}
    assert facts["torch"]["version"][0].isdigit()
    assert facts["disk"]["free"] > 0
    assert {"tier", "primitives"} <= set(facts["sandbox"])
    assert report["findings"][1]["mark"] == "ok", "our own names must be ours here"


@pytest.mark.parametrize(("mark", "status"), [("ok", 0), ("warn", 0), ("lack", 1)])
def test_exit_status(monkeypatch: pytest.MonkeyPatch, mark: doctor.Mark, status: int) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: [Finding("torch", mark, "seen", "fix")])
    assert verb.run(parse()) == status


def test_text_is_aligned_and_says_what_to_do() -> None:
    text = doctor.as_text(
        [Finding("torch", "ok", "2.13"), Finding("transformers", "lack", "gone", "do this\nand that")]
    )
    assert text.splitlines() == [
        "ok    torch         2.13",
        "lack  transformers  gone",
        "                    -> do this",
        "                    -> and that",
        "recipes cannot run here yet: transformers",
    ]
    assert "\x1b[31m" in doctor.as_text([Finding("a", "lack", "b")], color=True)


@pytest.mark.parametrize(("no_color", "colored"), [("", True), ("1", False)])
def test_no_color_is_honoured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], no_color: str, colored: bool
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: [Finding("torch", "ok", "seen")])
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    verb.run(parse())
    assert ("\x1b[" in capsys.readouterr().out) is colored


def test_old_python_is_a_lack() -> None:
    finding = doctor.python_finding((3, 9, 18))
    assert finding.mark == "lack"
    assert "3.10" in finding.fix
    assert doctor.python_finding((3, 10, 0)).mark == "ok"


def test_foreign_package_with_our_name_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project on the index owns the name `verifiers`: installed beside us it answers to our imports."""
    site = tmp_path / "site"
    (site / "verifiers").mkdir(parents=True)
    (site / "verifiers" / "__init__.py").write_text("raise SystemExit('a foreign package was imported')\n")
    info = site / "verifiers-0.1.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: verifiers\nVersion: 0.1.9\n")
    (info / "RECORD").write_text("verifiers/__init__.py,,\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, "verifiers", raising=False)
    finding = doctor.names_finding(Path(doctor.__file__).parent.parent)
    assert finding.mark == "lack"
    assert str(site / "verifiers" / "__init__.py") in finding.seen
    assert "pip uninstall verifiers" in finding.fix


def test_second_owner_of_a_name_is_a_warning_while_ours_wins() -> None:
    finding = doctor._judge_names({}, {"synth": ["synth"], "recipes": ["synthloop"]})
    assert (finding.mark, finding.facts["other_distributions"]) == ("warn", ["synth"])
    assert doctor._judge_names({}, {"recipes": ["Synthloop"]}).mark == "ok"


def test_a_broken_or_hanging_import_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    crash = "import os; os.abort()"
    bad = "raise RuntimeError('operator torchvision::nms does not exist')"
    monkeypatch.setattr(
        doctor, "_PROBES", {"json": crash, "csv": bad, "not_there_at_all": "", "ast": "print('{}x')"}
    )
    found = doctor.collect_imports(doctor.start_imports())
    assert "ended with status" in found["json"]["error"]
    assert found["csv"]["error"] == "RuntimeError: operator torchvision::nms does not exist"
    assert found["not_there_at_all"] == {}
    assert "ended with status 0" in found["ast"]["error"]
    monkeypatch.setattr(doctor, "_PROBES", {"json": "import time; time.sleep(60)"})
    monkeypatch.setattr(doctor, "IMPORT_LIMIT_S", 0.2)
    assert "did not end" in doctor.collect_imports(doctor.start_imports())["json"]["error"]


def test_engines_lacking() -> None:
    fine = {"version": "5.0"}
    vllm, transformers = doctor.engine_findings({"vllm": {}, "transformers": fine})
    assert (vllm.mark, transformers.mark) == ("warn", "ok"), "without vLLM recipes still run"
    assert "transformers engine" in vllm.seen
    broken = {"error": "operator torchvision::nms does not exist"}
    vllm, transformers = doctor.engine_findings({"vllm": broken, "transformers": broken})
    assert transformers.mark == "lack"
    assert "uninstall torchvision" in vllm.fix
    assert doctor.torch_finding({}).mark == "lack"
    assert doctor.torch_finding({"error": "boom"}).seen == "does not load: boom"


def test_gpu_beside_the_wrong_torch_is_a_warning() -> None:
    assert doctor.gpu_finding([GPU], GOOD_TORCH).mark == "ok"
    assert doctor.gpu_finding([], GOOD_TORCH).mark == "ok"
    cpu_build = doctor.gpu_finding([GPU], {"version": "2.13.0+cpu", "cuda": None, "gpus": 0})
    assert (cpu_build.mark, "[vllm]" in cpu_build.fix) == ("warn", True)
    unseen = doctor.gpu_finding([GPU], {**GOOD_TORCH, "gpus": 0})
    assert "CUDA_VISIBLE_DEVICES" in unseen.fix


def test_nvidia_smi_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA H100, 80GB, 81559, 550.54'\necho 'garbage'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert doctor.nvidia_gpus() == [{"name": "NVIDIA H100, 80GB", "memory_mib": 81559, "driver": "550.54"}]
    tool.write_text("#!/bin/sh\necho 'driver not loaded'\nexit 9\n")
    assert doctor.nvidia_gpus() == []


@pytest.mark.parametrize(("gib", "mark"), [(100, "ok"), (3, "warn"), (0.1, "lack")])
def test_little_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gib: float, mark: str) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: SimpleNamespace(free=int(gib * 2**30)))
    finding = doctor.disk_finding(tmp_path / "not" / "yet")
    assert finding.mark == mark
    assert bool(finding.fix) == (mark != "ok")


@pytest.mark.parametrize(("gib", "mark"), [(None, "ok"), (16, "ok"), (3, "warn"), (1, "lack")])
def test_little_memory_and_one_core(monkeypatch: pytest.MonkeyPatch, gib: float | None, mark: str) -> None:
    monkeypatch.setattr(doctor, "available_memory", lambda: None if gib is None else int(gib * 2**30))
    monkeypatch.setattr(doctor, "usable_cores", lambda: 1.0)
    cores, memory = doctor.machine_findings()
    assert (cores.mark, memory.mark) == ("warn", mark)


@pytest.mark.parametrize(("quota", "cores"), [("50000 100000", 0.5), ("max 100000", None), ("", None)])
def test_container_quota_counts(monkeypatch: pytest.MonkeyPatch, quota: str, cores: float | None) -> None:
    monkeypatch.setattr(doctor, "_lines", lambda path: [quota] if quota else [])
    unlimited = (
        len(doctor.os.sched_getaffinity(0))
        if hasattr(doctor.os, "sched_getaffinity")
        else doctor.os.cpu_count()
    )
    assert doctor.usable_cores() == (cores or unlimited)


@pytest.mark.parametrize(("tier", "mark"), [("T1", "ok"), ("T2", "warn"), (None, "lack")])
def test_sandbox_tiers(monkeypatch: pytest.MonkeyPatch, tier: str | None, mark: str) -> None:
    sandbox = importlib.import_module("verifiers.sandbox")
    probe = {
        "tier": tier,
        "primitives": {"user_namespace": True, "landlock": False},
        "advice": [] if mark == "ok" else ["do"],
    }
    monkeypatch.setattr(sandbox, "probe", lambda: probe)
    finding = doctor.sandbox_finding()
    assert (finding.mark, finding.fix, finding.facts) == (mark, "" if mark == "ok" else "do", probe)
    assert "(user namespace; not here: landlock)" in finding.seen
