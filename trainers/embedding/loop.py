"""The loop of contrastive tuning: sentence-transformers' trainer around `trainers.contrastive.step`.

Its trainer brings the loop over steps, data parallelism, mixed precision, optimizer and schedule; in place of its
sampler, collator and loss it is given ours. The resumable state is that of `trainers.loop`: weights, moments and one
number, written whole; a step's rows and random numbers follow from its number, so a training that was killed goes on
bitwise the same on one CPU configuration. (The trainer's own checkpoints are written in place, and hold pickles.)
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synth.records.errors import InputError, WorkError
from synth.records.ids import content_hash
from trainers import contrastive
from trainers.contrastive_options import ContrastiveOptions
from trainers.core import model as models
from trainers.core.batching import token_budget
from trainers.core.card import TOKEN_BAG, training_sections
from trainers.core.checkpoint import Progress, States
from trainers.core.evaluate import Stopper, checked_metrics, held_out
from trainers.core.optimizer import adamw, clip, learning_rate
from trainers.core.seeds import derive, isolated_rng
from trainers.core.session import free_memory, kept_heap, quiet_bars, session, threads
from trainers.data import Rows
from trainers.embedding.batches import Batches
from trainers.embedding.encoder import Encoder, open_encoder, package
from trainers.embedding.model import open_for_training, write_embedder
from trainers.embedding.rows import Pairs, read_pairs
from trainers.embedding.steps import Guide, Steps
from trainers.loop import FREE_OPTIONS, TrainResult, finished

if TYPE_CHECKING:
    import torch

    from trainers.embedding.token_bag import TokenBag

Evaluate = Callable[[Encoder, int], Mapping[str, float]]


def train_embedder(
    model: str,
    rows: Rows,
    out: str | Path,
    options: ContrastiveOptions | None = None,
    rng_seed: int = 0,
    evaluate: Evaluate | None = None,
    on_step: Callable[[dict[str, Any]], None] | None = None,
    *,
    lineage: Mapping[str, Any] | None = None,
    log: Callable[[str], None] | None = None,
    hub: Mapping[str, Any] | None = None,
) -> TrainResult:
    """Tune the embedding model `model` (a folder or a hub name) on `rows` and write the result to the folder `out`.

    rows: `query`, `positive`, optionally `negatives`, `instruction`, `source` (see `trainers.embedding.rows`).
    evaluate(encoder, step) -> metrics runs every `eval_every` steps and after the last. on_step gets each step's log.
    log gets lines for a person. hub: `revision`, `trust_remote_code` for opening the model; the guide has neither.

    Called again with the same arguments after it was stopped, it goes on where it was; on a finished `out` it
    returns what is there. Raises InputError for wrong rows or arguments, WorkError if the loss stops being finite.
    """
    package()
    options = options or ContrastiveOptions()
    job = _Job(model, Path(out), options, rng_seed, dict(hub or {}), log or (lambda _line: None))
    with kept_heap():
        with threads(options.threads), quiet_bars(), isolated_rng(), _callers_rng():
            result = job.run(rows, evaluate, on_step or (lambda _entry: None), lineage)
        free_memory()
    return result


@contextmanager
def _callers_rng() -> Iterator[None]:
    """Give Python's and numpy's random numbers back as they were: transformers' trainer seeds both."""
    import random

    import numpy as np

    python, array = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(array)


