"""Options of contrastive tuning. A plain dataclass that imports nothing heavy: the recipe schema nests it as it is."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

from trainers.options import FORBID_UNKNOWN, TRACKERS, EarlyStopping, LoraOptions, TrainOptions, require

Pooling = Literal["auto", "mean", "cls", "lasttoken"]
Mixing = Literal["proportional", "round_robin", "temperature"]


@dataclass(frozen=True)
class TokenBagOptions:
    """A second half of the vector that sums one learned vector for every token; see `trainers.embedding.token_bag`."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    weight: float = 0.4
    """Cosine of two texts: (the transformer's + weight * the bag's) / (1 + weight)."""
    dimensions: int = 384
    """Length of a token's vector; texts get vectors that much longer."""
    epochs: int = 4
    """Passes over all rows, whatever the transformer is trained on."""
    batch_size: int = 1024
    """Most pairs of one optimizer step."""
    lr: float = 2.5e-3
    """Learning rate of Adam at the first step; it falls to 0 on a line."""
    temperature: float = 0.05
    """Cosines are divided by this."""

    def __post_init__(self) -> None:
        for name in ("dimensions", "epochs", "batch_size"):
            require(getattr(self, name) >= 1, f"token_bag.{name}", getattr(self, name), "use at least 1")
        for name in ("weight", "lr", "temperature"):
            value = getattr(self, name)
            good = math.isfinite(value) and value > 0
            require(good, f"token_bag.{name}", value, "use a positive number")


