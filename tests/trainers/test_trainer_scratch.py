"""A model made from nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import tiny_models
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

import trainers
from synth.records.errors import InputError
from synth.records.ids import folder_hash
from trainers.options import ScratchOptions, TrainOptions
from trainers.scratch import EOS, create, train_tokenizer

SMALL = ScratchOptions(
    vocab_size=280, hidden_size=32, intermediate_size=48, layers=2, heads=2, kv_heads=1, max_position=64
)
TOKENIZER = train_tokenizer(tiny_models.TEXTS, SMALL)


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
@pytest.mark.parametrize("tied", [True, False])
def test_folder_loads_as_asked(tmp_path: Path, architecture: str, tied: bool) -> None:
    options = replace(SMALL, architecture=architecture, tie_embeddings=tied)  # type: ignore[arg-type]
    folder = create(tmp_path / "m", tiny_models.TEXTS, options, 0)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    config = model.config
    found = (
        config.model_type, config.hidden_size, config.intermediate_size, config.num_hidden_layers,
        config.num_attention_heads, config.num_key_value_heads, config.max_position_embeddings,
        config.tie_word_embeddings,
    )  # fmt: skip
    assert found == (architecture, 32, 48, 2, 2, 1, 64, tied)
    assert config.vocab_size == len(tokenizer) <= 280
    assert tokenizer.eos_token_id != tokenizer.pad_token_id
    assert config.eos_token_id == model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert ("lm_head.weight" in tiny_models.weights(folder)) is not tied


def test_equal_arguments_write_equal_files(tmp_path: Path) -> None:
    torch.manual_seed(1)
    expected = torch.rand(2)
    hashes = []
    for index, seed in enumerate((0, 0, 1)):
        torch.manual_seed(1)
        hashes.append(folder_hash(create(tmp_path / str(index), tiny_models.TEXTS, SMALL, seed)))
        assert torch.equal(torch.rand(2), expected)
    assert hashes[0] == hashes[1] != hashes[2]
    with pytest.raises(InputError, match="exists"):
        create(tmp_path / "0", tiny_models.TEXTS, SMALL, 0)


@settings(max_examples=50, deadline=None)
@given(st.text())
def test_every_text_round_trips(text: str) -> None:
    ids = TOKENIZER(text)["input_ids"]
    assert TOKENIZER.decode(ids) == text


def test_digits_are_single_tokens_and_merges_are_learnt() -> None:
    ids = TOKENIZER("42+142=184")["input_ids"]
    assert [TOKENIZER.decode([i]) for i in ids] == list("42+142=184")
    assert len(TOKENIZER("The answer is")["input_ids"]) < len("The answer is")


def test_trained_from_scratch_it_learns_to_answer_and_to_stop(tmp_path: Path) -> None:
    """Overfit three rows: generation must give the completion and then end."""
    pairs = {"2+3=": "5", "4+4=": "8", "add:": "return a + b"}
    base = create(tmp_path / "base", [*pairs, *pairs.values()], SMALL, 0)
    rows = [{"prompt": p, "completion": c, "sample_id": p} for p, c in pairs.items()]
    options = TrainOptions(max_steps=60, lr=1e-2, warmup_steps=5)
    result = trainers.train(str(base), rows, tmp_path / "m", options, 0)
    assert result.logs[-1]["loss"] < 0.05 < 1 < result.logs[0]["loss"]
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(result.path),
        AutoTokenizer.from_pretrained(result.path),
    )
    for prompt, completion in pairs.items():
        out = model.generate(**tokenizer(prompt, return_tensors="pt"), max_new_tokens=20, do_sample=False)
        assert tokenizer.decode(out[0]) == prompt + completion + EOS
