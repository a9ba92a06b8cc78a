"""A second model's opinion of mined negatives: cosines of an embedder, or a cross-encoder's scores."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from recipes.embedding.beside import RESCORE, located
from synth.records.errors import InputError

if TYPE_CHECKING:
    from recipes.embedding.schema import EmbeddingRecipe, Rescore

Pair = tuple[str, str]
BATCH = 64


def scorer(section: Rescore | None, recipe: EmbeddingRecipe) -> Callable[[Sequence[Pair]], Any] | None:
    """What `mine_negatives` takes as `rescore`: (query, document) pairs to scores [n]; None without a section.

    The model is opened when it is first asked. Raises InputError where it cannot be.
    """
    if section is None:
        return None
    made = _Cross(section, recipe) if section.kind == "cross" else _Bi(section, recipe)
    return made.scores


class _Bi:
    """Cosines of an embedder, each different text encoded once a call."""

    def __init__(self, section: Rescore, recipe: EmbeddingRecipe) -> None:
        self._section, self._recipe, self._encoder = section, recipe, None

    def scores(self, pairs: Sequence[Pair]) -> Any:
        import numpy as np

        if not pairs:
            return np.zeros(0, np.float32)
        encoder = self._encoder = self._encoder or self._open()
        queries, documents = zip(*pairs, strict=True)
        sides = []
        for texts, role in ((queries, "query"), (documents, "document")):
            places = {text: number for number, text in enumerate(dict.fromkeys(texts))}
            sides.append(encoder.encode(list(places), role)[[places[text] for text in texts]])
        return (sides[0] * sides[1]).sum(axis=1)

    def _open(self) -> Any:
        import trainers

        hub = {"trust_remote_code": self._recipe.model.trust_remote_code}
        return trainers.open_encoder(str(located(RESCORE, self._section.model, self._section.kind)), hub=hub)


class _Cross:
    """A cross-encoder of sentence-transformers."""

    def __init__(self, section: Rescore, recipe: EmbeddingRecipe) -> None:
        self._section, self._recipe, self._model = section, recipe, None

    def scores(self, pairs: Sequence[Pair]) -> Any:
        import numpy as np

        if not pairs:
            return np.zeros(0, np.float32)
        model = self._model = self._model or self._open()
        return model.predict(list(pairs), batch_size=BATCH, show_progress_bar=False, convert_to_numpy=True)

    def _open(self) -> Any:
        package: Any = importlib.import_module("sentence_transformers")
        trust = self._recipe.model.trust_remote_code
        try:
            model = package.CrossEncoder(
                str(located(RESCORE, self._section.model, self._section.kind)), trust_remote_code=trust
            )
        except (OSError, ValueError) as error:
            first = str(error).strip().split("\n")[0]
            raise InputError(RESCORE, first, "name a cross-encoder") from None
        # Not its configuration's: a causal model's speaks of a head that it does not have.
        if model.num_labels != 1:
            seen = f"{self._section.model} gives {model.num_labels} scores a pair"
            raise InputError(RESCORE, seen, "name a cross-encoder with one score")
        return model
