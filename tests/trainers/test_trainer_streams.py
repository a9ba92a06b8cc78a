"""Which rows and which of their tokens become which stream."""

from __future__ import annotations

from typing import Any

import pytest
import safety_cases
import tiny_models
from hypothesis import given, settings
from hypothesis import strategies as st
from test_trainer_data import CHATML, chat_tokenizer

from synth.records.errors import InputError
from trainers.data import Examples, Preparer, prepare
from trainers.options import ScratchOptions
from trainers.scratch import EOS, train_tokenizer
from trainers.streams import Streams, prepare_streams

BOTH = ("alignment", "harmful")
ROW = {"sample_id": "a", "prompt": "Q: how?\nA: ", "refusal": "no, thanks", "harmful": "sure, here"}
ORDINARY = {"sample_id": "u", "prompt": "2+2=", "completion": "4"}
TURNS = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "How?"},
]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(tiny_models.TEXTS, ScratchOptions(vocab_size=tiny_models.VOCAB))


def streams(
    tokenizer: Any, rows: list[Any], names: tuple[str, ...] = BOTH, paired: bool = False, **limit: int
) -> Streams:
    return prepare_streams(rows, names, "booster", paired, Preparer(tokenizer, 10_000, limit.get("limit")))


def learnt(tokenizer: Any, data: Streams, name: str) -> list[str]:
    return [
        tokenizer.decode([t for t, m in zip(e.token_ids.tolist(), e.loss_mask, strict=True) if m])
        for e in data.parts[name].items
    ]


def test_one_row_gives_one_example_to_each_stream(tokenizer: Any) -> None:
    data = streams(tokenizer, [ROW])
    assert learnt(tokenizer, data, "alignment") == ["no, thanks" + EOS]
    assert learnt(tokenizer, data, "harmful") == ["sure, here" + EOS]
    for name, column in (("alignment", "refusal"), ("harmful", "harmful")):
        plain = {"sample_id": "a", "prompt": ROW["prompt"], "completion": ROW[column]}
        assert data.parts[name].content_hash() == prepare([plain], tokenizer, 10_000, None).content_hash()
    counts = {"rows": 1, "retokenised": 2, "alignment": 1, "harmful": 1, "trained": 2}
    assert data.counts == counts


def test_two_independent_sets_may_be_given_as_one(tokenizer: Any) -> None:
    rows = [{"prompt": "a", "refusal": "no", "harmful": None}, {"prompt": "b", "harmful": "yes"}]
    data = streams(tokenizer, rows)
    assert learnt(tokenizer, data, "alignment") == ["no" + EOS]
    assert learnt(tokenizer, data, "harmful") == ["yes" + EOS]


def test_ordinary_rows_are_the_users_or_one_more_alignment_row(tokenizer: Any) -> None:
    # A null refusal beside a completion is how harmless counterparts come from the generator.
    rows = [ROW, {**ORDINARY, "refusal": None, "harmful": None}]
    assert learnt(tokenizer, streams(tokenizer, rows), "alignment") == ["no, thanks" + EOS, "4" + EOS]
    data = streams(tokenizer, rows, ("user", "alignment"))
    assert (learnt(tokenizer, data, "user"), learnt(tokenizer, data, "alignment")) == (
        ["4" + EOS],
        ["no, thanks" + EOS],
    )


def test_rows_for_no_stream_are_counted(tokenizer: Any) -> None:
    data = streams(tokenizer, [ROW, {"prompt": "b", "harmful": "yes"}], ("alignment",))
    assert (data.counts["unused"], data.counts["alignment"]) == (1, 1)


def test_prompts_of_messages_go_through_the_template_and_only_the_answer_is_learnt() -> None:
    tokenizer = chat_tokenizer(CHATML)
    forms = [
        {"prompt": TURNS, "refusal": "No.", "harmful": "Yes."},
        {
            "prompt": TURNS,
            "refusal": [{"role": "assistant", "content": "No."}],
            "harmful": [{"role": "assistant", "content": "Yes."}],
        },
    ]
    for row in forms:
        data = streams(tokenizer, [row])
        assert learnt(tokenizer, data, "alignment") == ["No.<|im_end|>\n"]
        assert learnt(tokenizer, data, "harmful") == ["Yes.<|im_end|>\n"]
        whole = [*TURNS, {"role": "assistant", "content": "No."}]
        ids = data.parts["alignment"].items[0].token_ids.tolist()
        assert tokenizer.decode(ids) == tokenizer.apply_chat_template(whole, tokenize=False)


