"""Columns of the tables in a run directory (docs/contracts.md), as pyarrow schemas."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

STATUSES = ("pass", "fail", "error")
FINISH_REASONS = ("stop", "length", "rejected", "error")


def completions() -> pa.Schema:
    """One row a completion; `completion_token_ids` includes the end-of-sequence token if it was sampled."""
    import pyarrow as pa

    return pa.schema(
        [
            ("sample_id", pa.string()),
            ("problem_id", pa.string()),
            ("domain", pa.string()),
            ("round", pa.int32()),
            ("index", pa.int32()),
            ("prompt", pa.string()),
            ("completion", pa.string()),
            ("prompt_token_ids", pa.list_(pa.int32())),
            ("completion_token_ids", pa.list_(pa.int32())),
            ("finish_reason", pa.string()),
            ("sampling_seed", pa.int64()),
            ("error", pa.string()),
            ("text_repaired", pa.bool_()),
        ]
    )


def verdicts() -> pa.Schema:
    """One row a verdict; `reward` is null for errors, `details` is JSON text."""
    import pyarrow as pa

    return pa.schema(
        [
            ("sample_id", pa.string()),
            ("verifier", pa.string()),
            ("status", pa.string()),
            ("reward", pa.float64()),
            ("reason", pa.string()),
            ("details", pa.string()),
        ]
    )


def dataset() -> pa.Schema:
    """Training columns and why each row was kept or rejected; `evidence` is JSON text.

    `messages` is the JSON text of the prompt's chat turns, null where the prompt is plain text.
    """
    import pyarrow as pa

    return pa.schema(
        [
            ("sample_id", pa.string()),
            ("problem_id", pa.string()),
            ("domain", pa.string()),
            ("round", pa.int32()),
            ("prompt", pa.string()),
            ("completion", pa.string()),
            ("token_ids", pa.list_(pa.int32())),
            ("loss_mask", pa.list_(pa.int8())),
            ("retokenised", pa.bool_()),
            ("reward", pa.float64()),
            ("status", pa.string()),
            ("decision", pa.string()),
            ("decision_reason", pa.string()),
            ("matched_id", pa.string()),
            ("evidence", pa.string()),
            ("messages", pa.string()),
            ("source", pa.string()),
        ]
    )


def pairs() -> pa.Schema:
    """Pairs for embedding training, and why each was kept, rejected or held out; `negatives` may be empty.

    `evidence` is JSON text: of a rejected pair the evaluation text it is too close to, of a kept one what mining found
    for it. `meta` is the JSON text of everything else that is known of the pair.
    """
    import pyarrow as pa

    return pa.schema(
        [
            ("sample_id", pa.string()),
            ("problem_id", pa.string()),
            ("domain", pa.string()),
            ("round", pa.int32()),
            ("query", pa.string()),
            ("positive", pa.string()),
            ("negatives", pa.list_(pa.string())),
            ("instruction", pa.string()),
            ("source", pa.string()),
            ("group", pa.string()),
            ("reward", pa.float64()),
            ("status", pa.string()),
            ("decision", pa.string()),
            ("decision_reason", pa.string()),
            ("matched_id", pa.string()),
            ("evidence", pa.string()),
            ("meta", pa.string()),
            ("text_repaired", pa.bool_()),
        ]
    )


def written() -> pa.Schema:
    """One row a request of a generating step: what was asked, what came back, and why it is of no use (`cause`).

    `task` numbers the step's tasks, `index` the tries of one task. `items` is the JSON list of what was read from the
    reply, null where `cause` says why there is none; `lost` the JSON list of {cause, detail} of single items that
    were left out. `parents`: ids of the items that the task was made from.
    """
    import pyarrow as pa

    return pa.schema(
        [
            ("sample_id", pa.string()),
            ("problem_id", pa.string()),
            ("domain", pa.string()),
            ("step", pa.string()),
            ("task", pa.int64()),
            ("index", pa.int32()),
            ("wanted", pa.int32()),
            ("prompt", pa.string()),
            ("completion", pa.string()),
            ("completion_tokens", pa.int32()),
            ("finish_reason", pa.string()),
            ("sampling_seed", pa.int64()),
            ("error", pa.string()),
            ("cause", pa.string()),
            ("detail", pa.string()),
            ("items", pa.string()),
            ("lost", pa.string()),
            ("parents", pa.list_(pa.string())),
            ("text_repaired", pa.bool_()),
        ]
    )


def sifted() -> pa.Schema:
    """One row an item that a step without a model looked at: kept (`cause` null), or why not. `content` is JSON."""
    import pyarrow as pa

    return pa.schema(
        [
            ("id", pa.string()),
            ("domain", pa.string()),
            ("step", pa.string()),
            ("number", pa.int64()),
            ("content", pa.string()),
            ("parents", pa.list_(pa.string())),
            ("cause", pa.string()),
            ("detail", pa.string()),
            ("matched_id", pa.string()),
            ("text_repaired", pa.bool_()),
        ]
    )


def generated() -> pa.Schema:
    """The dataset of a generating run: `dataset` and the columns of embedding and safety training.

    `negatives` may be empty. `meta` is the JSON text of everything else that is known of the row.
    """
    import pyarrow as pa

    more = [
        ("query", pa.string()),
        ("positive", pa.string()),
        ("negatives", pa.list_(pa.string())),
        ("instruction", pa.string()),
        ("refusal", pa.string()),
        ("harmful", pa.string()),
        ("meta", pa.string()),
    ]
    return pa.schema([*dataset(), *(pa.field(name, kind) for name, kind in more)])
