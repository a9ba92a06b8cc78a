"""sentence-transformers' trainer with our steps in it. Imported only when a training runs: its import is heavy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from torch.utils.data import DataLoader
from transformers import PrinterCallback, TrainerCallback

from trainers.core.optimizer import learning_rate

if TYPE_CHECKING:
    from trainers.embedding.loop import _Run


def train(run: _Run) -> None:
    """Take the steps that are left of a run."""
    _Trainer(run).train()


class _Trainer(SentenceTransformerTrainer):
    """The trainer's loop over the run's batches, each of which is a whole optimizer step of all ranks."""

    def __init__(self, run: _Run) -> None:
        self.run = run
        options, settings, start, steps = run.options, run.settings, run.progress.step, run.batches.steps
        args = SentenceTransformerTrainingArguments(
            output_dir=str(run.states.folder),
            max_steps=steps,
            per_device_train_batch_size=options.batch_size,
            use_cpu=run.accelerator.device.type == "cpu",
            bf16=run.method.half,
            # The session's process group is used, and what is logged, saved and clipped is the run's business.
            accelerator_config={"use_configured_state": True},
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            max_grad_norm=0.0,
            logging_nan_inf_filter=False,
            dataloader_drop_last=True,
            dataloader_pin_memory=False,
            ddp_find_unused_parameters=False,
        )
        # Several accelerators seen by one process would each get a part of a batch that is none.
        args._n_gpu = min(args.n_gpu, 1)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            run.optimizer,
            lambda step: learning_rate(start + step, steps, settings) / options.lr if options.lr else 0.0,
        )
        super().__init__(
            model=run.encoder.model,
            args=args,
            data_collator=list,  # type: ignore[arg-type]
            callbacks=[_Follow(run)],
            optimizers=(run.optimizer, schedule),
        )
        self.remove_callback(PrinterCallback)
        # It would write the tokenizer's special tokens into the model's configuration.
        self.processing_class = None

    def get_default_loss(self, model: Any) -> torch.nn.Module:
        """No module: the loss is in `training_step`."""
        return torch.nn.Identity()

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """No callback: it would ask the hub about the model, and write clock values into the card."""

    def get_train_dataloader(self) -> DataLoader:
        """Row numbers of the steps that are left, the same on every rank: they share a step's texts, not its rows."""
        self.run.batches.start = self.run.progress.step
        return DataLoader(
            range(len(self.run.batches.pairs.rows)),  # type: ignore[arg-type]
            batch_sampler=self.run.batches,
            collate_fn=lambda rows: {"rows": rows},
        )

    def training_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Gradient of one optimizer step, clipped."""
        return self.run.step(model, inputs["rows"])

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        """None: `training_step` has measured it."""
        return grad_norm


class _Follow(TrainerCallback):
    """Tells the trainer where a resumed run stands, and the run when a step is done."""

    def __init__(self, run: _Run) -> None:
        self.run = run

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        state.global_step = self.run.progress.step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.run.after_step()
        control.should_training_stop |= self.run.done
