"""Knowledge from documents and textbooks with exercises: what is written, what is checked, what is dropped and why."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from generation_samples import (
    CAUSE,
    Stub,
    check_that_stopped_runs_go_on,
    dataset,
    options,
    requests,
    run,
    tree,
)
from hypothesis import given
from hypothesis import strategies as st
from obedient_model import answer, document, passage_in, sentences
from stub_server import Body, prompt_of

from recipes.settings import RecipeError, load_any
from synth.generators import textbooks
from synth.generators.knowledge import VARIANTS
from synth.generators.novelty import words
from synth.generators.passages import cut
from synth.records.errors import WorkError

DOCUMENTS = [
    {"text": document(number), "title": f"Annals {number}", "url": f"page {number}"} for number in range(4)
]
FACTS = {"facts": 3, "paraphrases": 4, "passage_words": 90}


def knowledge(stub: Stub, folder: Path, **changes: Any) -> dict[str, Any]:
    changes = {"curate.cap_per_problem": None, **options(**FACTS), **changes}
    return tree(stub.url, "knowledge", DOCUMENTS, folder, **changes)


def books(stub: Stub, folder: Path, **changes: Any) -> dict[str, Any]:
    small = options(count=12, lengths=[60, 90], units_per_prompt=4, sections_per_unit=2)
    return tree(stub.url, "textbooks", None, folder, **{**small, **changes})


def lost(metrics: dict[str, Any]) -> dict[str, int]:
    return {reason: entry["count"] for reason, entry in metrics["funnel"]["reasons"]["it"].items()}


def keys(body: Body) -> tuple[str, ...]:
    """What the reply must hold: tells the steps apart."""
    return tuple(body["response_format"]["json_schema"]["schema"]["properties"])


def changed(step: tuple[str, ...], change: Any, share: float = 1.0) -> Any:
    """The obedient model, but `change(reply, prompt)` spoils what it says in one step (of a share of the seeds)."""

    def reply(body: Body, rng: random.Random) -> str | None:
        text = answer(body, rng)
        if keys(body) != step or random.Random(body["seed"]).random() >= share:
            return text
        value = json.loads(text or "")
        return json.dumps(change(value, prompt_of(body)) or value)

    return reply


# ---- Knowledge ---------------------------------------------------------------------------------------------------


def test_documents_become_questions_and_ten_paraphrases_of_each_fact(tmp_path: Path) -> None:
    with Stub(answer=answer) as stub:
        metrics = run(knowledge(stub, tmp_path, **options(paraphrases=10)), tmp_path / "run")
        assert stub.served == {"good": len(requests(tmp_path / "run"))}
    steps = {
        name[3:]: (c.get("asked"), c.get("parsed"), c.get("kept")) for name, c in _steps(metrics).items()
    }
    assert steps == {
        "passages": (None, None, 8),  # three paragraphs of 42 words: two together, one alone
        "facts": (24, 24, None),
        "new": (None, None, 24),
        "question": (24, 24, None),
        "support": (24, 24, None),
        "supported": (None, None, 24),
        "paraphrases": (240, 240, None),
        "faithful": (24, 24, None),
        "rows": (None, None, 288),
    }
    assert metrics["funnel"]["it"]["kept"] == 24 * 12
    rows = [(row, json.loads(row["meta"])) for row in dataset(tmp_path / "run")]
    assert Counter(meta["variant"] for _, meta in rows) == dict(zip(VARIANTS, (24, 24, 240), strict=True))
    texts = {row["url"]: row["text"] for row in DOCUMENTS}
    for row, meta in rows:
        assert meta["quote"] in texts[meta["url"]]
        assert row["source"] == "knowledge"
        if meta["variant"] == "paraphrase":
            assert (row["prompt"], row["completion"] != meta["fact"]) == (meta["question"], True)
            assert row["completion"].endswith(meta["fact"])
        elif meta["variant"] == "closed_book":
            assert (row["prompt"], row["completion"]) == (meta["question"], meta["answer"])
            assert meta["quote"] not in row["prompt"]
        else:
            assert row["prompt"].endswith(f"Question: {meta['question']}")
            assert meta["quote"] in row["prompt"]
            assert row["completion"] == meta["answer"]


def _steps(metrics: dict[str, Any]) -> dict[str, Any]:
    return metrics["steps"]["it"]


@pytest.mark.parametrize("generator", ["knowledge", "textbooks"])
def test_yield_and_retries_are_what_the_server_did(generator: str, tmp_path: Path) -> None:
    rates = {
        "malformed": 0.1,
        "truncated": 0.08,
        "wrong_schema": 0.06,
        "refusal": 0.06,
        "empty": 0.06,
        "429": 0.05,
    }
    with Stub(rates, answer=answer) as stub:
        made = knowledge(stub, tmp_path) if generator == "knowledge" else books(stub, tmp_path)
        metrics = run(made, tmp_path / "run")
        served = stub.served
    bad = {cause: served[fault] for fault, cause in CAUSE.items()}
    tries = sum((Counter(counts.get("tries", {})) for counts in _steps(metrics).values()), Counter[str]())
    assert tries == bad
    assert min(bad.values()) > 0
    assert len(requests(tmp_path / "run")) == served["good"] + sum(bad.values())
    told = lost(metrics)
    for step in [name[3:] for name, counts in _steps(metrics).items() if "asked" in counts]:
        gone = sum(count for reason, count in told.items() if reason.startswith(f"{step}:"))
        tasks = len({row["problem_id"] for row in requests(tmp_path / "run", step)})
        read = len({row["problem_id"] for row in requests(tmp_path / "run", step) if row["cause"] is None})
        assert gone == tasks - read


FACT = ("facts",)
SPOILED = [
    (FACT, lambda r, p: r["facts"][0].update(quote="In 1066 it was otherwise."), "facts:not_quoted", 3),
    (FACT, lambda r, p: r["facts"][0].update(quote="In"), "facts:not_quoted", 3),
    (FACT, lambda r, p: r["facts"][0].update(fact="The passage says that In 1066 it was."), "facts:refers_to_text", 3),
    (FACT, lambda r, p: r["facts"][0].update(fact="It was in 20666 then."), "facts:not_in_passage", 3),
    (FACT, lambda r, p: r["facts"][0].update(fact="So."), "facts:too_short", 3),
    (FACT, lambda r, p: r["facts"].__setitem__(1, r["facts"][0]), "new:duplicate", 3),
    (("question", "answer"), lambda r, p: r.update(question="When, says the text, was it?"),
     "question:refers_to_text", 9),
    (("question", "answer"), lambda r, p: r.update(question=f"Was it in {r['answer']} or when?"),
     "question:gives_away", 9),
    (("question", "answer"), lambda r, p: r.update(answer="in 99999"), "question:not_in_passage", 9),
    (("question", "answer"), lambda r, p: r.update(answer="Napoleon"), "question:not_in_passage", 9),
    (("question", "answer"), lambda r, p: r.update(answer="?"), "question:empty", 9),
    (("quote", "supported"), lambda r, p: r.update(supported=False), "supported:unsupported", 9),
    (("quote", "supported"), lambda r, p: r.update(quote="It is well known."), "support:not_quoted", 9),
    (("quote", "supported"), lambda r, p: r.update(quote=_other_sentence(r["quote"], p)), "support:not_quoted", 9),
    (("paraphrases",), lambda r, p: r["paraphrases"].__setitem__(0, r["paraphrases"][1]),
     "paraphrases:duplicate", 9),
    (("paraphrases",), lambda r, p: r["paraphrases"].__setitem__(0, _fact_of(p).upper()), "paraphrases:duplicate", 9),
    (("paraphrases",), lambda r, p: r["paraphrases"].__setitem__(0, "It was in 1066 then."),
     "paraphrases:number_changed", 9),
    (("paraphrases",), lambda r, p: r["paraphrases"].__setitem__(0, "Yes."), "paraphrases:too_short", 9),
    (("verdicts",), lambda r, p: r["verdicts"].__setitem__(0, "absent"), "rows:unsupported", 36),
    (("verdicts",), lambda r, p: r["verdicts"].__setitem__(2, "contradicted"), "rows:unfaithful", 9),
    (("verdicts",), lambda r, p: r["verdicts"].pop() and None, "faithful:wrong_count", 9),
]  # fmt: skip


def _other_sentence(quote: str, prompt: str) -> str:
    return next(each for each in sentences(passage_in(prompt)) if each != quote)


def _fact_of(prompt: str) -> str:
    return prompt.partition("Fact: ")[2].partition("\n")[0]


@pytest.mark.parametrize(("step", "change", "reason", "count"), SPOILED)
def test_what_its_passage_does_not_support_is_dropped_by_name(
    step: tuple[str, ...], change: Any, reason: str, count: int, tmp_path: Path
) -> None:
    """One passage a document, three facts a passage: a thing that is wrong in every reply is lost so often."""
    with Stub(answer=changed(step, change)) as stub:
        few = {**options(facts=3, paraphrases=4), "domains.it.train": None, "parse.min_yield": 0.0}
        made = knowledge(stub, tmp_path, **few)
        made["domains"]["it"]["train"] = _three(tmp_path)
        whole = reason.startswith(("question:", "support:", "supported:"))
        if whole:
            with pytest.raises(WorkError, match="nothing was kept"):
                run(made, tmp_path / "run")
            counted = _counted(tmp_path / "run")
        else:
            counted = lost(run(made, tmp_path / "run"))
            assert dataset(tmp_path / "run")
    assert counted[reason] == count
    follow = {"faithful:wrong_count": {"rows:not_checked": 36}}.get(reason, {})
    if reason.startswith("support:"):
        follow = {"supported:not_checked": 9}
    assert counted == {reason: count, **follow}


def _three(folder: Path) -> str:
    rows = [{"text": document(number, paragraphs=1)} for number in range(3)]
    path = folder / "three.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def _counted(out: Path) -> dict[str, int]:
    """Reasons of the steps' manifests: a run that keeps nothing has no metrics."""
    found: Counter[str] = Counter()
    for place in sorted((out / "round-00/steps/it").iterdir()):
        reasons = json.loads((place / "manifest.json").read_text())["counts"]["reasons"]
        found.update({f"{place.name[3:]}:{cause}": entry["count"] for cause, entry in reasons.items()})
    return dict(found)


