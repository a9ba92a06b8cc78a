"""Pairs as an `embedding` recipe reads them, and the splits that keep documents, queries and groups on one side."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from embedding_samples import pairs, tree
from hypothesis import given
from hypothesis import strategies as st
from recipe_samples import write_rows

from recipes.embedding.measure import fixed_sets, texts_of
from recipes.embedding.pairs import distractor_texts, given_pairs
from recipes.embedding.schema import EmbeddingRecipe
from recipes.embedding.split import set_apart, together
from recipes.schema import Source
from recipes.settings import RecipeError, load_any
from synth.curate.text import normalise
from synth.records.errors import InputError

# ---- Reading -----------------------------------------------------------------------------------------------------


def recipe(folder: Path, rows: list[dict[str, Any]], **changes: Any) -> EmbeddingRecipe:
    made = tree(Path("model"), folder, **changes)
    write_rows(folder / "train.jsonl", rows)
    loaded = load_any(made)
    assert isinstance(loaded, EmbeddingRecipe)
    return loaded


def test_columns_map_what_a_pair_is_made_of(tmp_path: Path) -> None:
    more = {"hard": ["no ."], "task": "t", "from": "forum", "page": 7}
    rows = [
        {"ask": {"q": "what ?"}, "doc": "that .", "lang": "en", **more},
        {"ask": {"q": "who ?"}, "doc": "they .", "lang": None},
    ]
    columns = {
        "query": "ask.q", "positive": "doc", "negatives": "hard", "instruction": "task", "source": "from",
        "group": "page", "language": "lang", "split": {"value": "train"},
    }  # fmt: skip
    made = recipe(tmp_path, rows, **{"domains.it.columns": columns, "domains.it.held_out": {"share": 0.5}})
    first, second = given_pairs(made, "it", "train").rows
    told = ("query", "positive", "negatives", "instruction", "source", "group")
    assert [first[name] for name in told] == ["what ?", "that .", ["no ."], "t", "forum", "7"]
    assert [second[name] for name in told] == ["who ?", "they .", [], "", "it", None]
    assert (first["known"]["language"], first["known"]["split"]) == ("en", "train")
    assert json.loads(first["meta"])["page"] == 7
    assert first["sample_id"] != second["sample_id"]


def test_held_out_rows_need_only_what_is_measured(tmp_path: Path) -> None:
    rows = [{"ask": "what ?", "doc": "that .", "hard": ["no ."]}]
    columns = {"query": "ask", "positive": "doc", "negatives": "hard"}
    held = write_rows(tmp_path / "mine.jsonl", [{"ask": "who ?", "doc": "they ."}])
    made = recipe(tmp_path, rows, **{"domains.it.columns": columns, "domains.it.held_out": str(held)})
    assert texts_of(fixed_sets(made)) == {"it": ["who ?", "they ."]}


def test_equal_pairs_have_the_negatives_of_all_their_rows(tmp_path: Path) -> None:
    """Data of triplets have a row for every negative."""
    query = {"query": "what ?", "positive": "that ."}
    rows = [
        {**query, "negatives": ["no .", "never ."]},
        {"query": "who ?", "positive": "they ."},
        {**query, "negatives": "never ."},
        {**query, "negatives": ["never .", "not \ud800 ."]},
        {**query, "instruction": "else", "negatives": ["other ."]},
        query,
    ]
    made = recipe(tmp_path, rows, **{"domains.it.held_out": {"share": 0.5}})
    loaded = given_pairs(made, "it", "train")
    assert [row["negatives"] for row in loaded.rows] == [["no .", "never .", "not \ufffd ."], [], ["other ."]]
    assert [len(row["known"]["negatives"]) for row in loaded.rows] == [3, 0, 1]
    assert [row["text_repaired"] for row in loaded.rows] == [True, False, False]
    assert len(loaded.duplicates) == 3


def test_equal_pairs_count_once_and_unusable_ones_up_to_max_bad(tmp_path: Path) -> None:
    rows = [*pairs(), pairs()[0], {"query": " ", "positive": "that ."}, {"query": "what ?", "positive": None}]
    bad = [
        {"query": "a", "positive": "b", "negatives": 3},
        {"query": "a", "positive": "b", "instruction": 3},
    ]
    made = recipe(tmp_path, [*rows, *bad], **{"problems.max_bad": 0.1})
    loaded = given_pairs(made, "it", "train")
    assert len(loaded.rows) == 48
    assert loaded.duplicates == ["row 49: the same pair as an earlier row"]
    assert loaded.unusable == [
        "row 50: no text in query", "row 51: no text in positive",
        "row 52: negatives are neither a text nor a list of texts", "row 53: instruction is no text",
    ]  # fmt: skip
    with pytest.raises(
        InputError, match=r"domains\.it\.train: 4 of 53 rows unusable; row 50: no text in query"
    ):
        given_pairs(recipe(tmp_path, [*rows, *bad]), "it", "train")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"question": "a", "positive": "b"}], "no column 'query', which the training needs"),
        ([], "holds no rows"),
    ],
)
def test_a_source_without_pairs_is_refused(rows: list[dict[str, Any]], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        given_pairs(recipe(tmp_path, rows), "it", "train")


def test_half_of_a_surrogate_pair_is_repaired_at_once(tmp_path: Path) -> None:
    rows = [{"query": "what \ud800 ?", "positive": "that .", "negatives": ["no \udfff"]}]
    (row,) = given_pairs(recipe(tmp_path, rows), "it", "train").rows
    assert (row["query"], row["negatives"], row["text_repaired"]) == ("what \ufffd ?", ["no \ufffd"], True)


def test_distractors_stand_among_the_documents(tmp_path: Path) -> None:
    texts = [
        {"text": "never salt ."},
        {"positive": "again salt .", "text": "title"},
        {"text": "never salt ."},
    ]
    path = write_rows(tmp_path / "more.jsonl", texts)
    made = recipe(tmp_path, pairs(), **{"domains.it.distractors": str(path)})
    assert distractor_texts(made, "it") == ["never salt .", "again salt ."]
    found = fixed_sets(made)["it"]
    assert len(found.corpus) == 24 + 2
    assert set(found.corpus.values()) >= {"never salt .", "again salt ."}
    write_rows(tmp_path / "more.jsonl", [{"body": "x"}])
    with pytest.raises(
        InputError, match=r"distractors, row 1: no text in positive or text\n  rows have: body"
    ):
        distractor_texts(made, "it")
    write_rows(tmp_path / "more.jsonl", [])
    with pytest.raises(InputError, match="holds no rows"):
        distractor_texts(made, "it")


def held_out_in_beirs_layout(folder: Path, qrels: str) -> EmbeddingRecipe:
    (folder / "beir" / "qrels").mkdir(parents=True)
    write_rows(folder / "beir" / "queries.jsonl", [{"_id": "q1", "text": "what ?"}])
    write_rows(folder / "beir" / "corpus.jsonl", [{"_id": "d1", "text": "that ."}])
    (folder / "beir" / "qrels" / "test.tsv").write_text(qrels)
    return recipe(folder, pairs(), **{"domains.it.held_out": {"beir": str(folder / "beir")}})


@pytest.mark.parametrize(
    ("qrels", "said"),
    [
        ("q1\td1\t0\n", "domains.it.held_out.beir: no query has a document that answers it"),
        ("q1\td2\t1\n", "domains.it.held_out.beir: no document that answers a query is in the corpus"),
        ("q1\td1\t1\nq1\n", "domains.it.held_out.beir, BEIR/qrels/test.tsv, line 2: has 1 columns"),
    ],
)
def test_what_is_wrong_in_a_held_out_folder_begins_with_its_key(
    qrels: str, said: str, tmp_path: Path
) -> None:
    made = held_out_in_beirs_layout(tmp_path, qrels)
    with pytest.raises(InputError) as caught:
        fixed_sets(made)
    assert str(caught.value).splitlines()[0] == said.replace("BEIR", str(tmp_path / "beir"))
    assert caught.value.fix


def test_a_held_out_folder_that_is_not_there_begins_with_its_key(tmp_path: Path) -> None:
    made = recipe(tmp_path, pairs(), **{"domains.it.held_out": {"beir": str(tmp_path / "nowhere")}})
    with pytest.raises(InputError) as caught:
        fixed_sets(made)
    assert caught.value.where == f"domains.it.held_out.beir, {tmp_path / 'nowhere'}"


def test_held_out_rows_none_of_which_is_usable_are_told_by_their_key(tmp_path: Path) -> None:
    held = write_rows(tmp_path / "mine.jsonl", [{"query": " ", "positive": "they ."}])
    changes = {"domains.it.held_out": str(held), "problems.max_bad": 1.0}
    with pytest.raises(InputError, match=r"^domains\.it\.held_out: no query has a document"):
        fixed_sets(recipe(tmp_path, pairs(), **changes))


def test_a_source_reaches_the_reader_as_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Source] = []

    def read(source: Source, where: str) -> Iterator[dict[str, Any]]:
        seen.append(source)
        yield from ({**row, "text": row["positive"]} for row in pairs()[: source.limit])

    monkeypatch.setattr("recipes.embedding.pairs.read_source", read)
    told = {"path": "x/y", "limit": 3, "format": "csv", "config": "main", "split": "dev"}
    parts = ("train", "held_out", "distractors")
    made = recipe(tmp_path, pairs(), **{f"domains.it.{part}": told for part in parts})
    assert len(given_pairs(made, "it", "train").rows) == 3
    assert len(fixed_sets(made)["it"].queries) == 3
    assert [each.model_dump(exclude_unset=True) for each in seen] == [told] * 3
    with pytest.raises(RecipeError, match="count: 2 of a source that is not generated"):
        recipe(tmp_path, pairs(), **{"domains.it.train": {"path": "x/y", "count": 2}})
    split = recipe(tmp_path, pairs()).domains["it"]
    assert (split.train.split, split.held_out.split) == ("train", "test")  # type: ignore[union-attr]


# ---- Splitting ---------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "A ", "b", "c", "d", "e", "f", "g", "h"])
ROWS = st.lists(
    st.tuples(NAMES, NAMES.map(lambda text: f"document {text}"), st.sampled_from([None, None, "x", "y"])),
    min_size=1,
    max_size=20,
)


def rows_of(drawn: list[tuple[str, str, str | None]]) -> list[dict[str, Any]]:
    return [
        {"sample_id": f"{number:02d}", "query": query, "positive": positive, "group": group, "meta": None}
        for number, (query, positive, group) in enumerate(drawn)
    ]


@given(ROWS, st.floats(0.05, 0.95), st.integers(0, 3))
def test_no_text_and_no_group_is_on_both_sides(
    drawn: list[tuple[str, str, str | None]], share: float, rng_seed: int
) -> None:
    rows = rows_of(drawn)
    try:
        apart = set_apart(rows, share, rng_seed, "here", "test")
    except InputError:
        assert min(map(len, together(rows))) > max(1, round(share * len(rows))) or len(together(rows)) == 1
        return
    assert 0 < len(apart) <= max(1, round(share * len(rows)))
    assert len(apart) < len(rows)
    sides: dict[bool, set[str]] = {True: set(), False: set()}
    for row in rows:
        marks = {normalise(row["query"]), normalise(row["positive"])} | (
            {f"group {row['group']}"} if row["group"] else set()
        )
        sides[row["sample_id"] in apart] |= marks
    assert not sides[True] & sides[False]
    assert set_apart(list(reversed(rows)), share, rng_seed, "here", "test") == apart


@given(ROWS)
def test_what_hangs_together_is_what_a_search_reaches(drawn: list[tuple[str, str, str | None]]) -> None:
    rows = rows_of(drawn)
    marks = [
        {
            normalise(row["query"]),
            normalise(row["positive"]),
            *([f"group {row['group']}"] if row["group"] else []),
        }
        for row in rows
    ]
    reached = set()
    for part in together(rows):
        found, seen = [part[0]], {part[0]}
        while found:
            here = found.pop()
            for other in range(len(rows)):
                if other not in seen and marks[here] & marks[other]:
                    seen.add(other)
                    found.append(other)
        assert seen == set(part)
        reached |= seen
    assert reached == set(range(len(rows)))


def test_a_document_of_a_generator_keeps_its_pairs_together() -> None:
    rows = rows_of([(f"q{n}", f"d{n}", None) for n in range(6)])
    for number, row in enumerate(rows):
        row["meta"] = json.dumps({"path": f"file {number // 2}"} if number < 4 else {"document_id": "one"})
    assert sorted(map(len, together(rows))) == [2, 2, 2]
    rows[0]["meta"] = json.dumps({"path": "file 0", "document_id": "one"})  # known by two names
    assert sorted(map(len, together(rows))) == [2, 4]


def test_a_split_is_drawn_by_seed_and_purpose() -> None:
    rows = rows_of([(f"q{n}", f"d{n}", None) for n in range(40)])
    drawn = [
        set_apart(rows, 0.25, seed, "", purpose) for seed in (0, 1) for purpose in ("held_out", "validation")
    ]
    assert all(len(each) == 10 for each in drawn)
    assert len({frozenset(each) for each in drawn}) == 4
