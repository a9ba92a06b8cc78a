"""Rows in, tokenised examples out; what cannot be trained is dropped and counted, never silently and never as NaN.

A row has `token_ids` and `loss_mask` (used as they are: what was sampled is never tokenised again), or `messages`,
or `prompt` and `completion` (tokenised here and counted as `retokenised`). Optional: `sample_id`, `weight` (0 or
more; multiplies the loss of the row's tokens), `decision` (rows that are not `kept` are left out).
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synth.records.errors import InputError
from synth.records.jsonl import read_jsonl, repair_text
from trainers.core.batching import Example
from trainers.core.masks import conversation, prompt_completion

if TYPE_CHECKING:
    import numpy as np

Rows = Iterable[Mapping[str, Any]] | str | os.PathLike[str]


@dataclass
class Examples:
    """Tokenised rows in canonical order (by sample_id, else as given) and how many rows met which fate.

    `counts`: rows, trained, retokenised, text_repaired, and dropped rows by cause: not_kept, all_masked, too_long,
    weight_zero, template_not_prefix.
    """

    items: list[Example] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def content_hash(self) -> str:
        """Hash of everything that is trained on, in order."""
        digest = sha256()
        for item in self.items:
            digest.update(repr((item.sample_id, item.weight, len(item.token_ids))).encode())
            digest.update(item.token_ids.tobytes() + item.loss_mask.tobytes())
        return digest.hexdigest()

    def summary(self) -> str:
        """One line for a log."""
        return ", ".join(f"{name} {count}" for name, count in self.counts.items())

    def finish(self, what: str, fix: str = "see the causes counted") -> None:
        """Put the rows into canonical order. Raises InputError, naming them as `what`, if there are none."""
        self.counts["trained"] += len(self.items)
        if not self.items:
            raise InputError(what, f"nothing left to train on ({self.summary()})", fix)
        # Arrival order must not matter: the shuffle is a permutation of this order.
        self.items.sort(key=lambda e: (e.sample_id, e.token_ids.tobytes() if e.sample_id else b""))


def read_rows(rows: Rows) -> Iterator[Mapping[str, Any]]:
    """Rows of a list, a .jsonl[.gz] or .parquet file, or a folder of parquet parts."""
    if not isinstance(rows, (str, os.PathLike)):
        yield from rows
        return
    path = Path(rows)
    if path.is_dir() or path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        parts = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        if not parts or not parts[0].exists():
            raise InputError(
                str(path), "no parquet file here", "give a .jsonl or .parquet file or a folder of parts"
            )
        for part in parts:
            try:
                table = pq.read_table(part)
            except (pa.ArrowException, OSError) as error:
                seen = str(error).strip().splitlines()[0]
                raise InputError(str(part), f"not readable as parquet ({seen})", "write it anew") from None
            yield from table.to_pylist()
    else:
        yield from read_jsonl(path)


def prepare(rows: Rows, tokenizer: Any, vocab_size: int, max_length: int | None) -> Examples:
    """Tokenise rows. Raises InputError for rows that are wrong, and if none is left to train on."""
    preparer, result = Preparer(tokenizer, vocab_size, max_length), Examples()
    for row, where in kept_rows(rows, result.counts):
        example = preparer.example(row, where, result.counts)
        if example is not None:
            result.items.append(example)
    result.finish("training rows")
    return result


def kept_rows(rows: Rows, counts: Counter[str]) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Each row whose decision is to keep it, and how to name it in an error; counts `rows` and `not_kept`."""
    for number, row in enumerate(read_rows(rows), start=1):
        counts["rows"] += 1
        if not isinstance(row, Mapping):
            seen = f"a {type(row).__name__}, not a mapping of columns to values"
            raise InputError(f"training row {number}", seen, "each row must be one object")
        if row.get("decision", "kept") in ("kept", None):
            yield row, f"training row {row.get('sample_id') or number}"
        else:
            counts["not_kept"] += 1


@dataclass(frozen=True)
class Preparer:
    """What rows are tokenised with, and for which model."""

    tokenizer: Any
    vocab_size: int
    max_length: int | None

    def example(self, row: Mapping[str, Any], where: str, counts: Counter[str]) -> Example | None:
        """The row tokenised, None if it cannot be trained; counts its fate. Raises InputError for a wrong row."""
        example, note = _example(row, self.tokenizer, self.vocab_size, where)
        if example is None:
            counts[note] += 1
            return None
        cause = _unusable(example, self.max_length)
        if cause:
            counts[cause] += 1
            return None
        if note:
            counts[note] += 1
        if any(isinstance(text, str) and repair_text(text)[1] for text in _texts(row)):
            counts["text_repaired"] += 1
        return example