def test_no_row_is_made_of_an_answer_that_is_not_supported(tmp_path: Path) -> None:
    """Every second check says no: of those pairs nothing is left, of the others everything."""
    refused = changed(("quote", "supported"), lambda r, p: r.update(supported=False), share=0.5)
    with Stub(answer=refused) as stub:
        metrics = run(knowledge(stub, tmp_path), tmp_path / "run")
    checks = requests(tmp_path / "run", "support")
    said_no = {row["parents"][0] for row in checks if '"supported": false' in row["completion"]}
    assert 3 < len(said_no) < 21
    assert lost(metrics) == {"supported:unsupported": len(said_no)}
    assert metrics["funnel"]["it"]["kept"] == (24 - len(said_no)) * (2 + 4)
    questions = {
        json.loads(row["items"])[0]["question"]: row for row in requests(tmp_path / "run", "question")
    }
    for row in dataset(tmp_path / "run"):
        assert questions[json.loads(row["meta"])["question"]]["sample_id"] not in said_no


def test_only_the_variants_asked_for_are_made(tmp_path: Path) -> None:
    with Stub(answer=answer) as stub:
        made = knowledge(stub, tmp_path, **options(variants=["with_context"], count=2))
        metrics = run(made, tmp_path / "run")
    assert {json.loads(row["meta"])["variant"] for row in dataset(tmp_path / "run")} == {"with_context"}
    assert len(dataset(tmp_path / "run")) == 12  # two documents, two passages, three facts
    assert "paraphrases" not in {name[3:] for name in _steps(metrics)}


