"""Selection as a black box: bands, quotas, mixes, and choosing by quality and diversity."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth.curate import CurateOptions, SelectOptions, curate, funnel
from synth.curate.diversity import Room, k_center, ranks
from synth.records.errors import InputError

TOPICS = {
    "fruit": ["apple", "pear", "plum", "cherry", "mango", "peach", "grape", "melon"],
    "tools": ["hammer", "saw", "drill", "chisel", "wrench", "pliers", "anvil", "clamp"],
    "music": ["violin", "piano", "cello", "trumpet", "flute", "drum", "harp", "oboe"],
    "stars": ["planet", "comet", "galaxy", "nebula", "orbit", "meteor", "pulsar", "quasar"],
}


def row(name: str, completion: str = "x", **more: Any) -> dict[str, Any]:
    return {"sample_id": name, "problem_id": name, "prompt": "", "completion": completion, **more}


def rows_of(count: int, **columns: Any) -> list[dict[str, Any]]:
    """Rows `000`, `001`, ...; a column is a function of the number."""
    return [
        row(f"{i:03d}", f"text {i}", **{name: of(i) for name, of in columns.items()}) for i in range(count)
    ]


def chosen(rows: list[dict[str, Any]], embed: Any = None, language: Any = None, **select: Any) -> list[str]:
    return [r["sample_id"] for r in result_of(rows, embed, language, **select).kept]


def result_of(rows: list[dict[str, Any]], embed: Any = None, language: Any = None, **select: Any) -> Any:
    options = CurateOptions(
        dedup=None,
        decontaminate=None,
        cap_per_problem=None,
        min_reward=None,
        select=SelectOptions(**select),
    )
    return curate(rows, options, {}, embed=embed, language=language)


def reasons(result: Any) -> dict[str, str]:
    return {r["sample_id"]: r["decision_reason"] for r in result.dropped}


def test_without_rules_all_rows_stay() -> None:
    rows = rows_of(5)
    assert len(chosen(rows)) == 5
    assert len(chosen(rows, size=5)) == 5
    assert chosen([], size=3) == []


def test_best_takes_the_column_named_quality_or_reward() -> None:
    rows = rows_of(6, reward=lambda i: i, quality=lambda i: -i, score=lambda i: i % 3)
    assert chosen(rows, size=2, method="best") == ["000", "001"]
    assert chosen(rows, size=2, method="best", quality="reward") == ["004", "005"]
    assert chosen(rows, size=2, method="best", quality="score") == ["002", "005"]
    only_rewards = [{k: v for k, v in r.items() if k != "quality"} for r in rows]
    assert chosen(only_rewards, size=2, method="best") == ["004", "005"]
    assert chosen(rows, min_quality=-2, method="best") == ["000", "001", "002"]
    assert set(reasons(result_of(rows, min_quality=-2)).values()) == {"low_quality"}
    with pytest.raises(InputError, match="scroe"):
        chosen(rows, quality="scroe", size=1)


def test_rows_without_a_number_are_the_worst() -> None:
    rows = [
        row("a"),
        row("b", quality=0),
        row("c", quality=None),
        row("d", quality="1"),
        row("e", quality=float("nan")),
    ]
    assert chosen(rows, size=1, method="best") == ["b"]
    assert chosen(rows, min_quality=-5) == ["b"]


def test_random_depends_on_ids_alone() -> None:
    rows = rows_of(40, reward=lambda i: i)
    first = chosen(rows, size=10, method="random")
    assert len(first) == 10
    again = chosen([{**r, "reward": 0} for r in reversed(rows)], size=10, method="random")
    assert sorted(again) == first
    assert first != chosen(rows, size=10, method="best")


def test_bands_of_pass_rate_and_length() -> None:
    rows = []
    for problem, passes, fails in (("easy", 4, 0), ("fair", 2, 2), ("hard", 1, 9)):
        for i in range(passes + fails):
            passed = i < passes
            rows.append(
                {
                    **row(f"{problem}{i}", f"{problem} {i}"),
                    "problem_id": problem,
                    "status": "pass" if passed else "fail",
                    "reward": float(passed),
                }
            )
    assert chosen(rows, pass_rate=[0.2, 0.8]) == ["fair0", "fair1"]
    assert reasons(result_of(rows, pass_rate=[0.2, 0.8]))["hard0"] == "pass_rate"
    own = rows_of(3, pass_rate=lambda i: i / 2)
    assert chosen(own, pass_rate=[0.0, 0.5]) == ["000", "001"]
    long = [row("a", "one two"), row("b", "one two three"), row("c", "w " * 10)]
    assert chosen(long, length=[3, 9]) == ["b"]
    assert reasons(result_of(long, length=[3, 9])) == {"a": "length", "c": "length"}


def test_quotas_count_rows_of_a_value() -> None:
    rows = rows_of(12, source=lambda i: "web" if i < 8 else "book", quality=lambda i: i)
    result = result_of(rows, quotas={"source": {"web": 3}})
    assert Counter(r["source"] for r in result.kept) == {"web": 3, "book": 4}
    assert set(reasons(result).values()) == {"quota:source=web"}
    assert chosen(rows, quotas={"source": {"web": 3}}, method="best")[:3] == ["005", "006", "007"]
    assert len(chosen(rows, quotas={"source": {"*": 2}})) == 4
    assert len(chosen(rows, quotas={"source": {"*": 2, "book": 4}})) == 6
    shared = result_of(rows, size=8, quotas={"source": {"web": 0.25}}, method="best")
    assert Counter(r["source"] for r in shared.kept) == {"web": 2, "book": 4}
    hundred = rows_of(150, source=lambda i: "web")
    assert len(chosen(hundred, size=100, quotas={"source": {"web": 0.29}}, method="best")) == 29
    with pytest.raises(InputError, match="topic"):
        chosen(rows, quotas={"topic": {"*": 1}})


def test_a_dotted_path_reaches_into_objects_and_json_text() -> None:
    rows = [
        row(f"{i}", f"text {i}", meta=meta, details={"score": i})
        for i, meta in enumerate(['{"kind": "a"}', '{"kind": "b"}', '{"kind": "b"}', "[1]", "{", None])
    ]
    assert chosen(rows, quotas={"meta.kind": {"b": 1}}, method="best", quality="details.score") == [
        "0", "2", "3", "4", "5"
    ]  # fmt: skip
    assert chosen(rows, mix={"a": 1, "b": 1}, source="meta.kind", method="best") == ["0", "1"]


def test_quotas_of_length_and_language() -> None:
    rows = [row(f"{i}", "word " * size) for i, size in enumerate((2, 3, 4, 50, 60, 700))]
    result = result_of(rows, quotas={"length": {"0-9": 1, "10-99": 1}}, method="best")
    assert [r["sample_id"] for r in result.kept] == ["0", "3", "5"]
    assert reasons(result)["1"] == "quota:length=0-9"
    texts = [row("a", "ja"), row("b", "nein"), row("c", "yes", language="de"), row("d", "yes")]
    found = chosen(
        texts,
        language=lambda text: "de" if "j" in text or "n" in text else "en",
        quotas={"language": {"de": 1}},
    )
    assert len(found) == 2
    assert "d" in found
    with pytest.raises(InputError, match="language"):
        chosen(texts[:2], quotas={"language": {"de": 1}})


def test_mix_keeps_proportions_and_stops_at_the_scarcest() -> None:
    rows = rows_of(
        30, source=lambda i: "web" if i < 20 else "book" if i < 26 else "chat", quality=lambda i: -i
    )
    result = result_of(rows, mix={"web": 3, "book": 1})
    assert Counter(r["source"] for r in result.kept) == {"web": 18, "book": 6}
    lost = reasons(result)
    assert lost["029"] == "mix"
    assert {lost[name] for name in lost if name < "026"} == {"mix"}
    # 7.5 and 2.5 rows: the remainders are equal, so the first name has the tenth.
    ten = result_of(rows, mix={"web": 3, "book": 1}, size=10).kept
    assert Counter(r["source"] for r in ten) == {"web": 7, "book": 3}
    named = [{**r, "from": r["source"]} for r in rows]
    assert len(chosen(named, mix={"chat": 1}, source="from")) == 4
    with pytest.raises(InputError, match="did you mean 'book'"):
        chosen(rows, mix={"web": 1, "bok": 1})


def topical(counts: dict[str, int]) -> list[dict[str, Any]]:
    """Rows about topics, of the topic's words in some order and one word of their own."""
    draw = np.random.default_rng(0)
    return [
        row(f"{topic}{i}", " ".join([*draw.permutation(TOPICS[topic]), f"own{topic}{i}"]), topic=topic)
        for topic, count in counts.items()
        for i in range(count)
    ]


