"""Single stages of recipes of kind `embedding`, and the facts that make two measurements comparable."""

from __future__ import annotations

from pathlib import Path

import pytest
from embedding_samples import TOPICS, pairs
from fake_embedder import Fakes
from recipe_samples import write_rows

from recipes.cli import main
from recipes.values import to_yaml


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fakes:
    return Fakes(monkeypatch, tmp_path)


@pytest.mark.parametrize("sample_id", [None, 7])
def test_train_alone_names_rows_whose_id_is_no_text(
    sample_id: int | None, fakes: Fakes, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(to_yaml(fakes.tree(**{"train.validation_share": 0.25})))
    rows = [{**row, "sample_id": sample_id} for row in pairs(TOPICS[:4])]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    assert main(["train", str(recipe), "--data", str(data), "--out", str(tmp_path / "model")]) == 0
    names = {row["sample_id"] for row in fakes.trained[0].rows}
    assert len(names) == len(fakes.trained[0].rows) == 18
    assert all(isinstance(name, str) for name in names)
