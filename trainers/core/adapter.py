"""The adapter of a model trained by low-rank adaptation: kept beside the merged weights, and taken up again.

An exported model has its adapter merged. Going on with that same adapter, instead of a new one on top, needs the
adapter as it was and the weights below it: those are the merged ones less the adapter's update, so that the model which
is gone on with is the exported one, up to the rounding of one subtraction.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synth.records.errors import InputError

if TYPE_CHECKING:
    import torch

FOLDER = "adapter"
CONFIG, WEIGHTS = f"{FOLDER}/adapter_config.json", f"{FOLDER}/adapter_model.safetensors"
SHAPE = ("r", "lora_alpha", "target_modules")
"""What must be equal for an adapter to be gone on with."""


def adapter_files(model: Any) -> dict[str, str | bytes]:
    """{name in the model folder: contents} of the model's adapter, as peft reads it; none of a model without one.

    Equal adapters give equal bytes: no path, version or order of a set is in them.
    """
    if not hasattr(model, "peft_config"):
        return {}
    from peft import get_peft_model_state_dict
    from safetensors.torch import save

    config = model.peft_config["default"]
    told = {
        "peft_type": "LORA",
        "task_type": str(getattr(config.task_type, "value", config.task_type)),
        "base_model_name_or_path": None,
        "bias": "none",
        "lora_dropout": config.lora_dropout,
        **_shape(config),
    }
    weights = {name: tensor.contiguous() for name, tensor in get_peft_model_state_dict(model).items()}
    return {CONFIG: json.dumps(told, indent=2, sort_keys=True) + "\n", WEIGHTS: save(weights)}


def check_same(model: Any, path: str) -> None:
    """Raise InputError unless the folder `path` holds an adapter of the shape of the model's."""
    try:
        held = json.loads((Path(path) / CONFIG).read_text("utf-8"))
    except (OSError, ValueError):
        seen = f"'same', and {path} holds no adapter"
        raise InputError(
            "train.adapter", seen, "use adapter: new, or a model that was trained with lora"
        ) from None
    asked = _shape(model.peft_config["default"])
    wrong = next((name for name in SHAPE if held.get(name) != asked[name]), None)
    if wrong is not None:
        seen = f"'same', and {wrong} is {asked[wrong]} where the adapter of {path} has {held.get(wrong)}"
        raise InputError("train.adapter", seen, "give train.lora its shape, or use adapter: new")


def take_up(model: Any, path: str) -> None:
    """Fill the model's new adapter with that of the folder `path`, and take its update out of the weights below.

    Raises InputError, as `check_same`.
    """
    import torch
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    check_same(model, path)
    set_peft_model_state_dict(model, load_file(Path(path) / WEIGHTS))
    with torch.no_grad():
        for layer in model.modules():
            if hasattr(layer, "lora_A"):
                weight: torch.Tensor = layer.get_base_layer().weight
                update = layer.get_delta_weight("default").to(weight.device, torch.float32)
                weight.copy_((weight.float() - update).to(weight.dtype))


def _shape(config: Any) -> dict[str, Any]:
    targets = config.target_modules
    return {
        "r": config.r,
        "lora_alpha": config.lora_alpha,
        "target_modules": targets if isinstance(targets, str) else sorted(targets),
    }
