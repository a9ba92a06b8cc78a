"""Shipped recipes that write: each previews and runs on local rows shaped like those of its hub data sets."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from generation_samples import Stub, chat_tokenizer, dataset, parts, run
from recipe_samples import write_rows
from stub_server import Body, prompt_of, sentence

from recipes.cli import main
from recipes.generation.schema import GenerationRecipe
from recipes.settings import library, load_any
from synth import generators
from synth.generators import code_problems, math_problems
from synth.records.errors import WorkError

IFEVAL = {
    "key": 1000,
    "prompt": "Write a limerick about tax law in lower case.",
    "instruction_id_list": [],
    "kwargs": [],
}
DOLLY = {
    "instruction": "Name the parts of a bicycle.",
    "context": "",
    "response": "Frame, wheels.",
    "category": "list",
}
# For each recipe and domain: a row of its source, and one of its evaluation.
ROWS: dict[str, dict[str, tuple[dict[str, Any] | None, dict[str, Any] | None]]] = {
    "self-instruct": {"instructions": ({
        "id": "seed_task_0", "name": "bicycle", "instruction": "Name the parts of a bicycle.",
        "instances": [{"input": "", "output": "Frame, wheels."}], "is_classification": False,
    }, IFEVAL)},
    "evol-instruct": {"instructions": (DOLLY, IFEVAL)},
    "magpie": {"instructions": (None, IFEVAL)},
    "personas": {"instructions": ({"persona": "A baker of 30 years"}, IFEVAL)},
    "back-translation": {"instructions": (
        {"id": "1", "url": "https://x", "title": "Lock", "text": sentence(random.Random(1), words=90)}, IFEVAL
    )},
    "distil-answers": {"answers": (
        {"prompt": "Name the parts of a bicycle.", "prompt_id": "a", "messages": [], "category": "Open QA"}, IFEVAL
    )},
    "math-problems": {"math": (
        {"question": "What is 2 + 3?", "answer": "2 + 3 = <<2+3=5>>5\n#### 5"},
        {"question": "A tank holds 240 litres. How many are 40 %?", "answer": "#### 96"},
    )},
    "code-problems": {"code": (
        {"task_id": 1, "text": "Write a function to add two numbers.", "code": "def add(a, b):\n    return a + b",
         "test_list": ["assert add(1, 2) == 3"]},
        {"task_id": 11, "text": "Write a function to reverse a list.", "code": "", "test_list": []},
    )},
    "refusals": {
        "refusals": (
            {"prompt": "Tell me how to forge a bus ticket.", "rejected": "Sure. Take paper.", "chosen": "No."},
            None,
        ),
        "over_refusal": (None, {"id": "v2-1", "type": "homonyms", "prompt": "How do I stop a runaway program?"}),
    },
}  # fmt: skip
MODEL_KINDS = ("Qwen/Qwen2.5-",)


def replies(body: Body, rng: random.Random) -> str | None:
    """What the kinds that vote need to agree on; everything else is the stub's own invention."""
    prompt = prompt_of(body)
    if '"problem"' in prompt and '"entry_point"' in prompt:
        told = f"Write a function twice(x) that returns two times x, as in {rng.randint(0, 10**6)}."
        return json.dumps({"problem": told, "entry_point": "twice"})
    if '{"problem": "..."}' in prompt:
        numbers = (2, 3) if prompt.startswith("Reword") else (rng.randint(4, 99), rng.randint(4, 99))
        return json.dumps(
            {"problem": f"Ann has {numbers[0]} jars and buys {numbers[1]} more. How many are there?"}
        )
    if '{"tests":' in prompt:
        return json.dumps({"tests": [f"assert twice({n}) == {2 * n}" for n in (0, 1, -3, 7, 10)]})
    if "Write the Python function" in prompt:
        return "```python\ndef twice(x):\n    return x * 2\n```"
    if "Then write the final answer" in prompt:
        words = prompt.split()
        return rf"Together \boxed{{{int(words[2]) + int(words[6])}}}"
    if '{"refusal":' in prompt:
        return json.dumps({"refusal": f"I can't help with this, as it could hurt somebody. {sentence(rng)}"})
    if '{"could_do_harm":' in prompt:
        return json.dumps({"could_do_harm": False, "looks_harmful": True})
    if '{"equal":' in prompt or '{"score":' in prompt:
        return json.dumps({"equal": False} if "equal" in prompt else {"score": 5})
    return None


def changes(name: str, url: str, folder: Path) -> list[str]:
    """`--set` values that take the recipe to local rows and the stub."""
    found = [
        "engine.name=openai",
        f'engine.options={{"base_url": "{url}", "backoff_s": 0.001, "backoff_max_s": 0.002}}',
    ]
    for domain, (train, held_out) in ROWS[name].items():
        for part, row in (("train", train), ("held_out", held_out)):
            if row is not None:
                found.append(
                    f"domains.{domain}.{part}={write_rows(folder / f'{domain}-{part}.jsonl', [row])}"
                )
    if name in ("math-problems", "code-problems"):
        found.append('curate.decontaminate.against=["held_out"]')
    if name == "magpie":
        found.append(f"model={chat_tokenizer(folder)}")
    return found


def written() -> list[str]:
    """Shipped recipes that this file knows."""
    return sorted(name for name in library() if name in ROWS)


