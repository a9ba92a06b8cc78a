"""RepNoise against its equations."""

from __future__ import annotations

from typing import Any

import pytest
import safety_cases
import tiny_models
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safety_cases import AT, STEP_ROWS
from torch.nn import functional

from trainers import repnoise
from trainers.core.batching import Example, micro_batches
from trainers.core.seeds import derive
from trainers.core.structure import feed_forwards
from trainers.method_options import RepNoiseOptions
from trainers.repnoise import RepNoise, add_noise_terms, mmd


def written_out(model: Any, rows: list[Example], alpha: float, beta: float) -> dict[str, torch.Tensor]:
    """The two terms row by row in one graph, with transformers' own hidden states; and their parts."""
    from test_trainer_numerics import naive_loss

    places = list(feed_forwards(model))
    outputs: list[list[torch.Tensor]] = []
    noises: list[list[torch.Tensor]] = []
    layer_ce, mass = torch.zeros(()), 0.0
    for number, row in enumerate(rows):
        seen: list[torch.Tensor] = []
        handles = [m.register_forward_hook(lambda _m, _i, out, seen=seen: seen.append(out)) for m in places]
        ids = torch.tensor(row.token_ids, dtype=torch.long)
        hidden = model(input_ids=ids[None], use_cache=False, output_hidden_states=True).hidden_states
        for handle in handles:
            handle.remove()
        norm = model.transformer.ln_f if hasattr(model, "transformer") else model.model.norm
        # The last hidden state that transformers gives out has been through the norm.
        states = [*(norm(state) for state in hidden[:-1]), hidden[-1]]
        trained = torch.tensor(row.loss_mask)
        at = trained.nonzero().squeeze(1)
        for state in states[:-1]:
            logits = model.get_output_embeddings()(state[0, at - 1])
            layer_ce = layer_ce + row.weight * functional.cross_entropy(logits, ids[at], reduction="sum")
        mass += row.mass
        generator = torch.Generator().manual_seed(derive(AT.rng_seed, "noise", AT.step, number))
        noises.append([])
        outputs.append([])
        for output in seen:
            drawn = torch.zeros(64, output.shape[-1])
            drawn[at] = torch.randn(len(at), output.shape[-1], generator=generator)
            noises[-1].append(drawn.flatten())
            room = torch.zeros(64, output.shape[-1])
            outputs[-1].append((room[: len(ids)].add(output[0]) * trained[:, None]).flatten())
    ce = naive_loss(model, rows)
    layer_loss = (2 * ce + layer_ce / mass) / len(states)
    distances = []
    for layer in range(len(places)):
        width = max(len(parts[layer]) for parts in outputs)
        left = torch.stack(
            [functional.pad(parts[layer], (0, width - len(parts[layer]))) for parts in outputs]
        )
        right = torch.stack([parts[layer][:width] for parts in noises])
        both = torch.cat([left, right])
        squared = (both[:, None] - both[None]).square().sum(-1)
        bandwidth = squared.detach().sum() / (len(both) ** 2 - len(both))
        kernel = sum((torch.exp(-squared / (bandwidth * f)) for f in (0.25, 0.5, 1, 2, 4)), torch.zeros(()))
        n = len(rows)
        distances.append(kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean())
    distance = torch.stack(distances).mean()
    value = beta * distance - alpha * torch.log(1 + layer_loss)
    return {"value": value, "harmful_loss": ce, "layer_loss": layer_loss, "noise_distance": distance}


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2"])
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.5), (0.0, 2.0), (0.7, 0.0)])
def test_terms_equal_the_formula_written_out(family: str, alpha: float, beta: float) -> None:
    """Without padding, without micro-batches, without a second pass."""
    model, rows = tiny_models.build(family), STEP_ROWS["harmful"]
    parts = written_out(model, rows, alpha, beta)
    names, weights = zip(*model.named_parameters(), strict=True)
    expected = torch.autograd.grad(parts["value"], weights, allow_unused=True)
    options = RepNoiseOptions(alpha=alpha, beta=beta)
    logs = add_noise_terms(model, micro_batches(rows, 50), options, AT)
    assert float(logs["harmful_loss"]) == pytest.approx(float(parts["harmful_loss"]), rel=1e-4)
    assert float(logs["layer_loss"]) == pytest.approx(float(parts["layer_loss"]), rel=1e-4)
    if beta:
        assert float(logs["noise_distance"]) == pytest.approx(float(parts["noise_distance"]), rel=1e-4)
    for name, weight, value in zip(names, weights, expected, strict=True):
        found = weight.grad if weight.grad is not None else torch.zeros_like(weight)
        wanted = value if value is not None else torch.zeros_like(weight)
        torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}")


