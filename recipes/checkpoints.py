"""Which checkpoints of a run stay on disk, and removing the others."""

from __future__ import annotations

import shutil
from pathlib import Path

from synth.store import RunFolder


def removable(folder: RunFolder, keep: str) -> list[Path]:
    """Model folders of closed rounds that `keep` does not keep: `all`, `accepted` (rolled-back ones go), or `last`
    (only the one DIR/model names stays)."""
    if keep == "all":
        return []
    link = folder.root / "model"
    current = link.resolve() if link.is_symlink() else None
    found = []
    for index in folder.rounds():
        metrics, path = folder.metrics(index), folder.round(index) / "model"
        if metrics is None or not path.is_dir() or path.resolve() == current:
            continue
        if keep == "last" or not metrics["accepted"]:
            found.append(path)
    return found


def remove(path: Path) -> int:
    """Delete a model folder; returns the bytes freed."""
    size = sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    shutil.rmtree(path)
    return size