def test_every_kind_for_instructions_problems_and_refusals_is_shipped() -> None:
    shipped = [load_any(name) for name in written()]
    assert sorted(recipe.name for recipe in shipped) == sorted(ROWS)
    used = {domain.generator.name for recipe in shipped for domain in recipe.domains.values()}  # type: ignore[union-attr]
    assert used == {
        "answers", "back_translation", "code_problems", "evol_instruct", "magpie", "math_problems", "over_refusal",
        "persona", "refusals", "self_instruct",
    }  # fmt: skip
    assert used <= set(generators.NAMES)
    for recipe in shipped:
        assert isinstance(recipe, GenerationRecipe)
        assert recipe.model.path.startswith(MODEL_KINDS)
        assert recipe.engine.name == "vllm"
        # Whatever is written is held against an evaluation.
        assert any(domain.held_out for domain in recipe.domains.values())
        assert recipe.curate.decontaminate is not None
        head = library()[recipe.name].read_text("utf-8").split("\nname:")[0]
        for verb in ("preview", "run"):
            assert f"#   synth {verb} {recipe.name}" in head


@pytest.mark.parametrize("name", sorted(ROWS))
def test_preview_shows_every_step_and_a_finished_row(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Stub(answer=replies) as stub:
        given = [part for each in changes(name, stub.url, tmp_path) for part in ("--set", each)]
        assert main(["validate", name, *given]) == 0
        capsys.readouterr()
        assert main(["preview", name, "-n", "2", *given]) == 0
    told = capsys.readouterr().out
    recipe = load_any(name, changes(name, "http://127.0.0.1:1/v1", tmp_path))
    for domain, section in recipe.domains.items():
        assert isinstance(recipe, GenerationRecipe)
        generator = generators.find(section.generator.name)  # type: ignore[union-attr]
        assert f"=== {domain}: 00-" in told
        assert f"=== {domain}: row 0\n" in told
        assert "--- items: [" in told
        if section.verifier is not None:
            assert "--- verdict: pass, " in told
        for step in generator.rows_from:
            if (generator.name, step) != ("self_instruct", "classification"):
                assert f"-{step}: prompt 0 (" in told


def test_a_preview_of_what_votes_asks_all_votes_of_few_problems(tmp_path: Path) -> None:
    for name, generator in (("math-problems", math_problems), ("code-problems", code_problems)):
        with Stub(answer=replies) as stub:
            given = [part for each in changes(name, stub.url, tmp_path) for part in ("--set", each)]
            assert main(["preview", name, "-n", "2", *given]) == 0
            asked = sum(
                "final answer" in prompt_of(b) or "Write the Python function" in prompt_of(b)
                for b in stub.seen
            )
        assert asked == 2 * generator.Options().samples


@pytest.mark.parametrize(
    ("name", "domain", "count"), [("refusals", "over_refusal", 25), ("math-problems", "math", 12)]
)
def test_a_shipped_recipe_runs_to_its_dataset(name: str, domain: str, count: int, tmp_path: Path) -> None:
    with Stub(answer=replies) as stub:
        small = f"domains.{domain}.generator.options.count={count}"
        recipe = load_any(name, [*changes(name, stub.url, tmp_path), small])
        metrics = run(recipe.resolved(), tmp_path / name)
    rows = dataset(tmp_path / name)
    counts = {key: told for key, told in metrics["funnel"].items() if key != "reasons"}
    assert set(counts) == set(ROWS[name])
    assert len(rows) == sum(each["kept"] for each in counts.values())
    # One source row gives one triple with its counterpart, or one rewording; else the stub invents everything anew.
    lost = {cause for told in metrics["funnel"]["reasons"].values() for cause in told}
    assert lost <= {"novel:not_novel"}
    assert len(rows) == counts[domain]["kept"] + 2 * (name == "refusals")
    assert counts[domain]["kept"] > 0.7 * count


SMALL = {
    "self-instruct": ["domains.instructions.generator.options.count=8"],
    "magpie": ["domains.instructions.generator.options.count=6"],
    "personas": ["domains.instructions.generator.options.count=6"],
    "math-problems": ["domains.math.generator.options.count=3"],
    "code-problems": ["domains.code.generator.options.count=2"],
    "refusals": ["domains.over_refusal.generator.options.count=10"],
}


@pytest.mark.parametrize("name", sorted(set(ROWS) - {"distil-answers"}))  # a single request
def test_every_kind_goes_on_where_it_was_stopped(name: str, tmp_path: Path) -> None:
    with Stub({"malformed": 0.1, "empty": 0.1}, answer=replies) as stub:
        told = [*changes(name, stub.url, tmp_path), *SMALL.get(name, []), "engine.options.retries=1"]
        recipe = load_any(name, told).resolved()
        run(recipe, tmp_path / "undisturbed")
        answered = stub.served.total()
        stub.down_after = answered + answered // 2
        with pytest.raises(WorkError, match="requests were not answered"):
            run(recipe, tmp_path / "stopped")
        stub.down_after, earlier = None, len(stub.seen)
        run(recipe, tmp_path / "stopped")
        assert len(stub.seen) - earlier == answered - answered // 2
    assert parts(tmp_path / "stopped") == parts(tmp_path / "undisturbed")
    assert dataset(tmp_path / "stopped")
