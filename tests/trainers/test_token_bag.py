"""What single tokens say: the second half of the vectors of a tuned model."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_embedders

torch = pytest.importorskip("torch")
pytest.importorskip("sentence_transformers")

from safetensors.torch import save_file  # noqa: E402
from sentence_transformers import SentenceTransformer  # noqa: E402

import trainers  # noqa: E402
from synth.records.errors import InputError, WorkError  # noqa: E402
from synth.records.ids import model_hash  # noqa: E402
from trainers.contrastive_options import ContrastiveOptions, TokenBagOptions  # noqa: E402
from trainers.embedding.encoder import open_encoder  # noqa: E402
from trainers.embedding.rows import read_pairs  # noqa: E402
from trainers.embedding.token_bag import FOLDER, TABLE, _vectors, learn_bag  # noqa: E402

# Word 2i of a query is word 2i + 1 of its document: only who learned from pairs knows that they belong together.
ROWS = [
    {"query": f"w{2 * i} w{2 * j}", "positive": f"w{2 * i + 1} w{2 * j + 1}"}
    for i in range(24)
    for j in range(24)
    if (i + j) % 3 == 0 and i < j
]
HELD_OUT = [
    {"query": f"w{2 * i} w{2 * j}", "positive": f"w{2 * i + 1} w{2 * j + 1}"}
    for i in range(24)
    for j in range(24)
    if (i + j) % 3 == 1 and i < j
]
BAG = TokenBagOptions(dimensions=32, epochs=20, batch_size=32, lr=2e-2, weight=0.5)
OPTIONS = ContrastiveOptions(
    max_steps=1, batch_size=8, lr=1e-3, temperature=0.1, dtype="float32", token_bag=BAG
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_embedders.encoder(tmp_path_factory.mktemp("base") / "model"))


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, base: str) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", "1")
        return trainers.train_embedder(base, ROWS, tmp_path_factory.mktemp("tuned") / "m", OPTIONS, 3).path


def first_hits(encode: Callable[..., np.ndarray]) -> float:
    """Share of the held-out queries whose own document is the first of all held-out ones."""
    queries = encode([row["query"] for row in HELD_OUT])
    documents = encode([row["positive"] for row in HELD_OUT])
    return float(((queries @ documents.T).argmax(1) == np.arange(len(HELD_OUT))).mean())


def learn(base: str, rows: list[dict[str, Any]], rng_seed: int = 0, **changes: Any) -> Any:
    """The bag of a model that is not trained."""
    options = replace(OPTIONS, token_bag=replace(BAG, **changes))
    return learn_bag(
        read_pairs(rows, 7), open_encoder(base, device="cpu"), options, rng_seed, lambda _line: None
    )


def test_it_finds_what_the_transformer_does_not(tuned: Path, base: str) -> None:
    plain = open_encoder(base, device="cpu")
    assert first_hits(plain.encode) < 0.1
    assert first_hits(open_encoder(str(tuned), device="cpu").encode) > 0.5


def test_cosines_are_the_weighted_mean_of_both_halves_and_the_first_half_is_the_transformers(
    tuned: Path,
) -> None:
    texts = ["w1 w2 w3", "w2 w2 w9 w11", "w40", "w3 w1"]
    both = open_encoder(str(tuned), device="cpu").encode(texts)
    alone = SentenceTransformer(str(tuned), device="cpu").encode(texts, normalize_embeddings=True)
    dense, bag = both[:, :16], both[:, 16:]
    assert both.shape == (4, 16 + 32)
    np.testing.assert_allclose(dense * np.sqrt(1.5), alone, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(both, axis=1), 1, atol=1e-5)
    units = bag / np.linalg.norm(bag, axis=1, keepdims=True)
    np.testing.assert_allclose(both @ both.T, (alone @ alone.T + 0.5 * units @ units.T) / 1.5, atol=1e-5)


def test_it_sums_tokens_whatever_their_order_and_padding_but_counts_them(tuned: Path) -> None:
    encoder = open_encoder(str(tuned), device="cpu")
    bag = encoder.encode(["w1 w2 w2", "w2 w1 w2", "w1 w2", "w1 w2 w2 " + "w5 " * 20])[:, 16:]
    np.testing.assert_allclose(bag[0], bag[1], atol=1e-6)
    assert not np.allclose(bag[0], bag[2], atol=1e-3)
    np.testing.assert_allclose(bag[0], encoder.encode(["w1 w2 w2"])[0, 16:], atol=1e-6)


def test_a_token_counts_with_the_square_root_of_how_often_it_is_there(tuned: Path) -> None:
    """Where texts are encoded and, since a table is only as good as the sums it was learned for, where it is."""
    encoder = open_encoder(str(tuned), device="cpu")
    table = encoder.model[-1].table
    sums = 2 * table[4 + 1] + math.sqrt(3) * table[4 + 2] + table[4 + 9]
    bag = encoder.encode(["w1 w2 w1 w2 w9 w1 w2 w1", "w2"])[0, 16:]
    np.testing.assert_allclose(bag / np.linalg.norm(bag), (sums / sums.norm()).numpy(), atol=1e-5)
    ids = [np.array([5, 6, 5, 6, 13, 5, 6, 5]), np.array([6])]
    np.testing.assert_allclose(_vectors(ids, table)[0].numpy(), (sums / sums.norm()).numpy(), atol=1e-5)


def test_a_text_without_a_token_has_the_transformers_vector(tuned: Path) -> None:
    (vector,) = open_encoder(str(tuned), device="cpu").encode([""])
    assert not vector[16:].any()
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_special_tokens_stay_at_zero_and_tokens_that_no_row_has_at_their_start(base: str) -> None:
    table, start = learn(base, ROWS, epochs=4).table, learn(base, ROWS, epochs=1, lr=1e-9).table
    assert not table[:4].any()
    assert torch.equal(table[4 + 55], start[4 + 55])
    assert start[4 + 55].norm() > start[4 + 1].norm(), "rarer tokens begin longer"
    assert not torch.allclose(table[4 + 1], start[4 + 1], atol=1e-2)


def test_the_answers_of_one_query_never_push_each_other_apart(base: str) -> None:
    """Were seven answers the eighth's negatives, no loss could fall below the logarithm of 8 for these rows."""
    rows = [{"query": "w1 w2", "positive": f"w{i} w{i + 1}"} for i in range(10, 18)]
    lines: list[str] = []
    pairs, encoder = (
        read_pairs([*rows, {"query": "w30", "positive": "w40"}], 7),
        open_encoder(base, device="cpu"),
    )
    learn_bag(pairs, encoder, replace(OPTIONS, symmetric=False), 0, lines.append)
    assert float(lines[-1].split("loss ")[1].split(",")[0]) < 0.2


