"""Encoding: what plain sentence-transformers gives for the same folder, and the end token of decoders."""

from __future__ import annotations

import json
import random
import string
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_embedders
import tiny_models

torch = pytest.importorskip("torch")
pytest.importorskip("sentence_transformers")

import trainers  # noqa: E402
from synth.records.errors import InputError, WorkError  # noqa: E402
from trainers.contrastive_options import ContrastiveOptions  # noqa: E402
from trainers.embedding.tokens import Tokens, check_pooled, end_with_token, special_ends  # noqa: E402

TEXTS = ["w1 w2 w3", "w4", "", "w5 " * 60, "w6 unheard-of w7", "w8 w9"]


def peer(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu")


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_embedders.encoder(tmp_path_factory.mktemp("bert") / "model")


@pytest.mark.parametrize("pooling", ["mean_tokens", "cls_token", "lasttoken", "max_tokens"])
def test_same_vectors_as_the_peer(tmp_path: Path, pooling: str) -> None:
    prompts = {"query": "w10 ", "passage": "w11 "}
    folder = tiny_embedders.laid_out(tiny_embedders.encoder(tmp_path / "m"), pooling, prompts=prompts)
    ours, theirs = trainers.open_encoder(str(folder), device="cpu"), peer(folder)
    assert ours.dimensions == 16
    for role, encode in (("query", theirs.encode_query), ("document", theirs.encode_document)):
        found = ours.encode(TEXTS, role)  # type: ignore[arg-type]
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, unit(encode(TEXTS)), atol=1e-6)
    assert np.abs(ours.encode(TEXTS, "query") - ours.encode(TEXTS, "document")).max() > 0.01


def test_a_folder_without_layout_is_read_by_its_kind(bert: Path, tmp_path: Path) -> None:
    from sentence_transformers.sentence_transformer.modules import Pooling

    def pooling(folder: Path, options: ContrastiveOptions | None = None) -> str:
        model = trainers.open_encoder(str(folder), options=options, device="cpu").model
        return str(next(module.pooling_mode for module in model if isinstance(module, Pooling)))

    assert pooling(bert) == "mean"
    assert pooling(tiny_embedders.decoder(tmp_path / "head")) == "lasttoken"
    assert pooling(tiny_embedders.decoder(tmp_path / "headless", headless=True)) == "lasttoken"
    for wanted in ("mean", "cls", "lasttoken"):
        assert pooling(bert, ContrastiveOptions(pooling=wanted)) == wanted  # type: ignore[arg-type]


def test_micro_batches_and_order_do_not_matter(bert: Path) -> None:
    whole = trainers.open_encoder(str(bert), device="cpu").encode(TEXTS)
    narrow = trainers.open_encoder(
        str(bert), options=ContrastiveOptions(micro_batch_tokens=1, dtype="float32"), device="cpu"
    )
    np.testing.assert_allclose(narrow.encode(TEXTS), whole, atol=1e-6)
    np.testing.assert_allclose(narrow.encode(TEXTS[::-1])[::-1], whole, atol=1e-6)
    assert narrow.encode([]).shape == (0, 16)
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1.0, atol=1e-6)


def test_templates(bert: Path) -> None:
    encoder = trainers.open_encoder(str(bert), device="cpu")
    assert encoder.text("x", "query", "find {it}") == "Instruct: find {it}\nQuery: x"
    assert encoder.text("x", "query") == encoder.text("x", "query", " ") == encoder.text("x") == "x"
    options = ContrastiveOptions(query_template="{instruction}: {query}", document_template="doc {document}")
    encoder = trainers.open_encoder(str(bert), options=options, device="cpu")
    assert [encoder.text("x", "query", "t"), encoder.text("x", "query"), encoder.text("x")] == [
        "t: x",
        "x",
        "doc x",
    ]
    fixed = ContrastiveOptions(query_template="query: {query}")
    encoder = trainers.open_encoder(str(bert), options=fixed, device="cpu")
    assert [encoder.text("x", "query"), encoder.text("x", "query", "t")] == ["query: x", "query: x"]


@pytest.mark.parametrize("template", ["{query}", "query: {query}", "{instruction}: {query}"])
def test_the_template_is_kept_with_the_model(bert: Path, tmp_path: Path, template: str) -> None:
    first = trainers.open_encoder(
        str(bert), options=ContrastiveOptions(query_template=template), device="cpu"
    )
    first.model.save_pretrained(str(tmp_path / "saved"))
    again = trainers.open_encoder(str(tmp_path / "saved"), device="cpu")
    for instruction in ("", "find it"):
        assert again.text("x", "query", instruction) == first.text("x", "query", instruction)


