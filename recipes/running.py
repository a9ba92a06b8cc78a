"""A run between its first write and its end: recipe and manifest on disk, and what they say of how it ended."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recipes.context import LimitReached
from recipes.settings import dump_yaml
from synth.records import schemas
from synth.records.errors import InputError
from synth.records.jsonl import atomic_write
from synth.store import RunFolder, Stage

if TYPE_CHECKING:
    from recipes.kinds import AnyRecipe
    from recipes.progress import Progress

log = logging.getLogger("synthloop")


@dataclass
class Ending:
    """How a run ended: done, stopped, failed, or refused (nothing of it is left)."""

    status: str = "failed"


@contextmanager
def running(
    recipe: AnyRecipe,
    folder: RunFolder,
    facts: Mapping[str, Any],
    progress: Progress,
    close: Callable[[], None],
) -> Iterator[Ending]:
    """Write recipe and manifest, do the work of the block, `close` what it used, and write down how it ended.

    A limit that is reached ends the block without an error. A first run that is refused before its first row (an engine
    that cannot start) leaves nothing, so that the recipe may be corrected.
    """
    first, end = not folder.recipe.exists(), Ending()
    try:
        with atomic_write(folder.recipe) as handle:
            handle.write(dump_yaml(recipe).encode("utf-8"))
        folder.write_manifest(status="running", name=recipe.name, kind=recipe.kind, **facts)
        try:
            yield end
            end.status = "done"
        except LimitReached as reached:
            progress.say(f"stopped: {reached}; raise the limit and run again to go on")
            end.status = "stopped"
    except (KeyboardInterrupt, SystemExit):
        end.status = "stopped"
        raise
    except InputError:
        end.status = "refused" if first and not _has_rows(folder) else end.status
        raise
    finally:
        close()
        if end.status == "refused":
            _take_back(folder)
        else:
            folder.write_manifest(status=end.status, rounds=closed_rounds(folder))
        log.info("run %s", end.status)


def closed_rounds(folder: RunFolder) -> int:
    """How many rounds have their metrics."""
    return sum(folder.metrics(index) is not None for index in folder.rounds())


def _has_rows(folder: RunFolder) -> bool:
    """Whether anything was asked: what steps without a model decided is soon decided again."""
    stages = [*folder.base.rglob("completions"), *folder.root.glob("round-*/*")]
    if any((stage / "journal.jsonl").exists() or any(stage.glob("part-*.parquet")) for stage in stages):
        return True
    steps = (Stage(place, schemas.written) for place in folder.root.glob("round-*/steps/*/*"))
    if any("prompt" in row for step in steps for row in step.each()):
        return True
    pairs = RunFolder(folder.root / "pairs")
    return pairs.root.is_dir() and _has_rows(pairs)


def _take_back(folder: RunFolder) -> None:
    """Leave nothing of a first run that was refused."""
    folder.recipe.unlink()
    for name in ("manifest.json", "model", "documents.jsonl"):
        (folder.root / name).unlink(missing_ok=True)
    for path in (folder.base, folder.round(0), *(folder.root / name for name in ("pairs", "curated"))):
        shutil.rmtree(path, ignore_errors=True)
