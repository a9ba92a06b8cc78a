"""Tiny random models of several families, with a byte-level tokenizer, and rows to train them on."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, Gemma2Config, GPT2Config, LlamaConfig, Qwen2Config

import trainers
from trainers.options import EarlyStopping, ScratchOptions, TrainOptions
from trainers.scratch import train_tokenizer

VOCAB = 270
FAMILIES = ("llama", "qwen2", "gpt2", "gemma2")
TEXTS = ["Q: 12+30\nA: 12+30=42. The answer is 42", "def add(a, b):\n    return a + b\n"]

EARLY: dict[str, Any] = {
    "max_steps": 40, "lr": 1e-2, "schedule": "constant", "dtype": "float32", "eval_every": 1, "save_every": 1,
    "early_stopping": EarlyStopping(patience=2),
}  # fmt: skip
# (rows, options) of trainings that one and two processes do alike: ragged rows, fewer rows than ranks, and one that
# is stopped and called again and then stops early with the weights of its best validation loss.
TWO_RANKS: list[tuple[int, dict[str, Any]]] = [
    (6, {"max_steps": 3, "batch_size": 5, "lr": 1e-2, "micro_batch_tokens": 60, "dtype": "float32"}),
    (1, {"max_steps": 1, "lr": 1e-2, "dtype": "float32"}),
    (5, EARLY),
]


def config(family: str, *, tied: bool = True, dropout: float = 0.0) -> Any:
    """A two-layer configuration of width 32."""
    common: dict[str, Any] = {
        "vocab_size": VOCAB,
        "tie_word_embeddings": tied,
        "bos_token_id": None,
        "eos_token_id": 0,
        "pad_token_id": 1,
    }
    if family == "gpt2":
        drops = {"resid_pdrop": dropout, "embd_pdrop": dropout, "attn_pdrop": dropout}
        return GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=128, **drops, **common)
    common |= {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 128,
        "attention_dropout": dropout,
    }
    if family == "gemma2":
        # A low cap, so that leaving the capping out would show.
        return Gemma2Config(head_dim=16, final_logit_softcapping=0.5, query_pre_attn_scalar=16, **common)
    return {"llama": LlamaConfig, "qwen2": Qwen2Config}[family](**common)


def build(family: str = "llama", *, tied: bool = True, dropout: float = 0.0, seed: int = 0) -> Any:
    """A random float32 model in evaluation mode; norms and biases are random too, so none is trivially neutral."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(
            config(family, tied=tied, dropout=dropout), dtype=torch.float32
        )
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def save(folder: Path, family: str = "llama", **options: Any) -> Path:
    """A model folder with a tokenizer."""
    dtype = options.pop("dtype", torch.float32)
    model = build(family, **options).to(dtype)
    model.config.dtype = dtype
    model.save_pretrained(folder)
    train_tokenizer(TEXTS, ScratchOptions(vocab_size=VOCAB, max_position=128)).save_pretrained(folder)
    return folder


def token_rows(count: int = 24, seed: int = 0, longest: int = 40) -> list[dict[str, Any]]:
    """Ragged rows of random tokens: a prompt and a learnt completion that ends with the end-of-sequence token."""
    draw = random.Random(seed)
    rows = []
    for index in range(count):
        prompt = [draw.randrange(2, VOCAB) for _ in range(draw.randint(1, longest // 2))]
        completion = [draw.randrange(2, VOCAB) for _ in range(draw.randint(0, longest // 2))] + [0]
        mask = [0] * len(prompt) + [1] * len(completion)
        rows.append({"sample_id": f"s{index:03d}", "token_ids": prompt + completion, "loss_mask": mask})
    return rows


class Stopped(Exception):
    """Stands for the power cut."""


def train_two_ranks_case(model: str, out: str, count: int, options: dict[str, Any]) -> trainers.TrainResult:
    """One training of TWO_RANKS; one that saves its states is stopped at its third step and called again."""
    rows, held = token_rows(count), token_rows(4, seed=9) if "eval_every" in options else None

    def stop(entry: dict[str, Any]) -> None:
        if entry["step"] == 3:
            raise Stopped

    settings = TrainOptions(**options)
    if "save_every" in options:
        with contextlib.suppress(Stopped):
            trainers.train(model, rows, out, settings, 3, on_step=stop, validation=held)
    return trainers.train(model, rows, out, settings, 3, validation=held)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Tensors of a model folder."""
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether two sets of tensors are bitwise the same."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
