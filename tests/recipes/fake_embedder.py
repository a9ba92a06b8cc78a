"""Stands in for the trainer and its encoder, in milliseconds: vectors are made of a text's words and as much noise as
the model's folder says, so that a test decides which training helps."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from embedding_samples import DETAILS, TOPICS, tree

import trainers

PLACES = {word: place for place, word in enumerate((*TOPICS, *DETAILS))}
NOISE = 32
"""Dimensions that hold nothing but noise."""


class FakeEncoder:
    """Unit vectors of texts; the model's folder says how noisy."""

    def __init__(self, folder: str, calls: list[SimpleNamespace], options: Any, hub: Any) -> None:
        self.folder, self.calls, self.options, self.hub = Path(folder), calls, options, hub
        self.noise = json.loads((self.folder / "noise.json").read_text())

    def text(self, text: str, role: str = "document", instruction: str = "") -> str:
        return f"{instruction}|{text}" if instruction else text

    def encode(
        self, texts: Sequence[str], role: str = "document", instruction: str | Sequence[str] = ""
    ) -> np.ndarray:
        told = [instruction] * len(texts) if isinstance(instruction, str) else list(instruction)
        self.calls.append(
            SimpleNamespace(folder=self.folder, role=role, texts=list(texts), instructions=told)
        )
        return np.stack([self._vector(self.text(text)) for text in texts])

    def _vector(self, text: str) -> np.ndarray:
        vector = np.zeros(len(PLACES) + NOISE, np.float32)
        for word in text.split():
            if word in PLACES:
                vector[PLACES[word]] = 1
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
        vector[len(PLACES) :] = self.noise * np.random.default_rng(seed).normal(size=NOISE) / NOISE**0.5
        return vector / max(float(np.linalg.norm(vector)), 1e-9)


class Fakes:
    """What was asked of trainer and encoder. `noises`: of the models that the next trainings make."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.folder = folder
        self.noises: list[float] = [1.0, 0.5, 0.25, 0.1]
        self.trained: list[SimpleNamespace] = []
        self.opened: list[FakeEncoder] = []
        self.encoded: list[SimpleNamespace] = []
        self.base = self.model("base", 2.0)
        monkeypatch.setattr(trainers, "train_embedder", self._train, raising=False)
        monkeypatch.setattr(trainers, "open_encoder", self._open, raising=False)
        monkeypatch.setattr(trainers, "check_embedder", lambda *given, **more: None, raising=False)
        # Pictures and the report on curation take most of the time, and are looked at elsewhere.
        monkeypatch.setattr("recipes.embedding.curated.report_on", lambda *given: None)
        monkeypatch.setattr("recipes.embedding.run.plot_scores", lambda rounds, path, metric: path)

    def model(self, name: str, noise: float) -> Path:
        """A folder that counts as a model."""
        folder = self.folder / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "noise.json").write_text(json.dumps(noise))
        return folder

    def tree(self, **changes: Any) -> dict[str, Any]:
        """A recipe of the samples on the fake base."""
        return tree(self.base, self.folder, **changes)

    def _open(self, model: str, *, options: Any = None, device: Any = None, hub: Any = None) -> FakeEncoder:
        self.opened.append(FakeEncoder(model, self.encoded, options, hub))
        return self.opened[-1]

    def _train(
        self, model: str, rows: Any, out: str, options: Any = None, rng_seed: int = 0, evaluate: Any = None,
        on_step: Any = None, *, lineage: Any = None, log: Any = None, hub: Any = None,
    ) -> Any:  # fmt: skip
        given = list(rows)
        kept = [row for row in given if row.get("decision", "kept") == "kept"]
        call = SimpleNamespace(
            known=[row for row in given if row not in kept],
            model=Path(model), rows=kept, out=Path(out), options=options, rng_seed=rng_seed,
            lineage=dict(lineage), hub=dict(hub), evaluated=None,
        )  # fmt: skip
        shutil.copytree(model, out)
        (Path(out) / "noise.json").write_text(json.dumps(self.noises[len(self.trained)]))
        self.trained.append(call)
        on_step({"step": 1, "steps": 1})
        if evaluate is not None:
            call.evaluated = evaluate(FakeEncoder(out, self.encoded, options, hub), 1)
        logs = [{"step": 1, "loss": 1.5, "tokens": 7}]
        counts = {"rows": len(call.rows), "trained": len(call.rows)}
        return SimpleNamespace(path=Path(out), steps=1, logs=logs, counts=counts, stopped_early=False)
