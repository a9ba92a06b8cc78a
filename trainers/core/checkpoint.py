"""The resumable state of a training: trained weights, optimizer moments, a method's own tensors, and one integer.

The rows and the randomness of a step follow from its number, so nothing else has to be kept. A state is a folder of
safetensors and JSON beside the model to come; a new one gets its name by a rename before the old one goes.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synth.records.errors import InputError
from trainers.core.model import publish

if TYPE_CHECKING:
    import torch
    from torch import nn

    from trainers.core.method import Method


@dataclass
class Progress:
    """Where a training stands after `step` optimizer steps. `best` and `waited` belong to early stopping."""

    step: int = 0
    logs: list[dict[str, Any]] = field(default_factory=list)
    best: float | None = None
    best_step: int = 0
    waited: int = 0


def trained_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Trainable parameters by name; a tied one appears once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


class States:
    """The state folders of one training, kept beside `out` as `.NAME.training/`.

    `machine` is what the options leave to the machine but the numbers depend on (see `on_machine`).
    """

    def __init__(self, out: Path, fingerprint: str) -> None:
        self.out, self.fingerprint = out, fingerprint
        self.folder = out.with_name(f".{out.name}.training")
        self.machine: dict[str, Any] = {}

    def save(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        progress: Progress,
        method: Method | None = None,
    ) -> None:
        """Write the state of `progress.step` and drop older ones. `method`: None where it holds no tensors."""
        from safetensors.torch import save_file

        temporary = self.folder / f".step-{progress.step:08d}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        tensors = trained_tensors(model)
        save_file(
            {name: t.detach().contiguous() for name, t in tensors.items()}, temporary / "weights.safetensors"
        )
        moments: dict[str, torch.Tensor] = {}
        for name, parameter in tensors.items():
            for key, value in optimizer.state[parameter].items():
                moments[f"{key}:{name}"] = value.detach().contiguous()
        save_file(moments, temporary / "optimizer.safetensors")
        if method is not None and (own := method.tensors()):
            save_file({name: t.contiguous() for name, t in own.items()}, temporary / "method.safetensors")
        text = json.dumps(
            {"fingerprint": self.fingerprint, "machine": self.machine, "progress": asdict(progress)}
        )
        (temporary / "state.json").write_text(text, encoding="ascii")
        publish(temporary, self.folder / f"step-{progress.step:08d}")
        best = self._best(progress.best_step)
        for old in [*self._steps()[:-1], *(path for path in self.folder.glob("best-*") if path != best)]:
            shutil.rmtree(old)

    def save_best(self, model: nn.Module, step: int) -> None:
        """Keep the trained weights of `step` as the best so far."""
        from safetensors.torch import save_file

        temporary = self.folder / ".best.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        tensors = {name: t.detach().contiguous() for name, t in trained_tensors(model).items()}
        save_file(tensors, temporary / "weights.safetensors")
        publish(temporary, self._best(step))

    def load_best(self, model: nn.Module, step: int) -> None:
        """Put the best weights back into the model."""
        _fill(model, self._best(step) / "weights.safetensors")

    def restore(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, method: Method | None = None
    ) -> Progress:
        """Load the newest state into model, optimizer and method; a fresh start where there is none."""
        from safetensors.torch import load_file

        latest = self._latest()
        if latest is None:
            return Progress()
        _fill(model, latest / "weights.safetensors")
        tensors = trained_tensors(model)
        for slot, value in load_file(latest / "optimizer.safetensors").items():
            key, name = slot.split(":", 1)
            # Fused AdamW keeps even its step count where the parameter is.
            optimizer.state[tensors[name]][key] = value.to(tensors[name].device)
        if method is not None and (latest / "method.safetensors").exists():
            own = load_file(latest / "method.safetensors")
            method.load({name: value.to(next(iter(tensors.values())).device) for name, value in own.items()})
        return Progress(**json.loads((latest / "state.json").read_text("ascii"))["progress"])

    def check(self) -> None:
        """Raise InputError if the state here is of a training with other arguments."""
        latest = self._latest()
        if latest is None:
            return
        seen = json.loads((latest / "state.json").read_text("ascii"))["fingerprint"]
        if seen != self.fingerprint:
            raise InputError(
                str(self.out),
                "an unfinished training with other rows, model, options or rng_seed is here",
                f"give it the same again, another output folder, or delete {self.folder}",
            )

    def on_machine(self, machine: dict[str, Any]) -> None:
        """Keep `machine` with every state. Raises InputError if the state here was made on another."""
        self.machine = machine
        latest = self._latest()
        if latest is None:
            return
        before = json.loads((latest / "state.json").read_text("ascii")).get("machine", {})
        changed = [
            f"{name} was {before[name]} and is {machine[name]}"
            for name in machine
            if before.get(name, machine[name]) != machine[name]
        ]
        if changed:
            raise InputError(
                str(self.out),
                f"the unfinished training here cannot go on as it began: {', '.join(changed)}",
                f"go on as before, give another output folder, or delete {self.folder}",
            )

    def clear(self) -> None:
        """Remove every state; the training is over."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _best(self, step: int) -> Path:
        return self.folder / f"best-{step:08d}"

    def _steps(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"))

    def _latest(self) -> Path | None:
        return self._steps()[-1] if self._steps() else None


def _fill(model: nn.Module, file: Path) -> None:
    import torch
    from safetensors.torch import load_file

    saved = load_file(file)
    with torch.no_grad():
        for name, parameter in trained_tensors(model).items():
            parameter.copy_(saved[name])
