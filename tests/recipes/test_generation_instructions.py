"""Instruction generators end to end: what each writes, what it drops and why."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest
from generation_samples import SEEDS, Stub, chat_tokenizer, dataset, lost, options, requests, run, tree
from stub_server import REFUSAL, Body, prompt_of, sentence

from recipes.generation.inputs import input_items
from recipes.generation.schema import GenerationRecipe
from recipes.settings import load_any
from synth.generators.evol_instruct import OPERATORS
from synth.records.errors import InputError

# ---- Self-Instruct -----------------------------------------------------------------------------------------------


def test_self_instruct_drops_what_is_no_new_instruction(tmp_path: Path) -> None:
    """One prompt whose eight replies are wrong in every way the filter knows, and one that is right."""
    wrong = [
        "Draw a picture of a lighthouse at night.",
        "Name animals.",
        "- Describe the harbour in the evening light.",
        "List three animals that live in very cold water.",  # a seed task in other words: ROUGE-L 0.94
        "Describe how a lock on a canal lifts a boat.",
        "Describe how a lock on a canal lifts a boat!",
        " ".join(["very"] * 151),
    ]

    def answer(body: Body, rng: random.Random) -> str | None:
        return json.dumps({"instructions": wrong}) if "further tasks" in prompt_of(body) else None

    with Stub(answer=answer) as stub:
        made = tree(stub.url, "self_instruct", SEEDS, tmp_path, **options(count=7, per_prompt=7))
        metrics = run(made, tmp_path / "run")
    assert (
        lost(metrics)
        == {
            "instructions:not_for_text": 3,
            "instructions:no_instruction": 3,
            "instructions:too_long": 3,
            "instructions:too_short": 3,
            "novel:not_novel": 8,  # of three batches: 2 + 3 + 3, the second of which and the third bring nothing new
        }
    )
    assert metrics["steps"]["it"]["01-novel"]["reasons"]["not_novel"]["example"]["detail"].startswith(
        "ROUGE-L "
    )
    rows = dataset(tmp_path / "run")
    assert {json.loads(row["meta"])["task"] for row in rows} == {wrong[4]}
    # Two batches in a row without anything new: nothing else comes to mind.
    assert [name for name in metrics["steps"]["it"] if name.endswith("instructions")] == [
        "00-instructions",
        "02-instructions",
        "04-instructions",
    ]


def test_self_instruct_tells_classification_first_and_gives_labels_before_inputs(tmp_path: Path) -> None:
    def answer(body: Body, rng: random.Random) -> str | None:
        prompt = prompt_of(body)
        if "Is this a classification task?" in prompt:
            task = prompt.rpartition("Task: ")[2].partition("\n")[0]
            return json.dumps({"is_classification": len(task) % 2 == 0})
        if "worked example" in prompt or "labels are possible" in prompt:
            text = sentence(rng)
            pairs = [("", "a"), ("one", "one"), ("two", "b"), ("two", "c"), ("three", REFUSAL), (text, "")]
            return json.dumps({"instances": [{"input": i, "output": o} for i, o in pairs]})
        return None

    with Stub(answer=answer) as stub:
        made = tree(stub.url, "self_instruct", SEEDS, tmp_path, **options(count=16, instances=6))
        metrics = run(made, tmp_path / "run")
    rows = [(row, json.loads(row["meta"])) for row in dataset(tmp_path / "run")]
    for row, meta in rows:
        assert meta["is_classification"] is (len(meta["task"]) % 2 == 0)
        assert (meta["input"], row["completion"]) in (("", "a"), ("two", "b"))
        assert not meta["is_classification"] or meta["input"]
    tasks = Counter(meta["is_classification"] for _, meta in rows)
    classified = tasks[True]
    assert tasks[False] == 2 * (16 - classified)
    told = lost(metrics)
    assert (told["classification:empty"], told["open:empty"]) == (2 * classified, 16 - classified)
    for cause in ("copied", "duplicate", "refused"):
        assert (told[f"classification:{cause}"], told[f"open:{cause}"]) == (classified, 16 - classified)


# ---- Evol-Instruct -----------------------------------------------------------------------------------------------


def test_evol_instruct_puts_an_instruction_back_when_its_evolution_failed(tmp_path: Path) -> None:
    """The model calls every second evolution equal; depth operators lose those, breadth does not ask."""

    def answer(body: Body, rng: random.Random) -> str | None:
        if "Are they equal?" in prompt_of(body):
            return json.dumps({"equal": body["seed"] % 2 == 0})
        return None

    with Stub(answer=answer) as stub:
        made = tree(stub.url, "evol_instruct", SEEDS, tmp_path, **options(generations=3))
        metrics = run(made, tmp_path / "run")
    steps = metrics["steps"]["it"]
    rows = [(row, json.loads(row["meta"])) for row in dataset(tmp_path / "run")]
    gained = [steps[name]["kept"] for name in ("02-gain", "06-gain", "10-gain")]
    assert len(rows) == sum(gained) == metrics["funnel"]["it"]["kept"]
    assert all(0 < each <= 8 for each in gained)
    assert lost(metrics) == {"gain:no_gain": 24 - sum(gained)}
    for row, meta in rows:
        assert len(meta["operators"]) <= meta["generation"] + 1
        assert set(meta["operators"]) <= set(OPERATORS)
        assert row["completion"]
    # A slot that no earlier generation changed still shows its seed instruction.
    seeds = _input_ids(tmp_path)
    shown = [row for row in requests(tmp_path / "run", "evolve") if row["parents"][0] in seeds]
    changed = [{meta["slot"] for _, meta in rows if meta["generation"] < upto} for upto in range(3)]
    assert len(shown) == sum(8 - len(slots) for slots in changed)


def _input_ids(folder: Path) -> set[str]:
    recipe = load_any(tree("http://127.0.0.1:1/v1", "evol_instruct", SEEDS, folder))
    assert isinstance(recipe, GenerationRecipe)
    return {item.id for item in input_items(recipe, "it", ("instruction",))}


def test_evol_instruct_drops_what_repeats_its_prompt_or_the_instruction(tmp_path: Path) -> None:
    replies = [
        "Rewritten prompt: list three animals.",
        SEEDS[0]["instruction"].upper(),
        " ".join(["word"] * 200),
        "...",
    ]

    def answer(body: Body, rng: random.Random) -> str | None:
        asked = "Answer with JSON only" in prompt_of(body) and '"instruction"' in prompt_of(body)
        return json.dumps({"instruction": rng.choice(replies)}) if asked else None

    with Stub(answer=answer) as stub:
        changes = {
            **options(generations=1, operators=["deepen"]),
            "parse.attempts": 1,
            "parse.min_yield": 0.0,
        }
        made = tree(stub.url, "evol_instruct", [SEEDS[0]], tmp_path, **changes)
        causes = set()
        for rng_seed in range(12):
            out = tmp_path / f"run-{rng_seed}"
            made["rng_seed"] = rng_seed
            with pytest.raises(Exception, match="nothing was kept"):
                run(made, out)
            causes |= {row["cause"] for row in requests(out, "evolve")}
    assert causes == {"leaked", "unchanged", "too_long", "empty"}


def test_every_operator_is_drawn_and_breadth_is_not_compared(tmp_path: Path) -> None:
    rows = [{"instruction": f"{SEEDS[i % 8]['instruction']} Version {i}."} for i in range(60)]
    with Stub() as stub:
        run(
            tree(stub.url, "evol_instruct", rows, tmp_path, **options(generations=1, count=50)),
            tmp_path / "run",
        )
        asked = [prompt_of(body) for body in stub.seen]
    evolved = requests(tmp_path / "run", "evolve")
    assert len(evolved) == 50
    operators = Counter(json.loads(row["items"])[0]["operators"][0] for row in evolved)
    assert set(operators) == set(OPERATORS)
    assert all(operators[name] > 2 for name in OPERATORS)
    assert sum("Are they equal?" in prompt for prompt in asked) == 50 - operators["broaden"]


# ---- Magpie and plain answers ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chat_tokenizer(tmp_path_factory.mktemp("chat"))


def test_magpie_lets_the_model_write_the_users_turn(chat_model: Path, tmp_path: Path) -> None:
    turns = ["How do locks on a canal work?", "Why?", "Tell me <|im_start|>assistant", "word " * 500]

    def answer(body: Body, rng: random.Random) -> str | None:
        return rng.choice(turns) if "prompt" in body else None

    with Stub(answer=answer) as stub:
        made = tree(stub.url, "magpie", None, tmp_path, **options(count=40), model=str(chat_model))
        made["domains"]["it"]["system"] = "You are talking with an engineer."
        metrics = run(made, tmp_path / "run")
        bodies = stub.seen
    plain = [body for body in bodies if "prompt" in body]
    # Up to where a user's words begin; the engine itself puts <s> before the tokens.
    assert {body["prompt"] for body in plain} == {
        "<|im_start|>system\nYou are talking with an engineer.<|im_end|>\n<|im_start|>user\n"
    }
    assert {tuple(body["stop"]) for body in plain} == {("<|im_end|>",)}
    assert {body["path"] for body in plain} == {"/v1/completions"}
    assert len({body["seed"] for body in plain}) == len(plain)
    chats = [body for body in bodies if "messages" in body]
    assert [turn["role"] for turn in chats[0]["messages"]] == ["system", "user"]
    assert {body["temperature"] for body in chats} == {0.0}
    assert [row["prompt"] for row in dataset(tmp_path / "run")] == [turns[0]]
    tried = metrics["steps"]["it"]["00-turn"]["tries"]
    assert set(tried) == {"too_short", "too_long", "special_token"}
    assert set(lost(metrics)) == {"turn:too_short", "turn:too_long", "turn:special_token", "novel:not_novel"}


def test_magpie_needs_a_chat_template(chat_model: Path, tmp_path: Path) -> None:
    with Stub() as stub:
        made = tree(stub.url, "magpie", None, tmp_path, **options(count=2), model="builtin:tiny")
        with pytest.raises(InputError, match="has no chat template"):
            run(made, tmp_path / "run")
        assert not stub.seen
        # Nothing is left of the refused run: corrected, it may be given the same directory.
        assert {path.name for path in (tmp_path / "run").iterdir()} == {"lock", "log.txt"}
        run({**made, "model": str(chat_model)}, tmp_path / "run")
        assert len(dataset(tmp_path / "run")) == 2


def test_answers_asks_prompts_as_they_are(tmp_path: Path) -> None:
    rows = [{"prompt": f"What is {i} plus 1?", "level": i} for i in range(10)]
    with Stub({"refusal": 0.2, "empty": 0.1}) as stub:
        run(tree(stub.url, "answers", rows, tmp_path, **options(n=2)), tmp_path / "run")
        assert {prompt_of(body) for body in stub.seen} == {row["prompt"] for row in rows}
        kept = dataset(tmp_path / "run")
        assert all(row["completion"] != REFUSAL for row in kept)
        run(tree(stub.url, "answers", rows, tmp_path, **options(n=2, refusals=True)), tmp_path / "all")
    assert len(kept) == 20
    assert sorted({json.loads(row["meta"])["level"] for row in kept}) == list(range(10))
    assert any(row["completion"] == REFUSAL for row in dataset(tmp_path / "all"))


def test_answers_meet_the_requirements_that_their_prompts_carry(tmp_path: Path) -> None:
    """Half of the prompts carry a requirement; the model meets it in every second answer."""
    short = [{"id": "length_constraints:number_words", "kwargs": {"num_words": 4, "relation": "less than"}}]
    rows = [
        {"prompt": f"Describe river {n}.", **({"constraints": short} if n % 2 else {})} for n in range(20)
    ]
    rows.append(
        {"prompt": "Describe river 20.", "constraints": [{"id": "length_constraints:words", "kwargs": {}}]}
    )

    def answer(body: Body, rng: random.Random) -> str:
        return "It is long." if body["seed"] % 2 else "It is long, wide, deep and cold."

    with Stub(answer=answer) as stub:
        metrics = run(tree(stub.url, "answers", rows, tmp_path, **{"parse.attempts": 2}), tmp_path / "run")
    for row in requests(tmp_path / "run"):
        number = int(row["prompt"].split()[-1].strip("."))
        expected = None if row["sampling_seed"] % 2 or number % 2 == 0 else "not_followed"
        assert row["cause"] == ("invalid_option" if number == 20 else expected)
    kept = dataset(tmp_path / "run")
    constrained = [row for row in kept if "constraints" in json.loads(row["meta"])]
    assert {row["completion"] for row in constrained} == {"It is long."}
    assert len(kept) - len(constrained) == 10
    assert lost(metrics) == {"answer:not_followed": 10 - len(constrained), "answer:invalid_option": 1}
    assert 5 < len(constrained) < 10


# ---- Personas and back-translation -------------------------------------------------------------------------------

PERSONAS = [
    {"persona": f"A {work} of {30 + 3 * i} years"} for i, work in enumerate(("baker", "nurse", "pilot"))
]


def test_personas_draw_topics_tasks_and_languages_by_index_alone(tmp_path: Path) -> None:
    with Stub() as stub:
        small = {**options(count=30, constrained=0.0), "rng_seed": 4}
        run(tree(stub.url, "persona", PERSONAS, tmp_path, **small), tmp_path / "short")
        small = {**options(count=60, constrained=0.0), "rng_seed": 4}
        run(tree(stub.url, "persona", PERSONAS, tmp_path, **small), tmp_path / "long")
    short, long = (
        [json.loads(row["meta"]) for row in dataset(tmp_path / name)] for name in ("short", "long")
    )
    drawn = [{(m["persona"], m["topic"], m["task"]) for m in metas} for metas in (short, long)]
    assert drawn[0] < drawn[1]
    assert {persona for persona, _, _ in drawn[1]} == {row["persona"] for row in PERSONAS}
    assert len({topic for _, topic, _ in drawn[1]}) > 20
    assert len({task for _, _, task in drawn[1]}) > 12
    assert not any("constraints" in meta for meta in long)


def test_answers_to_checkable_requirements_are_checked_and_tried_again(tmp_path: Path) -> None:
    """Every message gets requirements; the model meets that of no commas in every second answer, no other."""

    def answer(body: Body, rng: random.Random) -> str | None:
        if "response_format" in body:
            return None
        return "no comma here" if body["seed"] % 2 else "One, two, and three."

    with Stub(answer=answer) as stub:
        changes = {**options(count=60, constrained=1.0, constraints=1), "parse.min_yield": 0.0}
        made = tree(stub.url, "persona", PERSONAS, tmp_path, **changes)
        made["domains"]["it"]["verifier"] = "constraints"
        metrics = run(made, tmp_path / "run")
    rows = dataset(tmp_path / "run")
    assert {row["status"] for row in rows} == {"pass"}
    for row in rows:
        constraints = json.loads(row["meta"])["constraints"]
        assert len(constraints) == 1
    kinds = Counter(json.loads(row["meta"])["constraints"][0]["id"] for row in rows)
    assert kinds["punctuation:no_comma"] > 0
    asked = [row for row in requests(tmp_path / "run", "answer") if "Do not use any commas." in row["prompt"]]
    assert {row["cause"] for row in asked if "," in row["completion"]} == {"not_followed"}
    assert {row["cause"] for row in asked if "," not in row["completion"]} == {None}
    assert lost(metrics)["answer:not_followed"] == metrics["funnel"]["it"]["asked"] - len(rows)


def test_a_message_in_another_language_is_tried_again(tmp_path: Path) -> None:
    with Stub({"wrong_language": 0.3}) as stub:
        metrics = run(tree(stub.url, "persona", PERSONAS, tmp_path, **options(count=40)), tmp_path / "run")
        served = stub.served["wrong_language"]
    tried = Counter[str]()
    for counts in metrics["steps"]["it"].values():
        tried.update(counts.get("tries", {}))
    # What breaks a requirement fails for that first; every other foreign text is told as such.
    assert served - tried["not_followed"] <= tried["wrong_language"] <= served
    assert tried["wrong_language"] > 10


DOCUMENTS = [{"text": f"{sentence(random.Random(n))} " * 6, "url": f"page {n}"} for n in range(12)]


def test_back_translation_keeps_pairs_the_model_rates_well(tmp_path: Path) -> None:
    def answer(body: Body, rng: random.Random) -> str | None:
        prompt = prompt_of(body)
        if '{"score": 1}' in prompt:
            return json.dumps({"score": 1 + DOCUMENTS.index(_document(prompt)) % 5})
        if _document(prompt) is DOCUMENTS[7]:
            return json.dumps({"instruction": f"Write this: {DOCUMENTS[7]['text']}"})
        return None

    def _document(prompt: str) -> dict[str, str]:
        return next(row for row in DOCUMENTS if row["text"].strip() in prompt)

    short = [{"text": "Too short to answer anything.", "url": "short"}]
    with Stub(answer=answer) as stub:
        made = tree(stub.url, "back_translation", DOCUMENTS + short, tmp_path)
        metrics = run(made, tmp_path / "run")
    rows = {json.loads(row["meta"])["url"]: row for row in dataset(tmp_path / "run")}
    assert set(rows) == {f"page {n}" for n in range(12) if n % 5 in (3, 4) and n != 7}
    for url, row in rows.items():
        assert row["completion"] == DOCUMENTS[int(url.split()[1])]["text"].strip()
        assert json.loads(row["meta"])["score"] >= 4
    assert lost(metrics) == {"fitting:too_short": 1, "instruction:copied": 1, "good:low_score": 7}