def test_instructions_are_one_for_all_or_one_for_each(bert: Path) -> None:
    encoder = trainers.open_encoder(
        str(bert), options=ContrastiveOptions(query_template="{instruction} {query}"), device="cpu"
    )
    each = encoder.encode(["w1", "w2"], "query", ["w3", ""])
    np.testing.assert_allclose(each[0], encoder.encode(["w3 w1"])[0], atol=1e-6)
    np.testing.assert_allclose(each[1], encoder.encode(["w2"])[0], atol=1e-6)
    np.testing.assert_allclose(
        encoder.encode(["w1", "w2"], "query", "w3"), encoder.encode(["w3 w1", "w3 w2"]), atol=1e-6
    )
    with pytest.raises(InputError, match="1 instructions for 2 texts"):
        encoder.encode(["a", "b"], "query", ["c"])
    with pytest.raises(InputError, match=r"role: 'passage'"):
        encoder.encode(["a"], "passage")  # type: ignore[arg-type]


def test_lone_surrogates_become_replacement_characters(bert: Path) -> None:
    encoder = trainers.open_encoder(str(bert), device="cpu")
    assert encoder.text("a\ud800b") == "a�b"
    np.testing.assert_array_equal(encoder.encode(["w1 \ud800"]), encoder.encode(["w1 �"]))


def test_max_length_cuts(bert: Path) -> None:
    short = trainers.open_encoder(str(bert), options=ContrastiveOptions(max_length=4), device="cpu")
    np.testing.assert_allclose(short.encode(["w1 w2 w3 w4"]), short.encode(["w1 w2"]), atol=1e-6)
    assert [len(ids) for ids in short.tokens.ids(["w1 " * 50])] == [4]
    own = trainers.open_encoder(str(bert), options=ContrastiveOptions(max_length=999), device="cpu")
    assert [len(ids) for ids in own.tokens.ids(["w1 " * 50])] == [tiny_embedders.LIMIT]


def test_dtype_is_as_stored_unless_said(bert: Path) -> None:
    def dtype(**options: Any) -> Any:
        return trainers.open_encoder(
            str(bert), options=ContrastiveOptions(**options), device="cpu"
        ).model.dtype

    assert (dtype(), dtype(dtype="bfloat16")) == (torch.float32, torch.bfloat16)


