"""Embedding pairs, written and mined: what each type gives, what is dropped and why."""

from __future__ import annotations

import ast
import copy
import json
import random
import sysconfig
import textwrap
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from generation_samples import (
    CAUSE,
    Stub,
    check_that_stopped_runs_go_on,
    dataset,
    lost,
    options,
    requests,
    run,
    tree,
)
from obedient_model import answer
from stub_server import Body, prompt_of, sentence

from recipes.cli import main
from recipes.settings import RecipeError, load_any
from recipes.values import to_yaml
from synth.generators import embedding_pairs as pairs
from synth.generators import mined_pairs
from synth.generators.base import Item
from synth.generators.languages import CODES
from synth.records.jsonl import read_jsonl

ENGLISH = options(english=1.0, languages=["Polish"])


def written(stub: Stub, folder: Path, **changes: Any) -> dict[str, Any]:
    return tree(stub.url, "embedding_pairs", None, folder, **{**ENGLISH, **changes})


def metas(out: Path) -> list[dict[str, Any]]:
    return [json.loads(row["meta"]) for row in dataset(out)]


# ---- Written -----------------------------------------------------------------------------------------------------


def test_every_type_gives_the_pairs_it_was_asked_for(tmp_path: Path) -> None:
    with Stub(answer=answer) as stub:
        mixture = dict.fromkeys(pairs.MIXTURE, 1)
        metrics = run(written(stub, tmp_path, **options(count=60, mixture=mixture)), tmp_path / "run")
        assert stub.served == {"good": len(requests(tmp_path / "run"))}
    assert metrics["funnel"]["it"] == dict.fromkeys(
        ("asked", "generated", "parsed", "passed", "unique", "clean", "kept"), 60
    )
    rows = dataset(tmp_path / "run")
    types = Counter(json.loads(row["meta"])["type"] for row in rows)
    assert set(types) == set(pairs.MIXTURE)
    tasks = {row["completion"] for row in requests(tmp_path / "run") if row["step"].startswith("tasks_")}
    brainstormed = {task for text in tasks for task in json.loads(text)["tasks"]}
    for row in rows:
        kind = json.loads(row["meta"])["type"]
        assert (row["source"], row["prompt"], row["completion"]) == ("embedding_pairs", None, None)
        assert len(row["negatives"]) == (kind in ("short_long", "long_short", "sts", "bitext"))
        texts = [row["query"], row["positive"], *row["negatives"]]
        assert all(texts)
        assert len(set(texts)) == len(texts)
        if kind in pairs.ASYMMETRIC:
            assert row["instruction"] in brainstormed
        else:
            assert row["instruction"] == pairs.INSTRUCTIONS[kind]


def test_a_task_and_its_example_are_asked_in_sessions_of_their_own(tmp_path: Path) -> None:
    with Stub(answer=answer) as stub:
        small = options(count=40, mixture={"short_long": 1}, tasks_per_prompt=5, examples_per_task=2)
        metrics = run(written(stub, tmp_path, **small), tmp_path / "run")
        bodies = stub.seen
    assert all(len(body["messages"]) == 1 for body in bodies)
    steps = metrics["steps"]["it"]
    assert [(name, c.get("asked", c.get("seen"))) for name, c in steps.items()] == [
        ("00-tasks_short_long", 20),  # four sessions of five tasks for forty examples, two a task
        ("01-different_short_long", 20),
        ("02-short_long", 40),
    ]
    used = Counter(row["instruction"] for row in dataset(tmp_path / "run"))
    assert 10 < len(used) <= 20
    for body in bodies:
        prompt = prompt_of(body)
        assert prompt.startswith("List 5 different text retrieval tasks") != prompt.startswith(
            "The retrieval task: "
        )


