"""Vaccine against its equations, and where it finds attention."""

from __future__ import annotations

import math
from typing import Any

import pytest
import safety_cases
import tiny_models
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safety_cases import STEP_ROWS
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    FalconConfig,
    GPTNeoConfig,
    GPTNeoXConfig,
    MixtralConfig,
    OPTConfig,
)

from synth.records.errors import InputError
from trainers import vaccine
from trainers.core.batching import Example, collate, micro_batches
from trainers.core.logprobs import token_logprobs
from trainers.core.loss import weighted_nll
from trainers.core.structure import attention_modules, feed_forwards, final_norm, layers


class Attention(nn.Module):
    """Multiplies by one weight."""

    def __init__(self, a: float) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a))

    def forward(self, x: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        return self.a * x


class TwoParameters(nn.Module):
    """A model of two weights: attention gives a everywhere, the logits of tokens 0 and 1 are (b * a, 0)."""

    def __init__(self, a: float, b: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.ModuleList([Attention(a)])])
        self.b = nn.Parameter(torch.tensor(b))

    def get_output_embeddings(self) -> None:
        return None

    def forward(self, input_ids: torch.Tensor, use_cache: bool = False) -> Any:
        attention = self.layers[0][0]  # type: ignore[index]
        state = attention(torch.ones(*input_ids.shape, 1))

        class Output:
            logits = torch.cat([self.b * state, torch.zeros_like(state)], -1)

        return Output


@settings(max_examples=30, deadline=None)
@given(a=st.floats(-2, 2), b=st.floats(0.2, 2), rho=st.floats(0.01, 3), copies=st.integers(1, 3))
def test_two_parameter_model_in_closed_form(a: float, b: float, rho: float, copies: int) -> None:
    """f = -log sigmoid(b * o), o = a: df/do < 0, so the worst drift takes o down, shared by all answers alike."""

    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    model = TwoParameters(a, b)
    logs = vaccine.step(model, micro_batches([Example.of([1, 0], [0, 1])] * copies, 2), rho)
    o = a - rho / math.sqrt(copies)
    missing = 1 - sigmoid(b * o)
    attention = model.layers[0][0]  # type: ignore[index]
    assert float(attention.a.grad) == pytest.approx(-missing * b, rel=1e-3, abs=1e-5)
    assert model.b.grad is not None
    assert float(model.b.grad) == pytest.approx(-missing * o, rel=1e-3, abs=1e-4)
    assert float(logs["loss"]) == pytest.approx(-math.log(sigmoid(b * a)), rel=1e-4, abs=1e-5)
    assert float(logs["perturbed_loss"]) == pytest.approx(-math.log(sigmoid(b * o)), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
@pytest.mark.parametrize("build", [tiny_models.build, safety_cases.adapted], ids=["full", "lora"])
def test_step_equals_the_formula_written_out(family: str, build: Any) -> None:
    """Drifts taken and added by hand in one batch, through hooks of the test's own on modules named by the test."""
    model = build(family)
    rows = STEP_ROWS["alignment"]
    batch = collate(rows, 1 / sum(row.mass for row in rows))
    name = "attn" if family == "gpt2" else "self_attn"
    modules = [module for path, module in model.named_modules() if path.rsplit(".", 1)[-1] == name]
    assert len(modules) == 2
    drifts: list[torch.Tensor] = []

    def loss(first: bool) -> torch.Tensor:
        handles = []
        for place, module in enumerate(modules):

            def hook(_m: Any, _i: Any, output: Any, place: int = place) -> Any:
                if first:
                    drifts.append(torch.zeros_like(output[0], requires_grad=True))
                return (output[0] + drifts[place], *output[1:])

            handles.append(module.register_forward_hook(hook))
        value = weighted_nll(token_logprobs(model, batch), batch)
        for handle in handles:
            handle.remove()
        return value

    slopes = torch.autograd.grad(loss(True), drifts)
    norm = torch.sqrt(sum((slope.square().sum() for slope in slopes), torch.zeros(())))
    drifts[:] = [0.5 * slope / norm for slope in slopes]
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    expected = torch.autograd.grad(loss(False), list(named.values()))
    _, found = safety_cases.one_step("vaccine", model, budget=60)
    for name, value in zip(named, expected, strict=True):
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4)


def test_the_drift_has_one_norm_over_layers_rows_and_micro_batches() -> None:
    model = tiny_models.build()
    modules = list(attention_modules(model).values())
    _, drifts = vaccine.worst_drifts(model, modules, micro_batches(STEP_ROWS["alignment"], 60), 0.3)
    assert len(drifts) > 1
    squares = [float(part.square().sum()) for layers in drifts for part in layers]
    assert len(squares) == 2 * len(drifts)
    assert sum(squares) == pytest.approx(0.09, rel=1e-4)
    assert min(squares) > 0


