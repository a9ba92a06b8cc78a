"""The gradient of a step is what a naive, unpadded, full-logits loop computes, however the step is cut up."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

import trainers
from trainers import sft
from trainers.core.batching import Example, MicroBatch, collate, micro_batches
from trainers.core.logprobs import position_logits, sequence_logprobs


def examples(count: int = 8, seed: int = 1, weighted: bool = False) -> list[Example]:
    rows = tiny_models.token_rows(count, seed)
    weights = [0.5 + (i % 3) if weighted else 1.0 for i in range(count)]
    return [Example.of(row["token_ids"], row["loss_mask"], w) for row, w in zip(rows, weights, strict=True)]


def naive_loss(model: Any, rows: Sequence[Example], *, left_padding: int = 0) -> torch.Tensor:
    """Row by row, all logits, no batching: sum of weighted nll over sum of weights."""
    total, mass = torch.zeros(()), 0.0
    for row in rows:
        ids = torch.tensor(row.token_ids, dtype=torch.long)[None]
        extra: dict[str, Any] = {}
        if left_padding:
            pad = torch.ones(1, left_padding, dtype=torch.long)
            extra["attention_mask"] = torch.cat([torch.zeros_like(pad), torch.ones_like(ids)], 1)
            extra["position_ids"] = (extra["attention_mask"].cumsum(1) - 1).clamp(min=0)
            ids = torch.cat([pad, ids], 1)
        logits = model(input_ids=ids, use_cache=False, **extra).logits[0, left_padding:]
        logps = torch.log_softmax(logits, -1)
        for t in range(1, len(row.token_ids)):
            if row.loss_mask[t]:
                total = total - row.weight * logps[t - 1, int(row.token_ids[t])]
                mass += row.weight
    return total / mass


def gradients(model: Any) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def assert_close(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor], atol: float = 1e-6) -> None:
    assert left.keys() == right.keys()
    for name in left:
        torch.testing.assert_close(
            left[name], right[name], atol=atol, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_step_equals_naive_reference(family: str, tied: bool) -> None:
    model, rows = tiny_models.build(family, tied=tied), examples(weighted=True)
    reference = naive_loss(model, rows)
    reference.backward()
    expected = gradients(model)
    logs = sft.step(model, micro_batches(rows, budget=64))
    assert float(logs["loss"]) == pytest.approx(reference.item(), abs=1e-6)
    assert_close(gradients(model), expected)


@pytest.mark.parametrize("budget", [1, 40, 64, 100, 10_000])
def test_cutting_a_step_does_not_change_its_gradient(budget: int) -> None:
    """1x8 = 2x4 = 8x1 on ragged rows."""
    model, rows = tiny_models.build(), examples()
    sft.step(model, [collate(rows, 1 / sum(row.mass for row in rows))])
    expected = gradients(model)
    cut = micro_batches(rows, budget)
    assert (len(cut) == 8) == (budget == 1)
    sft.step(model, cut)
    assert_close(gradients(model), expected)


def test_mean_over_micro_batches_would_be_seen() -> None:
    """The rows are ragged enough that normalising each micro-batch by itself gives another gradient."""
    model, rows = tiny_models.build(), examples()
    sft.step(model, micro_batches(rows, 1))
    right = gradients(model)
    sft.step(model, [collate([row], 1 / (row.mass * len(rows))) for row in rows])
    wrong = gradients(model)
    assert max(float((right[n] - wrong[n]).abs().max()) for n in right) > 1e-3


@settings(max_examples=6, deadline=None)
@given(ranks=st.integers(1, 12), budget=st.sampled_from([1, 50, 200]), count=st.integers(1, 9))
def test_ranks_average_to_the_same_gradient(ranks: int, budget: int, count: int) -> None:
    """Data parallelism averages gradients over ranks; ragged shares and ranks without rows included."""
    model, rows = tiny_models.build(), examples(count)
    sft.step(model, micro_batches(rows, 10_000))
    expected = gradients(model)
    shares = [micro_batches(rows, budget, ranks=ranks, rank=rank) for rank in range(ranks)]
    assert len({len(share) for share in shares}) == 1
    summed: dict[str, torch.Tensor] = {}
    for share in shares:
        sft.step(model, share)
        for name, value in gradients(model).items():
            summed[name] = summed.get(name, torch.zeros_like(value)) + value / ranks
    assert_close(summed, expected)


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
@pytest.mark.parametrize("padding", [1, 7])
def test_padding_side_and_amount_do_not_matter(family: str, padding: int) -> None:
    model, rows = tiny_models.build(family), examples(4)
    naive_loss(model, rows, left_padding=padding).backward()
    left = gradients(model)
    longest = Example.of(list(range(2, 60 + padding)), [0, 1] + [0] * (56 + padding), 0.0)
    # A long row of no weight pads every other row on the right.
    sft.step(model, [collate([*rows, longest], 1 / sum(row.mass for row in rows))])
    assert_close(gradients(model), left, atol=2e-6)


def test_changing_prompt_labels_never_matters() -> None:
    """The last prompt token is an input; as a label it must not count, nor must any other prompt token."""
    model, rows = tiny_models.build(), examples(3)
    batch = collate(rows, 1.0)
    learnt = [int(t) for row in rows for t, m in zip(row.token_ids, row.loss_mask, strict=True) if m]
    assert batch.labels.tolist() == learnt
    # A first token marked as learnt has no prefix: same labels as without.
    first = [Example.of(row.token_ids, [1, *row.loss_mask[1:]]) for row in rows]
    assert torch.equal(collate(first, 1.0).labels, batch.labels)
    assert sequence_logprobs(model, [[5]]) == [[]]


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_head_runs_on_trained_positions_only(family: str) -> None:
    model, batch = tiny_models.build(family), collate(examples(4), 1.0)
    seen: list[torch.Size] = []
    handle = model.get_output_embeddings().register_forward_hook(lambda _m, _i, out: seen.append(out.shape))
    logits = position_logits(model, batch.input_ids, batch.positions)
    handle.remove()
    assert seen == [(1, len(batch.labels), tiny_models.VOCAB)]
    full = model(input_ids=batch.input_ids).logits.flatten(0, 1)[batch.positions]
    torch.testing.assert_close(logits, full, atol=1e-6, rtol=1e-5)
    if family == "gemma2":
        assert float(logits.detach().abs().max()) <= 0.5  # the cap is applied to gathered logits too


def test_model_without_a_separate_head_is_run_in_full() -> None:
    class Odd(torch.nn.Module):
        """A model whose output head cannot be found."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = tiny_models.build()

        def get_output_embeddings(self) -> None:
            return None

        def forward(self, **inputs: Any) -> Any:
            return self.inner(**inputs)

    model, batch = Odd(), collate(examples(3), 1.0)
    logits = position_logits(model, batch.input_ids, batch.positions)
    torch.testing.assert_close(logits, position_logits(model.inner, batch.input_ids, batch.positions))