def test_mmd_of_single_samples_in_closed_form() -> None:
    """Two points at distance d: the mean squared distance is d^2, so every kernel has a fixed value."""
    for distance in (0.1, 1.0, 30.0):
        value = mmd(torch.tensor([[0.0, 0.0]]), torch.tensor([[distance, 0.0]]))
        expected = 2 * 5 - 2 * sum(torch.exp(torch.tensor(-1 / f)) for f in (0.25, 0.5, 1.0, 2.0, 4.0))
        assert float(value) == pytest.approx(float(expected), rel=1e-5)
    same = torch.ones(3, 2)
    assert float(mmd(same, same)) == 0.0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 6), d=st.integers(1, 20), pad=st.integers(0, 5))
def test_mmd_is_a_distance_that_order_and_padding_do_not_change(seed: int, n: int, d: int, pad: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    left, right = (torch.randn(n, d, generator=draw) for _ in range(2))
    value = float(mmd(left, right))
    assert value >= -1e-5
    assert float(mmd(left, left.clone())) == pytest.approx(0.0, abs=1e-5)
    assert float(mmd(right, left)) == pytest.approx(value, abs=1e-5)
    mixed = left[torch.randperm(n, generator=draw)]
    assert float(mmd(mixed, right)) == pytest.approx(value, abs=1e-5)
    wide = [functional.pad(part, (0, pad)) for part in (left, right)]
    assert float(mmd(*wide)) == pytest.approx(value, abs=1e-5)


def test_noise_is_a_rows_own_and_changes_with_the_step() -> None:
    model = tiny_models.build()
    options = RepNoiseOptions(alpha=0.0, beta=1.0)
    found = []
    for budget, step in ((10_000, 2), (1, 2), (10_000, 3)):
        at = repnoise.Moment(step, 10, 11)
        logs = add_noise_terms(model, micro_batches(STEP_ROWS["harmful"], budget), options, at)
        found.append(float(logs["noise_distance"]))
        model.zero_grad(set_to_none=True)
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert abs(found[0] - found[2]) > 1e-6


def test_token_zero_counts_and_changes_of_the_prompt_do_not() -> None:
    """The end-of-sequence token of these models is token 0; the prompt's tokens are inputs only."""
    model = tiny_models.build()
    options = RepNoiseOptions(alpha=1.0, beta=0.0)
    losses = []
    for ids, mask in (([5, 6, 7, 0], [0, 0, 1, 1]), ([5, 6, 7, 0], [0, 0, 1, 0])):
        logs = add_noise_terms(model, micro_batches([Example.of(ids, mask)], 100), options, AT)
        losses.append(float(logs["harmful_loss"]))
    assert losses[0] != pytest.approx(losses[1], abs=1e-3)
    last = -torch.log_softmax(model(input_ids=torch.tensor([[5, 6, 7, 0]])).logits[0, 2], -1)[0]
    assert 2 * losses[0] - losses[1] == pytest.approx(float(last), rel=1e-4)


@pytest.mark.parametrize("seed", [0, 1])
def test_harmful_layers_are_lost_and_noisy_after_repnoise(seed: int) -> None:
    """Reading the harmful answer from the layers gets harder than after SFT; representations come nearer to noise."""
    ends = {}
    for options in (RepNoiseOptions(0.0, 0.0), RepNoiseOptions(1.0, 0.0), RepNoiseOptions(0.0, 20.0)):
        model = tiny_models.build("llama", seed=seed)
        method = RepNoise(options)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
        rows = {"alignment": safety_cases.examples(8, seed), "harmful": safety_cases.examples(8, seed + 7)}
        batches = {name: micro_batches(part, 10_000) for name, part in rows.items()}
        for step in range(12):
            at = repnoise.Moment(step, 12, seed)
            method.step(model, {name: batches[name] for name in method.draws(at)}, at)
            optimizer.step()
            optimizer.zero_grad()
        logs = add_noise_terms(model, batches["harmful"], RepNoiseOptions(1.0, 1.0), AT)
        ends[options.alpha, options.beta] = {name: float(value) for name, value in logs.items()}
    plain, ascent, noised = ends[0.0, 0.0], ends[1.0, 0.0], ends[0.0, 20.0]
    assert ascent["layer_loss"] > plain["layer_loss"]
    assert ascent["harmful_loss"] > plain["harmful_loss"]
    assert noised["noise_distance"] < plain["noise_distance"]
