"""Small recipes of kind `embedding` for tests: a random encoder of two layers, pairs of made-up sentences."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recipe_samples import write_rows

import recipes
from recipes.settings import load_any
from synth.store import read_parts

TOPICS = (
    "tides",
    "locks",
    "bread",
    "clocks",
    "wolves",
    "roofs",
    "maps",
    "wells",
    "looms",
    "kites",
    "salt",
    "bees",
)
DETAILS = ("cost", "age", "weight", "colour", "origin", "danger")
FILLER = ("often", "rarely", "mostly", "never", "quite", "still", "again", "slowly")
WORDS = ("what", "is", "the", "of", "a", "about", "?", ".", *TOPICS, *DETAILS, *FILLER)


def pairs(topics: Sequence[str] = TOPICS[:8], seed: int = 0) -> list[dict[str, Any]]:
    """One pair for each topic and detail: what is asked is a word of its document, among others."""
    rng = random.Random(seed)
    made = []
    for topic in topics:
        for detail in DETAILS:
            words = [rng.choice(FILLER) for _ in range(rng.randint(6, 10))]
            text = f"{words[0]} {topic} {' '.join(words[1:3])} {detail} {' '.join(words[3:])} ."
            made.append({"query": f"what is the {detail} of {topic} ?", "positive": text, "topic": topic})
    return made


def encoder(folder: Path, seed: int = 0) -> Path:
    """A random BERT of two layers with a word tokenizer: mean pooling, no sentence-transformers layout."""
    from transformers import BertModel

    return _bert(BertModel, folder, seed)


def cross_encoder(folder: Path, scores: int = 1) -> Path:
    """The same with a random head that gives a pair of texts its scores."""
    from transformers import BertForSequenceClassification

    return _bert(BertForSequenceClassification, folder, 0, num_labels=scores)


def causal_reranker(folder: Path) -> Path:
    """A random Llama of two layers that can say yes and no."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    size = _word_tokenizer(folder, (*WORDS, "yes", "no"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=size, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
            max_position_embeddings=64, initializer_range=0.5,
        )  # fmt: skip
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def _bert(kind: Any, folder: Path, seed: int, **more: Any) -> Path:
    import torch
    from transformers import BertConfig

    size = _word_tokenizer(folder, WORDS)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = BertConfig(
            vocab_size=size, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
            max_position_embeddings=64, initializer_range=0.5, **more,
        )  # fmt: skip
        kind(config).save_pretrained(folder)
    return folder


def _word_tokenizer(folder: Path, words: Sequence[str]) -> int:
    """Save a tokenizer of these words; returns how many ids it has."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: place for place, word in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", model_max_length=64
    )
    fast.save_pretrained(folder)
    return len(vocabulary)


def tree(model: Path, folder: Path, /, **changes: Any) -> dict[str, Any]:
    """A recipe of one domain `it` with its rows written into `folder`; dotted keys changed: `**{"train.lr": 0}`."""
    made: dict[str, Any] = {
        "name": "small",
        "kind": "embedding",
        "model": str(model),
        "domains": {
            "it": {
                "train": str(write_rows(folder / "train.jsonl", pairs())),
                "held_out": str(write_rows(folder / "held_out.jsonl", pairs(TOPICS[8:], seed=1))),
            }
        },
        "mine": {"count": 2, "relative_margin": None},
        "train": {"max_steps": 4, "batch_size": 16, "lr": 1e-3, "dtype": "float32", "warmup": 0},
        "evaluate": {"bootstrap": 100},
        "gate": {"patience": 0},
    }
    for path, value in changes.items():
        here = made
        *above, last = path.split(".")
        for part in above:
            here = here.setdefault(part, {})
        here[last] = copy.deepcopy(value)
    return made


def run(made: dict[str, Any], out: Path) -> Any:
    """Run the recipe; what `recipes.run` gives."""
    return recipes.run(load_any(made), out=out)


def dataset(out: Path, index: int = 0, decision: str | None = "kept") -> list[dict[str, Any]]:
    """Rows of a round's dataset, those of one decision or all."""
    rows = read_parts(out / f"round-{index:02d}" / "dataset")
    return [row for row in rows if decision in (None, row["decision"])]


def decisions(out: Path) -> dict[str, int]:
    """{decision or its reason: pairs} of a run."""
    counts: dict[str, int] = {}
    for row in read_parts(out / "curated"):
        name = row["decision_reason"] or row["decision"]
        counts[name] = counts.get(name, 0) + 1
    return counts