def test_padding_is_not_perturbed() -> None:
    model = tiny_models.build()
    short, long = Example.of([3, 4, 5], [0, 1, 1]), Example.of(list(range(2, 12)), [0] * 5 + [1] * 5)
    batch = collate([short, long], 0.1)
    _, (drifts,) = vaccine.worst_drifts(model, list(attention_modules(model).values()), [batch], 1.0)
    for drift in drifts:
        assert (drift[0, 2:] == 0).all(), "the last token and the padding behind it predict nothing"
        assert (drift[0, :2] != 0).any()


def test_both_passes_see_the_same_dropout() -> None:
    """With so short a drift that it cannot be seen in the loss, the passes differ only if their masks do."""
    model = tiny_models.build("gpt2", dropout=0.3).train()
    torch.manual_seed(0)
    logs = vaccine.step(model, micro_batches(STEP_ROWS["alignment"], 60), 1e-6)
    assert float(logs["loss"]) == pytest.approx(float(logs["perturbed_loss"]), abs=1e-5)
    torch.manual_seed(1)
    other = vaccine.step(model, micro_batches(STEP_ROWS["alignment"], 60), 1e-6)
    assert abs(float(other["loss"]) - float(logs["loss"])) > 1e-3, "dropout is off: the test says nothing"


@pytest.mark.parametrize("seed", [0, 1])
def test_the_worst_drift_adds_less_loss_after_vaccine_than_after_sft(seed: int) -> None:
    rows, added = micro_batches(safety_cases.examples(8, seed), 10_000), {}
    for rho in (0.0, 1.0):
        model = tiny_models.build("llama", seed=seed)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
        for _ in range(30):
            vaccine.step(model, rows, rho)
            optimizer.step()
            optimizer.zero_grad()
        logs = vaccine.step(model, rows, 1.0)
        added[rho] = float(logs["perturbed_loss"] - logs["loss"])
    assert 0 < added[1.0] < 0.6 * added[0.0]


SMALL: dict[str, Any] = {"vocab_size": 50}
OTHERS = {
    "opt": OPTConfig(
        hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=2, word_embed_proj_dim=32, **SMALL
    ),
    "gpt_neox": GPTNeoXConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, **SMALL
    ),
    "gpt_neo": GPTNeoConfig(
        hidden_size=32, num_layers=2, num_heads=2, attention_types=[[["global"], 2]], intermediate_size=64, **SMALL
    ),
    "bloom": BloomConfig(hidden_size=32, n_layer=2, n_head=2, **SMALL),
    "falcon": FalconConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, **SMALL),
    "mixtral": MixtralConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
        num_local_experts=2, **SMALL,
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", [*tiny_models.FAMILIES, *OTHERS])
def test_parts_of_any_decoder(family: str) -> None:
    """One attention and one feed-forward output a layer; moving a token moves the attention's later outputs only."""
    if family in OTHERS:
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(OTHERS[family]).eval()
    else:
        model = tiny_models.build(family)
    found = attention_modules(model)
    assert len(found) == len(layers(model)) == len(feed_forwards(model)) == 2
    outputs: dict[Any, list[torch.Tensor]] = {}

    def keep(module: Any, _inputs: Any, output: Any) -> None:
        value = output[0] if isinstance(output, tuple) else output
        outputs.setdefault(module, []).append(value.detach().reshape(-1, 32))

    norm = final_norm(model)
    watched = [*found.values(), *feed_forwards(model), norm]
    for module in watched:
        module.register_forward_hook(keep)
    for ids in ([5, 6, 7, 8], [5, 9, 7, 8]):
        model(input_ids=torch.tensor([ids]), use_cache=False)
    assert set(outputs) == set(watched)
    first = next(iter(found.values()))
    moved = (outputs[first][0] - outputs[first][1]).abs().amax(1) > 1e-7
    assert moved.tolist() == [False, True, True, True], "no mixing of tokens: not attention"
    if "OPT" not in type(model).__name__:
        head = model.get_output_embeddings()
        logits = model(input_ids=torch.tensor([[5, 6, 7, 8]]), use_cache=False).logits[0]
        mine = head(outputs[norm][-1])
        assert torch.equal(mine.argmax(-1), logits.argmax(-1)), "the head does not read this norm"


def test_model_without_attention_says_what_was_looked_for() -> None:
    plain = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(InputError, match=r"(?s)Sequential has .*takes `attention_mask`.*another method"):
        vaccine.step(plain, micro_batches(STEP_ROWS["alignment"], 60), 1.0)