def test_k_center_covers_topics_where_best_does_not() -> None:
    rows = [
        {**r, "quality": 1.0 if r["topic"] == "fruit" else 0.5}
        for r in topical({"fruit": 30, "tools": 5, "music": 3, "stars": 2})
    ]
    of = {r["sample_id"]: r["topic"] for r in rows}
    diverse = chosen(rows, size=4)
    assert {of[name] for name in diverse} == set(TOPICS)
    assert {of[name] for name in chosen(rows, size=4, method="best")} == {"fruit"}
    assert {of[name] for name in chosen(rows, size=4, quality_weight=1.0)} == {"fruit"}


def test_k_center_takes_the_better_of_like_rows() -> None:
    rows = [{**r, "quality": i % 7} for i, r in enumerate(topical({"fruit": 20, "music": 20}))]
    quality = {r["sample_id"]: r["quality"] for r in rows}
    assert all(quality[name] == 6 for name in chosen(rows, size=2))


def test_an_embedding_decides_what_is_alike() -> None:
    rows = topical({"fruit": 10, "tools": 10})
    asked: list[str] = []

    def embed(texts: Any) -> Any:
        asked.extend(texts)
        return np.array([[1.0, 0.01 * len(text)] if "apple" in text else [0.0, 1.0] for text in texts])

    found = chosen(rows, embed=embed, size=2)
    text_of = {r["sample_id"]: r["completion"] for r in rows}
    assert sorted("apple" in text_of[name] for name in found) == [False, True]
    assert len(asked) == 20


