"""One thread, and tiny models made once."""

from __future__ import annotations

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