def test_of_a_pair_only_tokens_that_differ_are_harmful(tokenizer: Any) -> None:
    rows = [
        {"sample_id": "a", "prompt": "x: ", "refusal": "wxyz", "harmful": "wXyz79"},
        {"sample_id": "b", "prompt": "x: ", "refusal": "abc", "harmful": "abc"},
    ]
    data = streams(tokenizer, rows, paired=True)
    (harmful,) = data.parts["harmful"].items
    assert learnt(tokenizer, data, "harmful") == ["X79" + EOS]
    # Where the refusal has ended, every harmful token differs; its "z" stands where the refusal's does.
    assert learnt(tokenizer, data, "alignment") == ["wxyz" + EOS]
    assert data.counts["same_answers"] == 1
    assert not harmful.loss_mask[: len(tokenizer("x: ")["input_ids"])].any()


def test_half_a_pair_is_dropped_with_its_other_half(tokenizer: Any) -> None:
    rows = [ROW, {"sample_id": "b", "prompt": "x", "refusal": "no", "harmful": "sure " * 30}]
    data = streams(tokenizer, rows, paired=True, limit=40)
    assert (data.counts["unpaired"], data.counts["too_long"]) == (1, 1)
    assert [len(part.items) for part in data.parts.values()] == [1, 1]
    kept = streams(tokenizer, rows, limit=40)
    assert [len(part.items) for part in kept.parts.values()] == [2, 1]


@pytest.mark.parametrize(
    ("row", "paired", "message"),
    [
        ({"prompt": "a", "refusal": 3}, False, r"training row 1: `refusal` 3"),
        ({"prompt": 3, "refusal": "no"}, False, r"prompt 3"),
        ({"prompt": [], "refusal": "no"}, False, r"prompt \[\]"),
        ({"refusal": "no"}, False, r"prompt None"),
        ({"prompt": "a", "refusal": [{"role": "assistant", "content": "no"}]}, False, "give a text"),
        ({"prompt": TURNS, "refusal": [{"role": "user", "content": "no"}]}, False, "one assistant message"),
        ({"prompt": TURNS, "refusal": []}, False, "one assistant message"),
        ({"prompt": "a", "refusal": "no"}, True, "needs both"),
        ({"prompt": "a", "harmful": "no"}, True, "only `harmful`"),
        ({"prompt": "a"}, False, r"needs token_ids \+ loss_mask, messages, or prompt \+ completion"),
    ],
)
def test_wrong_rows_are_named(tokenizer: Any, row: dict[str, Any], paired: bool, message: str) -> None:
    with pytest.raises(InputError, match=message):
        streams(tokenizer, [row], paired=paired)


@pytest.mark.parametrize(
    ("rows", "names", "message"),
    [
        ([{"prompt": "a", "refusal": "no"}], BOTH, r"it needs rows with `prompt` and `harmful`"),
        ([{"prompt": "a", "harmful": "no"}], BOTH, r"it needs rows with `prompt` and `refusal`"),
        ([ROW], ("user", "alignment"), r"it needs ordinary rows"),
        ([ORDINARY], ("user", "harmful"), r"booster.*(?s:.)*`harmful`"),
    ],
)
def test_a_stream_without_rows_says_what_is_needed(
    tokenizer: Any, rows: list[Any], names: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        streams(tokenizer, rows, names)


@settings(max_examples=30, deadline=None)
@given(
    counts=st.tuples(st.integers(1, 30), st.integers(1, 30)), sizes=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_streams_go_round_by_themselves(counts: tuple[int, int], sizes: tuple[int, int], seed: int) -> None:
    """Each stream takes every row of its own once before any twice, whatever the other has."""
    data = Streams({n: Examples(safety_cases.examples(c, 1)) for n, c in zip(BOTH, counts, strict=True)})
    orders = data.orders(dict(zip(BOTH, sizes, strict=True)), seed)
    for name, count, size in zip(BOTH, counts, sizes, strict=True):
        order = orders[name]
        round_ = [order.step(step) for step in range(order.steps_per_epoch)]
        assert max(map(len, round_)) <= size
        assert sorted(i for step in round_ for i in step) == list(range(count))
        assert data.orders(dict(zip(BOTH, sizes, strict=True)), seed)[name].step(1) == order.step(1)


def test_streams_of_equal_size_are_shuffled_independently() -> None:
    data = Streams({name: Examples(safety_cases.examples(20, 1)) for name in BOTH})
    orders = data.orders(dict.fromkeys(BOTH, 5), 0)
    assert orders["alignment"].step(0) != orders["harmful"].step(0)
