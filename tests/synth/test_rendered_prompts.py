"""One rendered prompt of every template of the pair, query, knowledge and textbook generators, kept to be read.

A change of a template shows here as a change of `rendered_prompts/GENERATOR/STEP.txt`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from synth.generators import find
from synth.prompts import template
from synth.records.lint import lint

FOLDER = Path(__file__).parent / "rendered_prompts"
GENERATORS = ("document_queries", "embedding_pairs", "knowledge", "textbooks")
TASK = "Given a question about tides, find passages that explain them."
PASSAGE = "The tide turns twice a day. At Dover the range is 6 metres at springs."
SECTION = "# Ratios\n\nA ratio compares two amounts."
VALUES: dict[str, dict[str, Any]] = {
    **{f"embedding_pairs/brainstorm_{name}": {"count": 20}
       for name in ("short_long", "long_short", "short_short", "long_long")},
    "embedding_pairs/short_long": {
        "task": TASK, "query_type": "long-tail", "query_length": "5 to 15 words", "clarity": "ambiguous",
        "num_words": 200, "difficulty": "college", "language": "Korean",
    },
    "embedding_pairs/long_short": {
        "task": "Tell which department a letter is for.", "num_words": "at least 50", "clarity": "clear",
        "difficulty": "high school", "language": "English",
    },
    "embedding_pairs/short_short": {"task": "Given a proverb, find another of its meaning.", "language": "Polish"},
    "embedding_pairs/long_long": {"task": "Given a report, find one of the same cause.", "language": "English"},
    "embedding_pairs/sts": {
        "unit": "phrase", "high_score": "4.5", "low_score": "2.5", "difficulty": "elementary school",
        "language": "Turkish",
    },
    "embedding_pairs/bitext": {
        "unit": "sentence", "high_score": "5", "low_score": "1.5", "difficulty": "college",
        "source_language": "English", "target_language": "Hindi",
    },
    "document_queries/queries": {
        "passage": PASSAGE, "title": "Tides", "kinds": ["a question of 5 to 15 words", "two to five key words"],
    },
    "document_queries/answers": {"passage": PASSAGE, "query": "spring tide range at Dover"},
    "knowledge/facts": {"passage": PASSAGE, "title": "Tides", "count": 8},
    "knowledge/question": {"fact": "The tidal range at Dover is 6 metres at springs.", "passage": PASSAGE},
    "knowledge/support": {"passage": PASSAGE, "question": "How large are spring tides at Dover?",
                          "answer": "6 metres"},
    "knowledge/paraphrases": {"fact": "The tidal range at Dover is 6 metres at springs.", "count": 10},
    "knowledge/faithful": {"passage": PASSAGE, "statements": ["The tide turns twice a day.", "Dover is in Kent."]},
    "knowledge/with_context": {"passage": PASSAGE, "question": "How large are spring tides at Dover?"},
    "textbooks/units": {"topic": "algebra", "audience": "graduate students", "count": 20},
    "textbooks/section": {
        "topic": "algebra", "unit": "ratios", "audience": "children of ten years", "style": "as a story",
        "num_words": 300, "language": "English",
    },
    "textbooks/request": {
        "topic": "algebra", "unit": "ratios", "audience": "children of ten years", "style": "as a story",
        "num_words": 300, "language": "German",
    },
    "textbooks/exercises": {"topic": "algebra", "audience": "children of ten years", "section": SECTION, "count": 2,
                            "language": "English"},
    "textbooks/review": {"exercise": "Share 12 apples 1 to 2.", "solution": "4 and 8."},
}  # fmt: skip


def test_every_template_of_these_generators_is_shown() -> None:
    assert set(VALUES) == {name for each in GENERATORS for name in find(each).templates}
    kept = {path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.txt")}
    assert kept == set(VALUES)


@pytest.mark.parametrize("name", sorted(VALUES))
def test_a_rendered_prompt_is_the_one_that_was_read(name: str) -> None:
    rendered = template(name).render(**VALUES[name])
    assert rendered + "\n" == (FOLDER / f"{name}.txt").read_text("utf-8")
    assert template(name).fields == tuple(sorted(VALUES[name]))
    assert lint(rendered) == []
    for value in VALUES[name].values():
        for shown in value if isinstance(value, list) else [value]:
            assert str(shown) in rendered
