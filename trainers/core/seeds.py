"""Randomness of training as a pure function of (rng_seed, purpose, position).

Every optimizer step seeds torch from its own number, so a resumed run needs no saved generator state, and nothing
a caller does between steps (an evaluation that samples, a tracker) can change the training.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive(rng_seed: int, purpose: str, *position: int) -> int:
    """A seed in [0, 2**63) for one purpose at one position."""
    text = ":".join([str(rng_seed), purpose, *map(str, position)])
    return int.from_bytes(sha256(text.encode()).digest()[:8], "big") >> 1


def permutation(count: int, rng_seed: int, epoch: int) -> list[int]:
    """The order of `count` rows in one epoch."""
    order = list(range(count))
    random.Random(derive(rng_seed, "epoch", epoch)).shuffle(order)
    return order


@contextmanager
def isolated_rng() -> Iterator[None]:
    """Give torch's generators (CPU and the current accelerator) back as they were."""
    import torch

    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        yield


def replay(device: torch.device) -> Callable[[], None]:
    """A function that puts torch's generators (CPU and `device`) back to where they are now.

    What runs after it draws the same dropout masks again.
    """
    import torch

    cpu = torch.get_rng_state()
    if device.type == "cpu":
        return lambda: torch.set_rng_state(cpu)
    module = torch.get_device_module(device)
    own = module.get_rng_state()  # of the current device, which is the one that this rank trains on

    def rewind() -> None:
        torch.set_rng_state(cpu)
        module.set_rng_state(own)

    return rewind
