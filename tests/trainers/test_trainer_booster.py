"""Booster against its equations."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
import safety_cases
import tiny_models
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safety_cases import STEP_ROWS
from torch import nn

from trainers import booster, sft
from trainers.booster import Booster, regularise
from trainers.core.batching import Example, collate, micro_batches
from trainers.core.logprobs import token_logprobs
from trainers.core.loss import weighted_nll
from trainers.core.method import Moment, gradient
from trainers.method_options import BoosterOptions, Course


class TwoParameters(nn.Module):
    """A model of two weights a, b: the logits of tokens 0, 1, 2 are (a, b, 0) everywhere."""

    def __init__(self, a: float, b: float) -> None:
        super().__init__()
        self.ab = nn.Parameter(torch.tensor([a, b]))

    def get_output_embeddings(self) -> None:
        return None

    def forward(self, input_ids: torch.Tensor, use_cache: bool = False) -> Any:
        class Output:
            logits = torch.cat([self.ab, torch.zeros(1)]).expand(*input_ids.shape, 3)

        return Output


def answer(token: int) -> Example:
    return Example.of([2, token], [0, 1])


@settings(max_examples=30, deadline=None)
@given(
    a=st.floats(-2, 2), b=st.floats(-2, 2), lam=st.floats(0.1, 20), alpha=st.floats(0.01, 3), copies=st.integers(1, 3)
)  # fmt: skip
def test_two_parameter_model_in_closed_form(
    a: float, b: float, lam: float, alpha: float, copies: int
) -> None:
    """Refusal is token 0, harmful answer token 1; grad of -log p_k is p - e_k."""

    def softmax(w: np.ndarray) -> np.ndarray:
        raised = np.exp(np.append(w, 0.0))
        return raised / raised.sum()

    w = np.array([a, b])
    f = softmax(w)[:2] - [1, 0]
    h = softmax(w)[:2] - [0, 1]
    moved = w - alpha * h / np.linalg.norm(h)
    expected = f + lam * h - lam * (softmax(moved)[:2] - [0, 1])

    model = TwoParameters(a, b)
    method = Booster(BoosterOptions(lam=lam, alpha=alpha))
    at = Moment(0, 1, 0)
    batches = {
        "alignment": micro_batches([answer(0)] * copies, 2),
        "harmful": micro_batches([answer(1)] * copies, 2),
    }
    logs = method.step(model, batches, at)
    assert model.ab.grad is not None
    np.testing.assert_allclose(model.ab.grad.numpy(), expected, rtol=1e-4, atol=1e-4)
    before, after = -np.log(softmax(w)[1]), -np.log(softmax(moved)[1])
    seen = [float(logs[name]) for name in ("loss", "harmful_loss", "harmful_loss_after", "regulariser")]
    assert seen == pytest.approx([-np.log(softmax(w)[0]), before, after, before - after], abs=1e-4)
    assert model.ab.tolist() == pytest.approx([a, b])


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_step_equals_the_formula_written_out(family: str) -> None:
    """With autograd on whole batches, moving the weights by hand."""
    model = tiny_models.build(family)
    names, weights = zip(*model.named_parameters(), strict=True)

    def slope(rows: list[Example]) -> list[torch.Tensor]:
        batch = collate(rows, 1 / sum(row.mass for row in rows))
        return list(torch.autograd.grad(weighted_nll(token_logprobs(model, batch), batch), weights))

    f, h = slope(STEP_ROWS["alignment"]), slope(STEP_ROWS["harmful"])
    norm = torch.sqrt(sum((part.square().sum() for part in h), torch.zeros(())))
    start = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight, part in zip(weights, h, strict=True):
            weight -= 0.5 * part / norm
    after = slope(STEP_ROWS["harmful"])
    with torch.no_grad():
        for weight, value in zip(weights, start, strict=True):
            weight.copy_(value)
    _, found = safety_cases.one_step("booster", model, budget=60)
    for name, *parts in zip(names, f, h, after, strict=True):
        expected = parts[0] + 2.0 * (parts[1] - parts[2])
        torch.testing.assert_close(found[name], expected, atol=1e-5, rtol=1e-4)


def test_both_harmful_passes_see_the_same_dropout() -> None:
    """With a step of length 0 the two passes are one and the same, unless their masks differ."""
    model = tiny_models.build("gpt2", dropout=0.3).train()
    # One micro-batch and a power of two, so that g - g' rounds nothing.
    harmful = micro_batches(STEP_ROWS["harmful"], 10_000)
    losses = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        logs = regularise(model, harmful, lam=2.0, alpha=0.0)
        assert float(logs["regulariser"]) == 0.0
        assert all((p.grad == 0).all() for p in model.parameters())
        losses.append(float(logs["harmful_loss"]))
    assert losses[0] != losses[1], "dropout is off: the test says nothing"


def test_weights_come_back_bitwise_also_from_a_long_way() -> None:
    """Taking away what was added would not: (w - d) + d is another number."""
    model = tiny_models.build()
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    slope = [torch.randn_like(p) for p in model.parameters()]
    weights = list(model.parameters())
    with booster.moved(weights, slope, 1e4):
        assert slope == [None] * len(weights)
        assert all(not torch.equal(p, start[name]) for name, p in model.named_parameters())
    assert tiny_models.same(start, {name: p.detach() for name, p in model.named_parameters()})
    with pytest.raises(RuntimeError, match="boom"), booster.moved(weights, [None] * len(weights), 1.0):
        raise RuntimeError("boom")


def test_the_move_is_as_long_as_alpha_over_all_tensors_together() -> None:
    model = tiny_models.build()
    weights = list(model.parameters())
    start = [p.detach().clone() for p in weights]
    _, slope = gradient(model, micro_batches(STEP_ROWS["harmful"], 60), booster._nll)
    with booster.moved(weights, slope, 0.7):
        parts = [(p.detach() - s).square().sum() for p, s in zip(weights, start, strict=True)]
    assert float(sum(parts, torch.zeros(())).sqrt()) == pytest.approx(0.7, rel=1e-4)


def test_gradient_beside_an_older_one_leaves_it_alone() -> None:
    """Accumulating harmful gradients onto `.grad` is how the authors' code breaks with micro-batches."""
    model = tiny_models.build()
    sft.step(model, micro_batches(STEP_ROWS["alignment"], 60))
    before = [p.grad for p in model.parameters()]
    values = [grad.clone() for grad in before if grad is not None]
    _, found = gradient(model, micro_batches(STEP_ROWS["harmful"], 60), booster._nll)
    assert all(p.grad is grad for p, grad in zip(model.parameters(), before, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before, values, strict=True) if a is not None)
    assert any(part is not None and float(part.abs().max()) > 0 for part in found)