@dataclass(frozen=True)
class ContrastiveOptions:
    """What one contrastive tuning does. Batch sizes count pairs over all ranks together."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    epochs: int = 1
    """Passes over the rows, unless `max_steps` is given."""
    max_steps: int | None = None
    """Optimizer steps; wins over `epochs`."""
    batch_size: int = 64
    """Most pairs of one optimizer step, each the others' negative. An epoch is cut into steps of equal size."""
    temperature: float = 0.02
    """Cosines are divided by this; 0.02 is E5's."""
    hard_negatives: int = 7
    """Most of a row's own `negatives` that are used, first ones first; 0 uses only the batch."""
    symmetric: bool = False
    """Also ask each positive for its query among the batch's queries; the loss is the mean of both directions."""
    query_template: str = "Instruct: {instruction}\nQuery: {query}"
    """Text of a query whose row has an instruction; ends with {query}. Without one, the model folder's own query
    prompt is used, which most do not have."""
    document_template: str | None = None
    """Text of a document, ends with {document}; null is the model folder's own document prompt, if it has one."""
    pooling: Pooling = "auto"
    """How token states become one vector. auto: as the folder says; without a layout, the last token of a decoder
    and the mean of an encoder."""
    max_length: int | None = None
    """Texts are cut to so many tokens, special ones included; null is the folder's own limit."""
    training_length: int | None = None
    """Texts that are trained on are cut to so many tokens where that is less than the limit; the tuned model reads
    as far as before. Shorter texts leave time for more of them."""
    cache: Literal["auto", "on", "off"] = "auto"
    """GradCache: forget activations and compute them again, so that memory does not grow with the batch. A step
    keeps those of one micro-batch; auto those that fit in `KEPT_BYTES` bytes on a rank."""
    micro_batch_tokens: int | None = None
    """Most tokens, padding included, that go through the model at once; but for rounding it never changes what is
    learned without dropout. null is 2048 on a CPU and 8192 elsewhere."""
    matryoshka: list[int] = field(default_factory=list)
    """Leading dimensions that are trained as embeddings of their own; empty trains whole vectors alone."""
    matryoshka_weights: list[float] = field(default_factory=list)
    """Weight of each of these losses; empty weighs them alike."""
    lora: LoraOptions | None = None
    """Train a low-rank adapter, merged on export, instead of all weights."""
    token_bag: TokenBagOptions | None = None
    """Besides, learn from all rows what single tokens say and append it to the vectors ({}: the defaults): words that
    query and document share, or that often go together. Evaluations during training are without it."""
    guide: str | None = None
    """Folder or hub name of a model that says which candidates are too good to be negatives."""
    guide_margin: float = 0.0
    """A candidate is left out where the guide's cosine to the query exceeds the positive's minus this."""
    homogeneous: bool = False
    """Every step takes rows of one `source` alone, so that negatives belong to its task."""
    mixing: Mixing = "proportional"
    """Share of each `source` in an epoch: by its rows, the same for all and taking turns, or by its rows to the power
    of `mixing_exponent`. Rows of small sources are used again, of large ones left for other epochs."""
    mixing_exponent: float = 0.5
    """Exponent of `mixing: temperature`; 1 is proportional, 0 the same for all."""
    duplicate_free: bool = True
    """Deal rows that share a text out to different steps."""
    lr: float = 2e-5
    """Peak learning rate of AdamW."""
    schedule: Literal["cosine", "linear", "constant"] = "linear"
    """Course of the learning rate after the warm-up."""
    warmup: float = 0.1
    """Warm-up: a share of all steps below 1, a number of steps from 1 on."""
    weight_decay: float = 0.01
    """Decoupled decay of matrices and embeddings; vectors (norms, biases) never decay."""
    max_grad_norm: float | None = 1.0
    """Clip the global gradient norm at this; null does not clip."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Compute type of training. Master weights are float32; auto is bfloat16 where the hardware multiplies it."""
    save_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the exported weights; auto is the one the start model is stored in."""
    dropout: bool = True
    """Train with the dropout that the model's configuration asks for. Drawing its random numbers takes a CPU much of
    a step (benchmarks/contrastive_speed.py, `undropped`)."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    early_stopping: EarlyStopping | None = None
    """Stop on a metric of `evaluate`; needs `eval_every`, and `mode: max` where more is better."""
    eval_every: int | None = None
    """Evaluate every so many steps; null is once, after the last step."""
    save_every: int = 100
    """Write the resumable state every so many steps."""
    trackers: list[str] = field(default_factory=list)
    """Experiment trackers fed through accelerate: tensorboard, wandb, trackio, mlflow."""
    threads: int | None = None
    """CPU threads of the numeric kernels; null leaves OMP_NUM_THREADS or torch's default."""

    def __post_init__(self) -> None:
        self._check_numbers()
        for name, kind in (("pooling", Pooling), ("mixing", Mixing)):
            _one_of(name, getattr(self, name), get_args(kind))
        _one_of("cache", self.cache, ("auto", "on", "off"))
        _one_of("schedule", self.schedule, ("cosine", "linear", "constant"))
        for name in ("dtype", "save_dtype"):
            _one_of(name, getattr(self, name), ("auto", "float32", "bfloat16"))
        for name in self.trackers:
            _one_of("trackers", name, TRACKERS)
        _template("query_template", self.query_template, "{query}")
        if self.document_template is not None:
            _template("document_template", self.document_template, "{document}")
        for size in self.matryoshka:
            require(size >= 1, "matryoshka", size, "use dimensions of at least 1")
        weights = self.matryoshka_weights
        require(
            len(weights) in (0, len(self.matryoshka)) and all(math.isfinite(w) and w > 0 for w in weights),
            "matryoshka_weights", weights, "give one positive weight for each of matryoshka's dimensions",
        )  # fmt: skip
        # Without dropout the model runs as in evaluation, where layers never forget what they would compute again.
        require(
            self.dropout or not self.gradient_checkpointing,
            "dropout", "false with gradient_checkpointing", "leave one of them out",
        )  # fmt: skip
        require(
            self.dropout or not (self.lora and self.lora.dropout),
            "dropout", "false with lora.dropout", "leave one of them out",
        )  # fmt: skip
        require(
            self.early_stopping is None or self.eval_every is not None,
            "early_stopping", "without eval_every", "set eval_every",
        )  # fmt: skip

    def _check_numbers(self) -> None:
        for name in ("epochs", "batch_size", "save_every"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "use at least 1")
        for name in ("max_steps", "micro_batch_tokens", "eval_every", "threads"):
            value = getattr(self, name)
            require(value is None or value >= 1, name, value, "use at least 1 or null")
        for name in ("max_length", "training_length"):
            length = getattr(self, name)
            require(length is None or length >= 3, name, length, "use at least 3 tokens or null")
        require(self.hard_negatives >= 0, "hard_negatives", self.hard_negatives, "use 0 or more")
        for name in ("temperature", "lr", "warmup", "weight_decay", "guide_margin", "mixing_exponent"):
            value = getattr(self, name)
            require(math.isfinite(value), name, value, "use a finite number")
        require(self.temperature > 0, "temperature", self.temperature, "use a positive number")
        for name in ("lr", "warmup", "weight_decay", "mixing_exponent"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "use 0 or more")
        whole = self.warmup < 1 or self.warmup == int(self.warmup)
        require(whole, "warmup", self.warmup, "use a share below 1 or a whole number of steps")
        ends = self.warmup < 1 or self.max_steps is None or self.warmup < self.max_steps
        require(ends, "warmup", self.warmup, "use less than max_steps, or a share below 1")
        norm = self.max_grad_norm
        require(norm is None or norm > 0, "max_grad_norm", norm, "use a positive number, or null to not clip")

    def loop_options(self, steps: int) -> TrainOptions:
        """What the shared loop parts (optimizer, schedule, session) take from this for a training of `steps` steps."""
        warmup = int(self.warmup) if self.warmup >= 1 else round(self.warmup * steps)
        return TrainOptions(
            max_steps=steps, lr=self.lr, schedule=self.schedule, warmup_steps=warmup,
            weight_decay=self.weight_decay, max_grad_norm=self.max_grad_norm, dtype=self.dtype,
            trackers=self.trackers,
        )  # fmt: skip


def _one_of(name: str, value: object, known: tuple[str, ...]) -> None:
    require(value in known, name, value, f"use one of {', '.join(known)}")


def _template(name: str, template: str, field_name: str) -> None:
    good = template.endswith(field_name) and template.count(field_name) == 1
    require(good, name, template, f"end it with {field_name}, which stands for the text")
