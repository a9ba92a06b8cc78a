"""What a training leaves on disk is what it had in memory, and nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import trainers
from synth.records.errors import InputError
from synth.records.ids import model_hash
from trainers.core import model as models
from trainers.options import LoraOptions, TrainOptions

ROWS = tiny_models.token_rows(12)
PROBE = torch.tensor([ROWS[0]["token_ids"]])
Folder = Callable[..., Path]
LORA = LoraOptions(r=4, alpha=16)


def quick(**changes: Any) -> TrainOptions:
    return TrainOptions(**({"max_steps": 3, "batch_size": 6, "lr": 1e-2} | changes))


def catch_logits(into: list[torch.Tensor]) -> Callable[[Any, int], dict[str, float]]:
    def evaluate(model: Any, _step: int) -> dict[str, float]:
        into.append(model(input_ids=PROBE).logits.float())
        return {}

    return evaluate


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_saved_model_has_the_logits_of_the_trained_one(
    tmp_path: Path, model_folder: Folder, family: str, tied: bool, lora: LoraOptions | None
) -> None:
    start, seen = model_folder(family, tied=tied), []
    trainers.train(str(start), ROWS, tmp_path / "m", quick(lora=lora), 0, catch_logits(seen))
    reloaded = AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.float32)
    with torch.no_grad():
        logits = reloaded(input_ids=PROBE).logits
        before = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32)(input_ids=PROBE).logits
    assert float((logits - before).abs().max()) > 1e-3, "nothing was learnt: the test is vacuous"
    if lora is None:
        assert torch.equal(logits, seen[0])
    else:
        torch.testing.assert_close(logits, seen[0], atol=1e-5, rtol=1e-4)
    # Merged, with the base's own names, tied where it was tied: what vLLM reads.
    assert tiny_models.weights(tmp_path / "m").keys() == tiny_models.weights(start).keys()
    beside = [p.name for p in (tmp_path / "m").iterdir() if "adapter" in p.name]
    assert beside == ([] if lora is None else ["adapter"])  # a folder, which nobody takes for the model's own
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    assert config == json.loads((start / "config.json").read_text())


def test_base_folder_is_untouched_and_every_adapter_tensor_learns(
    tmp_path: Path, model_folder: Folder
) -> None:
    start = model_folder("llama", tied=False)
    before = {p.name: p.read_bytes() for p in start.iterdir()}
    for checkpointing in (False, True):
        model = models.open_model(
            str(start), quick(lora=LORA, gradient_checkpointing=checkpointing), torch.float32
        )
        frozen = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
        trained = {n: p.clone() for n, p in model.named_parameters() if p.requires_grad}
        assert len(trained) == 2 * 7 * 2  # A and B of seven linear layers in two blocks, not of the head
        _steps(model.train(), 2)
        for name, parameter in model.named_parameters():
            if name in frozen:
                assert torch.equal(parameter, frozen[name]), name
                assert parameter.grad is None
            else:
                assert parameter.grad is not None, name
                assert float(parameter.grad.abs().sum()) > 0, name
                assert not torch.equal(parameter, trained[name]), name
        # Merging happens on a copy of nothing: base + alpha / r * B A, in float32.
        layer = model.base_model.model.model.layers[0].self_attn.q_proj
        a, b = (getattr(layer, f"lora_{x}")["default"].weight for x in "AB")
        expected = layer.base_layer.weight + 4.0 * b @ a
        merged = models.merged(model).model.layers[0].self_attn.q_proj.weight
        torch.testing.assert_close(merged, expected, atol=1e-6, rtol=1e-5)
    assert {p.name: p.read_bytes() for p in start.iterdir()} == before


def _steps(model: Any, count: int) -> None:
    from trainers import sft
    from trainers.core.batching import Example, micro_batches
    from trainers.core.optimizer import adamw

    optimizer = adamw(model, quick())
    rows = [Example.of(row["token_ids"], row["loss_mask"]) for row in ROWS]
    for _ in range(count):
        optimizer.zero_grad()
        sft.step(model, micro_batches(rows, 100))
        optimizer.step()


def test_adapter_on_bfloat16_base_is_merged_in_float32(tmp_path: Path, model_folder: Folder) -> None:
    """A small update must survive the merge; it is rounded once, on saving, if the base is stored in bfloat16."""
    start = model_folder("llama", dtype=torch.bfloat16)
    options = quick(lora=LORA, dtype="bfloat16", save_dtype="float32")
    trainers.train(str(start), ROWS, tmp_path / "m", options, 0)
    before, after = tiny_models.weights(start), tiny_models.weights(tmp_path / "m")
    name = "model.layers.0.mlp.up_proj.weight"
    assert after[name].dtype == torch.float32
    assert not torch.equal(after[name], after[name].bfloat16().float())
    assert torch.equal(after["model.norm.weight"], before["model.norm.weight"].float())


def test_learning_rate_zero_leaves_the_weights_bitwise(tmp_path: Path, model_folder: Folder) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        start, out = model_folder("qwen2", dtype=dtype), tmp_path / str(dtype)
        trainers.train(str(start), ROWS, out, quick(lr=0.0, weight_decay=0.1), 0)
        assert tiny_models.same(tiny_models.weights(start), tiny_models.weights(out))


def test_master_weights_move_at_fine_tuning_rates(tmp_path: Path, model_folder: Folder) -> None:
    """At 1e-6, far below bfloat16's resolution, nearly every weight of a bfloat16 model moves in float32."""
    start = model_folder("llama", dtype=torch.bfloat16)
    options = quick(lr=1e-6, schedule="constant", save_dtype="float32", dtype="bfloat16")
    trainers.train(str(start), ROWS, tmp_path / "m", options, 0)
    before, after = tiny_models.weights(start), tiny_models.weights(tmp_path / "m")
    inner = [n for n in after if "layers" in n]
    moved = sum(int((after[n] != before[n].float()).sum()) for n in inner)
    assert moved > 0.9 * sum(after[n].numel() for n in inner)
    rounded = sum(int((after[n].bfloat16() != before[n]).sum()) for n in inner)
    assert rounded < 0.1 * moved