SENTENCE = st.builds(
    lambda size, end: "word " * (size - 1) + "word" + end, st.integers(1, 9), st.sampled_from(".!?")
)
TEXT = st.lists(st.lists(SENTENCE, min_size=1, max_size=6).map(" ".join), max_size=6).map("\n\n".join)


@given(TEXT, st.integers(1, 40))
def test_cutting_loses_no_word_and_only_a_sentence_is_ever_too_long(text: str, most: int) -> None:
    pieces = list(cut(text, most))
    assert words(" ".join(pieces)) == words(text)
    assert all(each == each.strip() != "" for each in pieces)
    for each in pieces:
        assert len(words(each)) <= most or len(re.findall("[.!?]", each)) == 1


def test_passages_end_where_paragraphs_or_sentences_end() -> None:
    text = "\n\n".join(document(number, paragraphs=1) for number in range(6))
    for most in (30, 50, 100, 400):
        pieces = list(cut(text, most))
        assert words(" ".join(pieces)) == words(text)
        assert all(len(words(each)) <= most for each in pieces)
        assert all(each.endswith(".") for each in pieces)
    assert list(cut(text, 400)) == [text]
    assert list(cut("One two three four five six.", 3)) == ["One two three four five six."]
    assert list(cut("一二三四。五六七八。", 5)) == ["一二三四。", "五六七八。"]
    assert list(cut("一二三四。五六七八。\n\nend", 8)) == ["一二三四。五六七八。", "end"]
    assert list(cut(" \n\n ", 5)) == []


