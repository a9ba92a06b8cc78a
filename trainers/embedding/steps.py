"""One optimizer step's texts: which rows ask for what, and what of it is no negative."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from synth.records.errors import InputError
from trainers.embedding.encoder import Encoder
from trainers.embedding.rows import Pairs

if TYPE_CHECKING:
    import numpy as np
    import torch


@dataclass
class Step:
    """The n rows of a step over its Q distinct queries and D distinct documents.

    texts: token ids of the Q + D texts, queries first. query: [n] long, each row's query. positive: [n] long, the
    document of each row's positive. answers: [Q, D] bool, documents that are no negative for a query. query_ids,
    document_ids: numbers of these texts in the tables of `Pairs`.
    """

    texts: list[np.ndarray]
    query: torch.Tensor
    positive: torch.Tensor
    answers: torch.Tensor
    query_ids: list[int]
    document_ids: list[int]

    def to(self, device: torch.device) -> Step:
        """The same step with its tensors on a device."""
        moved = [part.to(device, non_blocking=True) for part in (self.query, self.positive, self.answers)]
        return Step(self.texts, *moved, query_ids=self.query_ids, document_ids=self.document_ids)

    @property
    def tokens(self) -> int:
        """Tokens of all texts, padding excluded."""
        return sum(len(text) for text in self.texts)


class Steps:
    """Makes steps of row numbers. Every text is tokenised once, when it is first met, and cut to `most` tokens."""

    def __init__(self, pairs: Pairs, encoder: Encoder, most: int | None = None) -> None:
        self.pairs, self.encoder, self.most = pairs, encoder, most
        self._check_instructions()
        self._queries: dict[int, np.ndarray] = {}
        self._documents: dict[int, np.ndarray] = {}

    def __call__(self, rows: Sequence[int]) -> Step:
        """The step of these rows; a row may stand in it more than once."""
        import torch

        pairs = [self.pairs.rows[row] for row in rows]
        queries = {number: i for i, number in enumerate(dict.fromkeys(pair.query for pair in pairs))}
        order = dict.fromkeys(number for pair in pairs for number in (pair.positive, *pair.negatives))
        documents = {number: i for i, number in enumerate(order)}
        answers = torch.zeros(len(queries), len(documents), dtype=torch.bool)
        for number, query in queries.items():
            found = self.pairs.answers[number]
            # The smaller of the two is walked through: a label answers many queries, and a step has many documents.
            near = found if len(found) < len(documents) else documents.keys()
            columns = [documents[i] for i in near if i in documents and i in found]
            answers[query, columns] = True
        self._tokenise(list(queries), list(documents))
        texts = [self._queries[i] for i in queries], [self._documents[i] for i in documents]
        for rows_or_columns, cut in zip((answers, answers.T), texts, strict=True):
            _answer_alike(rows_or_columns, cut)
        return Step(
            [*texts[0], *texts[1]],
            torch.tensor([queries[pair.query] for pair in pairs]),
            torch.tensor([documents[pair.positive] for pair in pairs]),
            answers, list(queries), list(documents),
        )  # fmt: skip

    def texts(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Token ids of every query and every document of the pairs."""
        queries, documents = range(len(self.pairs.queries)), range(len(self.pairs.documents))
        self._tokenise(queries, documents)
        return [self._queries[i] for i in queries], [self._documents[i] for i in documents]

    def _check_instructions(self) -> None:
        """Raise InputError if an instruction leaves no room for its queries."""
        own: int = self.encoder.tokens.tokenizer.model_max_length
        most = min(own, self.most or own)
        key = "max_length" if most == own else "training_length"
        told = sorted(self.pairs.instructions())
        prompts = [self.encoder.text("", "query", instruction) for instruction in told]
        longest = max(map(len, self.encoder.tokens.ids(prompts)), default=0)
        if longest >= most:
            seen = f"{most}, but an instruction alone takes {longest} tokens"
            raise InputError(f"train.{key}", seen, "shorten the instruction, or raise the length")

    def _tokenise(self, queries: Sequence[int], documents: Sequence[int]) -> None:
        encoder, pairs = self.encoder, self.pairs
        new = [number for number in queries if number not in self._queries]
        texts = [
            encoder.text(text, "query", instruction)
            for instruction, text in map(pairs.queries.__getitem__, new)
        ]
        self._queries.update(zip(new, encoder.tokens.ids(texts, self.most), strict=True))
        new = [number for number in documents if number not in self._documents]
        texts = [encoder.text(pairs.documents[number]) for number in new]
        self._documents.update(zip(new, encoder.tokens.ids(texts, self.most), strict=True))


def _answer_alike(answers: torch.Tensor, texts: Sequence[np.ndarray]) -> None:
    """What answers a text, answers every text that is the same once cut; answers: [len(texts), *] bool, in place."""
    equal: dict[tuple[int, ...], list[int]] = {}
    for number, text in enumerate(texts):
        equal.setdefault(tuple(text), []).append(number)
    for group in equal.values():
        if len(group) > 1:
            answers[group] = answers[group].any(0)


class Guide:
    """A second model's vectors of a step's texts; each text is embedded once in a training."""

    def __init__(self, pairs: Pairs, encoder: Encoder) -> None:
        self.pairs, self.encoder = pairs, encoder
        self._known: dict[tuple[str, int], np.ndarray] = {}

    def vectors(self, step: Step, which: Sequence[int]) -> torch.Tensor:
        """Unit vectors float32 [len(which), d] of the step's texts with these numbers.

        Queries are read without their task's instruction, which is a matter of the model that is trained.
        """
        import numpy as np
        import torch

        keys = [("query", i) for i in step.query_ids] + [("document", i) for i in step.document_ids]
        wanted = [keys[i] for i in which]
        for role in ("query", "document"):
            new = [number for kind, number in wanted if kind == role and (kind, number) not in self._known]
            table = self.pairs.documents if role == "document" else [text for _, text in self.pairs.queries]
            for number, vector in zip(new, self.encoder.encode([table[i] for i in new], role), strict=True):
                self._known[role, number] = vector
        rows = [self._known[key] for key in wanted]
        return torch.from_numpy(
            np.stack(rows) if rows else np.zeros((0, self.encoder.dimensions), np.float32)
        )
