"""One rendered prompt of every template for instructions, problems and refusals, as the model is shown it.

`tests/synth/written_prompts/GENERATOR.txt` holds them to be read. After a template was changed on purpose, the failing
test prints what to put there.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from synth.generators import find
from synth.generators.over_refusal import KINDS
from synth.generators.refusals import BEGINNINGS, FORMS
from synth.prompts import names, template
from synth.records.errors import InputError
from synth.records.lint import lint

FOLDER = Path(__file__).parent / "written_prompts"
OLD = {"instruction": "Name three rivers in Asia.", "added": 30}
MATH = {"problem": "A baker makes 12 trays of 8 rolls each. How many rolls are that?"}
OTHER = {"other": "Tom has 4 more marbles than Ann, who has 9. How many has Tom?"}
CODE = {
    "problem": "Write a function add(a, b) that returns the sum of two whole numbers.",
    "entry_point": "add",
}
DOCUMENT = {"text": "A canal lock lifts a boat by letting water into the closed chamber."}
HOMONYMS = KINDS["homonyms"]
VALUES: dict[str, dict[str, Any]] = {
    "self_instruct/instructions": {"examples": [OLD["instruction"], "Is this sentence a question?"], "count": 4},
    "self_instruct/kind": {
        "examples": [{"instruction": "Is this sentence a question?", "is_classification": True},
                     {"instruction": "Name three rivers in Asia.", "is_classification": False}],
        "instruction": "Is the review friendly?",
    },
    "self_instruct/open": {**OLD, "count": 2},
    "self_instruct/classification": {"instruction": "Is the review friendly?", "count": 3},
    **{f"evol_instruct/{name}": OLD for name in ("constrain", "deepen", "concretise", "reason", "material", "broaden")},
    "evol_instruct/compare": {"first": OLD["instruction"], "second": "Name three rivers in Asia and their sources."},
    "persona/instruction": {
        "persona": "A baker of 30 years", "topic": "work and colleagues", "task": "a plan in steps",
        "language": "English",
    },
    "back_translation/instruction": DOCUMENT,
    "back_translation/rate": {**DOCUMENT, "instruction": "How does a canal lock lift a boat?"},
    **{f"math_problems/{name}": MATH for name in ("reword", "numbers", "harder", "solve")},
    "math_problems/compose": {**MATH, **OTHER},
    **{f"code_problems/{name}": CODE for name in ("reword", "change", "harder", "solve")},
    "code_problems/compose": {**CODE, "other": "Write a function that reverses a list."},
    "code_problems/tests": {**CODE, "count": 8},
    "refusals/refusal": {
        "prompt": "Tell me how to forge a bus ticket.", "length": "two sentences", "manner": "warm and plain",
        "form": FORMS[-1],
        "beginning": BEGINNINGS[0],
    },
    "refusals/counterparts": {
        "prompt": "Tell me how to forge a bus ticket.", "what": HOMONYMS.what, "example": HOMONYMS.example, "count": 2,
    },
    "over_refusal/prompts": {"what": HOMONYMS.what, "example": HOMONYMS.example, "subject": "hang", "count": 5},
    "over_refusal/check": {"prompt": HOMONYMS.example},
}  # fmt: skip
GENERATORS = sorted({name.partition("/")[0] for name in VALUES})


def shown(generator: str) -> str:
    """Every prompt of a generator, under its template's name."""
    mine = [name for name in sorted(VALUES) if name.startswith(f"{generator}/")]
    return "".join(f"=== {name}\n{template(name).render(**VALUES[name])}\n\n" for name in mine)


@pytest.mark.parametrize("generator", GENERATORS)
def test_every_template_is_shown_and_rendered_as_it_was(generator: str) -> None:
    shipped = {name for name in names() if name.startswith(f"{generator}/")}
    assert shipped == {name for name in VALUES if name.startswith(f"{generator}/")}
    assert shipped <= set(find(generator).templates)
    golden = FOLDER / f"{generator}.txt"
    assert golden.read_text("utf-8") == shown(generator), f"{golden} should be:\n{shown(generator)}"


def test_no_generator_goes_without_its_prompts_shown() -> None:
    others = {
        path.name for path in (FOLDER.parent / "rendered_prompts").iterdir()
    }  # test_rendered_prompts.py
    assert {name.partition("/")[0] for name in names()} == {*GENERATORS, *others}


@pytest.mark.parametrize("name", sorted(VALUES))
def test_templates_are_clean_readable_and_strict(name: str) -> None:
    text, values = template(name).text, VALUES[name]
    assert not lint(text)
    assert max(map(len, text.splitlines())) <= 120
    rendered = template(name).render(**values)
    assert not lint(rendered)
    assert "{{" not in rendered
    assert "{%" not in rendered
    for field in template(name).fields:
        with pytest.raises(InputError, match=field):
            template(name).render(**{key: value for key, value in values.items() if key != field})
        if isinstance(values[field], str):  # a value is text, whatever it looks like
            odd = template(name).render(**{**values, field: "{{ secret }} {% raw %} <|im_end|>"})
            assert "{{ secret }} {% raw %} <|im_end|>" in odd


@pytest.mark.parametrize("name", [name for name in sorted(VALUES) if not name.endswith("/solve")])
def test_the_json_a_prompt_asks_for_has_the_keys_that_are_read(name: str) -> None:
    last = template(name).text.strip().splitlines()[-1]
    told = re.fullmatch(r"(?:.*\? )?Answer with JSON only: (\{.*\})", last.partition(" or ")[0])
    assert told is not None
    example = ast.literal_eval(told[1].replace("true", "True").replace("false", "False"))
    source = Path("synth/generators", f"{name.partition('/')[0]}.py")
    code = (Path(__file__).parents[2] / source).read_text("utf-8")
    for key in example:
        assert re.search(rf"\b{key}\s*=", code), key  # in the step's record(...)
