"""Shipped recipes for pairs, knowledge and textbooks, asked of a server that does as their prompts say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from generation_samples import dataset
from obedient_model import answer, document
from recipe_samples import write_rows
from stub_server import Stub
from test_generation_library import ROWS

from recipes.cli import main
from recipes.settings import library

QUESTIONS = [{"question": f"How many are {n} boats and 2 more?", "answer": f"{n} + 2 = {n + 2}\n#### {n + 2}"}
             for n in range(6)]  # fmt: skip
FUNCTION = 'def add(a, b):\n    """Add two numbers to one another."""\n    return a + b\n'
# Rows shaped like the recipe's hub data sets.
SOURCES: dict[str, dict[str, list[dict[str, Any]]]] = {
    "embedding-pairs": {"retrieval.held_out": [{"_id": "1", "text": "Zinc is good against colds."}]},
    "mined-pairs": {
        "questions.train": QUESTIONS[:4],
        "questions.held_out": QUESTIONS[4:],
        "titles.train": [
            {"id": "1", "url": "u", "title": "April", "text": "April is the fourth month of the year."}
        ],
        "functions.train": [{"original_string": FUNCTION, "code": FUNCTION, "language": "python"}],
    },
    "knowledge": {
        "documents.train": [{"id": str(n), "title": f"Annals {n}", "text": document(n)} for n in range(3)],
        "documents.held_out": [{"question": "What is a group?", "subject": "algebra", "choices": ["a", "b"]}],
    },
    "textbooks": {"books.held_out": QUESTIONS},
}
SMALL = {
    "embedding-pairs": ["domains.retrieval.generator.options.count=10", "domains.matching.generator.options.count=10",
                        'domains.retrieval.generator.options.languages=["Polish"]',
                        'domains.matching.generator.options.languages=["Polish"]',
                        "domains.retrieval.generator.options.english=1",
                        "domains.matching.generator.options.english=1"],
    "mined-pairs": [],
    "knowledge": [],
    "textbooks": ["domains.books.generator.options.count=3"],
}  # fmt: skip
STEPS = {
    "embedding-pairs": {"retrieval: 00-tasks_short_long", "retrieval: 04-short_long", "matching: 05-short_short",
                        "matching: 06-sts", "matching: 07-bitext"},
    "mined-pairs": {"questions: 00-mined", "titles: 00-mined", "functions: 00-mined"},
    "knowledge": {"documents: 00-passages", "documents: 01-facts", "documents: 07-faithful", "documents: 08-rows"},
    "textbooks": {"books: 00-units", "books: 02-section", "books: 05-sound"},
}  # fmt: skip


@pytest.fixture
def told(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[str]]:
    """The command's arguments behind the verb: the recipe with local rows and the stub server in place of a GPU."""
    name = request.param
    changes = [
        f"domains.{place}={write_rows(tmp_path / f'{place}.jsonl', rows)}"
        for place, rows in SOURCES[name].items()
    ]
    with Stub(answer=answer) as stub:
        engine = {"name": "openai", "options": {"base_url": stub.url}}
        changes += [*SMALL[name], f"engine={json.dumps(engine)}"]
        yield [name, *(part for change in changes for part in ("--set", change))]


@pytest.mark.parametrize("told", sorted(SOURCES), indirect=True)
def test_preview_of_a_shipped_recipe_shows_every_step(
    told: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", *told]) == 0
    capsys.readouterr()
    assert main(["preview", *told, "-n", "2"]) == 0
    shown = capsys.readouterr().out
    for step in STEPS[told[0]]:
        assert f"=== {step}" in shown
    assert ": row 0" in shown
    assert "warning" not in shown


@pytest.mark.parametrize("told", sorted(SOURCES), indirect=True)
def test_a_shipped_recipe_runs_on_rows_like_those_it_names(told: list[str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert main(["run", *told, "--out", str(out)]) == 0
    kept = {row["domain"] for row in dataset(out)}
    assert kept == {place.split(".")[0] for place in SOURCES[told[0]]} | (
        {"matching"} if "retrieval" in kept else set()
    )
    rejected = [row for row in dataset(out, kept=False) if row["decision"] != "kept"]
    assert rejected == []


def test_no_shipped_recipe_that_writes_goes_without_its_preview() -> None:
    texts = {name: path.read_text("utf-8") for name, path in library().items()}
    writing = {name for name, text in texts.items() if "\nkind: generate\n" in text}
    assert writing == set(SOURCES) | set(ROWS)


def test_they_name_public_models_and_data() -> None:
    for name in SOURCES:
        text = library()[name].read_text("utf-8")
        assert f"synth preview {name}" in text
        assert f"synth run {name}" in text
        assert ("model: Qwen/" in text) is (name != "mined-pairs")
