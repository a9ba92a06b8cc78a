"""Sentence embeddings for verifiers: handed in as a callable, or made by a sentence-transformers model."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from synth.records.errors import EMBEDDING_EXTRA, InputError, WorkError
from synth.records.jsonl import repair_text

if TYPE_CHECKING:
    import numpy as np


class Embed(Protocol):
    """Texts to an array of shape (texts, dimensions): one row a text, in order, of any length and float type."""

    def __call__(self, texts: Sequence[str], /) -> Any: ...


def load_embed(model: str, where: str) -> Embed:
    """The encoder of a sentence-transformers model (folder or hub name). `where` names the option in errors.

    Raises InputError where the package or the model is missing.
    """
    try:
        package: Any = importlib.import_module("sentence_transformers")
    except ImportError as error:
        raise InputError(
            where, f"'{model}' needs the package sentence-transformers ({error})", EMBEDDING_EXTRA
        ) from None  # fmt: skip
    try:
        with _no_bars():
            encoder = package.SentenceTransformer(model)
    except Exception as error:  # a folder that is no model, or a broken one, fails in many ways
        first = (str(error).strip() or type(error).__name__).split("\n")[0][:200]
        raise InputError(where, f"'{model}': {first}", "name a sentence-transformers model") from None

    def embed(texts: Sequence[str], /) -> Any:
        return encoder.encode(list(texts), show_progress_bar=False, convert_to_numpy=True)

    return embed


@contextmanager
def _no_bars() -> Iterator[None]:
    """Load weights without the loader's progress bars, which stand in every log."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def unit_vectors(embed: Embed, texts: Sequence[str]) -> np.ndarray:
    """Embeddings as float32 rows of length 1, so that a product is a cosine; shape (texts, dimensions).

    Lone surrogates, which no tokenizer takes, become U+FFFD. Raises WorkError if what `embed` gives has another
    shape, no length or no finite value.
    """
    import numpy as np

    given = np.asarray(embed([repair_text(text)[0] for text in texts]), dtype=np.float32)
    if given.ndim != 2 or len(given) != len(texts):
        seen = f"gave an array of shape {given.shape} for {len(texts)} texts"
        raise WorkError("embed", seen, "it must give one vector a text")
    lengths = np.linalg.norm(given, axis=1, keepdims=True)
    if not np.isfinite(lengths).all():
        raise WorkError("embed", "gave a vector that is not finite", "check the model")
    # A vector of length 0 has no direction: its cosine with everything is 0.
    return given / np.where(lengths > 0, lengths, 1)
