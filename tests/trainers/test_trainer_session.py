"""What of accelerate a training uses, and what it refuses."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import accelerate
import pytest
from accelerate.utils import DistributedType

from synth.records.errors import InputError
from trainers.core.session import session
from trainers.options import TrainOptions


@pytest.mark.parametrize(
    "kind", [DistributedType.FSDP, DistributedType.MEGATRON_LM, DistributedType.DEEPSPEED]
)
def test_sharded_models_are_refused_also_where_only_the_accelerator_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: DistributedType
) -> None:
    """The environment of these launchers turns plain data parallelism into them when the Accelerator is made."""

    class Sharded:
        """Stands for an Accelerator under such a launcher."""

        distributed_type = kind
        trackers: tuple[()] = ()

        def __init__(self, **_settings: Any) -> None: ...

    monkeypatch.setattr(accelerate, "Accelerator", Sharded)
    with (
        pytest.raises(InputError, match=rf"(?s){kind.value}.*only data parallelism"),
        session(TrainOptions(), tmp_path / "m", {}),
    ):
        pytest.fail("the session was opened")


def test_one_process_is_accepted(tmp_path: Path) -> None:
    with session(TrainOptions(), tmp_path / "m", {}) as accelerator:
        assert accelerator.distributed_type == DistributedType.NO


TENSORS = """
import sys
from contextlib import nullcontext
import torch
from trainers.core.session import kept_heap

def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS"))

with kept_heap() if sys.argv[1] == "kept" else nullcontext():
    for _ in range(4):
        parts = [torch.ones(3_000_000) for _ in range(6)]
        held = resident()
        del parts
    freed = resident()
print(held - freed, held - resident())
"""
MADE = 6 * 3_000_000 * 4 // 1024
"""KiB that each of its steps takes and frees."""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep what is freed")
def test_what_a_step_frees_is_kept_for_the_next_one_and_the_end_gives_it_back() -> None:
    def given_back(heap: str) -> tuple[int, int]:
        """KiB that the process no longer holds after its last step, and in the end."""
        command = [sys.executable, "-c", TENSORS, heap]
        # Where glibc begins; left alone it raises them as it goes, by chance so far that nothing is given back.
        begin = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
        done = subprocess.run(
            command, env=os.environ | begin, capture_output=True, text=True, check=True, timeout=300
        )
        after_a_step, in_the_end = map(int, done.stdout.split())
        return after_a_step, in_the_end

    (after_a_step, in_the_end), (usual, _) = given_back("kept"), given_back("as usual")
    assert after_a_step < 0.1 * MADE < 0.9 * MADE < usual
    assert in_the_end > 0.9 * MADE