def test_short_passages_are_left_out_by_name(tmp_path: Path) -> None:
    with Stub(answer=answer) as stub:
        metrics = run(knowledge(stub, tmp_path, **options(min_words=43)), tmp_path / "run")
    # Paragraphs of 42 words: two together, one alone.
    assert lost(metrics) == {"passages:too_short": 4}
    assert metrics["funnel"]["it"]["kept"] == 4 * 3 * (2 + 4)


# ---- Textbooks ---------------------------------------------------------------------------------------------------


def test_sections_are_drawn_by_topic_audience_and_style_and_have_exercises(tmp_path: Path) -> None:
    with Stub(answer=answer) as stub:
        metrics = run(books(stub, tmp_path), tmp_path / "run")
        assert stub.served == {"good": len(requests(tmp_path / "run"))}
    assert {
        name: (c.get("asked"), c.get("parsed"), c.get("kept")) for name, c in _steps(metrics).items()
    } == {
        "00-units": (8, 8, None),  # two sessions of four units for twelve sections, two a unit
        "01-different": (None, None, 8),
        "02-section": (12, 12, None),
        "03-exercises": (24, 24, None),
        "04-review": (24, 24, None),
        "05-sound": (None, None, 24),
    }
    assert metrics["funnel"]["it"]["kept"] == 36
    units = {
        text for row in requests(tmp_path / "run", "units") for text in json.loads(row["completion"])["units"]
    }
    rows = [(row, json.loads(row["meta"])) for row in dataset(tmp_path / "run")]
    sections = [(row, meta) for row, meta in rows if meta["kind"] == "section"]
    for row, meta in sections:
        assert row["completion"].startswith("# ")
        assert meta["unit"] in units
        for name in ("unit", "topic", "audience", "style"):
            assert meta[name] in row["prompt"]
        assert len(words(row["completion"])) >= meta["num_words"]
        assert f"about {meta['num_words']} words" in row["prompt"]
    for row, meta in rows:
        assert (meta["topic"] in textbooks.TOPICS, meta["audience"] in textbooks.AUDIENCES) == (True, True)
        assert (row["source"], meta["language"]) == ("textbooks", "English")
    assert len({meta["style"] for _, meta in sections}) > 3
    assert len(sections) == 12


def test_what_is_drawn_depends_on_rng_seed_and_index_alone(tmp_path: Path) -> None:
    drawn = []
    for count, rng_seed in ((6, 1), (12, 1), (12, 2)):
        out = tmp_path / f"run-{count}-{rng_seed}"
        with Stub(answer=answer) as stub:
            changes = {**options(count=count, exercises=0, sections_per_unit=3), "rng_seed": rng_seed}
            run(books(stub, tmp_path, **changes), out)
        drawn.append({row["prompt"] for row in requests(out, "section")})
    assert drawn[0] < drawn[1]
    assert not drawn[1] & drawn[2]


