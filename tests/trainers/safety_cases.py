"""Rows, options and single steps of the safety methods, shared by their tests."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import tiny_models
import torch

import trainers
from trainers.core.batching import Example, micro_batches
from trainers.core.method import Method, Moment
from trainers.core.model import add_adapter
from trainers.method_options import (
    AntidoteOptions,
    BoosterOptions,
    LisaOptions,
    RepNoiseOptions,
    VaccineOptions,
)
from trainers.methods import make
from trainers.options import LoraOptions, TrainOptions

# The middle of a turn of Lisa's on the user's rows.
AT = Moment(step=2, steps=10, rng_seed=11)

# Each method with knobs that matter; with its knobs at 0 it is SFT on the rows of the stream named.
SECTIONS: dict[str, dict[str, Any]] = {
    "booster": {"booster": BoosterOptions(lam=2.0, alpha=0.5)},
    "booster+vaccine": {"booster": BoosterOptions(lam=2.0, alpha=0.5, vaccine=VaccineOptions(rho=0.5))},
    "vaccine": {"vaccine": VaccineOptions(rho=0.5)},
    "repnoise": {"repnoise": RepNoiseOptions(alpha=1.0, beta=0.5)},
    "lisa": {"lisa": LisaOptions(alignment_steps=1, user_steps=2, rho=0.5)},
    "antidote": {"antidote": AntidoteOptions(ratio=0.2)},
}
OFF: dict[str, tuple[str, dict[str, Any]]] = {
    "booster": ("alignment", {"booster": BoosterOptions(lam=0.0)}),
    "booster+vaccine": (
        "alignment",
        {"booster": BoosterOptions(lam=0.0, vaccine=VaccineOptions(rho=0.0))},
    ),
    "vaccine": ("alignment", {"vaccine": VaccineOptions(rho=0.0)}),
    "repnoise": ("alignment", {"repnoise": RepNoiseOptions(alpha=0.0, beta=0.0)}),
    "lisa": ("alignment", {"lisa": LisaOptions(alignment_steps=2, user_steps=0)}),
    "lisa of the user": ("user", {"lisa": LisaOptions(alignment_steps=0, user_steps=2)}),
    "antidote": ("user", {"antidote": AntidoteOptions(ratio=0.0)}),
}
METHODS = tuple(SECTIONS)


def method_name(case: str) -> str:
    """The method of a case: `booster+vaccine` is a booster."""
    return case.split("+")[0].split(" ")[0]


def safety_rows(count: int = 10) -> list[dict[str, Any]]:
    """Triples of ragged text."""
    draw = random.Random(4)
    rows = []
    for i in range(count):
        answers = {
            name: " ".join([word] * draw.randint(1, 3)) + str(draw.randrange(100))
            for name, word in (("refusal", "no"), ("harmful", "sure"))
        }
        rows.append({"sample_id": f"r{i:02d}", "prompt": f"Q: {i}\nA: ", **answers})
    return rows


def user_rows(count: int = 7) -> list[dict[str, Any]]:
    """Ordinary rows of text."""
    return [
        {"sample_id": f"u{i:02d}", "prompt": f"{i}+{i}=", "completion": f"{2 * i}" * (1 + i % 3)}
        for i in range(count)
    ]


def examples(count: int, seed: int) -> list[Example]:
    """Ragged tokenised rows of different weights."""
    rows = tiny_models.token_rows(count, seed, longest=24)
    return [
        Example.of(row["token_ids"], row["loss_mask"], 0.5 + i % 3, row["sample_id"])
        for i, row in enumerate(rows)
    ]


STEP_ROWS = {"alignment": examples(8, 1), "harmful": examples(7, 2), "user": examples(6, 3)}


def adapted(family: str = "llama", **options: Any) -> Any:
    """A tiny model under an adapter whose two matrices are both random, so that all of it has a gradient."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = add_adapter(tiny_models.build(family, **options), LoraOptions(r=4))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.copy_(0.1 * torch.randn_like(parameter))
    return model


def method_of(case: str, model: Any) -> Method:
    """The method of a case; Lisa's is given an anchor some way off, as after a switch."""
    method = make(method_name(case), TrainOptions(**SECTIONS[case]))
    if case == "lisa":
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        method.load({name: p.detach() + 0.1 * torch.cos(p.detach()) for name, p in named.items()})
    return method


def one_step(
    case: str,
    model: Any,
    budget: int = 10_000,
    at: Moment = AT,
    rows: Mapping[str, list[Example]] = STEP_ROWS,
) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """Logs and gradients of one step; `.grad` is empty afterwards."""
    method = method_of(case, model)
    batches = {name: micro_batches(rows[name], budget) for name in method.draws(at)}
    torch.manual_seed(5)
    logs = method.step(model, batches, at)
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return {name: float(value) for name, value in logs.items()}, found


def train(case: str, model: str, out: str, sections: Any = None, **options: Any) -> trainers.TrainResult:
    """A whole training of a case on safety rows and ordinary ones."""
    base: dict[str, Any] = {"epochs": 2, "batch_size": 4, "lr": 1e-2, "dtype": "float32"}
    on_step = options.pop("on_step", None)
    # Booster and its like learn from ordinary rows, too; they are left to the methods that are about them.
    rows = safety_rows() + (user_rows() if method_name(case) in ("lisa", "antidote") else [])
    settings = TrainOptions(**(base | (sections or SECTIONS[case]) | options))
    return trainers.train(model, rows, out, settings, 5, on_step=on_step, method=method_name(case))
