"""What of a row is learnt, and what becomes of rows that cannot be."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_models

import trainers
from synth.records.errors import InputError
from synth.records.jsonl import write_jsonl
from trainers.core.masks import prompt_completion
from trainers.data import prepare
from trainers.options import ScratchOptions, TrainOptions
from trainers.scratch import EOS, train_tokenizer

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Strips the reasoning of all turns but the last, as templates of reasoning models do.
FORGETFUL = (
    "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' and not loop.last %}"
    "{{ m.content.split('</think>')[-1] }}{% else %}{{ m.content }}{% endif %}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
# Ends the assistant's turn with nothing at all.
ENDLESS = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "1+1?"},
    {"role": "assistant", "content": "<think>easy</think>2"},
    {"role": "user", "content": "2+2?"},
    {"role": "assistant", "content": "<think>hm</think>4"},
]


@pytest.fixture
def tokenizer() -> Any:
    return train_tokenizer(tiny_models.TEXTS, ScratchOptions(vocab_size=tiny_models.VOCAB))


def chat_tokenizer(template: str) -> Any:
    tokenizer = train_tokenizer(tiny_models.TEXTS, ScratchOptions(vocab_size=tiny_models.VOCAB))
    tokenizer.add_special_tokens({"eos_token": "<|im_end|>", "additional_special_tokens": ["<|im_start|>"]})
    tokenizer.chat_template = template
    return tokenizer


def learnt(tokenizer: Any, rows: list[dict[str, Any]]) -> list[str]:
    """The learnt stretches of each row, decoded, joined by a bar."""
    texts = []
    for example in prepare(rows, tokenizer, 10_000, None).items:
        pieces, open_ = [], False
        for token, trained in zip(example.token_ids.tolist(), example.loss_mask.tolist(), strict=True):
            if trained and not open_:
                pieces.append([])
            if trained:
                pieces[-1].append(token)
            open_ = trained
        texts.append("|".join(tokenizer.decode(piece) for piece in pieces))
    return texts


def test_completion_and_end_are_learnt_also_where_pad_is_eos(tokenizer: Any) -> None:
    tokenizer.pad_token = tokenizer.eos_token
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    row = {"prompt": "Q: 12+30\nA: ", "completion": "42. The answer is 42\n"}
    assert learnt(tokenizer, [row]) == ["42. The answer is 42\n" + EOS]
    ended = {**row, "completion": row["completion"] + EOS}
    assert learnt(tokenizer, [ended]) == learnt(tokenizer, [row])
    assert learnt(tokenizer, [{**row, "completion": ""}]) == [EOS]


def test_golden_labels_of_a_conversation() -> None:
    tokenizer = chat_tokenizer(CHATML)
    assert learnt(tokenizer, [{"messages": CHAT}]) == [
        "<think>easy</think>2<|im_end|>\n|<think>hm</think>4<|im_end|>\n"
    ]
    (example,) = prepare([{"messages": CHAT}], tokenizer, 10_000, None).items
    assert tokenizer.decode(example.token_ids.tolist()) == tokenizer.apply_chat_template(CHAT, tokenize=False)
    # The prompt has the tokens an engine would be given.
    ids = tokenizer.apply_chat_template(CHAT[:2], add_generation_prompt=True, return_dict=False)
    assert example.token_ids.tolist()[: len(ids)] == ids


def test_template_that_rewrites_history_teaches_the_last_turn() -> None:
    assert learnt(chat_tokenizer(FORGETFUL), [{"messages": CHAT}]) == ["<think>hm</think>4<|im_end|>"]


def test_template_without_an_end_gets_one() -> None:
    assert learnt(chat_tokenizer(ENDLESS), [{"messages": CHAT[1:3]}]) == ["<think>easy</think>2<|im_end|>"]


def test_template_that_cannot_be_continued_drops_and_counts_the_row() -> None:
    template = "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}GO{% endif %}"
    rows = [{"messages": CHAT[1:3]}, tiny_models.token_rows(1)[0]]
    assert prepare(rows, chat_tokenizer(template), 10_000, None).counts["template_not_prefix"] == 1


def test_never_two_beginnings(tokenizer: Any) -> None:
    """A tokenizer that adds a beginning token, given text that is or is not already rendered with one."""
    from tokenizers import processors

    tokenizer.add_special_tokens({"bos_token": "<s>"})
    bos = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", bos)]
    )
    for prompt in ("12+30", "<s>12+30"):
        ids, mask = prompt_completion(tokenizer, prompt, "=42")
        assert ids[0] == bos
        assert ids.count(bos) == 1
        assert sum(mask) == len("=42") + 1


def test_prompt_keeps_its_tokens_where_a_merge_would_cross_the_border(tokenizer: Any) -> None:
    merged = tokenizer.decode([len(tokenizer) - 1])  # the tokenizer's last merge
    prompt, completion = merged[:1], merged[1:] + " is 42"
    ids, mask = prompt_completion(tokenizer, prompt, completion)
    alone = tokenizer(prompt)["input_ids"]
    assert tokenizer(prompt + completion)["input_ids"][: len(alone)] != alone, (
        "no merge crosses: the test is vacuous"
    )
    assert ids[: len(alone)] == alone
    assert mask == [0] * len(alone) + [1] * (len(ids) - len(alone))
    assert tokenizer.decode(ids) == prompt + completion + EOS


def test_sampled_tokens_are_used_as_they_are(tokenizer: Any) -> None:
    """Tokens that the tokenizer itself would never make of the text, beside contradicting text columns."""
    ids = [*tokenizer("Q: ")["input_ids"], *(tokenizer.convert_tokens_to_ids(c) for c in "The"), 0]
    row = {
        "token_ids": ids,
        "loss_mask": [0] * (len(ids) - 4) + [1] * 4,
        "prompt": "other",
        "completion": "text",
    }
    data = prepare([row], tokenizer, 10_000, None)
    assert data.items[0].token_ids.tolist() == ids
    assert data.counts["retokenised"] == 0
    assert prepare([{"prompt": "a", "completion": "b"}], tokenizer, 10_000, None).counts["retokenised"] == 1


def test_rows_that_cannot_be_trained_are_dropped_and_counted(
    tokenizer: Any, tmp_path: Path, model_folder: Callable[..., Path]
) -> None:
    rows = [
        {"token_ids": [5, 6, 7], "loss_mask": [0, 0, 0]},
        {"token_ids": [5], "loss_mask": [1]},
        {"token_ids": [], "loss_mask": []},
        {"token_ids": [5] * 200, "loss_mask": [1] * 200},
        {"token_ids": [5, 6], "loss_mask": [0, 1], "weight": 0},
        {"token_ids": [5, 6], "loss_mask": [0, 1], "decision": "rejected"},
        {"token_ids": [5, 6], "loss_mask": [0, 1], "decision": "kept"},
    ]
    expected = {"rows": 7, "all_masked": 3, "too_long": 1, "weight_zero": 1, "not_kept": 1, "trained": 1}
    lines: list[str] = []
    result = trainers.train(
        str(model_folder()), rows, tmp_path / "m", TrainOptions(epochs=1), 0, log=lines.append
    )
    assert result.counts == expected
    assert "all_masked 3" in lines[0]
    assert f"| all_masked | {3} |" in (tmp_path / "m" / "README.md").read_text()
    assert result.logs[0]["loss"] == result.logs[0]["loss"]
    with pytest.raises(InputError, match=r"nothing left to train on .*all_masked 3"):
        prepare(rows[:3], tokenizer, 100, None)


IDS: dict[str, Any] = {"token_ids": [5, 6, 7], "loss_mask": [0, 0, 1]}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"token_ids": [5, 6], "loss_mask": [1]}, "2 token_ids but 1 in loss_mask"),
        ({"token_ids": [5, 6]}, "no loss_mask"),
        ({"token_ids": [5, 999], "loss_mask": [0, 1]}, "token id 999 with a vocabulary of 270"),
        ({"token_ids": [5, -1], "loss_mask": [0, 1]}, "token id -1 with a vocabulary of 270"),
        ({"token_ids": [5, 2**40], "loss_mask": [0, 1]}, f"token id {2**40} with a vocabulary of 270"),
        ({**IDS, "token_ids": [5, 6, 2**70]}, "token_ids"),
        ({**IDS, "token_ids": [5.7, 6.9, 7.0]}, "token_ids"),
        ({**IDS, "token_ids": [[5], [6], [7]]}, "token_ids"),
        ({**IDS, "token_ids": [[5], [6, 7], 8]}, "token_ids"),
        ({**IDS, "token_ids": [5, None, 7]}, "token_ids"),
        ({**IDS, "token_ids": ["5", "6", "7"]}, "token_ids"),
        ({**IDS, "token_ids": [True, False, True]}, "token_ids"),
        ({**IDS, "token_ids": 5}, "token_ids"),
        ({**IDS, "token_ids": "567"}, "token_ids"),
        ({**IDS, "loss_mask": ["0", "0", "1"]}, "loss_mask"),
        ({**IDS, "loss_mask": [-100, -100, 7]}, "loss_mask"),
        ({**IDS, "loss_mask": [0, 0.5, 1]}, "loss_mask"),
        ({**IDS, "loss_mask": [0, None, 1]}, "loss_mask"),
        ({**IDS, "loss_mask": [[0], [0], [1]]}, "loss_mask"),
        ({**IDS, "loss_mask": 1}, "loss_mask"),
        ({"prompt": "x"}, "needs token_ids"),
        ({**IDS, "weight": -1}, "weight -1"),
        ({**IDS, "weight": float("nan")}, "weight nan"),
        ({**IDS, "weight": "heavy"}, "weight 'heavy'"),
        ({**IDS, "weight": [1.0]}, "weight [1.0]"),
        ({**IDS, "weight": 10**400}, "weight 1000"),
        ({"messages": CHAT}, "no chat template"),
    ],
)
def test_wrong_rows_are_input_errors_that_name_the_row(
    tokenizer: Any, row: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match="training row bad") as caught:
        prepare([{"sample_id": "bad", **row}], tokenizer, 270, None)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "messages", [5, "hello", CHAT[0], [5], [{"role": 3, "content": "x"}], [{"role": "user"}]]
)
def test_messages_that_are_none_are_input_errors(messages: Any) -> None:
    with pytest.raises(InputError, match=r"training row 1: .*messages"):
        prepare([{"messages": messages}], chat_tokenizer(CHATML), 10_000, None)


def test_row_that_is_no_mapping_is_an_input_error(tokenizer: Any) -> None:
    for row in (5, [1, 2], "text", None):
        with pytest.raises(InputError, match=r"training row 2: .*mapping"):
            prepare([IDS, row], tokenizer, 270, None)  # type: ignore[list-item]


def test_every_integer_and_bool_form_is_read_alike(tokenizer: Any) -> None:
    import numpy as np

    forms: list[dict[str, Any]] = [
        IDS,
        {"token_ids": (5, 6, 7), "loss_mask": [False, False, True]},
        {"token_ids": np.array([5, 6, 7], dtype=np.uint16), "loss_mask": np.array([0, 0, 1], dtype=np.int8)},
        {
            "token_ids": np.array([5, 6, 7]),
            "loss_mask": np.array([False, False, True]),
            "weight": np.float32(1),
        },
    ]
    assert len({prepare([row], tokenizer, 270, None).content_hash() for row in forms}) == 1


def test_parquet_that_cannot_be_read_is_an_input_error(tokenizer: Any, tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([IDS]), tmp_path / "rows.parquet")
    whole = (tmp_path / "rows.parquet").read_bytes()
    for damaged in (whole[:-20], b"", b"no parquet at all"):
        (tmp_path / "rows.parquet").write_bytes(damaged)
        for source in (tmp_path / "rows.parquet", tmp_path):
            with pytest.raises(InputError, match=r"rows\.parquet: .*Parquet|rows\.parquet: .*parquet"):
                prepare(source, tokenizer, 270, None)


def test_lone_surrogates_become_replacement_characters(tokenizer: Any) -> None:
    data = prepare([{"prompt": "a\ud800", "completion": "b\u2028\x00c"}], tokenizer, 10_000, None)
    assert data.counts["text_repaired"] == 1
    assert tokenizer.decode(data.items[0].token_ids.tolist()) == "a\ufffdb\u2028\x00c" + EOS


def test_lone_surrogates_in_messages_are_counted_too() -> None:
    broken = [*CHAT[1:2], {"role": "assistant", "content": "2\udfff"}]
    data = prepare([{"messages": broken}, {"messages": CHAT}], chat_tokenizer(CHATML), 10_000, None)
    assert data.counts["text_repaired"] == 1


def test_rows_come_from_lists_and_files_alike(tokenizer: Any, tmp_path: Path) -> None:
    rows = tiny_models.token_rows(5)
    write_jsonl(tmp_path / "rows.jsonl", rows)
    (tmp_path / "parts").mkdir()
    pq.write_table(pa.Table.from_pylist(rows[:2]), tmp_path / "parts" / "part-00000.parquet")
    pq.write_table(pa.Table.from_pylist(rows[2:]), tmp_path / "parts" / "part-00001.parquet")
    hashes = {
        prepare(source, tokenizer, 270, None).content_hash()
        for source in (rows, tmp_path / "rows.jsonl", str(tmp_path / "parts"))
    }
    assert len(hashes) == 1
    for missing in ("none.jsonl", "none.parquet", ""):
        with pytest.raises(InputError):
            prepare(tmp_path / missing, tokenizer, 270, None)


def test_importing_trainers_is_light() -> None:
    heavy = "torch transformers accelerate peft datasets numpy pydantic pyarrow"
    code = (
        "import sys, trainers, trainers.options; "
        f"sys.exit(', '.join(m for m in '{heavy}'.split() if m in sys.modules) or 0)"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
