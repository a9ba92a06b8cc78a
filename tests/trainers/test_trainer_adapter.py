"""The adapter beside a merged model is the one that was trained, and going on with it starts from that very model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import trainers
from synth.records.errors import InputError
from synth.records.ids import model_hash
from trainers.core import model as models
from trainers.options import LoraOptions, TrainOptions

ROWS = tiny_models.token_rows(12)
PROBE = torch.tensor([ROWS[0]["token_ids"]])
LORA = LoraOptions(r=2, alpha=8)
Folder = Callable[..., Path]


def quick(**changes: Any) -> TrainOptions:
    made: dict[str, Any] = {"max_steps": 3, "batch_size": 6, "lr": 2e-2, "lora": LORA, "dtype": "float32"}
    return TrainOptions(**(made | changes))


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=PROBE).logits.float()


def opened(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_the_adapter_is_the_one_that_was_merged_and_that_is_gone_on_with(
    family: str, tmp_path: Path, model_folder: Folder
) -> None:
    start = model_folder(family, tied=True)
    trainers.train(str(start), ROWS, tmp_path / "m", quick(), 0)
    merged = logits(opened(tmp_path / "m"))
    assert float((merged - logits(opened(start))).abs().max()) > 1e-2, "nothing was learnt"
    as_peft = PeftModel.from_pretrained(opened(start), str(tmp_path / "m" / "adapter"))
    torch.testing.assert_close(logits(as_peft), merged, atol=1e-5, rtol=1e-4)
    again = models.open_model(str(tmp_path / "m"), quick(adapter="same"), torch.float32)
    torch.testing.assert_close(logits(again), merged, atol=1e-5, rtol=1e-4)
    saved = load_file(tmp_path / "m" / "adapter" / "adapter_model.safetensors")
    trained = {name.replace(".default", ""): p for name, p in again.named_parameters() if p.requires_grad}
    assert trained.keys() == saved.keys()
    assert all(torch.equal(saved[name], parameter) for name, parameter in trained.items())
    below = dict(opened(start).named_parameters())
    for name, parameter in again.get_base_model().named_parameters():
        if not parameter.requires_grad:
            plain = name.replace(".base_layer", "")
            torch.testing.assert_close(parameter, below[plain], atol=1e-6, rtol=1e-5)


def test_going_on_trains_the_same_adapter_and_a_kill_changes_nothing(
    tmp_path: Path, model_folder: Folder
) -> None:
    trainers.train(str(model_folder()), ROWS, tmp_path / "m", quick(), 0)
    losses: dict[str, list[float]] = {}
    for adapter in ("new", "same"):
        result = trainers.train(str(tmp_path / "m"), ROWS, tmp_path / adapter, quick(adapter=adapter), 0)
        losses[adapter] = [entry["loss"] for entry in result.logs]
    # Both start as the exported model; a new adapter's A is random and its B zero.
    assert losses["same"][0] == pytest.approx(losses["new"][0], rel=1e-5)
    assert losses["same"][1:] != pytest.approx(losses["new"][1:], rel=1e-3)
    first, second = (
        load_file(tmp_path / name / "adapter/adapter_model.safetensors") for name in ("m", "same")
    )
    moved = {name: float((second[name] - first[name]).abs().max()) for name in first}
    assert all(0 < change < 0.2 for change in moved.values())

    def killed(entry: dict[str, Any]) -> None:
        if entry["step"] == 2:
            raise KeyboardInterrupt

    options = quick(adapter="same", save_every=1)
    with pytest.raises(KeyboardInterrupt):
        trainers.train(str(tmp_path / "m"), ROWS, tmp_path / "killed", options, 0, on_step=killed)
    trainers.train(str(tmp_path / "m"), ROWS, tmp_path / "killed", options, 0)
    assert model_hash(tmp_path / "killed") == model_hash(tmp_path / "same")


def test_with_rate_0_the_model_stays_and_the_adapter_too(tmp_path: Path, model_folder: Folder) -> None:
    trainers.train(str(model_folder()), ROWS, tmp_path / "m", quick(), 0)
    trainers.train(str(tmp_path / "m"), ROWS, tmp_path / "still", quick(adapter="same", lr=0.0), 0)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        kept, before = (tmp_path / folder / "adapter" / name for folder in ("still", "m"))
        assert kept.read_bytes() == before.read_bytes()
    torch.testing.assert_close(logits(opened(tmp_path / "still")), logits(opened(tmp_path / "m")))
    told = json.loads((tmp_path / "m" / "adapter" / "adapter_config.json").read_text())
    assert told["base_model_name_or_path"] is None
    assert told["target_modules"] == sorted(told["target_modules"])


@pytest.mark.parametrize(
    ("lora", "said"),
    [
        (LoraOptions(r=3, alpha=8), "r is 3 where the adapter .* has 2"),
        (LoraOptions(r=2, alpha=4), "lora_alpha is 4"),
        (LoraOptions(r=2, alpha=8, target_modules=["q_proj"]), "target_modules"),
    ],
)
def test_another_shape_is_refused(lora: LoraOptions, said: str, tmp_path: Path, model_folder: Folder) -> None:
    trainers.train(str(model_folder()), ROWS, tmp_path / "m", quick(max_steps=1), 0)
    options = quick(lora=lora, adapter="same")
    with pytest.raises(InputError, match=rf"train\.adapter: 'same', and {said}"):
        trainers.train(str(tmp_path / "m"), ROWS, tmp_path / "other", options, 0)
    with pytest.raises(InputError, match=said):
        trainers.check_adapter(str(tmp_path / "m"), lora, same=True)
    trainers.check_adapter(str(tmp_path / "m"), LORA, same=True)


def test_a_model_without_an_adapter_is_refused(tmp_path: Path, model_folder: Folder) -> None:
    with pytest.raises(InputError, match=r"train\.adapter: 'same', and .* holds no adapter"):
        trainers.train(str(model_folder()), ROWS, tmp_path / "m", quick(adapter="same"), 0)
    with pytest.raises(ValueError, match="adapter: seen 'same'; set lora"):
        TrainOptions(adapter="same")