@dataclass
class _Job:
    """What stays the same during one call of `train_embedder`."""

    model: str
    out: Path
    options: ContrastiveOptions
    rng_seed: int
    hub: dict[str, Any]
    log: Callable[[str], None]

    def run(
        self,
        rows: Rows,
        evaluate: Evaluate | None,
        on_step: Callable[[dict[str, Any]], None],
        lineage: Mapping[str, Any] | None,
    ) -> TrainResult:
        if self.out.name in ("", ".."):
            raise InputError(f"out {self.out}", "names no folder to make", "give the new folder's own name")
        if self.options.early_stopping and evaluate is None:
            raise InputError("train.early_stopping", "nothing is evaluated", "give an evaluation")
        pairs = read_pairs(rows, self.options.hard_negatives)
        self.log(f"training rows: {pairs.summary()}")
        start = _identity(self.model, self.hub)
        states = States(self.out, self._fingerprint(start, pairs))
        done = finished(self.out, states.fingerprint, dict(pairs.counts))
        if done is not None:
            states.clear()  # a kill between the export and the clearing left them
            self.log(f"{self.out} is finished: {done.steps} steps")
            return done
        states.check()
        batches = Batches(pairs, self.options, self.rng_seed)
        self.log(f"{batches.steps} steps" + (f"; {batches.crowded}" if batches.crowded else ""))
        if not batches.contrasting:
            seen = f"no step has a negative for any of its queries ({pairs.summary()})"
            raise InputError("training rows", seen, "give negatives, more pairs or a larger train.batch_size")
        settings = self.options.loop_options(batches.steps)
        if settings.warmup_steps >= batches.steps:
            self.log(f"train.warmup: all {batches.steps} steps, so that train.lr is never reached; lower it")
        with session(settings, self.out, {"rng_seed": self.rng_seed, "method": "contrastive"}) as accelerator:
            run = _Run(self, accelerator, batches, states, evaluate, on_step)
            # Before the training, so that what cannot be learned is told at once.
            bag = self._bag(pairs, run.encoder) if accelerator.is_main_process else None
            run.loop()
            result = TrainResult(
                self.out, run.progress.step, run.progress.logs, dict(pairs.counts), run.seconds, run.tokens,
                run.started_at, run.stopped_early,
            )  # fmt: skip
            if accelerator.is_main_process:
                dtype = run.stored if self.options.save_dtype == "auto" else self.options.save_dtype
                card = self._card(run, dtype, lineage)
                write_embedder(result, run.encoder, dtype, states.fingerprint, card, self.hub_name, bag)
                states.clear()
            accelerator.wait_for_everyone()
        return result

    def _bag(self, pairs: Pairs, encoder: Encoder) -> TokenBag | None:
        """What single tokens say, if it is asked for; a training that goes on learns it anew."""
        if self.options.token_bag is None:
            return None
        from trainers.embedding.token_bag import learn_bag

        return learn_bag(pairs, encoder, self.options, self.rng_seed, self.log)

    def _fingerprint(self, start: str, pairs: Pairs) -> str:
        identity = {name: value for name, value in asdict(self.options).items() if name not in FREE_OPTIONS}
        identity["guide"] = self.options.guide and _identity(self.options.guide, {})
        return content_hash("contrastive", self.rng_seed, identity, start, pairs.content_hash())

    def _card(self, run: _Run, dtype: str, lineage: Mapping[str, Any] | None) -> list[str]:
        """What the card tells of the training."""
        logs, progress = run.progress.logs, run.progress
        facts: dict[str, Any] = {
            **run.batches.pairs.counts,
            "rng_seed": self.rng_seed,
            "weights": dtype,
            "loss, first and last step": f"{logs[0]['loss']:.4f}, {logs[-1]['loss']:.4f}",
        }
        if progress.best is not None:
            facts["best evaluation"] = f"{progress.best:.4f} at step {progress.best_step}"
        options = asdict(self.options)
        if self.options.guide:
            options["guide"] = _named(self.options.guide, {})
        base = _named(self.model, self.hub)
        sections = training_sections(base, "contrastive", progress.step, facts, options, lineage)
        if self.options.token_bag is None:
            return sections
        return [*sections, "", "## Token bag", "", TOKEN_BAG]

    @property
    def hub_name(self) -> str | None:
        """The start model's name on the hub, None for a folder."""
        return None if Path(self.model).is_dir() else self.model


def _identity(path: str, hub: Mapping[str, Any]) -> str:
    """What a model is: the hash of its folder, or its name and commit on the hub."""
    return models.identity(path, None if Path(path).is_dir() else models.open_config(path, **hub))


def _named(path: str, hub: Mapping[str, Any]) -> str:
    """A model's name for a card: a path of this machine tells a reader nothing, the hash does."""
    return f"{Path(path).name}, hash {_identity(path, hub)}" if Path(path).is_dir() else path