def test_hooks_are_gone_after_a_step_even_a_failed_one() -> None:
    model, rows = tiny_models.build(), examples(3)
    sft.step(model, micro_batches(rows, 64))
    broken: MicroBatch = collate(rows, 1.0)
    broken.positions = broken.positions + 10**6
    with pytest.raises(IndexError):
        sft.step(model, [broken])
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_checkpointing_changes_nothing_with_dropout_on(family: str) -> None:
    results = []
    for checkpointing in (False, True):
        model = tiny_models.build(family, dropout=0.3).train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        torch.manual_seed(7)
        logs = sft.step(model, micro_batches(examples(), 64))
        results.append((logs["loss"], gradients(model)))
    model = tiny_models.build(family, dropout=0.3).train()
    torch.manual_seed(8)
    other = sft.step(model, micro_batches(examples(), 64))["loss"]
    assert torch.equal(results[0][0], results[1][0])
    assert not torch.equal(other, results[0][0]), "dropout is off: the test would say nothing"
    assert all(torch.equal(results[0][1][name], results[1][1][name]) for name in results[0][1])


def test_logprobs_are_those_of_the_model_row_by_row() -> None:
    model = tiny_models.build("qwen2")
    sequences = [row["token_ids"] for row in tiny_models.token_rows(5)]
    found = sequence_logprobs(model, [*sequences, [3]], budget=50)
    for ids, values in zip(sequences, found, strict=False):
        logits = model(input_ids=torch.tensor([ids])).logits[0, :-1]
        expected = -functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")
        assert values == pytest.approx(expected.tolist(), abs=1e-5)
    assert found[-1] == []


def test_two_ranks_train_as_one(tmp_path: Path, model_folder: Any) -> None:
    """On two gloo ranks as in one process: ragged rows, fewer rows than ranks, a resume that stops early."""
    script = tmp_path / "rank.py"
    script.write_text(
        "import sys, tiny_models, torch\n"
        "from accelerate import PartialState\n"
        "for count, options in tiny_models.TWO_RANKS:\n"
        "    out = f'{sys.argv[2]}-{count}'\n"
        "    result = tiny_models.train_two_ranks_case(sys.argv[1], out, count, options)\n"
        "    assert PartialState().num_processes == 2, 'the ranks did not find each other'\n"
        "    assert result.resumed_from == (2 if 'save_every' in options else 0)\n"
        "group = torch.distributed.group.WORLD._get_backend(torch.device('cpu'))\n"
        "assert group.options._timeout.total_seconds() == 24 * 3600, 'a long evaluation would end the others'\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {
        "PYTHONPATH": f"{root}:{Path(__file__).parent}", "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1",
        "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
    }  # fmt: skip
    start = str(model_folder())
    command = [sys.executable, str(script), start, str(tmp_path / "two")]
    jobs = [subprocess.Popen(command, env=environment | {"RANK": r, "LOCAL_RANK": r}) for r in "01"]
    alone: dict[int, trainers.TrainResult] = {}
    try:
        for count, options in tiny_models.TWO_RANKS:
            out = str(tmp_path / f"one-{count}")
            alone[count] = tiny_models.train_two_ranks_case(start, out, count, options)
        assert [job.wait(timeout=400) for job in jobs] == [0, 0]
    finally:
        for job in jobs:
            job.kill()
    early = alone[5]
    assert early.stopped_early
    assert 3 < early.steps < 40, "it stopped before it was resumed, or not at all: the test is vacuous"
    for count, result in alone.items():
        record = (tmp_path / f"two-{count}" / "training.jsonl").read_text().splitlines()
        assert len(record) == 1 + result.steps
        # Adam divides by the gradient's own size, so a rounding error of the gradient can grow; the rate bounds it.
        assert_close(
            tiny_models.weights(tmp_path / f"two-{count}"),
            tiny_models.weights(tmp_path / f"one-{count}"),
            1e-4,
        )