def test_yield_and_retries_are_what_the_server_did(tmp_path: Path) -> None:
    rates = {
        "malformed": 0.1,
        "truncated": 0.1,
        "wrong_schema": 0.06,
        "refusal": 0.06,
        "empty": 0.06,
        "500": 0.05,
    }
    with Stub(rates, answer=answer) as stub:
        metrics = run(written(stub, tmp_path, **options(count=60)), tmp_path / "run")
        served = stub.served
    bad = {cause: served[fault] for fault, cause in CAUSE.items()}
    steps = metrics["steps"]["it"].values()
    tries = sum((Counter(counts.get("tries", {})) for counts in steps), Counter[str]())
    assert tries == bad
    assert min(bad.values()) > 0
    assert len(requests(tmp_path / "run")) == served["good"] + sum(bad.values())
    gone = Counter(row["step"] for row in _settled_without(tmp_path / "run"))
    funnel = metrics["funnel"]["it"]
    assert (funnel["asked"], funnel["kept"]) == (60, 60 - sum(gone[name] for name in pairs.MIXTURE))
    assert sum(lost(metrics).values()) == gone.total()


def _settled_without(out: Path) -> list[dict[str, Any]]:
    """The last try of every task that gave nothing."""
    last: dict[str, dict[str, Any]] = {}
    for row in sorted(requests(out), key=lambda row: row["index"]):
        last[row["problem_id"]] = row
    return [row for row in last.values() if row["cause"] is not None]


TEXT = " ".join(sentence(random.Random(n)) for n in range(40))
"""More than 300 words."""
GOOD = {
    "short_long": {"query": "why do tides turn late", "positive": TEXT, "negative": f"Else {TEXT}"},
    "long_short": {"text": TEXT, "label": "a complaint", "wrong_label": "an order"},
    "short_short": {"given": "a stitch in time", "match": "repair it soon"},
    "long_long": {"given": TEXT, "match": f"Also {TEXT}"},
    "sts": {"first": "a dog runs home", "second": "the dog ran home", "third": "a home for a cat"},
    "bitext": {"source": "the dog runs home", "good": "pies biegnie do domu", "poor": "kot biegnie do domu"},
}
WRONG = [
    ("short_long", {"query": " ?! "}, "empty"),
    ("short_long", {"positive": f"{TEXT} Why do tides turn late?"}, "copied"),
    ("short_long", {"negative": f"Why do tides turn late? {TEXT}"}, "copied"),
    ("short_long", {"positive": "Too few words for any length that is asked."}, "too_short"),
    ("short_long", {"negative": TEXT.upper()}, "duplicate"),
    ("long_short", {"text": f"{TEXT} It is a complaint."}, "label_in_text"),
    ("long_short", {"text": f"{TEXT} Not an order!"}, "label_in_text"),
    ("long_short", {"wrong_label": "A complaint."}, "duplicate"),
    ("long_short", {"text": "Short."}, "too_short"),
    ("short_short", {"match": "A stitch in time!"}, "duplicate"),
    ("long_long", {"match": "Only a few words."}, "too_short"),
    ("sts", {"third": "nothing shared here"}, "no_overlap"),
    ("bitext", {"source": "это не по-английски совсем"}, "wrong_language"),
]


@pytest.mark.parametrize(("name", "change", "cause"), WRONG)
def test_what_breaks_a_rule_of_its_prompt_is_tried_again(
    name: str, change: dict[str, str], cause: str, tmp_path: Path
) -> None:
    """The first reply to each example breaks the rule, the second is good."""
    seen: Counter[str] = Counter()

    def reply(body: Body, rng: random.Random) -> str | None:
        prompt = prompt_of(body)
        if "tasks" in body["response_format"]["json_schema"]["schema"]["properties"]:
            return None
        seen[prompt] += 1
        return json.dumps({**GOOD[name], **(change if seen[prompt] == 1 else {})})

    with Stub(answer=reply) as stub:
        changes = {**options(count=3, mixture={name: 1}), "curate.dedup": None}
        if cause == "too_short" and name == "long_short":
            changes["rng_seed"] = _rng_seed_that_draws("at least 200")
        out = tmp_path / "run"
        run(written(stub, tmp_path, **changes), out)
    causes = Counter(row["cause"] for row in requests(out, name))
    assert causes[cause] > 0
    assert set(causes) == {None, cause}
    assert all(row["positive"] == GOOD[name][pairs.KEYS[name][1]] for row in dataset(out))


def _rng_seed_that_draws(num_words: str) -> int:
    from synth.generators.procedural.draw import Draw

    for rng_seed in range(200):
        draws = [Draw("generate", rng_seed, "it", "example", index) for index in range(3)]
        for draw in draws:
            draw.pick([0])
        if num_words in [draw.pick(pairs.TEXT_WORDS) for draw in draws]:
            return rng_seed
    raise AssertionError(num_words)