def test_folder_holds_tokenizer_card_and_generation_config(tmp_path: Path, model_folder: Folder) -> None:
    start = model_folder("llama")
    lineage = {"round": 2, "dataset": "abc123"}
    trainers.train(str(start), ROWS, tmp_path / "m", quick(), 0, lineage=lineage)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "m" / name).read_bytes() == (start / name).read_bytes()
    assert AutoTokenizer.from_pretrained(tmp_path / "m").eos_token_id == 0
    assert json.loads((tmp_path / "m" / "generation_config.json").read_text())["eos_token_id"] == 0
    card = (tmp_path / "m" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert '"dataset": "abc123"' in card
    assert model_hash(start) in card
    assert str(tmp_path.parent) not in card
    assert "base_model" not in card


def test_interrupted_export_leaves_no_folder(
    tmp_path: Path, model_folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def torn(_temporary: Path, _out: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(models, "publish", torn)
        with pytest.raises(KeyboardInterrupt):
            trainers.train(str(model_folder()), ROWS, tmp_path / "m", quick(), 0)
    assert not (tmp_path / "m").exists()
    again = trainers.train(str(model_folder()), ROWS, tmp_path / "m", quick(), 0)
    assert again.resumed_from == again.steps == len(again.logs) == 3, "the training was done twice"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m"]
    trainers.train(str(model_folder()), ROWS, tmp_path / "whole", quick(), 0)
    assert tiny_models.same(tiny_models.weights(tmp_path / "m"), tiny_models.weights(tmp_path / "whole"))


def test_killed_export_is_cleared_away_by_the_next_run(tmp_path: Path, model_folder: Folder) -> None:
    code = (
        "import os, signal, sys, test_trainer_export as t\n"
        "from trainers import loop\n"  # before the patch, so that states are still written
        "from trainers.core import model as models\n"
        "models.publish = lambda temporary, out: os.kill(os.getpid(), signal.SIGKILL)\n"
        "t.trainers.train(sys.argv[1], t.ROWS, sys.argv[2], t.quick(dtype='float32'), 0)\n"
    )
    root, start = Path(__file__).resolve().parents[2], str(model_folder())
    env = os.environ | {"PYTHONPATH": f"{root}:{Path(__file__).parent}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, start, str(tmp_path / "m")]
    assert subprocess.run(command, env=env, timeout=400, check=False).returncode == -signal.SIGKILL
    assert any(tmp_path.glob(".m.*tmp")), "the export had not begun: the test is vacuous"
    assert not (tmp_path / "m").exists()
    assert trainers.train(start, ROWS, tmp_path / "m", quick(dtype="float32"), 0).resumed_from == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m"]


def test_link_as_output_is_refused_and_an_empty_folder_is_taken(tmp_path: Path, model_folder: Folder) -> None:
    (tmp_path / "real").mkdir()
    for name, target in (("link", tmp_path / "real"), ("dangling", tmp_path / "none")):
        (tmp_path / name).symlink_to(target)
        with pytest.raises(InputError, match="is a link"):
            trainers.train(str(model_folder()), ROWS, tmp_path / name, quick(max_steps=1), 0)
    first = trainers.train(str(model_folder()), ROWS, tmp_path / "real", quick(max_steps=1), 0)
    # What is finished behind a link is only read.
    again = trainers.train(str(model_folder()), ROWS, tmp_path / "link", quick(max_steps=1), 0)
    assert again.logs == first.logs


def test_adapter_is_merged_off_the_accelerator() -> None:
    calls: list[Any] = []

    class Adapted:
        """Notes in which order it is asked for what."""

        def to(self, device: str) -> Adapted:
            calls.append(device)
            return self

        def float(self) -> Adapted:
            calls.append("float")
            return self

        def merge_and_unload(self, safe_merge: bool) -> str:
            assert safe_merge
            return "plain"

    assert models.merged(Adapted()) == "plain"
    assert calls == ["cpu", "float"]


def test_logprobs_of_a_folder_follow_the_weights(tmp_path: Path, model_folder: Folder) -> None:
    """The probe: equal for the same weights, moved after a training."""
    start = model_folder("qwen2")
    trainers.train(str(start), ROWS, tmp_path / "m", quick(), 0)
    sequences = [row["token_ids"] for row in ROWS[:3]]
    first, second = (
        trainers.logprobs(str(start), sequences),
        trainers.logprobs(str(tmp_path / "m"), sequences),
    )
    assert [len(values) for values in first] == [len(ids) - 1 for ids in sequences]
    assert all(value <= 0 for values in first for value in values)
    assert (
        max(abs(a - b) for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True)) > 1e-2
    )
