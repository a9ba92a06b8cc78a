"""A language model from nothing: train a byte-level BPE tokenizer, initialise a decoder, save both.

The result is a folder that transformers and vLLM load; training it is the trainer's ordinary work.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from synth.records.errors import InputError
from synth.records.jsonl import repair_text
from trainers.core.model import write_model
from trainers.core.seeds import derive, isolated_rng
from trainers.core.session import quiet_bars
from trainers.options import ScratchOptions

EOS = "<|endoftext|>"
PAD = "<|pad|>"


def create(out: str | os.PathLike[str], texts: Iterable[str], options: ScratchOptions, rng_seed: int) -> Path:
    """Write an untrained model with a tokenizer learnt from `texts` to `out`; equal arguments write equal files.

    Digits are single tokens. The padding token is not the end-of-sequence token, so that neither software that masks
    padding by id nor a reader of the rows can confuse them. Raises InputError if `out` is not empty.
    """
    import torch
    from transformers import AutoModelForCausalLM

    target = Path(out)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(str(target), "exists", "give a new folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(texts, options)
    with isolated_rng(), quiet_bars():
        torch.manual_seed(derive(rng_seed, "scratch"))
        model = AutoModelForCausalLM.from_config(_config(options, tokenizer), dtype=torch.float32)
        files = {"tokenizer_config.json": json.dumps(_tokenizer_config(options), indent=2) + "\n"}
        write_model(target, model, tokenizer, "float32", files)
    return target


def train_tokenizer(texts: Iterable[str], options: ScratchOptions) -> Any:
    """A byte-level BPE tokenizer (transformers) of at most `vocab_size` tokens; every byte string round-trips."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[assignment]
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    core.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=options.vocab_size,
        special_tokens=[EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator((repair_text(text)[0] for text in texts), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, **_tokenizer_config(options))


def _tokenizer_config(options: ScratchOptions) -> dict[str, Any]:
    """What tokenizer_config.json says; written by us, as transformers 5 names a class that 4 does not know."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": EOS,
        "pad_token": PAD,
        "model_max_length": options.max_position,
        "clean_up_tokenization_spaces": False,
        "padding_side": "left",
    }


def _config(options: ScratchOptions, tokenizer: Any) -> Any:
    from transformers import LlamaConfig, Qwen2Config

    family = {"llama": LlamaConfig, "qwen2": Qwen2Config}[options.architecture]
    return family(
        vocab_size=len(tokenizer),
        hidden_size=options.hidden_size,
        intermediate_size=options.intermediate_size,
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
        num_key_value_heads=options.kv_heads,
        max_position_embeddings=options.max_position,
        tie_word_embeddings=options.tie_embeddings,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
