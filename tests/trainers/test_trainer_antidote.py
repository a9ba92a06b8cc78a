"""Which weights Antidote sets to zero."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safety_cases
import tiny_models
import torch
from safety_cases import STEP_ROWS

from trainers import antidote
from trainers.core.batching import Example
from trainers.options import LoraOptions


def test_scores_by_hand() -> None:
    """One linear layer on one-hot inputs: ||x_j|| is the square root of how often token j predicts an answer."""

    class Lookup(torch.nn.Module):
        """Reads logits for the next token from the one-hot of this one."""

        def __init__(self) -> None:
            super().__init__()
            self.map = torch.nn.Linear(3, 3, bias=False)

        def get_output_embeddings(self) -> None:
            return None

        def forward(self, input_ids: torch.Tensor, use_cache: bool = False) -> Any:
            class Output:
                logits = self.map(torch.nn.functional.one_hot(input_ids, 3).float())

            return Output

    model = Lookup()
    with torch.no_grad():
        model.map.weight.copy_(torch.tensor([[1.0, -3.0, 2.0], [1.0, 1.1, 0.0], [-4.0, 0.5, 0.6]]))
    # Token 0 predicts an answer four times, token 1 once, token 2 never (it is only a prompt, and padding).
    rows = [Example.of([0, 0, 0, 0, 1, 2], [0, 1, 1, 1, 1, 1]), Example.of([2, 0, 1], [0, 0, 0])]
    norms = antidote.input_norms(model, [model.map], rows, budget=100)
    assert norms[0].tolist() == [2.0, 1.0, 0.0]
    # Scores: [2, 3, 0], [2, 1.1, 0], [8, .5, 0]; a third of three columns is one a row.
    assert antidote.prune(model, rows, 0.34, 100) == 3
    assert model.map.weight.tolist() == [
        [1.0, 0.0, 2.0],
        [0.0, pytest.approx(1.1), 0.0],
        [0.0, 0.5, pytest.approx(0.6)],
    ]


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
@pytest.mark.parametrize("ratio", [0.1, 0.5])
def test_share_of_every_output_row_and_nothing_else(family: str, ratio: float) -> None:
    model = tiny_models.build(family)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    hooks = [len(m._forward_pre_hooks) for m in model.modules()]
    linears = antidote.prunable(model)
    assert len(linears) == (8 if family == "gpt2" else 14)
    count = antidote.prune(model, STEP_ROWS["harmful"], ratio, 60)
    assert [len(m._forward_pre_hooks) for m in model.modules()] == hooks
    zeros = 0
    for layer in linears:
        rows = antidote.output_rows(layer)
        assert ((rows == 0).sum(1) == int(ratio * rows.shape[1])).all()
        zeros += int((rows == 0).sum())
    assert count == zeros
    inside = {id(layer.weight) for layer in linears}
    for name, parameter in model.named_parameters():
        if id(parameter) not in inside:
            assert torch.equal(parameter, start[name])


def test_micro_batches_do_not_matter() -> None:
    pruned = []
    for budget in (1, 50, 10_000):
        model = tiny_models.build()
        antidote.prune(model, STEP_ROWS["harmful"], 0.3, budget)
        pruned.append({name: p.detach() for name, p in model.named_parameters()})
    assert tiny_models.same(pruned[0], pruned[2])
    assert tiny_models.same(pruned[1], pruned[2])


def test_an_adapter_is_pruned_and_its_base_is_not() -> None:
    model = safety_cases.adapted()
    linears = antidote.prunable(model)
    assert len(linears) == 2 * 14
    frozen = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    antidote.prune(model, STEP_ROWS["harmful"], 0.25, 60)
    assert all(((antidote.output_rows(layer) == 0).sum(1) >= 1).all() for layer in linears)
    after = {name: p.detach() for name, p in model.named_parameters() if not p.requires_grad}
    assert tiny_models.same(frozen, after)


@pytest.mark.parametrize("lora", [None, LoraOptions(r=4)], ids=["full", "lora"])
def test_the_exported_model_is_the_pruned_one(
    tmp_path: Path, model_folder: Any, lora: LoraOptions | None
) -> None:
    result = safety_cases.train("antidote", str(model_folder()), str(tmp_path / "m"), lora=lora)
    card = (tmp_path / "m" / "README.md").read_text()
    count = int(card.split("| pruned weights | ")[1].split(" ")[0])
    assert count > 0
    zeros = sum(int((tensor == 0).sum()) for tensor in tiny_models.weights(tmp_path / "m").values())
    if lora is None:
        assert zeros == count
    assert (result.counts["user"], result.counts["harmful"]) == (7, 10)