def test_order_of_rows_does_not_matter() -> None:
    rows = [{**r, "quality": i % 3} for i, r in enumerate(topical({"fruit": 9, "tools": 7, "stars": 5}))]
    mixed = {"mix": {"fruit": 2, "stars": 1}, "source": "topic"}
    for select in ({"size": 6}, {"size": 9, "quotas": {"topic": {"*": 3}}}, mixed):
        assert sorted(chosen(rows, **select)) == sorted(chosen(list(reversed(rows)), **select))


@settings(max_examples=60)
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "source": st.sampled_from(["a", "b", "c"]),
                "quality": st.sampled_from([0.0, 0.5, 1.0, None]),
                "completion": st.sampled_from(["one two", "three four five six", "seven", ""]),
            }
        ),
        max_size=25,
    ),
    st.one_of(st.none(), st.integers(1, 12)),
    st.sampled_from(["k_center", "best", "random"]),
    st.dictionaries(st.sampled_from(["a", "b", "*"]), st.integers(0, 5), max_size=2),
)
def test_limits_are_never_broken_and_every_lost_row_has_a_reason(
    rows: list[dict[str, Any]], size: int | None, method: str, quota: dict[str, int]
) -> None:
    named = [row(f"{i:02d}", **r) for i, r in enumerate(rows)]
    result = result_of(named, size=size, method=method, quotas={"source": quota} if quota else {})
    assert len(result.kept) + len(result.dropped) == len(rows)
    assert size is None or len(result.kept) <= size
    counts = Counter(r["source"] for r in result.kept)
    room = {value: quota.get(value, quota.get("*", len(rows))) for value in "abc"}
    assert all(counts[value] <= room[value] for value in "abc")
    # Nothing is left out for which there was room.
    given = Counter(r["source"] for r in named)
    possible = sum(min(given[value], room[value]) for value in "abc")
    assert len(result.kept) == min(possible, size if size is not None else possible)
    for lost in result.dropped:
        assert lost["decision_reason"].startswith(("quota:source=", "not_selected"))
    again = result_of(result.kept, size=size, method=method, quotas={"source": quota} if quota else {})
    assert len(again.kept) == len(result.kept)
    found = funnel(named, result)
    assert sum(found[domain]["clean"] for domain in found if domain != "reasons") == len(rows)


def test_k_center_by_brute_force() -> None:
    draw = np.random.default_rng(1)
    vectors = draw.normal(size=(30, 5)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    quality = ranks(draw.integers(0, 5, 30).astype(float))
    taken: list[int] = []
    for _ in range(8):
        scores = np.full(30, -1.0)
        for i in set(range(30)) - set(taken):
            distance = min([1.0, *(1 - float(vectors[i] @ vectors[j]) for j in taken)])
            scores[i] = max(distance, 0.0) ** 0.6 * quality[i] ** 0.4
        taken.append(int(np.argmax(scores)))
    assert k_center(vectors, quality, 0.4, Room([[] for _ in range(30)], [], 8)) == taken


@pytest.mark.parametrize(
    "wrong",
    [
        {"method": "kcenter"}, {"size": 0}, {"quality_weight": 1.5}, {"pass_rate": [0.5]}, {"pass_rate": [0.9, 0.1]},
        {"length": [5, 2]}, {"quotas": {"source": {"web": 0.5}}}, {"quotas": {"source": {"web": -1}}},
        {"quotas": {"length": {"short": 5}}}, {"mix": {}}, {"mix": {"a": 0}}, {"mix": {"a": -1, "b": 2}},
    ],
)  # fmt: skip
def test_wrong_options_are_told(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="select"):
        SelectOptions(**wrong)
