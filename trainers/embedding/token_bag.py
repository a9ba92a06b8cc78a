"""What single tokens say of a text: one learned vector for every token, summed, behind the transformer's vector.

1. A text's bag vector b is the unit sum of the vectors of its tokens, special ones left out; a token that is there n
   times counts sqrt(n) times, so that what a function repeats in every line does not drown the rest. Each begins
   random, its length the token's inverse document frequency among queries or documents, whichever has it more often,
   so that at first b compares exact tokens, also those that no row has, and prompts hardly count.
2. The vectors are learned alone, on all rows, by the training's InfoNCE in large batches (Adam, its rate falling to 0
   on a line): which tokens count, and which of a query and of a document go together.
3. With u the transformer's unit vector, the text's vector is [u, sqrt(weight) b] / sqrt(1 + weight), so that cosines
   are (cos_u + weight cos_b) / (1 + weight), and the leading dimensions are the transformer's.

A pass over thousands of rows takes seconds, so it sees more rows than the transformer has time for, and it errs where
the transformer does not. Exact tokens beside a dense vector: Luan et al. 2021 (arXiv:2005.00181); static
token vectors learned contrastively: sentence-transformers' StaticEmbedding. Departure from both: one vector of both,
learned from the same rows.

A tuned model's config.json says that there is a bag, and with which weight; its table lies in a folder of its own.
sentence-transformers passes over both and opens the transformer alone, `open_encoder` the whole.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import embedding, embedding_bag, normalize

from synth.records.errors import InputError, WorkError
from trainers import contrastive
from trainers.contrastive_options import ContrastiveOptions, TokenBagOptions
from trainers.core.model import reading
from trainers.core.seeds import derive
from trainers.embedding.batches import Batches
from trainers.embedding.rows import Pairs
from trainers.embedding.steps import Steps

if TYPE_CHECKING:
    import numpy as np

    from trainers.embedding.encoder import Encoder

FOLDER, TABLE = "token_bag", "model.safetensors"
"""Where a model's folder holds its table; the former is also the key of its config.json."""


class TokenBag(torch.nn.Module):
    """The last module of a sentence-transformers model: appends the bag to its sentence vectors of length `before`.

    table: [tokens, dimensions]; special tokens' rows are 0.
    """

    def __init__(self, table: torch.Tensor, weight: float, before: int) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(table, requires_grad=False)
        self.weight, self.before = weight, before

    def forward(self, features: dict[str, Any], **_kwargs: Any) -> dict[str, Any]:
        """`sentence_embedding` [B, before] of `features` becomes unit vectors [B, before + dimensions], float32."""
        ids, read = features["input_ids"], features["attention_mask"].bool()
        counted = torch.zeros(ids.shape, device=ids.device)
        counted[read] = _counted(read.nonzero()[:, 0], ids[read], len(self.table))
        told = (embedding(ids, self.table).float() * counted.unsqueeze(-1)).sum(dim=1)
        dense, bag = normalize(features["sentence_embedding"].float()), normalize(told)
        both = torch.cat([dense, bag * math.sqrt(self.weight)], dim=-1)
        features["sentence_embedding"] = normalize(both)
        return features

    def get_embedding_dimension(self) -> int:
        """Length of the vectors that leave this module."""
        return self.before + self.table.shape[1]

    def write(self, model: Path) -> None:
        """Write the table into the model's folder."""
        from safetensors.torch import save_file

        (model / FOLDER).mkdir()
        save_file({"table": self.table.detach().contiguous()}, model / FOLDER / TABLE)

    def save(self, *_args: Any, **_kwargs: Any) -> None:
        """sentence-transformers would write a folder that it cannot open again."""
        raise InputError(
            "a model with a token bag", "is not saved by this", "copy or upload the folder it is in"
        )


def read_bag(model: Any, path: str, revision: str | None = None) -> TokenBag | None:
    """The bag of the sentence-transformers model that was opened from a folder or hub name; None if it has none."""
    from safetensors.torch import load_file
    from sentence_transformers.util import load_file_path

    settings = getattr(model[0].config, FOLDER, None)
    if settings is None:
        return None
    fix = f"copy or fetch the whole model anew; or take {FOLDER} out of its config.json to have the transformer alone"
    with reading(f"{FOLDER} of {path}", fix):
        found = load_file_path(path, TABLE, subfolder=FOLDER, revision=revision)
        if found is None:
            raise FileNotFoundError(f"{FOLDER}/{TABLE} is missing")
        table, size = load_file(found)["table"], _vocabulary_size(model)
        if table.dim() != 2 or len(table) != size:
            raise ValueError(f"{FOLDER}/{TABLE} is {list(table.shape)}, but the model has {size} tokens")
        return TokenBag(table, float(settings["weight"]), model.get_embedding_dimension())


