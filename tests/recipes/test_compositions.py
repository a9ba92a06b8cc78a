"""Compositions of verifiers in a recipe: parts are checked, filled in and looked up like any verifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from recipe_samples import tree, with_data

from recipes.problems import load_domain
from recipes.settings import RecipeError, dump_yaml, load_recipe, read_resolved
from recipes.validation import validate
from recipes.values import to_yaml


def all_of(*parts: Any) -> dict[str, Any]:
    return {"domains.math.verifier": {"name": "all_of", "options": {"parts": list(parts)}}}


def test_parts_of_a_recipe_are_filled_in_and_read_back(tmp_path: Path) -> None:
    written = {"name": "math", "options": {"tolerance": 0.5}}
    recipe = load_recipe(tree(**all_of("math", written)))
    parts = recipe.domains["math"].verifier.options["parts"]
    assert parts[0]["name"] == "math"
    assert (parts[0]["options"]["tolerance"], parts[1]["options"]["tolerance"]) == (None, 0.5)
    (tmp_path / "recipe.yaml").write_text(dump_yaml(recipe))
    assert read_resolved(tmp_path / "recipe.yaml").domains["math"].verifier.options["parts"] == parts


@pytest.mark.parametrize(
    ("part", "where"),
    [
        ("mth", "parts.1.name"),
        ({"name": "math", "options": {"tolerence": 1}}, "parts.1.options.tolerence"),
        ({"name": "math", "options": {"extract": "latex"}}, "parts.1.options.extract"),
        ({"name": "any_of", "options": {"parts": ["mth"]}}, "parts.1.options.parts.0.name"),
        ({"name": "weighted", "options": {"parts": ["math"], "weights": [-1]}}, "parts.1.options.weights.0"),
        ({"nam": "math"}, "parts.1.nam"),
    ],
)
def test_what_is_wrong_in_a_part_is_named_by_its_path(part: Any, where: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(tree(**all_of("math", part)))
    assert caught.value.problems[0].where == f"recipe, domains.math.verifier.options.{where}"


def test_a_part_from_a_file_beside_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "judge.py").write_text("def judge(row):\n    return True\n")
    for part in ("judge.py:judge", {"name": "judge.py:judge"}):
        (tmp_path / "r.yaml").write_text(to_yaml(tree(**all_of("math", part))))
        parts = load_recipe(tmp_path / "r.yaml").domains["math"].verifier.options["parts"]
        assert parts[1]["name"] == f"{tmp_path}/judge.py:judge"


def test_a_composition_judges_the_problems_of_a_domain(tmp_path: Path) -> None:
    recipe = load_recipe(
        with_data(tmp_path, **{"train.method": "none"}, **all_of("math", {"name": "quality"}))
    )
    assert list(validate(recipe)) == []
    domain = load_domain(recipe, "math", None)
    problem = domain.held_out[0]
    good = {**problem, "completion": f"#### {problem['reference']}"}
    try:
        verdicts = list(domain.verifier.verify_batch([good, {**good, "completion": "#### 1000"}], workers=2))
    finally:
        domain.verifier.close()
    assert [(verdict.status, verdict.reason) for verdict in verdicts] == [
        ("pass", "all_passed"), ("fail", "not_equal"),
    ]  # fmt: skip