def test_placeholders_are_the_papers_and_depend_on_rng_seed_and_index_alone(tmp_path: Path) -> None:
    drawn: list[list[dict[str, Any]]] = []
    for count in (30, 400):
        with Stub() as stub:
            changes = {
                **options(count=count),
                "parse.attempts": 1,
                "parse.min_yield": 0.0,
                "curate.dedup": None,
            }
            made = tree(stub.url, "embedding_pairs", None, tmp_path, **changes)
            run(made, tmp_path / f"run-{count}")
            asked = requests(tmp_path / f"run-{count}")
        drawn.append([row for row in asked if row["step"] in ("sts", "bitext")])
    few, many = ({row["prompt"] for row in rows} for rows in drawn)
    assert few < many
    prompts = "\n".join(many)
    for shown in ("a sentence", "a phrase", "a passage", "similarity of 4.5", "similarity of 2.5", "quality of 1.5",
                  "elementary school"):  # fmt: skip
        assert shown in prompts
    sides = [
        row["prompt"].partition(" in ")[2].partition("\n")[0] for row in drawn[1] if row["step"] == "bitext"
    ]
    assert len(sides) > 40
    assert all("English" in side for side in sides)
    assert len(set(sides)) > 20


@pytest.mark.parametrize(
    ("kind", "sets"),
    [
        ("short_long", {"query_type": pairs.QUERY_TYPES, "query_length": pairs.QUERY_LENGTHS,
                        "clarity": pairs.CLARITY, "num_words": pairs.DOCUMENT_WORDS, "difficulty": pairs.LEVELS}),
        ("long_short", {"num_words": pairs.TEXT_WORDS, "clarity": pairs.CLARITY, "difficulty": pairs.LEVELS}),
        ("sts", {"unit": pairs.UNITS, "high_score": pairs.HIGH, "low_score": pairs.LOW["sts"],
                 "difficulty": pairs.SYMMETRIC_LEVELS}),
        ("bitext", {"unit": pairs.UNITS, "high_score": pairs.HIGH, "low_score": pairs.LOW["bitext"],
                    "difficulty": pairs.SYMMETRIC_LEVELS}),
    ],
)  # fmt: skip
def test_every_placeholder_of_a_type_is_drawn_and_kept(
    kind: str, sets: dict[str, tuple[Any, ...]], tmp_path: Path
) -> None:
    with Stub(answer=answer) as stub:
        run(written(stub, tmp_path, **options(count=60, mixture={kind: 1})), tmp_path / "run")
    rows = metas(tmp_path / "run")
    assert len(rows) == 60
    for name, values in sets.items():
        assert {row[name] for row in rows} == set(values)
    if kind == "bitext":
        assert {(row["source_language"], row["target_language"]) for row in rows} == {
            ("en", "pl"),
            ("pl", "en"),
        }
    else:
        assert {row["language"] for row in rows} == {"en"}


def test_half_of_the_languages_are_english_by_default(tmp_path: Path) -> None:
    with Stub(answer=answer) as stub:
        changes = {**options(count=200, mixture={"short_short": 1}), "parse.attempts": 1}
        run(tree(stub.url, "embedding_pairs", None, tmp_path, **changes), tmp_path / "run")
    asked = requests(tmp_path / "run", "short_short")
    spoken = Counter(row["prompt"].rpartition("Everything is in ")[2].partition(".")[0] for row in asked)
    assert 0.33 < spoken["English"] / 200 < 0.53
    assert len(spoken) > 25
    assert set(spoken) <= set(CODES)


def test_a_type_without_tasks_loses_its_examples_by_name(tmp_path: Path) -> None:
    def reply(body: Body, rng: random.Random) -> str | None:
        return json.dumps({"tasks": ["no"]}) if "List 20" in prompt_of(body) else answer(body, rng)

    with Stub(answer=reply) as stub:
        changes = options(count=20, mixture={"short_short": 1, "sts": 1})
        metrics = run(written(stub, tmp_path, **changes), tmp_path / "run")
    gone = lost(metrics)["lost_short_short:no_task"]
    assert lost(metrics) == {"lost_short_short:no_task": gone, "tasks_short_short:too_short": 1}
    funnel = metrics["funnel"]["it"]
    assert (funnel["asked"], funnel["kept"]) == (20, 20 - gone)
    assert 0 < gone < 20


