"""The rows of a training, sorted into the streams that its method takes its steps from.

A row with `refusal` or `harmful` is one for safety: `prompt` -> `refusal` is an alignment row, `prompt` -> `harmful` a
harmful one. It may lack one of the two, so that two independent sets of rows can be given as one; a null column
counts as lacking. `prompt` is a text, which the answer continues, or a list of messages, whose
answer goes through the chat template; an answer is a text, or a list with one assistant message. Only the
answer is learnt. Every other row is an ordinary one (`trainers.data`): the user's row where the method has such a
stream, else one more alignment row (a harmless prompt with its answer keeps a model from refusing everything).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from synth.records.errors import InputError
from trainers.core.batching import Example, Order
from trainers.core.seeds import derive
from trainers.data import Examples, Preparer, Rows, kept_rows, prepare

SAFETY = {"alignment": "refusal", "harmful": "harmful"}
"""Stream: the column of its answers."""

NEEDED = {
    "alignment": "rows with `prompt` and `refusal`",
    "harmful": "rows with `prompt` and `harmful`",
    "user": "ordinary rows (`messages`, `prompt` + `completion`, or `token_ids` + `loss_mask`)",
}


@dataclass
class Streams:
    """Tokenised rows of each stream, the first being the one that makes the epochs. All share one count of fates.

    Counts beside those of `Examples`: `unused` rows are for no stream of the method; in a training with several
    streams `trained` counts tokenised texts, and each stream's name those of its own.
    """

    parts: dict[str, Examples]

    @property
    def counts(self) -> Counter[str]:
        """Fates of all rows."""
        return self.primary.counts

    @property
    def primary(self) -> Examples:
        """The stream that makes the epochs."""
        return next(iter(self.parts.values()))

    def content_hash(self) -> str:
        """Hash of everything that is trained on, in order."""
        if len(self.parts) == 1:
            return self.primary.content_hash()
        digest = sha256()
        for name, part in self.parts.items():
            digest.update(f"{name}:{part.content_hash()};".encode())
        return digest.hexdigest()

    def orders(self, sizes: Mapping[str, int], rng_seed: int) -> dict[str, Order]:
        """The order of each stream in steps of at most `sizes[stream]` rows; two streams are shuffled independently."""
        return {
            name: Order(
                len(part.items),
                sizes[name],
                rng_seed if part is self.primary else derive(rng_seed, f"order {name}"),
            )
            for name, part in self.parts.items()
        }


def prepare_streams(
    rows: Rows, streams: Sequence[str], method: str, paired: bool, preparer: Preparer
) -> Streams:
    """Tokenise rows for a method. Raises InputError for wrong rows, and for a stream without any.

    `paired`: a row with one of refusal and harmful must have the other, and of a harmful answer only those tokens are
    trained that the refusal does not have in the same place.
    """
    if tuple(streams) == ("rows",):
        return Streams({"rows": prepare(rows, preparer.tokenizer, preparer.vocab_size, preparer.max_length)})
    counts: Counter[str] = Counter()
    parts = {name: Examples(counts=counts) for name in streams}
    for row, where in kept_rows(rows, counts):
        answers = {name: row[column] for name, column in SAFETY.items() if row.get(column) is not None}
        if paired and len(answers) == 1:
            fix = "each row needs both `refusal` and `harmful`"
            raise InputError(where, f"only `{SAFETY[next(iter(answers))]}`, with method {method}", fix)
        if not answers:
            ordinary = "user" if "user" in parts else "alignment"
            found = {ordinary: preparer.example(row, where, counts)}
        else:
            found = {
                name: preparer.example(_row(row, SAFETY[name], where), where, counts)
                for name in answers
                if name in parts
            }
            if not found:
                counts["unused"] += 1
            found = {name: _answer_only(example) for name, example in found.items()}
            if paired:
                found = _difference(found, counts)
        for name, example in found.items():
            if example is not None:
                parts[name].items.append(example)
    for name, part in parts.items():
        counts[name] = len(part.items)
    for name, part in parts.items():
        part.finish(f"training rows, method {method}", f"it needs {NEEDED[name]}")
    return Streams(parts)


def _row(row: Mapping[str, Any], column: str, where: str) -> dict[str, Any]:
    """Prompt and answer of a safety row as an ordinary row."""
    prompt, answer = row.get("prompt"), row[column]
    plain = {key: row[key] for key in ("sample_id", "weight") if key in row}
    if isinstance(answer, (list, tuple)):
        good = len(answer) == 1 and isinstance(answer[0], Mapping) and answer[0].get("role") == "assistant"
        if not good or isinstance(prompt, str):
            seen = f"`{column}` {answer!r:.60}"
            raise InputError(where, seen, "give a text, or with a prompt of messages one assistant message")
        return plain | {"messages": [*_messages(prompt, where), dict(answer[0])]}
    if not isinstance(answer, str):
        raise InputError(where, f"`{column}` {answer!r:.60}", "give the answer as a text")
    if isinstance(prompt, str):
        return plain | {"prompt": prompt, "completion": answer}
    return plain | {"messages": [*_messages(prompt, where), {"role": "assistant", "content": answer}]}


def _messages(prompt: Any, where: str) -> Iterator[Any]:
    if not isinstance(prompt, (list, tuple)) or not prompt:
        raise InputError(where, f"prompt {prompt!r:.60}", "give a text or a list of messages")
    yield from prompt


def _answer_only(example: Example | None) -> Example | None:
    """The example with its last stretch of trained tokens alone: earlier turns of a prompt are not learnt."""
    import numpy as np

    if example is None:
        return None
    starts = np.flatnonzero(np.diff(example.loss_mask.astype(np.int8)) == 1) + 1
    mask = example.loss_mask.copy()
    mask[: starts[-1]] = False
    return replace(example, loss_mask=mask)


def _difference(found: dict[str, Example | None], counts: Counter[str]) -> dict[str, Example | None]:
    """A pair, its harmful answer trained only where the refusal has another token or none; dropped if half is lost."""
    import numpy as np

    refusal, harmful = found["alignment"], found["harmful"]
    if refusal is None or harmful is None:
        if refusal is not None or harmful is not None:
            counts["unpaired"] += 1
        return {}
    shared = min(len(refusal.token_ids), len(harmful.token_ids))
    mask = harmful.loss_mask.copy()
    mask[:shared] &= np.not_equal(refusal.token_ids[:shared], harmful.token_ids[:shared])
    if not mask.any():
        counts["same_answers"] += 1
        return {}
    return {"alignment": refusal, "harmful": replace(harmful, loss_mask=mask)}
