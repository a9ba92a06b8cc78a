"""Options of contrastive tuning: each changes what comes out, or is known not to; wrong ones are refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import tiny_embedders
import tiny_models

pytest.importorskip("sentence_transformers")

import trainers
from synth.records.errors import InputError
from trainers.contrastive_options import ContrastiveOptions
from trainers.options import EarlyStopping, LoraOptions

ROWS = [
    {**row, "source": "ab"[i > 6], "instruction": "" if i % 3 else "w9"}
    for i, row in enumerate(tiny_embedders.pairs(9, longest=28))
]
ROWS += [{**ROWS[i], "sample_id": f"t{i}", "positive": f"w{i} w1"} for i in range(3)]
BASE = ContrastiveOptions(
    max_steps=2, batch_size=4, lr=1e-2, temperature=0.1, dtype="float32", weight_decay=0.1
)

# Options that change the weights, each by itself.
LEARNED: dict[str, Any] = {
    "max_steps": 3,
    "batch_size": 6,
    "temperature": 0.05,
    "hard_negatives": 1,
    "symmetric": True,
    "query_template": "w3 {instruction} w4 {query}",
    "document_template": "w5 {document}",
    "pooling": "cls",
    "max_length": 6,
    "training_length": 6,
    "matryoshka": [4, 8],
    "matryoshka_weights": [1.0, 9.0],
    "lora": LoraOptions(r=2),
    "guide": "here",
    "guide_margin": 0.3,
    "homogeneous": True,
    "mixing": "round_robin",
    "mixing_exponent": 0.9,
    "duplicate_free": False,
    "lr": 1e-3,
    "schedule": "constant",
    "warmup": 1,
    "weight_decay": 0.9,
    "max_grad_norm": 1e-3,
    "dtype": "bfloat16",
    "save_dtype": "bfloat16",
    "dropout": False,
}
# Options that need another one to say anything.
WITH: dict[str, dict[str, Any]] = {
    "matryoshka_weights": {"matryoshka": [4, 8]},
    "guide_margin": {"guide": "here"},
    # Enough steps for rows to spare: two batches hold too few of these sources to round their shares apart.
    "mixing_exponent": {"mixing": "temperature", "max_steps": 3},
}
# Options that change what is watched, kept or how fast it goes; tested one by one elsewhere.
WATCHED = {
    "epochs", "cache", "micro_batch_tokens", "gradient_checkpointing", "early_stopping", "eval_every", "save_every",
    "trackers", "threads", "token_bag",
}  # fmt: skip


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    """tuned(**options) -> weights after a training with BASE and these options, each trained once."""
    root, done = tmp_path_factory.mktemp("tuned"), {}
    start = tiny_embedders.encoder(root / "start", dropout=0.1)
    guide = tiny_embedders.encoder(root / "guide", seed=4)

    def make(**options: Any) -> dict[str, Any]:
        key = repr(sorted(options.items()))
        if key not in done:
            if "guide" in options:
                options["guide"] = str(guide)
            out = root / f"m{len(done)}"
            trainers.train_embedder(str(start), ROWS, out, replace(BASE, **options), 3)
            done[key] = tiny_models.weights(out)
        return done[key]

    return make


def test_training_length_cuts_what_is_trained_on_and_no_more(tmp_path: Path) -> None:
    """Texts that are longer are trained on as if they ended there; the tuned model reads them whole."""
    start = tiny_embedders.encoder(tmp_path / "start")
    whole = [{**row, "instruction": ""} for row in ROWS]
    trainers.train_embedder(str(start), whole, tmp_path / "cut", replace(BASE, training_length=6), 3)

    def short(text: str) -> str:
        return " ".join(text.split()[:4])  # beside the two special tokens

    rows = [{**row, "query": short(row["query"]), "positive": short(row["positive"]),
             "negatives": [short(text) for text in row.get("negatives", [])]} for row in whole]  # fmt: skip
    assert any(before["positive"] != after["positive"] for before, after in zip(whole, rows, strict=True))
    trainers.train_embedder(str(start), rows, tmp_path / "short", BASE, 3)
    assert tiny_models.same(tiny_models.weights(tmp_path / "cut"), tiny_models.weights(tmp_path / "short"))
    tokens = trainers.open_encoder(str(tmp_path / "cut"), device="cpu").tokens
    assert [len(ids) for ids in tokens.ids(["w1 " * 50])] == [tiny_embedders.LIMIT]


@pytest.mark.parametrize("key", ["training_length", "max_length"])
def test_an_instruction_that_leaves_no_room_is_refused(tmp_path: Path, key: str) -> None:
    start = tiny_embedders.encoder(tmp_path / "start")
    rows = [{**row, "instruction": "w1 w2 w3 w4 w5 w6 w7 w8"} for row in ROWS]
    options = replace(BASE, **{key: 6})
    with pytest.raises(InputError, match=f"train.{key}: 6, but an instruction alone takes [0-9]+ tokens"):
        trainers.train_embedder(str(start), rows, tmp_path / "m", options, 3)
    assert not (tmp_path / "m").exists()


def test_every_option_is_known_here() -> None:
    assert LEARNED.keys() | WATCHED == {field.name for field in fields(ContrastiveOptions)}
    assert not LEARNED.keys() & WATCHED


@pytest.mark.parametrize("name", LEARNED)
def test_option_changes_the_weights(tuned: Callable[..., dict[str, Any]], name: str) -> None:
    beside = WITH.get(name, {})
    assert LEARNED[name] != getattr(BASE, name)
    assert not tiny_models.same(tuned(**beside, **{name: LEARNED[name]}), tuned(**beside))


@pytest.mark.parametrize(
    "free",
    [{"save_every": 1}, {"threads": 1}, {"epochs": 7}, {"trackers": ["tensorboard"]}, {"eval_every": 1}],
    ids=lambda options: next(iter(options)),
)
def test_option_leaves_the_weights_alone(tuned: Callable[..., dict[str, Any]], free: dict[str, Any]) -> None:
    """Bitwise; `epochs` because max_steps wins."""
    if "trackers" in free:
        pytest.importorskip("tensorboard")
    assert tiny_models.same(tuned(**free), tuned())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs: seen 0; use at least 1"),
        ({"batch_size": 0}, "batch_size: seen 0"),
        ({"save_every": 0}, "save_every: seen 0"),
        ({"max_steps": 0}, "max_steps: seen 0; use at least 1 or null"),
        ({"micro_batch_tokens": 0}, "micro_batch_tokens: seen 0"),
        ({"eval_every": 0}, "eval_every: seen 0"),
        ({"threads": 0}, "threads: seen 0"),
        ({"max_length": 2}, "max_length: seen 2; use at least 3"),
        ({"training_length": 2}, "training_length: seen 2; use at least 3"),
        ({"temperature": 0.0}, "temperature: seen 0.0; use a positive number"),
        ({"temperature": float("nan")}, "temperature: seen nan; use a finite number"),
        ({"hard_negatives": -1}, "hard_negatives: seen -1"),
        ({"query_template": "find"}, r"query_template: seen 'find'; end it with \{query\}"),
        ({"query_template": "{query}, please"}, "query_template"),
        ({"query_template": "{query} {query}"}, "query_template"),
        ({"document_template": "{query}"}, r"document_template: .*end it with \{document\}"),
        ({"pooling": "middle"}, "pooling: seen 'middle'; use one of auto, mean, cls, lasttoken"),
        ({"cache": "maybe"}, "cache: seen 'maybe'"),
        ({"mixing": "any"}, "mixing: seen 'any'"),
        ({"mixing_exponent": -1.0}, "mixing_exponent: seen -1.0"),
        ({"matryoshka": [0]}, "matryoshka: seen 0"),
        ({"matryoshka": [4], "matryoshka_weights": [1.0, 2.0]}, "matryoshka_weights"),
        ({"matryoshka": [4], "matryoshka_weights": [0.0]}, "matryoshka_weights"),
        ({"guide_margin": float("inf")}, "guide_margin"),
        ({"lr": -1.0}, "lr: seen -1.0"),
        ({"schedule": "step"}, "schedule: seen 'step'"),
        ({"warmup": 1.5}, "warmup: seen 1.5; use a share below 1 or a whole number of steps"),
        ({"warmup": -0.1}, "warmup: seen -0.1"),
        ({"warmup": 9, "max_steps": 9}, "warmup: seen 9; use less than max_steps, or a share below 1"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"max_grad_norm": 0.0}, "max_grad_norm: seen 0.0"),
        ({"dtype": "float16"}, "dtype: seen 'float16'"),
        ({"save_dtype": "float16"}, "save_dtype: seen 'float16'"),
        ({"trackers": ["paper"]}, "trackers: seen 'paper'"),
        (
            {"dropout": False, "gradient_checkpointing": True},
            "dropout: seen 'false with gradient_checkpointing'",
        ),
        ({"dropout": False, "lora": LoraOptions(dropout=0.1)}, "dropout: seen 'false with lora.dropout'"),
        ({"early_stopping": EarlyStopping()}, "early_stopping: seen 'without eval_every'"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ContrastiveOptions(**options)


@pytest.mark.parametrize(("warmup", "steps"), [(0, 0), (0.1, 20), (1, 1), (30, 30)])
def test_warmup_is_a_share_or_steps(warmup: float, steps: int) -> None:
    assert ContrastiveOptions(warmup=warmup).loop_options(200).warmup_steps == steps