def test_a_stopped_run_becomes_the_undisturbed_one(tmp_path: Path) -> None:
    def make(stub: Stub) -> dict[str, Any]:
        return written(stub, tmp_path, **options(count=40))

    check_that_stopped_runs_go_on(make, answer, tmp_path, (0.05, 0.4, 0.9))


WRONG_OPTIONS = [
    (options(mixture={"short_longer": 1}), "domains.it.generator.options.mixture"),
    (options(mixture={"sts": 0}), "domains.it.generator.options.mixture"),
    (options(languages=["Klingon"]), "domains.it.generator.options.languages"),
    (options(english=1.2), "domains.it.generator.options.english"),
    ({"model": "none"}, "model"),
]


@pytest.mark.parametrize(("changes", "where"), WRONG_OPTIONS)
def test_wrong_options_are_refused_by_name(changes: dict[str, Any], where: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load_any(tree("http://127.0.0.1:1/v1", "embedding_pairs", None, tmp_path, **changes))
    assert where in [problem.where.rpartition(", ")[2] for problem in caught.value.problems]


def test_pairs_are_exported_in_the_embedding_layout(tmp_path: Path) -> None:
    with Stub(answer=answer) as stub:
        run(written(stub, tmp_path, **options(count=12)), tmp_path / "run")
    told = ["--format", "jsonl", "--layout", "embedding", "--out", str(tmp_path / "x")]
    assert main(["export", str(tmp_path / "run"), *told]) == 0
    exported = list(read_jsonl(tmp_path / "x/train.jsonl"))
    assert len(exported) == 12
    assert "A model wrote them" in (tmp_path / "x/README.md").read_text()
    assert {"query", "positive", "negatives", "instruction", "sample_id", "source"} <= set(exported[0])


# ---- Mined -------------------------------------------------------------------------------------------------------


def mined(kind: str, rows: list[dict[str, Any]] | None, folder: Path, **changes: Any) -> dict[str, Any]:
    """A recipe that names neither model nor engine."""
    made = tree("", "mined_pairs", rows, folder, **{**options(kind=kind), **changes})
    del made["model"], made["engine"]
    return made


SOURCE = '''
def plain(a):
    """Say what a is, at length."""
    return a

class Thing:
    @property
    def decorated(self):
        r"""First paragraph
        of two lines.
  \x20
        Second paragraph.
        """
        # a comment stays
        text = """
    kept as it is
"""
        return text

    async def later(self):
        \'\'\'Do it later, but do.\'\'\'  # remark
        def inner():
            """Whatever is inside here."""
            return 1
        return inner

def only_said():
    """There is nothing to do here."""

def beside(): """Said beside the code."""; return 2

def before():
    """Said before the code here."""; x = 3
    return x
\x0c
def again(a):
    """Say what a is, at length!"""
    return a

def silent(a):
    return a
'''


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_functions_are_paired_with_the_first_paragraph_of_their_docstrings(
    newline: str, tmp_path: Path
) -> None:
    (tmp_path / "a.py").write_bytes(SOURCE.replace("\n", newline).encode())
    (tmp_path / "b.py").write_text("def broken(:\n")
    made = mined("docstring_function", None, tmp_path, **{"domains.it.train": str(tmp_path / "*.py")})
    metrics = run(made, tmp_path / "run")
    found = {row["query"]: row["positive"] for row in dataset(tmp_path / "run")}
    assert found == {
        "Say what a is, at length.": "def plain(a):\n    return a",
        "First paragraph of two lines.": "@property\ndef decorated(self):\n    # a comment stays\n"
        '    text = """\n    kept as it is\n"""\n    return text',
        "Do it later, but do.": "async def later(self):\n    def inner():\n"
        '        """Whatever is inside here."""\n        return 1\n    return inner',
        "Whatever is inside here.": "def inner():\n    return 1",
    }
    assert lost(metrics) == {"mined:duplicate": 1, "mined:unreadable": 1}
    assert metrics["tokens"] == {"sampled": 0}


def test_functions_are_paired_with_the_words_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        SOURCE
        + """
class Thing:
    def __len__(self):
        return 3

    def _parse_HTTPHeader2x(self, name):
        return self._parse_HTTPHeader2x(name.parse)
"""
    )
    train = {"domains.it.train": str(tmp_path / "*.py")}
    run(mined("name_function", None, tmp_path, **train, **options(min_words=1)), tmp_path / "run")
    rows = dataset(tmp_path / "run")
    found = {row["query"]: row["positive"] for row in rows}
    assert found == {
        "plain": "def f(a):\n    return a",
        "decorated": "@property\ndef f(self):\n    # a comment stays\n"
        '    text = """\n    kept as it is\n"""\n    return text',
        "later": "async def f(self):\n    def inner():\n"
        '        """Whatever is inside here."""\n        return 1\n    return inner',
        "inner": "def f():\n    return 1",
        "again": "def f(a):\n    return a",
        "silent": "def f(a):\n    return a",
        "parse http header2x": "def f(self, name):\n    return self.f(name.parse)",
    }
    assert {row["instruction"] for row in rows} == {mined_pairs.INSTRUCTIONS["name_function"]}


