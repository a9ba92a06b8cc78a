"""What of accelerate a training uses, and what it refuses."""

from __future__ import annotations

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