def _texts(row: Mapping[str, Any]) -> Iterator[Any]:
    """What of a row could be text that needs mending."""
    yield from (row.get("prompt"), row.get("completion"))
    messages = row.get("messages")
    if isinstance(messages, (list, tuple)):
        yield from (message.get("content") for message in messages if isinstance(message, Mapping))


def _example(
    row: Mapping[str, Any], tokenizer: Any, vocab_size: int, where: str
) -> tuple[Example | None, str]:
    """The row as an example and a note to count, or None and why it was dropped."""
    weight, key = _weight(row.get("weight"), where), str(row.get("sample_id") or "")
    if row.get("token_ids") is not None:
        ids, mask = _sampled(row["token_ids"], row.get("loss_mask"), where)
        _check_vocabulary(ids, vocab_size, where)
        return Example.of(ids, mask, weight, key), ""
    if tokenizer is None:
        raise InputError(
            where, "text, but the model has no tokenizer", "add it, or give token_ids and loss_mask"
        )
    if row.get("messages") is not None:
        tokens = _chat(row["messages"], tokenizer, where)
        if tokens is None:
            return None, "template_not_prefix"
    elif isinstance(row.get("prompt"), str) and isinstance(row.get("completion"), str):
        tokens = prompt_completion(tokenizer, row["prompt"], row["completion"])
    else:
        fix = "needs token_ids + loss_mask, messages, or prompt + completion"
        raise InputError(where, f"columns {sorted(row)}", fix)
    _check_vocabulary(tokens[0], vocab_size, where)
    return Example.of(*tokens, weight, key), "retokenised"


def _weight(value: Any, where: str) -> float:
    """A row's weight; 1 where it has none."""
    if value is None:
        return 1.0
    try:
        weight = float(value) if isinstance(value, Real) else math.nan
    except OverflowError:
        weight = math.inf
    if not (math.isfinite(weight) and weight >= 0):
        raise InputError(where, f"weight {value!r:.40}", "use a finite number of 0 or more")
    return weight


def _sampled(token_ids: Any, loss_mask: Any, where: str) -> tuple[np.ndarray, np.ndarray]:
    """token_ids [T] and loss_mask [T] of a row as integers of any width and bool, without a cast that loses."""
    if loss_mask is None:
        raise InputError(where, "no loss_mask", "give one mask value per token")
    ids, mask = _flat(token_ids, "iu"), _flat(loss_mask, "iub")
    if ids is None:
        raise InputError(where, f"token_ids {token_ids!r:.60}", "give a flat list of integers")
    if mask is None or not ((mask == 0) | (mask == 1)).all():
        raise InputError(where, f"loss_mask {loss_mask!r:.60}", "give a flat list of 0 and 1 (or booleans)")
    if len(mask) != len(ids):
        seen = f"{len(ids)} token_ids but {len(mask)} in loss_mask"
        raise InputError(where, seen, "give one mask value per token")
    return ids, mask.astype(bool)


def _flat(values: Any, kinds: str) -> np.ndarray | None:
    """Values as an array of one dimension whose type is of one of numpy's `kinds`, None where they are not."""
    import numpy as np

    try:
        array = np.asarray(values)
    except ValueError:  # lists of different lengths
        return None
    if array.shape == (0,):
        return array.astype(np.int64)
    return array if array.ndim == 1 and array.dtype.kind in kinds else None


def _chat(messages: Any, tokenizer: Any, where: str) -> tuple[list[int], list[int]] | None:
    if not tokenizer.chat_template:
        raise InputError(
            where, "messages, but the tokenizer has no chat template", "use prompt and completion"
        )
    if not isinstance(messages, (list, tuple)) or not all(
        isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str)
        for m in messages
    ):
        seen = f"messages {messages!r:.60}"
        raise InputError(where, seen, "give a list of messages, each with role and content as text")
    if not any(m["role"] == "assistant" for m in messages):
        raise InputError(where, "no assistant message", "there is nothing to learn in it")
    import jinja2

    try:
        return conversation(tokenizer, messages)
    except jinja2.TemplateError as error:
        raise InputError(where, f"the chat template refuses it ({error})", "mend the messages") from None


def _check_vocabulary(ids: Sequence[int] | np.ndarray, vocab_size: int, where: str) -> None:
    """Tokens that the model does not have are an error, not a drop."""
    import numpy as np

    if not len(ids):
        return
    low, high = int(np.min(ids)), int(np.max(ids))
    if not 0 <= low <= high < vocab_size:
        seen = f"token id {low if low < 0 else high} with a vocabulary of {vocab_size}"
        raise InputError(where, seen, "the rows were tokenised for another model")


def _unusable(example: Example, max_length: int | None) -> str:
    """Why a row is dropped, or an empty string."""
    if max_length is not None and len(example.token_ids) > max_length:
        return "too_long"
    if not example.trained:
        return "all_masked"
    return "" if example.weight else "weight_zero"