def test_2000_pairs_of_docstring_and_function_from_the_standard_library(tmp_path: Path) -> None:
    """Each is a function of its file, its docstring gone and nothing else, and stands nowhere in its own query."""
    train = {"domains.it.train": str(Path(sysconfig.get_paths()["stdlib"]) / "*.py")}
    made = mined("docstring_function", None, tmp_path, **options(count=2000), **train)
    metrics = run(made, tmp_path / "run")
    assert metrics["funnel"]["it"]["kept"] == 2000
    assert metrics["funnel"]["it"]["parsed"] == 2000
    rows = dataset(tmp_path / "run")
    known: dict[str, set[tuple[str, str]]] = {}
    for row in rows:
        meta = json.loads(row["meta"])
        path = meta["path"]
        if path not in known:
            known[path] = set(_functions(Path(path).read_text("utf-8")))
        assert (row["query"], ast.dump(ast.parse(row["positive"]).body[0])) in known[path]
    assert len({row["query"] for row in rows}) == len({row["sample_id"] for row in rows}) == 2000
    assert len(known) > 50


def _functions(source: str) -> list[tuple[str, str]]:
    """(first paragraph of the docstring, the function's syntax tree without it) of every function."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and ast.get_docstring(node):
            said = (ast.get_docstring(node) or "").strip().split("\n\n")[0]
            bare = copy.copy(node)
            bare.body = node.body[1:]
            found.append((" ".join(said.split()), ast.dump(bare)))
    return found


NESTED = """
class A:
    def one(self): pass
try:
    def two(): pass
except* ValueError:
    def three(): pass
else:
    async def four():
        async with a as b:
            def five(): pass
        async for c in d:
            def six(): pass
        else:
            def seven(): pass
finally:
    def eight(): pass
match a:
    case 1:
        def nine(): pass
    case _:
        while b:
            def ten(): pass
        else:
            def eleven(): pass
if c:
    def twelve(): pass
elif d:
    with e:
        def thirteen(): pass
