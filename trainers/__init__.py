"""Changes models: the training loop and its methods. Importing this is light; torch is loaded when work starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trainers.contrastive_options import ContrastiveOptions, TokenBagOptions
from trainers.method_options import (
    AntidoteOptions,
    BoosterOptions,
    Course,
    LisaOptions,
    RepNoiseOptions,
    VaccineOptions,
)
from trainers.options import LoraOptions, ScratchOptions, TrainOptions

if TYPE_CHECKING:
    from trainers.core.model import write_snapshot
    from trainers.embedding.encoder import Encoder, open_encoder
    from trainers.embedding.loop import train_embedder
    from trainers.embedding.model import check_embedder
    from trainers.loop import TrainResult, train

__all__ = [
    "AntidoteOptions",
    "BoosterOptions",
    "ContrastiveOptions",
    "Course",
    "Encoder",
    "LisaOptions",
    "LoraOptions",
    "RepNoiseOptions",
    "ScratchOptions",
    "TokenBagOptions",
    "TrainOptions",
    "TrainResult",
    "VaccineOptions",
    "check_adapter",
    "check_embedder",
    "logprobs",
    "open_encoder",
    "train",
    "train_embedder",
    "write_snapshot",
]

# Names that come with torch, and where they are.
LAZY = {
    "train": "trainers.loop",
    "write_snapshot": "trainers.core.model",
    "TrainResult": "trainers.loop",
    "train_embedder": "trainers.embedding.loop",
    "check_embedder": "trainers.embedding.model",
    "Encoder": "trainers.embedding.encoder",
    "open_encoder": "trainers.embedding.encoder",
}


def __getattr__(name: str) -> Any:
    if name in LAZY:
        from importlib import import_module

        return getattr(import_module(LAZY[name]), name)
    raise AttributeError(f"module 'trainers' has no attribute '{name}'")


def check_adapter(model_path: str, lora: LoraOptions, same: bool = False, **hub: Any) -> None:
    """Raise InputError for layers that an adapter of this model cannot have, and with `same` unless the model's folder
    holds an adapter of this shape; its weights are not read."""
    from trainers.core.model import check_adapter

    check_adapter(model_path, lora, same, **hub)


def logprobs(
    model_path: str, token_ids: Sequence[Sequence[int]], device: str = "cpu", **hub: Any
) -> list[list[float]]:
    """log p(t_i | t_<i) for i >= 1 of each sequence, in float32 with the trainer's own forward pass.

    The trainer's side of the comparison with an engine: [len(ids) - 1] natural logarithms per sequence.
    """
    import torch

    from trainers.core.logprobs import sequence_logprobs
    from trainers.core.model import open_model
    from trainers.core.session import free_memory, quiet_bars

    with quiet_bars():
        model = open_model(model_path, TrainOptions(), torch.float32, **hub).eval().to(device)
    found = sequence_logprobs(model, token_ids)
    del model
    free_memory()
    return found
