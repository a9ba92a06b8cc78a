"""Contrastive tuning of an embedding model: InfoNCE over the batch and mined negatives, cached or not.

1. A step has n rows (query, positive, negatives). Its texts are its distinct queries and its distinct documents, the
   positives and negatives of all rows; equal texts are one text.
2. The texts are sorted by length, cut into micro-batches under a budget of padded tokens, dealt out to the ranks and
   embedded to unit vectors; every rank gathers all of them.
3. s_ij = cos(q_i, d_j) / temperature for each row i and every document j of the step. Left out are documents that
   answer the row's query in any row of the data, the query's own text, and, with a guide, documents whose
   cos_guide(q_i, d_j) exceeds cos_guide(q_i, positive_i) - guide_margin. What answers a text, answers every text of the
   step that is the same once cut.
4. loss = mean over rows of -log(exp(s_i,positive) / sum_j exp(s_ij)); `symmetric` takes the mean with the same from
   positives to queries; Matryoshka the weighted mean over leading dimensions, normalised anew.
5. The loss is differentiated with respect to the vectors alone. Each rank carries the gradient of its own texts'
   vectors, times the number of ranks since data parallelism averages, back through its micro-batches. Those that keep
   their activations go first, in one backward pass; the others are cached (GradCache): embedded a second time with the
   same random numbers, one after another.

InfoNCE: van den Oord et al. 2018 (arXiv:1807.03748, eq. 4); one matrix of in-batch positives and negatives and
temperature 0.02: E5-mistral (Wang et al. 2024, arXiv:2401.00368, sec. 3.2). GradCache: Gao et al. 2021
(arXiv:2101.06983). Guide: GISTEmbed (Solatorio 2024, arXiv:2402.16829). Matryoshka: Kusupati et al. 2022
(arXiv:2205.13147). Departures: a text stands once in a step, so two copies are neither counted twice nor pushed
apart; every rank computes the whole loss, so only vectors are exchanged and no gradient crosses ranks but the
parameters'; a cached step keeps one micro-batch's activations, which take no more memory than those of the next one
that is embedded again; E5-mistral's paper has one mined negative a row, here are up to `hard_negatives`; the guide
sees no instruction.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainers.contrastive_options import ContrastiveOptions
from trainers.core.batching import partition, share
from trainers.embedding.encoder import Encoder
from trainers.embedding.steps import Guide, Step

if TYPE_CHECKING:
    import torch

# Scores that are held at once; the matrix is worked off in blocks of rows.
SCORES = 2**24
# Bytes of activations that a step keeps on a rank under `cache: auto`.
KEPT_BYTES = 4 * 2**30


@dataclass
class Method:
    """What `step` needs besides the model.

    encoder: the model's. budget: padded tokens of a micro-batch. half: whether it computes in 16 bits. gather: rows
    [m, d] of this rank to those of all ranks [ranks * m, d]; None where there is one.
    """

    encoder: Encoder
    options: ContrastiveOptions
    budget: int
    ranks: int = 1
    rank: int = 0
    guide: Guide | None = None
    half: bool = False
    gather: Callable[[torch.Tensor], torch.Tensor] | None = None


def step(model: Any, batch: Step, method: Method, seed: Callable[[int], int]) -> dict[str, torch.Tensor]:
    """Fill `.grad` with the gradient of one optimizer step. Returns {"loss": scalar, the same on every rank}.

    model: the encoder's model or what data parallelism wraps it in. seed(i): random numbers of micro-batch i.
    """
    import torch

    lengths = [len(text) for text in batch.texts]
    shares = share(partition(lengths, method.budget), lengths, method.ranks)
    mine = shares[method.rank]
    count = len(mine)
    kept = _kept(method, batch, count)  # the first so many micro-batches, which have the longest texts

    def embed(number: int) -> torch.Tensor:
        # A rank without a text embeds one that nobody asks for: its backward pass takes part in the exchange.
        texts = [batch.texts[i] for i in mine[number] or [0]]
        torch.manual_seed(seed(number))
        with _exchange(model, number == count - 1):
            return method.encoder.forward(model, method.encoder.tokens.batch(texts))

    with torch.no_grad():
        forgotten = [embed(number) for number in range(kept, count)]
    parts = [*(embed(number) for number in range(kept)), *forgotten]
    own = [part.detach() for group, part in zip(mine, parts, strict=True) if group]
    vectors = _gathered(torch.cat(own) if own else parts[0][:0].detach(), shares, method)
    cosines = _guide_cosines(batch, shares, method)
    loss, gradient = loss_and_gradient(vectors, batch.to(vectors.device), cosines, method.options)
    gradients = [
        gradient[group] * method.ranks if group else torch.zeros_like(part)
        for group, part in zip(mine, parts, strict=True)
    ]
    # These first: their memory is free again when the others need it.
    with _exchange(model, kept == count):
        torch.autograd.backward(parts[:kept], gradients[:kept])
    for number in range(kept, count):
        part = embed(number)
        with _exchange(model, number == count - 1):
            part.backward(gradients[number])
    return {"loss": loss}


def loss_and_gradient(
    vectors: torch.Tensor, batch: Step, guide: torch.Tensor | None, options: ContrastiveOptions
) -> tuple[torch.Tensor, torch.Tensor]:
    """The step's loss (scalar) and its gradient with respect to the unit vectors [Q + D, d], queries first.

    guide: the guide's cosines [Q, D], or None.
    """
    import torch

    leaf = vectors.detach().requires_grad_()
    total = torch.zeros((), dtype=leaf.dtype, device=leaf.device)
    sizes = options.matryoshka or [leaf.shape[1]]
    weights = options.matryoshka_weights or [1.0] * len(sizes)
    rows = torch.arange(len(batch.query), device=leaf.device)
    for size, weight in zip(sizes, weights, strict=True):
        for block in rows.split(max(1, SCORES // batch.answers.shape[1])):
            with torch.enable_grad():
                cut = leaf if size == leaf.shape[1] else torch.nn.functional.normalize(leaf[:, :size], dim=-1)
                part = info_nce(cut, batch, guide, block, options) * (weight / sum(weights) / len(rows))
                part.backward()
            total += part.detach()
    assert leaf.grad is not None
    return total, leaf.grad


def info_nce(
    vectors: torch.Tensor,
    batch: Step,
    guide: torch.Tensor | None,
    rows: torch.Tensor,
    options: ContrastiveOptions,
) -> torch.Tensor:
    """Sum over `rows` of the InfoNCE loss of unit vectors [Q + D, d] (the module's steps 3 and 4); a scalar."""
    from torch.nn.functional import cross_entropy

    queries, documents = vectors[: len(batch.answers)], vectors[len(batch.answers) :]
    query, positive = batch.query[rows], batch.positive[rows]
    out, out_back = left_out(batch, guide, rows, options.guide_margin)
    scores = queries[query] @ documents.T / options.temperature
    loss = cross_entropy(scores.masked_fill(out, -math.inf), positive, reduction="sum")
    if not options.symmetric:
        return loss
    back = documents[positive] @ queries.T / options.temperature
    return (loss + cross_entropy(back.masked_fill(out_back, -math.inf), query, reduction="sum")) / 2


def left_out(
    batch: Step, guide: torch.Tensor | None, rows: torch.Tensor, margin: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Candidates that are no negatives: documents for each row's query [len(rows), D], and queries for each row's
    positive [len(rows), Q]; both bool. A row's own positive and query are never left out."""
    query, positive = batch.query[rows], batch.positive[rows]
    out, back = batch.answers[query], batch.answers[:, positive].T.clone()
    if guide is not None:
        limit = guide[query, positive].unsqueeze(1) - margin
        out, back = out | (guide[query] > limit), back | (limit < guide[:, positive].T)
    return out.scatter(1, positive.unsqueeze(1), False), back.scatter(1, query.unsqueeze(1), False)


def _guide_cosines(batch: Step, shares: list[list[list[int]]], method: Method) -> torch.Tensor | None:
    """The guide's cosines [Q, D] of a step; each rank embeds the texts that it also trains on."""
    if method.guide is None:
        return None
    mine = [number for group in shares[method.rank] for number in group]
    vectors = method.guide.vectors(batch, mine).to(method.encoder.model.device)
    vectors = _gathered(vectors, shares, method)
    return vectors[: len(batch.answers)] @ vectors[len(batch.answers) :].T


def _gathered(own: torch.Tensor, shares: list[list[list[int]]], method: Method) -> torch.Tensor:
    """Vectors of all texts [Q + D, d] in order, from those [*, d] that each rank has in the order of its share."""
    import torch

    orders = [[number for group in groups for number in group] for groups in shares]
    most = max(map(len, orders))
    if method.gather is not None:
        padded = torch.nn.functional.pad(own, (0, 0, 0, most - len(own)))
        own = method.gather(padded)
        places = [rank * most + i for rank, order in enumerate(orders) for i in range(len(order))]
        own = own[places]
    vectors = torch.empty_like(own)
    vectors[[number for order in orders for number in order]] = own
    return vectors


def _kept(method: Method, batch: Step, count: int) -> int:
    """How many of a rank's `count` micro-batches, at least one, keep their activations: as asked, or as fit.

    34 bytes a token, layer and hidden unit in 16 bits: Korthikanti et al. 2022 (arXiv:2205.05198, eq. 1), attention
    matrices not counted, which fused kernels never store; twice that in float32.
    """
    if method.options.cache != "auto":
        return 1 if method.options.cache == "on" else count
    config = method.encoder.model[0].config.get_text_config()
    bytes_each = (34 if method.half else 68) * config.num_hidden_layers * config.hidden_size
    needed = batch.tokens / method.ranks * bytes_each
    return min(count, max(1, int(count * KEPT_BYTES / max(1, needed))))


def _exchange(model: Any, now: bool) -> AbstractContextManager[Any]:
    """Ranks exchange the gradient of what runs in this context only if `now`."""
    no_sync = getattr(model, "no_sync", None)
    return nullcontext() if now or no_sync is None else no_sync()
