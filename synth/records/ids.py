"""Ids and hashes: what a row is called depends on its content alone, never on its place or the clock."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

SEEDS = 2**31


def content_hash(*parts: Any, length: int = 16) -> str:
    """Hex digest of JSON-able parts: key order does not matter, types and boundaries do."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, separators=(",", ":"), default=_refuse)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:length]


def _refuse(value: Any) -> Any:
    raise TypeError(f"cannot hash a {type(value).__name__}: only JSON values have a stable content")


def problem_id(domain: str, content: dict[str, Any]) -> str:
    """Id of a problem: its domain and everything its row says."""
    return content_hash("problem", domain, content)


def sample_id(problem: str, model: str, template: str, sampling: dict[str, Any], seed: int) -> str:
    """Id of a sample: problem id, model hash, template hash, sampling settings, sampling seed."""
    return content_hash("sample", problem, model, template, sampling, seed)


def sampling_seed(rng_seed: int, round_index: int, problem: str, index: int) -> int:
    """An index's own seed, in [0, 2**31), which every engine takes: two may be equal by chance.

    Between problems or rounds that does no harm (prompts or models differ); within a problem see `sampling_seeds`.
    """
    return int(content_hash("sampling", rng_seed, round_index, problem, index), 16) % SEEDS


def sampling_seeds(rng_seed: int, round_index: int, problem: str) -> Iterator[int]:
    """Seeds of a problem's completions 0, 1, 2, ..., all different.

    Each is the index's own seed, or the next free one where a smaller index has it already.
    """
    taken: set[int] = set()
    for index in count():
        seed = sampling_seed(rng_seed, round_index, problem, index)
        while seed in taken:
            seed = (seed + 1) % SEEDS
        taken.add(seed)
        yield seed


def file_hash(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def folder_hash(path: str | os.PathLike[str], suffixes: tuple[str, ...] = ()) -> str:
    """Hash of a folder: relative names and contents of its files (optionally only those with `suffixes`)."""
    root = Path(path)
    files = sorted(p for p in root.rglob("*") if p.is_file() and (not suffixes or p.suffix in suffixes))
    return content_hash([(p.relative_to(root).as_posix(), file_hash(p)) for p in files])


MODEL_SUFFIXES = (".safetensors", ".bin", ".json", ".model", ".txt", ".jinja")


def model_hash(path: str | os.PathLike[str]) -> str:
    """Hash of a model folder: weights, configuration, tokenizer and template, not its card."""
    return folder_hash(path, MODEL_SUFFIXES)
