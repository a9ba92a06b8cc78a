"""RepNoise: alignment that turns what the model represents of harmful answers into noise.

Objective (Rosati et al. 2024, arXiv:2405.14577), on pairs of a refusal and a harmful answer to one prompt:

    min_w  f(w) + beta * mean_l MMD(z_l, n_l) - alpha * log(1 + s / (L + 1))

f is the loss of the refusals; z_l the feed-forward outputs of layer l at the tokens of the harmful answer where the
pair differs, n_l standard normal noise of the same places; s = CE + sum_k CE_k, where CE is the loss of those tokens
and CE_k that of reading hidden state k of the L + 1 (k = 0: the embeddings) with final norm and head. One step:

1. .grad = grad f(w) over the step's alignment rows, as in SFT.
2. Pass 1 over the step's harmful rows, without gradient: s, and z_l of every row. From the whole step's z_l on all
   ranks: the MMD of every layer, and its slope G_l in this rank's z_l.
3. Pass 2, same dropout masks: the gradient of beta * mean_l <G_l, z_l> - alpha * s / (L + 1) / (1 + s / (L + 1)), which
   is that of the two terms at w. It is averaged over ranks and added to `.grad`.

Two passes make the terms, which are no sums over rows, those of the whole step however it is cut up. MMD: one sample
is one harmful row, all its places and features, with zeros where the pair does not differ; a sum of five Gaussian
kernels, of bandwidths 1/4 to 4 times the mean squared distance between samples, which the gradient takes for constant.
Noise is drawn from (rng_seed, step, row). MMD weighs every row alike; CE goes by rows' weights.

A pair decides which of its harmful tokens count, and nothing else: alignment and harmful rows are drawn independently.

Departures from the authors' code: f is the plain loss of the refusal's tokens, not only of those that differ; tokens
that do not count are dropped, instead of setting their logits to 0; a label's logits are those of the token before;
token id 0 counts; the last hidden state is normed once, so that CE_L = CE.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from trainers import sft
from trainers.core import ranks
from trainers.core.logprobs import inner_model, token_logprobs
from trainers.core.loss import weighted_nll
from trainers.core.method import Logs, Method, Moment, add_to_grad, gradient, trained
from trainers.core.seeds import derive, replay
from trainers.core.structure import feed_forwards, final_norm, first_tensor, layers
from trainers.method_options import RepNoiseOptions

if TYPE_CHECKING:
    import torch
    from torch import nn

    from trainers.core.batching import MicroBatch

KERNELS = 5


class RepNoise(Method):
    """Streams: alignment rows, and the harmful answers of the same prompts."""

    streams = ("alignment", "harmful")
    paired = True

    def __init__(self, options: RepNoiseOptions) -> None:
        self.options = options

    def draws(self, at: Moment) -> dict[str, int]:
        used = self.options.alpha > 0 or self.options.beta > 0
        return {"alignment": at.step, **({"harmful": at.step} if used else {})}

    def step(self, model: nn.Module, batches: Mapping[str, Sequence[MicroBatch]], at: Moment) -> Logs:
        logs = sft.step(model, batches["alignment"])
        if "harmful" in batches:
            logs |= add_noise_terms(model, batches["harmful"], self.options, at)
        return logs


def add_noise_terms(
    model: nn.Module, harmful: Sequence[MicroBatch], options: RepNoiseOptions, at: Moment
) -> Logs:
    """Add the gradient of the two terms to `.grad`; steps 2 and 3.

    Returns scalars, means over ranks already: `harmful_loss` CE, `layer_loss` s / (L + 1), `noise_distance` mean MMD.
    """
    import torch

    probe = _Probe(inner_model(model))
    device = harmful[0].input_ids.device
    same_masks = replay(device)
    shares = torch.zeros(2, device=device)
    states: list[list[torch.Tensor]] = []
    with torch.no_grad():
        for batch in harmful:
            ce, summed, outputs = probe.read(inner_model(model), batch)
            shares += torch.stack([ce, summed])
            states.append(outputs)
    own, layer_loss = (ranks.total(shares) / ranks.count()).unbind()
    distance, slopes = noise_slopes(states, harmful, at) if options.beta else (torch.zeros_like(own), [])
    states.clear()
    same_masks()
    pending = iter(slopes)

    def terms(inner: nn.Module, batch: MicroBatch) -> torch.Tensor:
        _, summed, outputs = probe.read(inner, batch)
        loss = -options.alpha / (1 + layer_loss) * summed
        if options.beta:
            pull = sum((slope * z).sum() for slope, z in zip(next(pending), outputs, strict=True))
            # The mean over ranks is taken of what is one sum over all of them.
            loss = loss + options.beta * ranks.count() * pull
        return loss

    _, found = gradient(model, harmful, terms)
    add_to_grad(trained(model), found, 1.0)
    return {"harmful_loss": own, "layer_loss": layer_loss, "noise_distance": distance}


class _Probe:
    """Reads feed-forward outputs and hidden states of a decoder at the places of harmful tokens."""

    def __init__(self, model: Any) -> None:
        self.layers = list(layers(model).values())
        self.feed_forwards = feed_forwards(model)
        self.norm, self.head = final_norm(model), model.get_output_embeddings()

    def read(
        self, model: nn.Module, batch: MicroBatch
    ) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        """CE and s / (L + 1), the batch's shares, and z_l [N, D] of every layer at the batch's N trained tokens."""
        from torch.utils.checkpoint import checkpoint

        with self._kept() as (hidden, outputs):
            logprobs = token_logprobs(model, batch)
        ce = weighted_nll(logprobs, batch)
        width = outputs[0].shape[-1]
        at_tokens = [output.reshape(-1, width)[batch.positions + 1].float() for output in outputs]
        # CE itself and the last hidden state, which is what CE was read from.
        summed = 2 * ce
        read = self._reader(batch, outputs[0].dtype)
        for state in hidden[:-1]:
            # A large vocabulary's logits are made again in the backward pass, not kept for every layer.
            summed = summed + checkpoint(read, state, use_reentrant=False)
        return ce, summed / len(hidden), at_tokens

    def _reader(self, batch: MicroBatch, compute: torch.dtype) -> Callable[[torch.Tensor], torch.Tensor]:
        """The share of CE_k as a function of hidden state k [B, T, D]; in the type the model computes in."""
        import torch
        from torch.nn import functional

        def read(state: torch.Tensor) -> torch.Tensor:
            with torch.autocast(state.device.type, dtype=compute, enabled=compute != torch.float32):
                logits = self.head(self.norm(state.flatten(0, 1)[batch.positions]))
            nll = functional.cross_entropy(logits.float(), batch.labels, reduction="none")
            return weighted_nll(-nll, batch)

        return read

    @contextmanager
    def _kept(self) -> Iterator[tuple[list[torch.Tensor], list[torch.Tensor]]]:
        """Lists that a forward pass fills with hidden states and feed-forward outputs; the hooks go afterwards.

        They only keep what is there, so under gradient checkpointing the backward pass does without them.
        """
        hidden: list[torch.Tensor] = []
        outputs: list[torch.Tensor] = []

        def embeddings(_module: Any, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            hidden.append(inputs[0] if inputs else named["hidden_states"])

        handles = [self.layers[0].register_forward_pre_hook(embeddings, with_kwargs=True)]
        for target, modules in ((hidden, self.layers), (outputs, self.feed_forwards)):
            for module in modules:
                handles.append(
                    module.register_forward_hook(
                        lambda _module, _inputs, output, target=target: target.append(first_tensor(output))
                    )
                )
        try:
            yield hidden, outputs
        finally:
            for handle in handles:
                handle.remove()


def noise_slopes(
    states: Sequence[Sequence[torch.Tensor]], harmful: Sequence[MicroBatch], at: Moment
) -> tuple[torch.Tensor, list[list[torch.Tensor]]]:
    """Mean over layers of the step's MMD, and for each micro-batch the slope of that mean in z_l [N, D] of every layer.

    `states` are those z_l; samples are the rows of all micro-batches and ranks.
    """
    import torch

    slopes: list[list[torch.Tensor]] = [[] for _ in harmful]
    depth, width = len(states[0]), states[0][0].shape[-1]
    distance = torch.zeros((), device=states[0][0].device)
    noise = _Noise(harmful, at, width, distance.device)
    for layer in range(depth):
        mine = [_by_row(batch, own[layer]) for batch, own in zip(harmful, states, strict=True)]
        drawn = [_by_row(batch, part) for batch, part in zip(harmful, noise.next(), strict=True)]
        longest = max(part.shape[1] for part in mine)
        z, first = ranks.gather(torch.cat([_wider(part, longest) for part in mine]))
        n, _ = ranks.gather(torch.cat([_wider(part, longest) for part in drawn]))
        z = z.detach().requires_grad_()
        value = mmd(z.flatten(1), n.flatten(1)) / depth
        (slope,) = torch.autograd.grad(value, z)
        distance += value.detach()
        for place, (batch, part) in enumerate(zip(harmful, mine, strict=True)):
            rows = slope[first : first + len(part), : part.shape[1]]
            first += len(part)
            slopes[place].append(_to_tokens(batch, rows, width))
    return distance, slopes


class _Noise:
    """Standard normal noise of every harmful token, layer by layer; a row's own whatever batch or rank it is in."""

    def __init__(self, harmful: Sequence[MicroBatch], at: Moment, width: int, device: torch.device) -> None:
        import torch

        self.harmful, self.width, self.device = harmful, width, device
        self.generators = [
            [
                torch.Generator(device).manual_seed(derive(at.rng_seed, "noise", at.step, row))
                for row in batch.rows
            ]
            for batch in harmful
        ]

    def next(self) -> list[torch.Tensor]:
        """[N, D] of each micro-batch, for the next layer."""
        import torch

        drawn = []
        for batch, generators in zip(self.harmful, self.generators, strict=True):
            counts = (
                (batch.positions // batch.input_ids.shape[1]).bincount(minlength=len(generators)).tolist()
            )
            parts = [
                torch.randn(count, self.width, generator=generator, device=self.device)
                for count, generator in zip(counts, generators, strict=False)
            ]
            idle = torch.zeros(len(batch.positions), self.width, device=self.device)
            drawn.append(torch.cat(parts) if parts else idle)
        return drawn


def _by_row(batch: MicroBatch, values: torch.Tensor) -> torch.Tensor:
    """Values [N, D] of a batch's trained tokens as [B, T, D], zero elsewhere; no row at all of an idle batch."""
    room = values.new_zeros(batch.input_ids.numel(), values.shape[-1])
    room[batch.positions + 1] = values
    return room.view(*batch.input_ids.shape, -1)[: len(batch.rows)]


def _to_tokens(batch: MicroBatch, rows: torch.Tensor, width: int) -> torch.Tensor:
    """What `_by_row` was given, from its rows [B, T, D]."""
    if not batch.rows:
        return rows.new_zeros(len(batch.positions), width)
    return rows.reshape(-1, width)[batch.positions + 1]


def _wider(rows: torch.Tensor, width: int) -> torch.Tensor:
    from torch.nn import functional

    return functional.pad(rows, (0, 0, 0, width - rows.shape[1]))


def mmd(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Squared maximum mean discrepancy of two sets of n samples [n, d] (Gretton et al. 2012), biased estimate.

    The kernel is the sum of `KERNELS` Gaussians exp(-d^2 / b), b = 2^i times the mean of d^2 over different samples of
    both sets, i = -2 .. 2. Samples that are all equal have distance 0.
    """
    import torch

    both = torch.cat([left, right])
    squared = torch.cdist(both, both, compute_mode="donot_use_mm_for_euclid_dist").square()
    count = len(both)
    mean = squared.detach().sum() / (count * count - count)
    bandwidth = mean.clamp_min(torch.finfo(squared.dtype).tiny)
    powers = range(-(KERNELS // 2), KERNELS // 2 + 1)
    kernel = torch.stack([torch.exp(-squared / (bandwidth * 2.0**i)) for i in powers]).sum(0)
    n = len(left)
    return kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()
