"""Queries written for documents: what is asked, what is checked, what is dropped and why; functions without names."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from generation_samples import Stub, dataset, lost, options, requests, run, tree
from obedient_model import answer, document, passage_in, sentences
from stub_server import Body, prompt_of

from recipes.settings import RecipeError, load_any
from synth.generators import mined_pairs
from synth.generators.document_queries import INSTRUCTION, KINDS
from synth.generators.novelty import words
from synth.records.errors import WorkError

DOCUMENTS = [
    {"text": document(number), "title": f"Annals {number}", "url": f"page {number}"} for number in range(4)
]
CAUSE = {
    "malformed": "not_json", "truncated": "length", "wrong_schema": "wrong_schema", "refusal": "refused",
    "empty": "empty",
}  # fmt: skip


def queries(stub: Stub, folder: Path, **changes: Any) -> dict[str, Any]:
    return tree(stub.url, "document_queries", DOCUMENTS, folder, **{**options(passage_words=90), **changes})


def keys(body: Body) -> tuple[str, ...]:
    return tuple(body["response_format"]["json_schema"]["schema"]["properties"])


def changed(step: tuple[str, ...], change: Any) -> Any:
    """The obedient model, but `change(reply, passage)` spoils what it says in one step."""

    def reply(body: Body, rng: random.Random) -> str | None:
        text = answer(body, rng)
        if keys(body) != step:
            return text
        return json.dumps(change(json.loads(text or ""), passage_in(prompt_of(body))))

    return reply


def test_passages_get_queries_of_several_kinds_that_were_checked(tmp_path: Path) -> None:
    with Stub(answer=answer) as stub:
        metrics = run(queries(stub, tmp_path), tmp_path / "run")
        assert stub.served == {"good": len(requests(tmp_path / "run"))}
    steps = {name[3:]: counts for name, counts in metrics["steps"]["it"].items()}
    assert list(steps) == ["passages", "queries", "new", "answers", "rows"]
    assert (steps["passages"]["kept"], steps["queries"]["asked"], steps["new"]["seen"]) == (8, 24, 24)
    rows = dataset(tmp_path / "run")
    assert len(rows) == steps["rows"]["kept"] == metrics["funnel"]["it"]["kept"] > 15
    passages = {row["positive"] for row in rows}
    assert len(passages) == 8
    kinds: dict[str, list[str]] = {}
    for row in rows:
        meta = json.loads(row["meta"])
        assert any(row["positive"] in each["text"] for each in DOCUMENTS)
        assert (row["negatives"], row["instruction"], row["source"]) == ([], INSTRUCTION, "document_queries")
        assert meta["quote"] in row["positive"]
        assert {"document_id", "passage_id", "kind", "title", "url"} <= set(meta)
        kinds.setdefault(meta["passage_id"], []).append(meta["kind"])
    assert all(len(set(each)) == len(each) and set(each) <= set(KINDS) for each in kinds.values())
    assert len({kind for each in kinds.values() for kind in each}) > 3


def test_the_options_say_how_much_and_of_what(tmp_path: Path) -> None:
    small = options(count=1, queries=2, check=False, instruction="Find it.", passage_words=40, min_words=20)
    with Stub(answer=answer) as stub:
        metrics = run(queries(stub, tmp_path, **small), tmp_path / "run")
    assert [name[3:] for name in metrics["steps"]["it"]] == ["passages", "queries", "new", "rows"]
    rows = dataset(tmp_path / "run")
    assert {row["instruction"] for row in rows} == {"Find it."}
    assert {json.loads(row["meta"])["url"] for row in rows} == {"page 0"}
    assert all(20 <= len(words(row["positive"])) <= 40 for row in rows)
    assert max(Counter(row["positive"] for row in rows).values()) == 2


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (lambda passage: "According to the passage, what is it?", "queries:refers_to_text"),
        (lambda passage: "why", "queries:too_short"),
        (lambda passage: " ".join(words(passage)[3:9]), "queries:copied"),
    ],
)
def test_a_query_that_gives_itself_away_is_left_out(spoil: Any, cause: str, tmp_path: Path) -> None:
    def change(reply: dict[str, Any], passage: str) -> dict[str, Any]:
        return {"queries": [spoil(passage), *reply["queries"][1:]]}

    with Stub(answer=changed(("queries",), change)) as stub:
        metrics = run(queries(stub, tmp_path), tmp_path / "run")
    assert lost(metrics)[cause] == 8


def test_the_same_query_counts_once(tmp_path: Path) -> None:
    same = changed(("queries",), lambda reply, passage: {"queries": ["tides at Dover", "Tides at dover?"]})
    with Stub(answer=same) as stub:
        metrics = run(queries(stub, tmp_path), tmp_path / "run")
    assert lost(metrics) == {"new:duplicate": 15}
    assert metrics["funnel"]["it"]["kept"] == 1


def test_what_the_passage_does_not_answer_is_dropped(tmp_path: Path) -> None:
    with Stub(
        answer=changed(("quote", "answers"), lambda reply, passage: {"quote": "", "answers": False})
    ) as stub:
        made = queries(stub, tmp_path)
        with pytest.raises(WorkError, match="nothing was kept"):
            run(made, tmp_path / "none")
    invented = changed(
        ("quote", "answers"), lambda reply, passage: {"quote": "made up words", "answers": True}
    )
    with Stub(answer=invented) as stub, pytest.raises(WorkError, match="nothing was kept"):
        run(queries(stub, tmp_path), tmp_path / "invented")
    assert {row["cause"] for row in requests(tmp_path / "invented", "answers")} == {"not_quoted"}


def test_a_check_that_fails_for_some_drops_these_alone(tmp_path: Path) -> None:
    def change(reply: dict[str, Any], passage: str) -> dict[str, Any]:
        return reply if sentences(passage)[0] in DOCUMENTS[0]["text"] else {"quote": "", "answers": False}

    with Stub(answer=changed(("quote", "answers"), change)) as stub:
        metrics = run(queries(stub, tmp_path), tmp_path / "run")
    assert {json.loads(row["meta"])["url"] for row in dataset(tmp_path / "run")} == {"page 0"}
    assert set(lost(metrics)) <= {"rows:unanswered", "new:duplicate"}
    assert lost(metrics)["rows:unanswered"] > 10


def test_yield_and_retries_are_what_the_server_did(tmp_path: Path) -> None:
    rates = {"malformed": 0.1, "truncated": 0.1, "wrong_schema": 0.1, "refusal": 0.08, "empty": 0.08}
    with Stub(rates, answer=answer) as stub:
        metrics = run(queries(stub, tmp_path), tmp_path / "run")
        served = stub.served
    steps = metrics["steps"]["it"].values()
    tries = sum((Counter(counts.get("tries", {})) for counts in steps), Counter[str]())
    assert tries == {cause: served[fault] for fault, cause in CAUSE.items() if served[fault]}
    assert len(tries) > 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (options(queries=7), r"options\.queries: seen 7\n  use at most 6"),
        (options(passage_words=10), r"options\.passage_words: seen 10\n  use at least 30"),
        (options(chek=True), r"options\.chek: unknown key"),
    ],
)
def test_wrong_options_are_refused(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    with Stub() as stub, pytest.raises(RecipeError, match=said):
        load_any(queries(stub, tmp_path, **change))


# ---- Functions without their names -------------------------------------------------------------------------------

RECURSIVE = '''
class Tree:
    def depth(self, node):
        """Count the levels below a node."""
        return 1 + max(self.depth(child) for child in node.depths)
'''


def mined(folder: Path, **changes: Any) -> list[dict[str, Any]]:
    rows = [{"text": RECURSIVE}]
    made = tree("", "mined_pairs", rows, folder, **options(kind="docstring_function", **changes))
    del made["model"], made["engine"]
    out = folder / f"run{len(list(folder.glob('run*')))}"
    run(made, out)
    return dataset(out)


def test_hide_names_leaves_no_name_of_the_function(tmp_path: Path) -> None:
    (plain,), (hidden,) = mined(tmp_path), mined(tmp_path, hide_names=True)
    assert plain["positive"].startswith("def depth(self, node):")
    assert (
        hidden["positive"] == "def f(self, node):\n    return 1 + max(self.f(child) for child in node.depths)"
    )
    assert (hidden["query"], json.loads(hidden["meta"])["function"]) == (plain["query"], "depth")


def test_hide_names_hides_what_the_function_says_of_itself_alone() -> None:
    """An attribute of another object that is called the same belongs to what the function does."""
    written = (
        "@release.setter\n"
        "async def release(self, ü):\n"
        "    x = (release(ü), super().release(), self.release, cls.release)\n"
        "    self.log('ü release', x.release, uname().release, release=1)\n"
        "    def released(): return release"
    )
    hidden = (
        "@f.setter\n"
        "async def f(self, ü):\n"
        "    x = (f(ü), super().f(), self.f, cls.f)\n"
        "    self.log('ü release', x.release, uname().release, release=1)\n"
        "    def released(): return f"
    )
    assert mined_pairs.nameless(written, "release") == hidden


@pytest.mark.parametrize(
    ("written", "name", "hidden"),
    [
        ("def only(a):\n    return a", "only", "def f(a):\n    return a"),
        ("async def only(only_a):\n    return only_a", "only", "async def f(only_a):\n    return only_a"),
        ("def  only (a):\n    return a", "only", "def  f (a):\n    return a"),
    ],
)
def test_hide_names_wherever_the_name_stands_once(written: str, name: str, hidden: str) -> None:
    assert mined_pairs.nameless(written, name) == hidden


def test_an_empty_instruction_is_none(tmp_path: Path) -> None:
    (plain,), (bare,) = mined(tmp_path), mined(tmp_path, instruction="")
    assert plain["instruction"]
    assert bare["instruction"] == ""


def test_only_functions_have_names_to_hide(tmp_path: Path) -> None:
    made = tree("", "mined_pairs", [{"question": "a", "answer": "b"}], tmp_path, **options(hide_names=True))
    with pytest.raises(RecipeError, match=r"hide_names: seen true with kind question_answer"):
        load_any(made)