# --- the end token of decoders -------------------------------------------------------------------------------------


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("layout", [False, True])
def test_the_end_token_is_pooled_and_kept(tmp_path: Path, bos: bool, side: str, layout: bool) -> None:
    folder = tiny_embedders.decoder(tmp_path / "m", bos=bos, padding_side=side)
    if layout:
        tiny_embedders.laid_out(folder, "lasttoken")
    encoder = trainers.open_encoder(str(folder), options=ContrastiveOptions(max_length=8), device="cpu")
    tokenizer = encoder.tokens.tokenizer
    # Padded as the folder says; without a layout on the right, where positions are the text's own.
    assert tokenizer.padding_side == (side if layout else "right")
    for ids in encoder.tokens.ids(["short", "", "long " * 50]):
        assert ids[-1] == tokenizer.eos_token_id == encoder.tokens.end_id
        assert (ids[0] == 2) == bos
        assert list(ids).count(tokenizer.eos_token_id) == 1
    assert [len(ids) for ids in encoder.tokens.ids(["long " * 50])] == [8]
    vectors = encoder.encode(["short", "a much longer text", ""])
    alone = np.concatenate([encoder.encode([text]) for text in ("short", "a much longer text", "")])
    np.testing.assert_allclose(vectors, alone, atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_decoders_vector_does_not_depend_on_its_neighbours(tmp_path: Path, side: str, family: str) -> None:
    """Nor where positions are absolute, and would be counted from the padding on."""
    folder = tiny_embedders.decoder(tmp_path / "m", padding_side=side, family=family)
    tiny_embedders.laid_out(folder, "lasttoken")
    encoder = trainers.open_encoder(str(folder), device="cpu")
    assert encoder.tokens.tokenizer.padding_side == side
    texts = ["short", "a much longer text, beside which others are padded", "of some length"]
    batch = encoder.tokens.batch(encoder.tokens.ids(texts))
    together = encoder.forward(encoder.model, batch).detach()
    alone = np.concatenate([encoder.encode([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_the_last_state_is_the_end_tokens(tmp_path: Path) -> None:
    """By hand: one text alone, its end token appended, the state there."""
    from transformers import AutoModel, AutoTokenizer

    folder = tiny_embedders.decoder(tmp_path / "m")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = [*tokenizer("def add")["input_ids"], tokenizer.eos_token_id]
    with torch.no_grad():
        states = AutoModel.from_pretrained(folder)(torch.tensor([ids])).last_hidden_state[0]
    found = trainers.open_encoder(str(folder), device="cpu").encode(["def add"])
    np.testing.assert_allclose(found[0], unit(states[-1:].numpy())[0], atol=1e-5)


def test_an_end_token_that_is_there_is_left_alone(tmp_path: Path) -> None:
    from tokenizers import processors
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_embedders.decoder(tmp_path / "m"))
    pad = tokenizer.pad_token
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {pad}", special_tokens=[(pad, tokenizer.pad_token_id)]
    )
    before = tokenizer("abc")["input_ids"]
    assert end_with_token(tokenizer, "m") == tokenizer.pad_token_id
    assert tokenizer("abc")["input_ids"] == before


@pytest.mark.parametrize("bos", [False, True])
def test_the_end_token_survives_saving(tmp_path: Path, bos: bool) -> None:
    """Also in a file that says add_eos_token: false, which transformers would believe."""
    from transformers import AutoTokenizer

    folder = tiny_embedders.decoder(tmp_path / "m", bos=bos)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(
        json.dumps({**settings, "add_bos_token": bos, "add_eos_token": False})
    )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert special_ends(tokenizer) == ([2] if bos else [], [])
    end = end_with_token(tokenizer, "m")
    tokenizer.save_pretrained(tmp_path / "again")
    again = AutoTokenizer.from_pretrained(tmp_path / "again")
    assert special_ends(again) == ([2] if bos else [], [end])


def test_a_batch_that_does_not_end_with_it_is_refused() -> None:
    class Padded:
        pad_token_id = 9

        def __init__(self, side: str) -> None:
            self.padding_side = side

    rows = [np.array([4, 5, 0]), np.array([0])]
    for side in ("left", "right"):
        tokens = Tokens(Padded(side), 0)
        features = tokens.batch(rows)
        assert features["attention_mask"].sum(1).tolist() == [3, 1]
        assert features["input_ids"][1].tolist() == ([9, 9, 0] if side == "left" else [0, 9, 9])
        with pytest.raises(WorkError, match="the pooled token is 5, not the end token 0"):
            tokens.batch([*rows, np.array([4, 5])])
    with pytest.raises(WorkError, match="pooled"):
        check_pooled({"input_ids": torch.tensor([[0, 7]]), "attention_mask": torch.tensor([[1, 1]])}, 0)


def test_random_texts_are_told_apart(tmp_path: Path) -> None:
    """A pooled special token in front would give all texts one vector."""
    from transformers import LlamaModel

    folder = tiny_embedders.decoder(tmp_path / "m", bos=True)
    config = tiny_models.config("llama")  # wider: of 20 texts in 32 dimensions some are always near
    config.update({"hidden_size": 128, "head_dim": 64, "initializer_range": 0.3})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaModel(config).save_pretrained(folder)
    draw = random.Random(0)
    texts = ["".join(draw.choices(string.printable, k=draw.randint(20, 60))) for _ in range(20)]
    vectors = trainers.open_encoder(str(folder), device="cpu").encode(texts)
    assert (vectors @ vectors.T)[~np.eye(20, dtype=bool)].max() < 0.9


# --- what cannot be opened -----------------------------------------------------------------------------------------


def test_a_chat_template_does_not_wrap_texts(tmp_path: Path) -> None:
    folder = tiny_embedders.decoder(tmp_path / "m")
    plain = trainers.open_encoder(str(folder), device="cpu").encode(["abc"])
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    template = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": template}))
    np.testing.assert_array_equal(trainers.open_encoder(str(folder), device="cpu").encode(["abc"]), plain)


def test_no_model_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"model .*empty"):
        trainers.open_encoder(str(tmp_path / "empty"))


def test_lost_weights_are_an_input_error(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tiny_embedders.encoder(tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    poolerless = {name: tensor for name, tensor in tensors.items() if "pooler" not in name}
    save_file(poolerless, folder / "model.safetensors", {"format": "pt"})
    trainers.open_encoder(str(folder))
    del poolerless["encoder.layer.1.output.dense.weight"]
    save_file(poolerless, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"1 tensors are missing: encoder.layer.1.output.dense.weight"):
        trainers.open_encoder(str(folder))


def test_cut_vectors_are_refused(tmp_path: Path) -> None:
    folder = tiny_embedders.laid_out(tiny_embedders.encoder(tmp_path / "m"), "mean_tokens")
    (folder / "config_sentence_transformers.json").write_text('{"truncate_dim": 8}')
    with pytest.raises(InputError, match="cuts its vectors to 8 dimensions"):
        trainers.open_encoder(str(folder))


def test_no_end_token_is_an_input_error(tmp_path: Path) -> None:
    folder = tiny_embedders.decoder(tmp_path / "m")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["eos_token"] = None
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match="has no end-of-sequence token"):
        trainers.open_encoder(str(folder))


def test_pooling_that_leaves_prompts_out_is_refused(tmp_path: Path) -> None:
    folder = tiny_embedders.laid_out(tiny_embedders.encoder(tmp_path / "m"), "mean_tokens")
    config = folder / "1_Pooling" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "include_prompt": False}))
    with pytest.raises(InputError, match="leaves prompts out"):
        trainers.open_encoder(str(folder))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, bert: Path, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(
        InputError, match=r"(?s)sentence-transformers: is not installed.*synthloop\[embedding\]"
    ):
        trainers.open_encoder(str(bert))
    with pytest.raises(InputError, match=r"synthloop\[embedding\]"):
        trainers.train_embedder(str(bert), tiny_embedders.pairs(2), tmp_path / "out")


def test_the_doors_are_light() -> None:
    """Importing trainers and its options loads no torch."""
    import subprocess

    code = (
        "import sys, trainers; trainers.ContrastiveOptions()\n"
        "from trainers import Encoder, open_encoder, train_embedder\n"
        "print(*(n for n in ('torch', 'transformers', 'sentence_transformers') if n in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