def test_rows_without_a_negative_are_refused(base: str) -> None:
    with pytest.raises(InputError, match=r"train\.token_bag\.batch_size: 1: no step has a negative"):
        learn(base, ROWS, batch_size=1)


def test_prompts_hardly_count(base: str) -> None:
    """Words before every query say nothing; as no document has them, they would be the rarest of all."""
    rows = [{**row, "instruction": "w58 w59"} for row in ROWS]
    options = replace(
        OPTIONS, query_template="{instruction} {query}", token_bag=replace(BAG, epochs=1, lr=1e-9)
    )
    encoder = open_encoder(base, device="cpu", options=options)
    lengths = learn_bag(read_pairs(rows, 7), encoder, options, 0, lambda _line: None).table.norm(dim=1)
    assert lengths[4 + 59] < 0.5 * lengths[4 + 1]


@pytest.mark.parametrize(
    "change",
    [{"dimensions": 8}, {"epochs": 2}, {"batch_size": 64}, {"lr": 1e-3}, {"temperature": 0.5}],
    ids=str,
)
def test_every_option_changes_the_table_and_the_seed_does(base: str, change: dict[str, Any]) -> None:
    table = learn(base, ROWS, epochs=1).table if "epochs" in change else learn(base, ROWS).table
    again = learn(base, ROWS, **change).table
    assert table.shape != again.shape or not torch.allclose(table, again)
    assert not torch.equal(table, learn(base, ROWS, 1, **({"epochs": 1} if "epochs" in change else {})).table)


def test_the_same_call_learns_the_same(tuned: Path, base: str, tmp_path: Path) -> None:
    again = trainers.train_embedder(base, ROWS, tmp_path / "m", OPTIONS, 3).path
    assert model_hash(again) == model_hash(tuned)
    weighted = replace(OPTIONS, token_bag=replace(BAG, weight=0.25))
    other = trainers.train_embedder(base, ROWS, tmp_path / "w", weighted, 3).path
    assert json.loads((other / "config.json").read_text())["token_bag"] == {"weight": 0.25}
    assert model_hash(other) != model_hash(tuned)


def test_the_transformer_is_trained_as_it_is_without_it(tuned: Path, base: str, tmp_path: Path) -> None:
    without = trainers.train_embedder(base, ROWS, tmp_path / "m", replace(OPTIONS, token_bag=None), 3).path
    assert not (without / FOLDER).exists()
    assert (without / "model.safetensors").read_bytes() == (tuned / "model.safetensors").read_bytes()


