"""Shared fixtures."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes depends on what else the machine does; what hangs is another test's business.
settings.register_profile("synthloop", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("synthloop")

# Threads that wait must not spin: the suite's processes share few cores. Read when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def shared_data() -> Callable[[str], Path]:
    """Path of a real data file, or a visible skip where the data folder is missing."""
    folder = Path(os.environ.get("SYNTHLOOP_DATA", ROOT.parent / "shared" / "data"))

    def find(name: str) -> Path:
        path = folder / name
        if not path.exists():
            pytest.skip(f"real data not here: {name} (set SYNTHLOOP_DATA)")
        return path

    return find
