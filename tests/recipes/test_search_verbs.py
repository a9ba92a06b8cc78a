"""`synth index` and `synth search` with a small encoder, as scripts see them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recipes import cli
from synth.records.jsonl import write_jsonl

DOCUMENTS = [
    {"_id": "a", "title": "The cat", "text": "sat\nand more"},
    {"_id": "b", "title": "", "text": "dog ran \x1b[31mfar away"},
    {"_id": "c", "title": "", "text": " "},
    {"_id": "d", "title": "", "text": "from far"},
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of two layers with a word tokenizer."""
    pytest.importorskip("sentence_transformers")
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "dog", "sat", "ran", "far", "away", "from"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    folder = tmp_path_factory.mktemp("encoder")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32, initializer_range=0.5,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "beir"
    folder.mkdir()
    write_jsonl(folder / "corpus.jsonl", DOCUMENTS)
    return folder


@pytest.fixture(scope="module")
def index(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index")
    write_jsonl(folder / "docs.jsonl", DOCUMENTS)
    words = ["index", "--model", model, "--input", folder / "docs.jsonl", "--out", folder / "index"]
    assert cli.main([str(word) for word in words]) == 0
    return folder / "index"


def synth(capsys: pytest.CaptureFixture[str], *words: Any) -> tuple[int, str, str]:
    capsys.readouterr()
    code = cli.main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def found(capsys: pytest.CaptureFixture[str], *words: Any) -> list[dict[str, Any]]:
    code, out, err = synth(capsys, "search", *words, "--json")
    assert (code, err) == (0, "")
    (line,) = out.splitlines()
    answer = json.loads(line)
    assert answer["ok"] is True
    return answer["results"]


def test_a_document_is_nearest_to_itself(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hits = found(capsys, index, "The cat sat\nand more")
    assert hits[0] == {
        "rank": 1,
        "score": pytest.approx(1, abs=1e-5),
        "id": "a",
        "text": "The cat sat\nand more",
    }
    assert sorted(hit["id"] for hit in hits) == ["a", "b", "d"]  # the empty one is left out
    assert [hit["rank"] for hit in hits] == [1, 2, 3]
    assert found(capsys, index, "from", "far", "-k", 1)[0]["id"] == "d"


def test_scores_are_the_cosines_of_the_model(
    index: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from trainers import open_encoder

    hits = found(capsys, index, "dog away")
    encoder = open_encoder(str(model), device="cpu")
    expected = encoder.encode([hit["text"] for hit in hits]) @ encoder.encode(["dog away"], "query")[0]
    np.testing.assert_allclose([hit["score"] for hit in hits], expected, atol=1e-5)
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)


def test_the_output_is_a_line_a_document(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = synth(capsys, "search", index, "dog ran far away", "-k", 2)
    assert (code, err) == (0, "")
    first, second = out.splitlines()
    rank, score, id, text = first.split(maxsplit=3)
    assert (rank, id) == ("1", "b")
    assert 0 < float(score) <= 1.0001
    assert "\x1b" not in out  # a document cannot steer the terminal
    assert text == "dog ran  [31mfar away"
    assert second.split()[0] == "2"


def test_words_need_no_model(
    index: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("bm25s")
    monkeypatch.setattr(
        "trainers.open_encoder", lambda *a, **k: pytest.fail("the model was opened"), raising=False
    )
    assert [hit["id"] for hit in found(capsys, index, "AWAY from", "--bm25")] == ["d", "b"]
    code, out, _ = synth(capsys, "search", index, "zebra", "--bm25")
    assert (code, out) == (0, "nothing found: no document has a word of the query\n")


def test_index_says_what_it_did_and_how_to_try_it(
    model: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = synth(capsys, "index", "--model", model, "--input", corpus, "--out", tmp_path / "i")
    assert code == 0
    assert out.splitlines()[0] == f"3 documents, 16 dimensions: {tmp_path / 'i'}"
    assert f"synth search {tmp_path / 'i'}" in out.splitlines()[1]
    manifest = json.loads((tmp_path / "i" / "manifest.json").read_text())
    assert manifest["model"] == str(model)


def test_a_home_folder_may_be_meant(
    model: Path,
    corpus: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In `--model=~/m` the shell leaves the tilde as it is."""
    monkeypatch.setenv("HOME", str(model.parent))
    meant = f"--model=~/{model.name}"
    assert synth(capsys, "index", meant, "--input", corpus, "--out", tmp_path / "i")[0] == 0
    assert json.loads((tmp_path / "i" / "manifest.json").read_text())["model"] == str(model)
    assert found(capsys, tmp_path / "i", "dog ran far away", meant)[0]["id"] == "b"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--text", "text"], {"a": "sat\nand more", "b": "dog ran \x1b[31mfar away", "d": "from far"}),
        (["--text", "text", "--text", "title"],
         {"a": "sat\nand more The cat", "b": "dog ran \x1b[31mfar away", "d": "from far"}),
        (["--text", "title", "--id", "text"], {"sat\nand more": "The cat"}),
    ],
)  # fmt: skip
def test_fields_are_named(
    words: list[str], expected: dict[str, str], model: Path, corpus: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert (
        synth(capsys, "index", "--model", model, "--input", corpus, "--out", tmp_path / "i", *words)[0] == 0
    )
    assert {hit["id"]: hit["text"] for hit in found(capsys, tmp_path / "i", "cat")} == expected


def test_rows_without_ids_are_numbered(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.csv").write_text("text,kind\ncat sat,x\ndog ran,y\n")
    words = ["index", "--model", model, "--input", tmp_path / "rows.csv", "--out", tmp_path / "i"]
    assert synth(capsys, *words)[0] == 0
    assert {hit["id"]: hit["text"] for hit in found(capsys, tmp_path / "i", "cat")} == {
        "1": "cat sat",
        "2": "dog ran",
    }


def test_the_instruction_goes_with_the_query(
    model: Path,
    corpus: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = [
        "index",
        "--model",
        model,
        "--input",
        corpus,
        "--out",
        tmp_path / "i",
        "--instruction",
        "Find cats.",
    ]
    assert synth(capsys, *words)[0] == 0
    told: list[Any] = []

    class Listening:
        def encode(self, texts: list[str], role: str, instruction: Any = "") -> np.ndarray:
            told.append((texts, role, instruction))
            return np.ones((len(texts), 16))

    monkeypatch.setattr("trainers.open_encoder", lambda model: Listening(), raising=False)
    found(capsys, tmp_path / "i", "cat")
    found(capsys, tmp_path / "i", "cat", "--instruction", "Find dogs.")
    found(capsys, tmp_path / "i", "cat", "--instruction", "")
    assert told == [
        (["cat"], "query", "Find cats."), (["cat"], "query", "Find dogs."), (["cat"], "query", "")
    ]  # fmt: skip


def test_a_changed_or_missing_model_is_refused(
    model: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "model"
    shutil.copytree(model, own)
    assert synth(capsys, "index", "--model", own, "--input", corpus, "--out", tmp_path / "i")[0] == 0
    moved = tmp_path / "moved"
    own.rename(moved)
    code, out, err = synth(capsys, "search", tmp_path / "i", "cat")
    assert (code, out) == (2, "")
    assert f"no such folder: {own}" in err
    assert len(err.splitlines()) == 2
    assert "--model" in err
    assert len(found(capsys, tmp_path / "i", "cat", "--model", moved)) == 3
    config = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 1e-3}))
    code, out, err = synth(capsys, "search", tmp_path / "i", "cat", "--model", moved)
    assert (code, out) == (2, "")
    assert "is not the model that made the index" in err


def test_wrong_input_is_named(
    model: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twice = write_rows(tmp_path / "twice.jsonl", [{"id": 1, "text": "a"}, {"id": "1", "text": "b"}])
    empty = write_rows(tmp_path / "empty.jsonl", [{"text": " "}])
    bare = write_rows(tmp_path / "bare.jsonl", [{"txt": "a", "n": 1}])
    (tmp_path / "rows.txt").write_text("a\n")
    made = tmp_path / "made"
    cases = [
        ({"--model": tmp_path / "none"}, "--model: no such folder"),
        ({"--input": tmp_path / "none.jsonl"}, "--input: no such file"),
        ({"--input": tmp_path}, "--input: no corpus.jsonl"),
        ({"--input": tmp_path / "rows.txt"}, "does not say its format"),
        ({"--input": twice}, "row 2: the id '1' stood before"),
        ({"--input": empty}, "has no row with text"),
        ({"--input": bare}, "has no field `text`\n  name one with --text: txt, n"),
        ({"--input": bare, "--text": "tx"}, "row 1: has no text in `tx`\n  did you mean 'txt'"),
        ({"--input": bare, "--text": "n"}, "row 1: has no text in `n`"),
        ({"--input": bare, "--text": "txt", "--id": "m"}, "row 1: no id in `m`"),
        ({"--out": corpus}, "is there and is no index"),
    ]
    for changes, message in cases:
        given = {"--model": model, "--input": corpus, "--out": made, **changes}
        words = [word for pair in given.items() for word in pair]
        code, out, err = synth(capsys, "index", *words)
        assert (code, out) == (2, ""), message
        assert message in err
        assert err.startswith(("error: ", "index "))
        assert not made.exists()


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    write_jsonl(path, rows)
    return path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", "cat"], "nowhere: no index there"),
        (["INDEX", " "], "QUERY: is empty"),
        (["INDEX", "cat", "-k", "0"], "-k"),
        (["INDEX"], "QUERY"),
    ],
)
def test_a_wrong_search_is_named(
    words: list[str], message: str, index: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(index) if word == "INDEX" else word for word in words]
    code, out, err = synth(capsys, "search", *given)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) <= 2