def _vocabulary_size(model: Any) -> int:
    """Of everything that the transformer can read: tokenizers may have holes in their ids, or ids beyond it."""
    return model[0].config.get_text_config().vocab_size


def learn_bag(
    pairs: Pairs, encoder: Encoder, options: ContrastiveOptions, rng_seed: int, log: Callable[[str], None]
) -> TokenBag:
    """The bag that `options.token_bag` asks for, learned on the CPU from all rows as `encoder` reads them; its model
    is not asked. The same arguments learn the same bag, bitwise on one CPU configuration.

    Raises InputError if no step has a negative, WorkError if the loss stops being finite.
    """
    bag = options.token_bag
    assert bag is not None
    # Every row, and in each step whatever came: what the transformer's steps are made for is not needed here.
    alone = replace(
        options, batch_size=bag.batch_size, epochs=bag.epochs, max_steps=None, temperature=bag.temperature,
        mixing="proportional", homogeneous=False, matryoshka=[], matryoshka_weights=[],
    )  # fmt: skip
    batches = Batches(pairs, alone, derive(rng_seed, "token_bag"))
    if not batches.contrasting:
        seen = f"{bag.batch_size}: no step has a negative for any of its queries"
        raise InputError("train.token_bag.batch_size", seen, "raise it")
    steps, began = Steps(pairs, encoder), time.monotonic()
    size = _vocabulary_size(encoder.model)
    special = [token for token in encoder.tokens.tokenizer.all_special_ids if token < size]
    table = torch.nn.Parameter(_start(steps, size, special, bag, rng_seed))
    optimizer = torch.optim.Adam([table], lr=bag.lr)
    for number in range(batches.steps):
        optimizer.param_groups[0]["lr"] = bag.lr * (1 - number / batches.steps)
        batch = steps(batches.step(number))
        vectors = _vectors(batch.texts, table)
        loss, gradient = contrastive.loss_and_gradient(vectors, batch, None, alone)
        if not math.isfinite(loss.item()):
            raise WorkError(
                f"token bag, step {number + 1}", f"loss {loss.item()}", "lower train.token_bag.lr"
            )
        optimizer.zero_grad()
        vectors.backward(gradient)
        assert table.grad is not None
        table.grad[special] = 0  # so that they stay 0: sums are without them
        optimizer.step()
        if (number + 1) % batches.steps_per_epoch == 0:
            seconds = f"{time.monotonic() - began:.0f} s"
            log(f"token bag: step {number + 1} of {batches.steps}, loss {loss.item():.3f}, {seconds}")
    return TokenBag(table.detach(), bag.weight, encoder.dimensions)


def _start(steps: Steps, size: int, special: list[int], bag: TokenBagOptions, rng_seed: int) -> torch.Tensor:
    """Random vectors [size, dimensions], as long as their tokens are rare; special tokens' are 0."""
    import numpy as np

    shares = np.zeros(size)
    for texts in steps.texts():
        count = np.zeros(size)
        for ids in texts:
            count[np.unique(ids)] += 1
        shares = np.maximum(shares, (1 + count) / len(texts))
    idf = np.log1p(1 / shares)
    idf[special] = 0.0
    random = torch.Generator().manual_seed(derive(rng_seed, "token_bag"))
    table = torch.randn(size, bag.dimensions, generator=random) / math.sqrt(bag.dimensions)
    return table * torch.from_numpy(idf / idf.mean()).float().unsqueeze(1)


def _vectors(texts: Sequence[np.ndarray], table: torch.Tensor) -> torch.Tensor:
    """Unit sums [len(texts), dimensions] of the vectors of the texts' tokens."""
    import numpy as np

    lengths = np.array([len(text) for text in texts])
    starts, owners = np.cumsum(lengths) - lengths, np.repeat(np.arange(len(texts)), lengths)
    flat = torch.from_numpy(np.concatenate(texts).astype(np.int64))
    counted = _counted(torch.from_numpy(owners), flat, len(table))
    sums = embedding_bag(flat, table, torch.from_numpy(starts), mode="sum", per_sample_weights=counted)
    return normalize(sums)


def _counted(owners: torch.Tensor, tokens: torch.Tensor, size: int) -> torch.Tensor:
    """What each token [N] adds of its vector to the sum of its text, whose number is in `owners` [N]: 1 / sqrt(n) where
    that text has the token n times, so that together they count sqrt(n). `size` is that of the vocabulary."""
    _, kind, n = torch.unique(owners * size + tokens, return_inverse=True, return_counts=True)
    return n.float().rsqrt()[kind]