"""


def test_functions_are_found_wherever_a_statement_may_stand_in_the_order_of_the_syntax_tree() -> None:
    nodes = ast.walk(ast.parse(NESTED))
    expected = [node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    assert len(expected) == 13
    found = mined_pairs._definitions(Item("a", {"text": NESTED}))
    assert [node.name for _, node in found] == expected


@pytest.mark.parametrize("beside", ["", "        '''zero'''\n", "        0 + \\\n        0\n"])
def test_strings_side_by_side_are_shifted_as_code(tmp_path: Path, beside: str) -> None:
    (tmp_path / "a.py").write_text(
        "class A:\n"
        "    def told(self):\n"
        '        """Say what there is to say."""\n'
        f"{beside}        return (\n"
        "            'one'\n"
        "            'two'\n"
        "        )\n"
    )
    run(
        mined("docstring_function", None, tmp_path, **{"domains.it.train": str(tmp_path / "*.py")}),
        tmp_path / "run",
    )
    (row,) = dataset(tmp_path / "run")
    shifted = textwrap.indent(textwrap.dedent(beside), "    ")
    assert row["positive"] == f"def told(self):\n{shifted}    return (\n        'one'\n        'two'\n    )"


def test_gsm8k_questions_are_paired_with_their_solutions(
    shared_data: Callable[[str], Path], tmp_path: Path
) -> None:
    source = shared_data("gsm8k/train.jsonl")
    made = mined("question_answer", None, tmp_path, **{"domains.it.train": str(source)})
    metrics = run(made, tmp_path / "run")
    given = {row["question"].strip(): row["answer"].strip() for row in read_jsonl(source)}
    rows = {row["query"]: row["positive"] for row in dataset(tmp_path / "run")}
    told = metrics["funnel"]["it"]
    assert told["asked"] == 7473
    assert told["kept"] == len(rows) == 7473 - sum(lost(metrics).values())
    assert len(rows) > 7400
    assert all(given[question] == solution for question, solution in rows.items())


def test_sections_are_paired_with_the_headings_that_lead_to_them(tmp_path: Path) -> None:
    text = (
        "Before any heading nothing counts.\n# Boats #\n\nBoats float on water.\n\n## Sails and masts\nA sail catches "
        "the wind.\n```sh\n# no heading at all\n```\n~~~\n## nor is this\n~~~\n### Knots to know\n#\nOnly two.\n"
        "## Oars and rowing\nOars push the water back.\n#hashtag is no heading\n"
    )
    made = mined("heading_section", [{"text": text, "page": 7}], tmp_path)
    metrics = run(made, tmp_path / "run")
    rows = {row["query"]: row["positive"] for row in dataset(tmp_path / "run")}
    assert rows == {
        "Boats: Sails and masts": "A sail catches the wind.\n```sh\n# no heading at all\n```\n~~~\n## nor is this\n~~~",
        "Boats: Oars and rowing": "Oars push the water back.\n#hashtag is no heading",
    }
    assert lost(metrics) == {"mined:too_short": 2}  # "Boats" says too little, "Only two." as well
    assert {json.loads(row["meta"])["page"] for row in dataset(tmp_path / "run")} == {7}


def test_titles_are_paired_with_bodies_and_rows_without_are_told(tmp_path: Path) -> None:
    body = "The bridge was closed for a week because of the wind."
    rows = [
        {"title": "Bridge closed by wind", "body": body},
        {"title": "bridge closed, by wind!", "body": "Another story of the same title, told again."},
        {"title": "No body here at all"},
        {"title": "The same on both sides", "body": "the same on both sides"},
        {"title": "A body beyond any measure", "body": "word " * 30},
    ]
    made = mined("title_body", rows, tmp_path, **options(max_words=20, instruction="Find the report."))
    metrics = run(made, tmp_path / "run")
    kept = [
        (row["query"], row["positive"], row["instruction"], row["negatives"])
        for row in dataset(tmp_path / "run")
    ]
    assert kept == [("Bridge closed by wind", body, "Find the report.", [])]
    assert lost(metrics) == {
        f"mined:{cause}": 1 for cause in ("copied", "duplicate", "no_column", "too_long")
    }


def test_the_verbs_take_a_recipe_that_asks_no_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"question": f"What is the sum of {i} and 1?", "answer": f"It must be {i + 1}."} for i in range(9)
    ]
    file = tmp_path / "r.yaml"
    file.write_text(to_yaml(mined("question_answer", rows, tmp_path, **options(count=5))))
    assert main(["validate", str(file)]) == 0
    assert main(["preview", str(file), "-n", "2"]) == 0
    told = capsys.readouterr().out
    assert "=== it: 00-mined: 2 of 2 kept" in told
    assert "=== it: row 1" in told
    assert main(["run", str(file), "--out", str(tmp_path / "run")]) == 0
    assert len(dataset(tmp_path / "run")) == 5
    assert main(["inspect", str(tmp_path / "run"), dataset(tmp_path / "run")[0]["sample_id"]]) == 0
    assert "step mined: kept" in capsys.readouterr().out
    assert main(["status", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "done"
    told = ["--format", "jsonl", "--layout", "embedding", "--out", str(tmp_path / "x")]
    assert main(["export", str(tmp_path / "run"), *told]) == 0
    assert len(list(read_jsonl(tmp_path / "x/train.jsonl"))) == 5
    assert "no model wrote them" in (tmp_path / "x/README.md").read_text()