EXERCISES = ("exercises",)
WRONG_BOOKS = [
    (("units",), lambda r, p: r["units"].__setitem__(0, r["units"][1]), {"different:duplicate": 2}),
    (("units",), lambda r, p: r["units"].__setitem__(0, " ?"), {"units:empty": 2}),
    (("title", "text"), lambda r, p: r.update(text="Too short."), {"section:too_short": 12}),
    (("title", "text"), lambda r, p: r.update(title="-"), {"section:empty": 12}),
    (EXERCISES, lambda r, p: r["exercises"][0].update(exercise="As the section shows, what is it?"),
     {"exercises:refers_to_text": 12}),
    (EXERCISES, lambda r, p: r["exercises"][0].update(solution="?"), {"exercises:empty": 12}),
    (EXERCISES, lambda r, p: r["exercises"][0].update(solution=r["exercises"][0]["exercise"]),
     {"exercises:copied": 12}),
    (("working", "verdict"), lambda r, p: r.update(verdict="wrong"), {"sound:wrong": 24}),
    (("working", "verdict"), lambda r, p: r.update(verdict="unclear"), {"sound:unclear": 24}),
    (("working", "verdict"), lambda r, p: r.update(verdict="fine"),
     {"review:wrong_schema": 24, "sound:not_checked": 24}),
]  # fmt: skip


@pytest.mark.parametrize(("step", "change", "reasons"), WRONG_BOOKS)
def test_what_is_wrong_in_a_book_is_dropped_by_name(
    step: tuple[str, ...], change: Any, reasons: dict[str, int], tmp_path: Path
) -> None:
    with Stub(answer=changed(step, change)) as stub:
        made = books(stub, tmp_path, **{"parse.min_yield": 0.0})
        if "section" in next(iter(reasons)):
            with pytest.raises(WorkError, match="nothing was kept"):
                run(made, tmp_path / "run")
            assert _counted(tmp_path / "run") == reasons
            return
        metrics = run(made, tmp_path / "run")
    assert lost(metrics) == reasons
    exercises = [row for row in dataset(tmp_path / "run") if json.loads(row["meta"])["kind"] == "exercise"]
    assert len(exercises) == 24 - sum(
        n for reason, n in reasons.items() if re.match("exercises|sound", reason)
    )


def test_sections_in_another_language_are_tried_again(tmp_path: Path) -> None:
    with Stub(answer=answer) as stub:
        made = books(stub, tmp_path, **options(languages=["German"], exercises=0))
        with pytest.raises(WorkError, match="nothing was kept"):
            run(made, tmp_path / "run")
    assert _counted(tmp_path / "run") == {"section:wrong_language": 12}


def test_without_units_every_section_is_lost_by_name(tmp_path: Path) -> None:
    empty = changed(("units",), lambda r, p: {"units": ["?"]})
    with Stub(answer=empty) as stub, pytest.raises(WorkError, match="nothing was kept"):
        run(books(stub, tmp_path), tmp_path / "run")
    assert _counted(tmp_path / "run") == {"units:empty": 2, "lost:no_unit": 12}


# ---- Both --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("generator", ["knowledge", "textbooks"])
def test_a_stopped_run_becomes_the_undisturbed_one(generator: str, tmp_path: Path) -> None:
    make = knowledge if generator == "knowledge" else books
    check_that_stopped_runs_go_on(lambda stub: make(stub, tmp_path), answer, tmp_path, (0.05, 0.5, 0.9))


@pytest.mark.parametrize(
    ("generator", "wrong", "name"),
    [
        ("knowledge", {"variants": ["open_book"]}, "variants"),
        ("knowledge", {"variants": []}, "variants"),
        ("knowledge", {"paraphrases": 0}, "paraphrases"),
        ("knowledge", {"passage_words": 20}, "passage_words"),
        ("textbooks", {"topics": []}, "topics"),
        ("textbooks", {"styles": [" "]}, "styles"),
        ("textbooks", {"lengths": [0]}, "lengths"),
        ("textbooks", {"exercises": -1}, "exercises"),
        ("textbooks", {"languages": ["Elvish"]}, "languages"),
    ],
)
def test_wrong_options_are_refused_by_name(
    generator: str, wrong: dict[str, Any], name: str, tmp_path: Path
) -> None:
    rows = DOCUMENTS if generator == "knowledge" else None
    with pytest.raises(RecipeError) as caught:
        load_any(tree("http://127.0.0.1:1/v1", generator, rows, tmp_path, **options(**wrong)))
    places = [problem.where.rpartition(", ")[2] for problem in caught.value.problems]
    assert any(place.startswith(f"domains.it.generator.options.{name}") for place in places)
