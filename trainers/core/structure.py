"""Parts of a decoder found by what they take and where they stand, not by the names of classes.

- An attention module stands in a list of layers, its `forward` takes an `attention_mask`, and nothing inside it does.
- A layer is the member of that list which holds it.
- A layer's feed-forward output is that of the last part directly in the layer, other than the one with the attention,
  that has a matrix (a whole feed-forward module, or its second linear layer where the layer holds both itself).
- The final norm is the last part directly beside the list of layers that has parameters, and vectors only.
"""

from __future__ import annotations

import inspect
from functools import cache
from typing import TYPE_CHECKING, Any

from synth.records.errors import InputError

if TYPE_CHECKING:
    from torch import nn


def attention_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Attention modules by name, in order. Raises InputError if there are none."""
    named = dict(model.named_modules())
    taking = [
        name
        for name, module in named.items()
        if _takes_mask(type(module)) and _layer_name(named, name) not in ("", name)
    ]
    inner = [name for name in taking if not any(other.startswith(f"{name}.") for other in taking)]
    if not inner:
        seen = (
            f"{type(model).__name__} has nothing inside a list of layers whose forward takes `attention_mask`"
        )
        raise InputError("train.method", seen, "use a decoder with attention, or another method")
    return {name: named[name] for name in inner}


def layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers with attention by name, in order."""
    named = dict(model.named_modules())
    holders = [_layer_name(named, name) for name in attention_modules(model)]
    return {name: named[name] for name in holders}


def feed_forwards(model: nn.Module) -> list[nn.Module]:
    """The module of each layer whose output is the feed-forward's. Raises InputError for a layer without one."""
    attention = attention_modules(model)
    found: list[nn.Module] = []
    for name, layer in layers(model).items():
        parts = [
            part
            for child, part in layer.named_children()
            if not any(
                inside == f"{name}.{child}" or inside.startswith(f"{name}.{child}.") for inside in attention
            )
            and any(parameter.dim() >= 2 for parameter in part.parameters())
        ]
        if not parts:
            seen = f"layer '{name}' has no part with a matrix beside its attention"
            raise InputError(
                "train.method", seen, "use a decoder with feed-forward layers, or another method"
            )
        found.append(parts[-1])
    return found


def final_norm(model: nn.Module) -> nn.Module:
    """The norm between the last layer and the head. Raises InputError if there is none."""
    name = next(iter(layers(model)))
    decoder = model.get_submodule(name.rsplit(".", 2)[0] if name.count(".") > 1 else "")
    norms = [
        part
        for part in decoder.children()
        if (sizes := [parameter.dim() for parameter in part.parameters()]) and max(sizes) < 2
    ]
    if not norms:
        seen = f"{type(decoder).__name__} has no part of vectors alone beside its layers"
        raise InputError("train.method", seen, "use a decoder with a final norm, or another method")
    return norms[-1]


def first_tensor(output: Any) -> Any:
    """What a module computed, where it gives a tuple with more."""
    return output[0] if isinstance(output, tuple) else output


@cache
def _takes_mask(kind: type[nn.Module]) -> bool:
    return "attention_mask" in inspect.signature(kind.forward).parameters


def _layer_name(named: dict[str, nn.Module], name: str) -> str:
    """The outermost ancestor of a module that is a member of a list of modules; empty if there is none."""
    from torch import nn

    parts = name.split(".")
    for end in range(1, len(parts)):
        if isinstance(named[".".join(parts[:end])], nn.ModuleList):
            return ".".join(parts[: end + 1])
    return ""
