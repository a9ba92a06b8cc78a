"""What single tokens say of a text: one learned vector for every token, summed, behind the transformer's vector.

1. A text's bag vector b is the unit sum of the vectors of its tokens, special ones left out. Each begins random, as
   long as the token is rare in the rows' documents (inverse document frequency), so that at first b compares exact
   tokens, also those that no row has.
2. The vectors are learned alone, on all rows, by the training's InfoNCE in large batches (Adam, its rate falling to 0
   on a line): which tokens count, and which of a query and of a document go together.
3. With u the transformer's unit vector, the text's vector is [u, sqrt(weight) b] / sqrt(1 + weight), so that cosines
   are (cos_u + weight cos_b) / (1 + weight), and the leading dimensions are the transformer's.

A pass over thousands of rows takes seconds, so it sees more rows than the transformer has time for, and it errs where
the transformer does not. Exact tokens beside a dense vector: Luan et al. 2021 (arXiv:2005.00181); static
token vectors learned contrastively: sentence-transformers' StaticEmbedding. Departure from both: one vector of both,
learned from the same rows.

The folder of a tuned model holds the table in a folder of its own, which sentence-transformers passes over: it opens
the transformer alone, `open_encoder` the whole.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import embedding_bag, normalize

from synth.records.errors import InputError
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

FOLDER = "token_bag"
"""Where a model's folder holds its bag."""
_TABLE, _SETTINGS = "model.safetensors", "config.json"


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
        ids, mask = features["input_ids"], features["attention_mask"]
        told = embedding_bag(ids, self.table, mode="sum", per_sample_weights=mask.to(self.table.dtype))
        dense, bag = normalize(features["sentence_embedding"].float()), normalize(told.float())
        both = torch.cat([dense, bag * math.sqrt(self.weight)], dim=-1)
        features["sentence_embedding"] = normalize(both)
        return features

    def get_embedding_dimension(self) -> int:
        """Length of the vectors that leave this module."""
        return self.before + self.table.shape[1]

    def save(self, model: Path) -> None:
        """Write the bag into the model's folder."""
        from safetensors.torch import save_file

        folder = model / FOLDER
        folder.mkdir()
        save_file({"table": self.table.detach().contiguous()}, folder / _TABLE)
        text = json.dumps({"weight": self.weight}, indent=2)
        (folder / _SETTINGS).write_text(text + "\n", encoding="utf-8", newline="\n")


def read_bag(path: str, before: int, revision: str | None = None) -> TokenBag | None:
    """The bag of a model's folder or hub name, behind vectors of length `before`; None if it has none."""
    from safetensors.torch import load_file
    from sentence_transformers.util import load_file_path

    def find(name: str) -> str | None:
        return load_file_path(path, name, subfolder=FOLDER, revision=revision)

    settings = find(_SETTINGS)
    if settings is None:
        return None
    table = find(_TABLE)
    if table is None:
        raise InputError(f"model {path}", f"{FOLDER}/ has no {_TABLE}", "copy the whole folder")
    with reading(f"{FOLDER} of {path}", "copy the model's folder anew"):
        weight = float(json.loads(Path(settings).read_text("utf-8"))["weight"])
        return TokenBag(load_file(table)["table"], weight, before)


def learn_bag(
    pairs: Pairs, encoder: Encoder, options: ContrastiveOptions, rng_seed: int, log: Callable[[str], None]
) -> TokenBag:
    """The bag that `options.token_bag` asks for, learned from all rows as `encoder` reads them; its model is not
    asked. The same arguments learn the same bag, bitwise on one CPU configuration."""
    bag = options.token_bag
    assert bag is not None
    # Every row, and in each step whatever came: what the transformer's steps are made for is not needed here.
    alone = replace(
        options, batch_size=bag.batch_size, epochs=bag.epochs, max_steps=None, temperature=bag.temperature,
        mixing="proportional", homogeneous=False, matryoshka=[], matryoshka_weights=[],
    )  # fmt: skip
    batches = Batches(pairs, alone, derive(rng_seed, "token_bag"))
    steps, device, began = Steps(pairs, encoder), encoder.model.device, time.monotonic()
    table = torch.nn.Parameter(_start(steps.documents(), encoder, bag, rng_seed).to(device))
    optimizer = torch.optim.Adam([table], lr=bag.lr)
    losses = []
    for number in range(batches.steps):
        optimizer.param_groups[0]["lr"] = bag.lr * (1 - number / batches.steps)
        batch = steps(batches.step(number))
        vectors = _vectors(batch.texts, table, encoder)
        loss, gradient = contrastive.loss_and_gradient(vectors, batch.to(device), None, alone)
        optimizer.zero_grad()
        vectors.backward(gradient)
        optimizer.step()
        losses.append(loss.item())
    log(
        f"token bag: {batches.steps} steps of up to {bag.batch_size} rows, loss {losses[0]:.3f} to {losses[-1]:.3f}, "
        f"{time.monotonic() - began:.0f} s"
    )
    return TokenBag(table.detach(), bag.weight, encoder.dimensions)


def _start(
    documents: Sequence[np.ndarray], encoder: Encoder, bag: TokenBagOptions, rng_seed: int
) -> torch.Tensor:
    """Random vectors [tokens, dimensions], as long as their tokens are rare; special tokens' are 0."""
    import numpy as np

    tokenizer = encoder.tokens.tokenizer
    count = np.zeros(max(len(tokenizer), 1 + max(int(ids.max()) for ids in documents)))
    for ids in documents:
        count[np.unique(ids)] += 1
    rarity = np.log1p(len(documents) / (1 + count))
    rarity[tokenizer.all_special_ids] = 0.0
    random = torch.Generator().manual_seed(derive(rng_seed, "token_bag", "table"))
    table = torch.randn(len(count), bag.dimensions, generator=random) / math.sqrt(bag.dimensions)
    return table * torch.from_numpy(rarity / rarity.mean()).float().unsqueeze(1)


def _vectors(texts: Sequence[np.ndarray], table: torch.Tensor, encoder: Encoder) -> torch.Tensor:
    """Unit sums [len(texts), dimensions] of the vectors of the texts' tokens, special ones left out."""
    import numpy as np

    special = encoder.tokens.tokenizer.all_special_ids
    kept = [ids[~np.isin(ids, special)] for ids in texts]
    starts = np.cumsum([0, *map(len, kept[:-1])])
    flat = torch.from_numpy(np.concatenate(kept).astype(np.int64)).to(table.device)
    return normalize(embedding_bag(flat, table, torch.from_numpy(starts).to(table.device), mode="sum"))
