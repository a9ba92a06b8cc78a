"""Problems: formats, column mapping, ids, duplicates, unusable rows, each round's choice, rows for training."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from recipe_samples import ROWS, tree, with_data, write_rows

from recipes.problems import TrainProblems, by_pass_rate, load_domains, pass_rates_before, source_rows
from recipes.schema import Recipe, Source
from recipes.settings import load_recipe
from recipes.supervised import mix_rows, supervised_rows
from synth.records import schemas
from synth.records.errors import InputError
from synth.records.jsonl import read_jsonl
from synth.store import RunFolder, Stage

COLUMNS = {"prompt": "question", "reference": {"column": "answer", "regex": r"####\s*(.+)$"}}


def recipe_of(folder: Path, **changes: Any) -> Recipe:
    return load_recipe(with_data(folder, **changes))


def train(recipe: Recipe, round_index: int = 0) -> list[dict[str, Any]]:
    return load_domains(recipe, None)[0].train(round_index)


def prompts(rows: list[dict[str, Any]]) -> list[str]:
    return [row["prompt"] for row in rows]


# ---- Reading -----------------------------------------------------------------------------------------------------


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    ending = path.name.removesuffix(".gz")
    plain = path.with_name(ending)
    if ending.endswith(".jsonl"):
        write_rows(plain, rows)
    elif ending.endswith(".json"):
        plain.write_text(json.dumps(rows))
    elif ending.endswith(".csv"):
        with open(plain, "w", newline="") as handle:
            writer = csv.DictWriter(handle, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), plain)
    if path.name.endswith(".gz"):
        path.write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()


@pytest.mark.parametrize(
    "ending", [f"{kind}{gz}" for kind in ("jsonl", "json", "csv", "parquet") for gz in ("", ".gz")]
)
def test_every_format_gives_the_same_problems(ending: str, tmp_path: Path) -> None:
    rows = [{key: str(value) for key, value in row.items()} for row in ROWS]  # CSV knows text only
    write(tmp_path / f"rows.{ending}", rows)
    found = train(recipe_of(tmp_path, **{"domains.math.train": str(tmp_path / f"rows.{ending}")}))
    expected = train(
        recipe_of(tmp_path, **{"domains.math.train": str(write_rows(tmp_path / "expected.jsonl", rows))})
    )
    assert found == expected
    assert len(found) == len(ROWS)


def test_format_overrides_the_name(tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text(json.dumps(ROWS))
    source = {"path": str(tmp_path / "rows.txt"), "format": "json"}
    assert len(train(recipe_of(tmp_path, **{"domains.math.train": source}))) == len(ROWS)
    with pytest.raises(InputError, match="does not say its format"):
        train(recipe_of(tmp_path, **{"domains.math.train": {"path": str(tmp_path / "rows.txt")}}))


def test_a_json_file_may_wrap_its_list(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(json.dumps({"version": 1, "data": ROWS}))
    assert len(train(recipe_of(tmp_path, **{"domains.math.train": str(tmp_path / "rows.json")}))) == len(ROWS)


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("a.jsonl", '{"question": 1}\nnope\n', "line 2"),
        ("a.json", "[1]", "not a list of JSON objects"),
        ("a.json", "{", "not JSON"),
        ("a.csv", "question,answer\n1,2,3\n", "line 2"),
        ("a.parquet", "x", "not a parquet file"),
        ("a.jsonl.gz", "x", "cannot be read"),
        ("a.jsonl", "", "holds no rows"),
        (None, "", "no such file"),
    ],
)
def test_a_broken_file_is_named(name: str | None, content: str, word: str, tmp_path: Path) -> None:
    path = tmp_path / (name or "absent.jsonl")
    if name:
        path.write_text(content)
    with pytest.raises(InputError, match=word) as caught:
        train(recipe_of(tmp_path, **{"domains.math.train": str(path)}))
    assert path.name in str(caught.value)


def test_a_folder_is_read_like_a_hub_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "set"
    folder.mkdir()
    write_rows(folder / "train.jsonl", ROWS[:3])
    write_rows(folder / "test.jsonl", ROWS[3:])
    changes = {
        "domains.math.train": str(folder),
        "domains.math.held_out": {"path": str(folder), "split": "test"},
    }
    domain = load_domains(recipe_of(tmp_path, **changes), None)[0]
    assert (len(domain.train(0)), len(domain.held_out)) == (3, len(ROWS) - 3)
    with pytest.raises(InputError, match="split nope"):
        train(recipe_of(tmp_path, **{"domains.math.train": {"path": str(folder), "split": "nope"}}))


def test_config_and_split_reach_the_hub_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[Any] = []

    def load_dataset(*args: Any, **kwargs: Any) -> list[dict[str, Any]]:
        asked.append((args, kwargs))
        return ROWS

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    train(
        recipe_of(
            tmp_path, **{"domains.math.train": {"path": "owner/name", "config": "main", "split": "extra"}}
        )
    )
    assert asked[0] == (("owner/name", "main"), {"split": "extra"})


def test_an_unreachable_hub_is_no_input_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    from synth.records.errors import WorkError

    def load_dataset(*args: Any, **kwargs: Any) -> None:
        raise ConnectionError("offline")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(WorkError, match="did not answer"):
        train(recipe_of(tmp_path, **{"domains.math.train": "owner/name"}))


def test_limit_takes_the_first_rows(tmp_path: Path) -> None:
    source = {"path": str(write_rows(tmp_path / "r.jsonl", ROWS)), "limit": 3}
    rows = train(recipe_of(tmp_path, **{"domains.math.train": source, "problems.order": "file"}))
    assert prompts(rows) == [row["question"] for row in ROWS[:3]]


def test_where_keeps_rows_with_these_values_before_the_limit(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "r.jsonl", [*ROWS, {"question": "no level", "answer": "#### 1"}])
    source = {"path": str(path), "where": {"level": 1}, "limit": 2}
    rows = train(recipe_of(tmp_path, **{"domains.math.train": source, "problems.order": "file"}))
    wanted = [row["question"] for row in ROWS if row["level"] == 1]
    assert len(wanted) > 2
    assert prompts(rows) == wanted[:2]
    with pytest.raises(InputError, match="holds no rows"):
        train(recipe_of(tmp_path, **{"domains.math.train": {"path": str(path), "where": {"level": "1"}}}))


def test_where_chooses_among_generated_rows(tmp_path: Path) -> None:
    source = Source(path="procedural:mood", split="attack", count=20, where={"completion": "good"}, limit=3)
    rows = list(source_rows(source, 0, "domains.mood.train"))
    assert [row["completion"] for row in rows] == ["good"] * 3


def test_separators_inside_text_survive(tmp_path: Path) -> None:
    row = {"question": "a\u2028b\x85c\x00d", "answer": "#### 1"}
    path = write_rows(tmp_path / "r.jsonl", [row])
    assert prompts(train(recipe_of(tmp_path, **{"domains.math.train": str(path)}))) == [row["question"]]


# ---- Columns -----------------------------------------------------------------------------------------------------


def test_mapping_gives_problems_with_ids_and_keeps_the_source(tmp_path: Path) -> None:
    row = next(row for row in train(recipe_of(tmp_path)) if row["level"] == 2)
    assert row["prompt"] == row["question"]
    assert row["reference"] == row["answer"].rpartition(" ")[2]
    assert row["domain"] == "math"
    assert len(row["problem_id"]) == 16


def test_ids_depend_on_content_and_domain_alone(tmp_path: Path) -> None:
    first = {row["prompt"]: row["problem_id"] for row in train(recipe_of(tmp_path))}
    path = write_rows(tmp_path / "turned.jsonl", [dict(reversed(row.items())) for row in reversed(ROWS)])
    second = {
        row["prompt"]: row["problem_id"]
        for row in train(recipe_of(tmp_path, **{"domains.math.train": str(path)}))
    }
    assert all(second[prompt] == name for prompt, name in first.items())
    changed = tree()["domains"]["math"]
    changes = {
        "domains": {"other": {**changed, "train": str(tmp_path / "train.jsonl"), "held_out": str(path)}}
    }
    assert {row["problem_id"] for row in train(recipe_of(tmp_path, **changes))}.isdisjoint(first.values())


def test_values_of_a_column_get_names_and_others_are_unusable(tmp_path: Path) -> None:
    rows = [{"question": f"q{i}", "label": label} for i, label in enumerate((0, 1, "1", 2))]
    changes = {
        "domains.math.train": str(write_rows(tmp_path / "labels.jsonl", rows)),
        "domains.math.held_out": str(write_rows(tmp_path / "others.jsonl", rows[:1])),
        "domains.math.columns": {
            "prompt": "question",
            "reference": {"column": "label", "values": {"0": "negative", "1": "positive"}},
        },
        "problems.order": "file",
        "problems.max_bad": 0.5,
    }
    problems = train(recipe_of(tmp_path, **changes))
    assert [row["reference"] for row in problems] == ["negative", "positive", "positive"]
    with pytest.raises(InputError, match="label is '2', for which reference has no value"):
        train(recipe_of(tmp_path, **{**changes, "problems.max_bad": 0.1}))


def test_kinds_of_columns(tmp_path: Path) -> None:
    row = {
        "q": {"parts": [{"text": "deep"}]},
        "answer": "x #### 1\ny #### 2 \nend",
        "extra": '{"a": [1]}',
        "test_list": ["assert f(1) == 2", "assert f(2) == 3"],
        "setup": "import math",
        "name": "f",
    }
    columns = {
        "prompt": "q.parts.0.text",
        "reference": {"column": "answer", "regex": r"####\s*(.+)$"},
        "whole": {"column": "answer", "regex": "#+"},
        "units": {"value": "cm"},
        "extra": {"from_json": "extra"},
        "tests": {"asserts": "test_list", "setup": "setup", "entry_point": "name"},
    }
    write_rows(tmp_path / "held.jsonl", [row])
    changes = {
        "domains.math.train": str(tmp_path / "held.jsonl"),
        "domains.math.held_out": str(tmp_path / "held.jsonl"),
        "domains.math.columns": columns,
    }
    problem = load_domains(recipe_of(tmp_path, **changes), None)[0].held_out[0]
    assert problem["prompt"] == "deep"
    assert problem["reference"] == "2"
    assert problem["whole"] == "####"
    assert problem["units"] == "cm"
    assert problem["extra"] == {"a": [1]}
    assert problem["tests"] == {
        "type": "assert",
        "code": "assert f(1) == 2\nassert f(2) == 3",
        "setup": "import math",
        "entry_point": "f",
    }


def test_a_dotted_path_leads_into_json_text(tmp_path: Path) -> None:
    rows = [
        {"prompt": "2 + 2?", "meta": json.dumps({"reference": {"values": ["4", "5"]}})},
        {"prompt": "3 + 3?", "meta": '{"reference": {"values": "6'},
        {"prompt": "4 + 4?", "meta": "[]"},
    ]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    changes = {"domains.math.columns": {"reference": "meta.reference.values.0"}, "problems.max_bad": 0.7}
    sources = dict.fromkeys(("domains.math.train", "domains.math.held_out"), str(path))
    found = train(recipe_of(tmp_path, **sources, **changes))
    assert [(row["prompt"], row["reference"]) for row in found] == [("2 + 2?", "4")]


def test_a_missing_column_names_domain_column_and_choices(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        train(recipe_of(tmp_path, **{"domains.math.columns": {**COLUMNS, "prompt": "questoin"}}))
    assert caught.value.where == "domains.math.train, columns.prompt"
    assert "'questoin'" in caught.value.seen
    assert "did you mean 'question'" in caught.value.fix
    assert "answer" in caught.value.fix


def test_what_the_verifier_needs_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no column 'reference', which the verifier needs"):
        train(recipe_of(tmp_path, **{"domains.math.columns": {"prompt": "question"}}))
    with pytest.raises(InputError, match="no column 'prompt', which the prompt needs"):
        train(recipe_of(tmp_path, **{"domains.math.columns": {"reference": "answer"}}))


def test_a_template_that_names_a_missing_column_fails_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\{topic\}") as caught:
        load_domains(recipe_of(tmp_path, **{"domains.math.prompt": {"template": "{topic}"}}), None)
    assert caught.value.where == "domains.math.prompt.template"


# ---- Unusable rows and duplicates --------------------------------------------------------------------------------


BAD = [
    {"question": "q", "answer": "no mark"},
    {"question": " ", "answer": "#### 1"},
    {"question": None, "answer": "#### 1"},
]


@pytest.mark.parametrize("bad", BAD)
def test_unusable_rows_are_set_aside_up_to_a_share(
    bad: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_rows(tmp_path / "r.jsonl", [*ROWS, bad])
    changes = {"domains.math.train": str(path)}
    with pytest.raises(InputError, match="1 of 9 rows unusable; row 9") as caught:
        train(recipe_of(tmp_path, **changes))
    assert "problems.max_bad" in caught.value.fix
    with caplog.at_level(logging.INFO, "synthloop"):
        assert len(train(recipe_of(tmp_path, **changes, **{"problems.max_bad": 0.2}))) == len(ROWS)
    assert "1 unusable; row 9" in caplog.text


def test_duplicates_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_rows(tmp_path / "r.jsonl", [*ROWS, ROWS[0], {**ROWS[1], "level": "another"}])
    with caplog.at_level(logging.INFO, "synthloop"):
        rows = train(recipe_of(tmp_path, **{"domains.math.train": str(path)}))
    assert len(rows) == len(ROWS) + 1  # the changed row is another problem
    assert "1 duplicates left out" in caplog.text


# ---- Rounds ------------------------------------------------------------------------------------------------------


def test_order(tmp_path: Path) -> None:
    asked = [row["question"] for row in ROWS[:6]]
    assert prompts(train(recipe_of(tmp_path, **{"problems.order": "file"}))) == asked
    orders = {tuple(prompts(train(recipe_of(tmp_path, rng_seed=seed)))) for seed in range(4)}
    assert len(orders) > 1
    assert all(sorted(order) == sorted(asked) for order in orders)
    assert prompts(train(recipe_of(tmp_path))) == prompts(train(recipe_of(tmp_path), 3))


def test_per_round_without_fresh_keeps_the_same_problems(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, **{"problems.per_round": 2})
    assert len(train(recipe)) == 2
    assert train(recipe, 0) == train(recipe, 1)


def test_fresh_rounds_go_through_a_file_and_begin_again(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, **{"problems.per_round": 4, "problems.fresh": True})
    domain = load_domains(recipe, None)[0]
    rounds = [prompts(domain.train(index)) for index in range(6)]
    assert len(set(rounds[0])) == 4
    assert set(rounds[0]).isdisjoint(rounds[1][:2])
    assert set(rounds[0]) | set(rounds[1][:2]) == {row["question"] for row in ROWS[:6]}
    assert all(len(set(each)) == len(each) for each in rounds)
    assert rounds == [prompts(load_domains(recipe, None)[0].train(index)) for index in range(6)]


def procedural(folder: Path, **changes: Any) -> Recipe:
    section = {
        "train": {"path": "procedural:math", "count": 5},
        "held_out": {"path": "procedural:math", "count": 4},
        "columns": {"prompt": "question", "reference": "answer", "completion": "solution"},
        "verifier": "math",
    }
    return recipe_of(folder, domains={"math": section}, **changes)


def test_procedural_sources(tmp_path: Path) -> None:
    domain = load_domains(procedural(tmp_path), None)[0]
    assert (len(domain.train(0)), len(domain.held_out)) == (5, 4)
    assert set(prompts(domain.train(0))).isdisjoint(prompts(domain.held_out))
    assert prompts(domain.train(0)) == prompts(domain.train(1))
    other = load_domains(procedural(tmp_path, rng_seed=1), None)[0]
    assert set(prompts(other.train(0))) != set(prompts(domain.train(0)))


def test_fresh_procedural_rounds_never_repeat(tmp_path: Path) -> None:
    domain = load_domains(procedural(tmp_path, **{"problems.fresh": True}), None)[0]
    names = [row["problem_id"] for index in range(3) for row in domain.train(index)]
    assert len(set(names)) == 15
    few = load_domains(procedural(tmp_path, **{"problems.fresh": True, "problems.per_round": 2}), None)[0]
    assert [len(few.train(index)) for index in range(3)] == [2, 2, 2]


def test_an_unknown_procedural_name(tmp_path: Path) -> None:
    section = {"path": "procedural:maths", "count": 5}
    with pytest.raises(InputError, match="did you mean 'math'") as caught:
        train(recipe_of(tmp_path, **{"domains.math.train": section}))
    assert caught.value.where == "domains.math.train"


def test_a_domain_may_be_for_evaluation_only(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    recipe.domains["other"] = recipe.domains["math"].model_copy(update={"train": None})
    assert load_domains(recipe, None)[1].train(0) == []


# ---- Curriculum --------------------------------------------------------------------------------------------------


def test_curriculum_prefers_half_solved_then_untried_problems() -> None:
    rows = [{"problem_id": name} for name in ("never", "always", "untried", "half", "often")]
    rates = {"never": 0.0, "always": 1.0, "half": 0.5, "often": 0.7}
    assert [row["problem_id"] for row in by_pass_rate(rows, rates)] == [
        "half",
        "often",
        "untried",
        "never",
        "always",
    ]


def test_curriculum_reads_earlier_rounds(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, **{"problems.per_round": 2, "problems.curriculum": "pass_rate"})
    names = [row["problem_id"] for row in load_domains(recipe, None)[0].train(0)]
    everything = [row["problem_id"] for row in train(recipe_of(tmp_path))]
    folder = RunFolder(tmp_path / "run")
    completions = Stage(folder.round(0) / "completions", schemas.completions)
    verdicts = Stage(folder.round(0) / "verdicts", schemas.verdicts)
    statuses = {names[0]: ["pass", "pass"], names[1]: ["pass", "fail", "error"]}
    for name, each in statuses.items():
        for index, status in enumerate(each):
            sample = f"{name}-{index}"
            completions.append(
                {"sample_id": sample, "problem_id": name, "completion": "", "round": 0, "index": index}
            )
            verdicts.append({"sample_id": sample, "status": status, "verifier": "math"})
    completions.close()
    verdicts.close()
    assert pass_rates_before(folder, 1) == {names[0]: 1.0, names[1]: 0.5}
    assert pass_rates_before(folder, 0) == {}
    domain = load_domains(recipe, None, lambda index: pass_rates_before(folder, index))[0]
    assert [row["problem_id"] for row in domain.train(0)] == names
    untried = next(name for name in everything if name not in names)
    assert [row["problem_id"] for row in domain.train(1)] == [names[1], untried]


# ---- Supervised rows ---------------------------------------------------------------------------------------------


def test_supervised_rows_are_rendered_as_sampled_ones(tmp_path: Path) -> None:
    recipe = procedural(tmp_path)
    recipe.domains["math"].prompt.template = "Q: {prompt}\n"
    domain = load_domains(recipe, None)[0]
    problems = domain.train(0)
    rows = supervised_rows(domain, problems)
    assert [row["prompt"] for row in rows] == [f"Q: {p['question']}\n" for p in problems]
    assert [row["completion"] for row in rows] == [p["solution"] for p in problems]
    assert len({row["sample_id"] for row in rows}) == len(rows)
    assert {row["source"] for row in rows} == {"supervised"}


def test_supervised_rows_need_a_completion(tmp_path: Path) -> None:
    domain = load_domains(recipe_of(tmp_path), None)[0]
    with pytest.raises(InputError, match="has no completion"):
        supervised_rows(domain, domain.train(0))


def test_mixed_in_rows(tmp_path: Path) -> None:
    mix = {"math": {"path": "procedural:math", "split": "base", "count": 3}}
    recipe = procedural(tmp_path, **{"train.mix": mix})
    said: list[str] = []
    left_out = tmp_path / "training" / "left_out.jsonl"
    rows = mix_rows(recipe, load_domains(recipe, None), left_out, said.append)
    assert len(rows) == 3
    assert all(row["completion"] for row in rows)
    assert mix_rows(procedural(tmp_path), load_domains(recipe, None), left_out, said.append) == []
    assert said == []
    assert not left_out.exists()
    plain = recipe_of(tmp_path, **{"train.mix": {"math": str(tmp_path / "train.jsonl")}})
    with pytest.raises(InputError, match=r"no column 'completion'") as caught:
        mix_rows(plain, load_domains(plain, None), left_out, said.append)
    assert caught.value.where == "train.mix.math"


def test_mixed_in_rows_that_are_held_out_problems_leave_evidence(tmp_path: Path) -> None:
    rows = [{**ROWS[index], "completion": "#### 1"} for index in (0, 6, 7)]  # 6 and 7 are held out
    mix = {"math": str(write_rows(tmp_path / "mix.jsonl", rows))}
    recipe = recipe_of(tmp_path, **{"train.mix": mix})
    said: list[str] = []
    left_out = tmp_path / "training" / "left_out.jsonl"
    kept = mix_rows(recipe, load_domains(recipe, None), left_out, said.append)
    assert [row["prompt"] for row in kept] == [ROWS[0]["question"]]
    assert said == [f"train.mix: 2 of 3 rows are too close to held-out problems, left out: {left_out}"]
    evidence = list(read_jsonl(left_out))
    assert {row["decision_reason"] for row in evidence} == {"contaminated"}
    assert {row["prompt"] for row in evidence} == {ROWS[6]["question"], ROWS[7]["question"]}
    assert all(json.loads(row["evidence"])["share"] == 1.0 for row in evidence)
    recipe.curate = dataclasses.replace(recipe.curate, decontaminate=None)
    assert len(mix_rows(recipe, load_domains(recipe, None), left_out, said.append)) == 3


# ---- Real data ---------------------------------------------------------------------------------------------------


def test_gsm8k(shared_data: Any, tmp_path: Path) -> None:
    path = shared_data("gsm8k/test.jsonl")
    rows = train(recipe_of(tmp_path, **{"domains.math.train": str(path), "domains.math.columns": COLUMNS}))
    assert len(rows) == 1319
    assert all("####" not in row["reference"] for row in rows)


def test_humaneval_columns_give_tests_of_type_assert(shared_data: Any, tmp_path: Path) -> None:
    path = str(shared_data("humaneval/HumanEval.jsonl.gz"))
    section = {
        "train": path,
        "held_out": path,
        "columns": {"tests": {"asserts": "test", "entry_point": "entry_point"}},
        "verifier": "code",
    }
    problem = train(recipe_of(tmp_path, domains={"code": section}))[0]
    assert problem["tests"]["entry_point"] in problem["prompt"]
    assert "def check" in problem["tests"]["code"]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"problems.per_round": 4, "problems.fresh": True},
        {"problems.per_round": 2, "problems.curriculum": "pass_rate"},
    ],
)
def test_every_rounds_problems_are_in_its_pool(tmp_path: Path, changes: dict[str, Any]) -> None:
    """What judges an old run again finds its problems there, whatever chose them."""
    for recipe in (recipe_of(tmp_path, **changes), procedural(tmp_path, **changes)):
        name, section = next(iter(recipe.domains.items()))
        train = TrainProblems(recipe, name, section, ("reference",), lambda index: {})
        bare = TrainProblems(recipe, name, section, ())
        for index in range(3):
            ids = {row["problem_id"] for row in train(index)}
            assert ids
            assert ids <= {row["problem_id"] for row in bare.pool(index)}