def test_at_most_one_copy_of_the_trained_tensors_beyond_sft(monkeypatch: pytest.MonkeyPatch) -> None:
    """One matrix stands for all: how many tensors of its shape are alive."""
    model = tiny_models.build()
    shape = model.model.embed_tokens.weight.shape
    copies: list[int] = []

    def alive() -> int:
        found = [t for t in gc.get_objects() if type(t) in (torch.Tensor, nn.Parameter) and t.shape == shape]
        return len({t.data_ptr() for t in found})

    def counted(work: Any) -> Any:
        def run(*arguments: Any) -> Any:
            copies.append(alive() - before)
            result = work(*arguments)
            copies.append(alive() - before)
            return result

        return run

    monkeypatch.setattr(booster, "gradient", counted(booster.gradient))
    monkeypatch.setattr(booster, "accumulate", counted(booster.accumulate))
    sft.step(model, micro_batches(STEP_ROWS["alignment"], 60))
    assert all(p.grad is not None for p in model.parameters())  # a tensor is counted once Python has seen it
    gc.collect()
    before = alive()
    regularise(model, micro_batches(STEP_ROWS["harmful"], 60), 1.0, 0.1)
    # Before and after each of the two gradients, and at the end.
    assert [*copies, alive() - before] == [0, 1, 1, 1, 0]


def test_regulariser_every_other_step_and_by_its_course() -> None:
    options = BoosterOptions(
        lam=4.0, every=3, lam_course=Course("linear", warmup_steps=3), alpha_course=Course("cosine", end_ratio=0.5)
    )  # fmt: skip
    method = Booster(options)
    draws = [method.draws(Moment(step, 9, 0)) for step in range(9)]
    assert [place.get("harmful") for place in draws] == [0, None, None, 1, None, None, 2, None, None]
    assert [place["alignment"] for place in draws] == list(range(9))
    lams = [booster.at_step(options.lam, options.lam_course, Moment(step, 9, 0)) for step in range(9)]
    assert lams == pytest.approx([1, 2, 3, 4, 4 * 5 / 6, 4 * 4 / 6, 2, 4 * 2 / 6, 4 / 6])
    alphas = [booster.at_step(1.0, options.alpha_course, Moment(step, 8, 0)) for step in (0, 4, 8)]
    assert alphas == pytest.approx([1.0, 0.75, 0.5])
    # A course that has come to 0 costs nothing.
    assert "harmful" not in Booster(BoosterOptions(lam_course=Course("linear"))).draws(Moment(9, 9, 0))


def test_lambda_and_alpha_of_the_step_are_those_used() -> None:
    model, at = tiny_models.build(), Moment(1, 4, 0)
    batches = {name: micro_batches(STEP_ROWS[name], 10_000) for name in ("alignment", "harmful")}
    found = []
    for options in (
        BoosterOptions(lam=4.0, alpha=0.2, lam_course=Course("linear"), alpha_course=Course("constant", 1)),
        BoosterOptions(lam=3.0, alpha=0.2),
    ):
        Booster(options).step(model, batches, at)
        found.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
        model.zero_grad(set_to_none=True)
    # Linear from 4 at step 0 to 0 at step 4 is 3 at step 1, where the warm-up is over.
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize(
    ("build", "seed"), [(tiny_models.build, 0), (tiny_models.build, 1), (safety_cases.adapted, 0)]
)
def test_a_harmful_step_gains_less_after_booster_than_after_sft(build: Any, seed: int) -> None:
    """What the method is for: the loss of harmful rows falls less in one harmful step of the same length."""
    falls = {}
    for lam in (0.0, 5.0):
        model = build("llama", seed=seed)
        method = Booster(BoosterOptions(lam=lam, alpha=0.5))
        weights = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=3e-3, weight_decay=0.0)
        for step in range(15):
            at = Moment(step, 15, seed)
            rows = {
                "alignment": safety_cases.examples(8, seed),
                "harmful": safety_cases.examples(8, seed + 7),
            }
            method.step(model, {name: micro_batches(rows[name], 10_000) for name in method.draws(at)}, at)
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            optimizer.zero_grad()
        logs = regularise(model, micro_batches(safety_cases.examples(8, seed + 7), 10_000), 1.0, 0.5)
        falls[lam] = float(logs["regulariser"])
    assert falls[0.0] > 0
    assert falls[5.0] < 0.9 * falls[0.0]