def test_tuning_on_leaves_the_old_bag_behind(tuned: Path, tmp_path: Path) -> None:
    on = trainers.train_embedder(str(tuned), ROWS, tmp_path / "on", OPTIONS, 4).path
    assert open_encoder(str(on), device="cpu").dimensions == 16 + 32
    assert (on / FOLDER / TABLE).read_bytes() != (tuned / FOLDER / TABLE).read_bytes()
    off = trainers.train_embedder(
        str(tuned), ROWS, tmp_path / "off", replace(OPTIONS, token_bag=None), 4
    ).path
    assert open_encoder(str(off), device="cpu").dimensions == 16


def test_a_broken_bag_is_told(tuned: Path, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(tuned, folder)
    (folder / FOLDER / TABLE).write_bytes(b"x")
    with pytest.raises(InputError, match=r"token_bag of .*\n  copy or fetch the whole model anew"):
        open_encoder(str(folder), device="cpu")
    save_file({"table": torch.zeros(3, 32)}, folder / FOLDER / TABLE)
    with pytest.raises(InputError, match=r"is \[3, 32\], but the model has [0-9]+ tokens\n  copy or fetch"):
        open_encoder(str(folder), device="cpu")
    (folder / FOLDER / TABLE).unlink()
    with pytest.raises(InputError, match=r"token_bag/model\.safetensors is missing\n  copy or fetch"):
        open_encoder(str(folder), device="cpu")


def test_the_whole_model_encodes_as_sentence_transformers_does_and_is_not_saved_by_it(
    tuned: Path, tmp_path: Path
) -> None:
    encoder, texts = open_encoder(str(tuned), device="cpu"), ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9"]
    np.testing.assert_allclose(encoder.model.encode_query(texts), encoder.encode(texts, "query"), atol=1e-5)
    with pytest.raises(InputError, match="token bag: is not saved by this\n  copy or upload the folder"):
        encoder.model.save_pretrained(str(tmp_path / "m"))


def test_padding_is_no_token_whatever_its_vector(tuned: Path) -> None:
    encoder = open_encoder(str(tuned), device="cpu")
    encoder.model[-1].table[encoder.tokens.tokenizer.pad_token_id] = 9.0
    beside = encoder.encode(["w1 w2", "w5 " * 20])[0]
    np.testing.assert_allclose(beside, encoder.encode(["w1 w2"])[0], atol=1e-6)


@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_decoders_have_one_and_half_of_its_precision_will_do(tmp_path: Path, padding_side: str) -> None:
    """The last token, which is padding, too, and what begins a text are no tokens of the bag."""
    base = str(tiny_embedders.decoder(tmp_path / "base", bos=True, padding_side=padding_side))
    rows = [
        {"query": "the cat sat", "positive": "on the mat"},
        {"query": "a dog ran", "positive": "in the park"},
    ]
    options = replace(OPTIONS, save_dtype="bfloat16", batch_size=2)
    tuned = trainers.train_embedder(base, rows, tmp_path / "m", options, 0).path
    encoder = open_encoder(str(tuned), device="cpu")
    both = encoder.encode(["the cat sat", "the cat sat on a long mat in the park"])
    assert both.dtype == np.float32
    np.testing.assert_allclose(both[0], encoder.encode(["the cat sat"])[0], atol=1e-2)
    assert encoder.model[-1].table.dtype == torch.bfloat16
    assert not encoder.model[-1].table[encoder.tokens.end_id].any()
    assert not encoder.encode([""])[0, -BAG.dimensions :].any()


def test_a_stopped_training_goes_on_to_the_same_model(base: str, tmp_path: Path) -> None:
    options = replace(OPTIONS, max_steps=3, save_every=1)
    whole = trainers.train_embedder(base, ROWS, tmp_path / "whole", options, 3).path
    out = tmp_path / "stopped"
    with pytest.raises(tiny_embedders.Stopped):
        trainers.train_embedder(base, ROWS, out, options, 3, on_step=tiny_embedders.stop_at(2))
    trainers.train_embedder(base, ROWS, out, options, 3)
    assert model_hash(out) == model_hash(whole)


def test_a_loss_that_is_not_finite_is_an_error(base: str) -> None:
    with pytest.raises(WorkError, match=r"token bag, step \d+: .*\n  lower train\.token_bag\.lr"):
        learn(base, ROWS, temperature=1e-39, epochs=1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("weight", 0.0),
        ("dimensions", 0),
        ("epochs", 0),
        ("batch_size", 0),
        ("lr", float("nan")),
        ("temperature", -1.0),
    ],
)
def test_impossible_options_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"token_bag\.{name}"):
        TokenBagOptions(**{name: value})