class _Run:
    """The state that moves: model, optimizer, progress. The trainer calls `step` and then `after_step`."""

    def __init__(
        self,
        job: _Job,
        accelerator: Any,
        batches: Batches,
        states: States,
        evaluate: Evaluate | None,
        on_step: Callable[[dict[str, Any]], None],
    ) -> None:
        import torch

        self.job, self.options, self.accelerator, self.batches = job, job.options, accelerator, batches
        self.states, self.evaluate, self.on_step = states, evaluate, on_step
        torch.manual_seed(derive(job.rng_seed, "init"))
        device, ranks = accelerator.device, accelerator.num_processes
        compute = models.compute_dtype(job.options.dtype, device)
        states.on_machine(
            {
                "compute type": str(compute).removeprefix("torch."),
                "device": device.type,
                "number of processes": ranks,
            }
        )
        model, tokens, self.stored = open_for_training(
            job.model, job.options, compute, batches.pairs, **job.hub
        )
        budget = token_budget(job.options.micro_batch_tokens, device.type)
        self.encoder = Encoder(model.to(device), tokens, budget)
        self.texts = Steps(batches.pairs, self.encoder, self.options.training_length)
        self.method = contrastive.Method(
            self.encoder, job.options, budget, ranks, accelerator.process_index, self._guide(),
            compute != torch.float32, accelerator.gather if ranks > 1 else None,
        )  # fmt: skip
        self.settings = job.options.loop_options(batches.steps)
        self.optimizer = adamw(model, self.settings)
        self.stopper = Stopper(job.options.early_stopping) if job.options.early_stopping else None
        self.progress: Progress = states.restore(model, self.optimizer)
        self.started_at, self.tokens, self.seconds, self._began = self.progress.step, 0, 0.0, 0.0
        self._entry: dict[str, Any] = {}

    def _guide(self) -> Guide | None:
        if self.options.guide is None:
            return None
        encoder = open_encoder(self.options.guide, device=self.accelerator.device.type)
        return Guide(self.batches.pairs, encoder)

    @property
    def done(self) -> bool:
        """Whether no step is left."""
        return self.progress.step == self.batches.steps or self.stopped_early

    @property
    def stopped_early(self) -> bool:
        return self.stopper is not None and self.stopper.exhausted(self.progress)

    def loop(self) -> None:
        """All steps that are left; afterwards the model holds the weights to export."""
        from trainers.embedding.trainer import train

        progress, self._began = self.progress, time.monotonic()
        if progress.step:
            self.job.log(f"going on at step {progress.step} of {self.batches.steps}")
        if not self.done:
            train(self)
        best = progress.best_step
        if self.stopper and self.stopper.options.restore_best and best not in (0, progress.step):
            self.accelerator.wait_for_everyone()
            self.states.load_best(self.encoder.model, best)

    def step(self, model: Any, rows: list[int]) -> torch.Tensor:
        """Fill `.grad` for one optimizer step and clip it; the loss.

        model: the encoder's, or what data parallelism wraps it in. Raises WorkError before the weights are touched
        if loss or gradient is not finite.
        """
        import torch

        number, rank = self.progress.step, self.accelerator.process_index
        batch = self.texts(rows)
        model.train(self.options.dropout)
        logs = contrastive.step(
            model, batch, self.method, lambda i: derive(self.job.rng_seed, "step", number, rank, i)
        )
        logs["grad_norm"] = clip(model, self.options.max_grad_norm)
        values = torch.stack([value.detach().float() for value in logs.values()])
        entry = dict(zip(logs, values.tolist(), strict=True))
        if not all(map(math.isfinite, entry.values())):
            raise WorkError(
                f"training step {number + 1}", f"not finite: {entry}", "lower train.lr or look at the rows"
            )
        self.tokens += batch.tokens
        self._entry = {
            "step": number + 1,
            "epoch": (number + 1) / self.batches.steps_per_epoch,
            **entry,
            "lr": learning_rate(number, self.batches.steps, self.settings),
            "rows": len(rows),
            "tokens": batch.tokens,
        }
        return logs["loss"]

    def after_step(self) -> None:
        """Log, evaluate and save after the optimizer has stepped."""
        progress, options, entry = self.progress, self.options, self._entry
        progress.step += 1
        progress.logs.append(entry)
        every = options.eval_every
        if progress.step == self.batches.steps or (every and progress.step % every == 0):
            entry.update(self._evaluate())
        self.seconds = time.monotonic() - self._began
        if options.trackers:
            self.accelerator.log({k: v for k, v in entry.items() if k != "step"}, step=progress.step)
        self.on_step({**entry, "steps": self.batches.steps, "seconds": self.seconds})
        # After the last step too: an export that fails (disk full) must not cost the training.
        if (self.done or progress.step % options.save_every == 0) and self.accelerator.is_main_process:
            self.states.save(self.encoder.model, self.optimizer, progress)

    def _evaluate(self) -> dict[str, float]:
        """Metrics of the main rank, the same on every rank; keeps the best weights for early stopping."""
        from accelerate.utils import broadcast_object_list

        metrics: dict[str, float] = {}
        if self.accelerator.is_main_process and self.evaluate:
            with held_out(self.encoder.model):
                metrics = checked_metrics(self.evaluate(self.encoder, self.progress.step))
        if self.accelerator.num_processes > 1:
            metrics = broadcast_object_list([metrics])[0]
        if self.stopper is not None:
            best = self.stopper.improved(metrics, self.progress)
            if best and self.stopper.options.restore_best and self.accelerator.is_main_process:
                self.states.save_best(self.encoder.model, self.progress.step)
        return metrics
