"""One thread, the same float32 CPU everywhere, and tiny models made once."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="session")
def light_garbage() -> Iterator[None]:
    """Leave what was imported out of garbage collection, which every training calls for."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def plain_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Train on the CPU, where `auto` means float32: the numbers compared here are those of that machine.

    A process started by a test does not see this and has to be told its dtype.
    """
    import torch
    from accelerate.state import AcceleratorState

    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, probe, lambda: False)
    # The first state of a process keeps its device for all that follow, those of other tests included.
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """model_folder(family, **options) -> folder of a tiny model, built on first use."""
    import tiny_models

    made: dict[str, Path] = {}

    def make(family: str = "llama", **options: object) -> Path:
        key = repr((family, sorted(options.items(), key=str)))
        if key not in made:
            made[key] = tiny_models.save(tmp_path_factory.mktemp(family) / "model", family, **options)
        return made[key]

    return make
