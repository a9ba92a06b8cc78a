"""The scalar rule, YAML with line numbers, `--set`, variables in paths, secrets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recipe_samples import tree

from recipes.settings import RecipeError, dump_yaml, load_recipe, read_resolved, verifier_options
from recipes.values import apply_set, parse_set, parse_value, parse_yaml, to_yaml
from synth.records.errors import InputError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-6", 1e-6),
        ("no", "no"),
        ("yes", "yes"),
        ("True", "True"),
        ("true", True),
        ("null", None),
        ("~", "~"),
        ("007", "007"),
        ("1_000", "1_000"),
        ("2024-01-01", "2024-01-01"),
        ("NaN", "NaN"),
        ("1e999", "1e999"),
        ('"5"', "5"),
        ("[1, no]", "[1, no]"),
        ("[1, 2]", [1, 2]),
        ("a=b", "a=b"),
    ],
)
def test_a_scalar_is_json_or_text(text: str, value: Any) -> None:
    got = parse_value(text)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 1e-6", {"a": 1e-6}),
        ("a: no", {"a": "no"}),
        ("a: '1'", {"a": "1"}),
        ('a: "1"', {"a": "1"}),
        ("a:", {"a": None}),
        ("a: [1, no, '2']", {"a": [1, "no", "2"]}),
        ("a: &x {b: 1}\nc: *x", {"a": {"b": 1}, "c": {"b": 1}}),
        ("1: x", {"1": "x"}),
        ("", None),
        ("a: |\n  1\n", {"a": "1\n"}),
    ],
)
def test_yaml_follows_the_same_rule(text: str, value: Any) -> None:
    assert parse_yaml(text, "r.yaml")[0] == value


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        ("a: 1\nb: [", 2, "not YAML"),
        ("a: 1\na: 2", 2, "twice"),
        ("a: !!python/object:os.system x", 1, "tag"),
        ("a: &x [*x]", 1, "contains itself"),
        ("? [1]\n: 2", 1, "not a name"),
    ],
)
def test_bad_yaml_names_its_line(text: str, line: int, word: str) -> None:
    with pytest.raises(InputError, match=word) as caught:
        parse_yaml(text, "r.yaml")
    assert caught.value.where == f"r.yaml, line {line}"


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.sampled_from(
        ["no", "1e-6", "null", "", " x", "a: b", "- a", "#", "|", "\x85", "\u2028", "\x00", "\ud800"]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.dictionaries(st.text(), plain, max_size=4))
def test_what_is_written_reads_back_the_same(value: dict[str, Any]) -> None:
    back, _ = parse_yaml(to_yaml(value), "r.yaml")
    assert back == value
    assert json.dumps(back) == json.dumps(value)  # 1 and 1.0 and True are told apart


def test_set_splits_at_the_first_equals_sign() -> None:
    assert parse_set("a.b=c=d") == (("a", "b"), "c=d")
    assert parse_set("a=[1, 2]") == (("a",), [1, 2])
    for bad in ("a", "=1", "a..b=1", ""):
        with pytest.raises(InputError, match="KEY=VALUE"):
            parse_set(bad)


def test_set_reaches_into_maps_and_lists() -> None:
    target: dict[str, Any] = {"a": {"b": [1, 2]}, "c": 3, "n": None}
    for key, value in (("a.b.0", 9), ("a.b.2", 7), ("n.x", 1), ("d.e", 2)):
        apply_set(target, tuple(key.split(".")), value)
    assert target == {"a": {"b": [9, 2, 7]}, "c": 3, "n": {"x": 1}, "d": {"e": 2}}
    with pytest.raises(InputError, match="not a map or list"):
        apply_set(target, ("c", "x"), 1)
    with pytest.raises(InputError, match="index from 0 to 3"):
        apply_set(target, ("a", "b", "9"), 1)
    with pytest.raises(InputError, match="'x' in a list"):
        apply_set(target, ("a", "b", "x"), 1)


def test_set_starts_from_a_default_list() -> None:
    assert load_recipe(tree(), ["evaluate.k.1=2"]).evaluate.k == [1, 2]


def test_set_wins_over_the_file_and_later_over_earlier() -> None:
    recipe = load_recipe(tree(rounds=5), ["rounds=2", "rounds=4", "model.dtype=float32", "train.lora.r=3"])
    assert (recipe.rounds, recipe.model.path, recipe.model.dtype) == (4, "builtin:tiny", "float32")
    assert recipe.train.lora is not None
    assert recipe.train.lora.r == 3


def error_of(*overrides: str, **changes: Any) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        load_recipe(tree(**changes), list(overrides))
    return caught.value


def test_errors_name_file_line_field_value_and_remedy(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(to_yaml(tree()) + "train:\n  lr: -1\n  epohcs: 3\nsampling: {n: 0}\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(file)
    lines = file.read_text().splitlines()
    first = lines.index("train:") + 1
    found = {problem.where: problem for problem in caught.value.problems}
    unknown = found[f"{file}, line {first + 2}, train.epohcs"]
    assert "epohcs" in unknown.seen
    assert "epochs" in unknown.fix
    assert f"{file}, line {first + 3}, sampling.n" in found
    assert all(len(str(problem).splitlines()) <= 3 for problem in caught.value.problems)


def test_a_rooms_own_complaint_gets_its_path() -> None:
    problem = error_of("train.lr=-1").problems[0]
    assert problem.where == "--set train.lr"
    assert "-1" in problem.seen
    nested = error_of(**{"curate.dedup": {"method": "exakt"}}).problems[0]
    assert nested.where == "recipe, curate.dedup.method"
    assert "exact" in nested.fix


def test_unknown_set_path_says_did_you_mean() -> None:
    problem = error_of("trian.lr=3").problems[0]
    assert (problem.where, problem.fix) == ("--set trian.lr", "did you mean 'train'?")


def test_all_problems_are_reported_but_not_endlessly() -> None:
    error = error_of(*[f"k{i}=1" for i in range(9)])
    assert len(error.problems) == 9
    assert str(error).endswith("and 4 more")


def test_the_resolved_recipe_reads_back_and_is_complete(tmp_path: Path) -> None:
    recipe = load_recipe(tree(), ["sampling.n=2", "domains.math.prompt.template=\x08 {prompt} 1e-6"])
    file = tmp_path / "recipe.yaml"
    file.write_text(dump_yaml(recipe), encoding="utf-8")
    assert load_recipe(file) == recipe
    assert read_resolved(file) == recipe
    written, _ = parse_yaml(file.read_text("utf-8"), "r")
    assert written["gate"] == {"metric": "pass@1", "alpha": 0.05, "patience": 2}
    assert written["engine"]["options"] == {
        "path": "completions.jsonl",
        "prompt": "prompt",
        "completion": "completion",
    }


def test_a_damaged_resolved_recipe_is_the_users_to_mend(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("name: x\nbogus: 1\n")
    with pytest.raises(InputError, match="another version"):
        read_resolved(file)


def test_variables_in_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_DATA", "/data")
    recipe = load_recipe(tree(**{"domains.math.train": "${SOME_DATA}/a.jsonl"}))
    assert recipe.domains["math"].train is not None
    assert recipe.domains["math"].train.path == "/data/a.jsonl"
    monkeypatch.delenv("SOME_DATA")
    problem = error_of(**{"engine.options": {"path": "${SOME_DATA}/b"}}).problems[0]
    assert problem.where == "recipe, engine.options.path"
    assert "SOME_DATA" in problem.seen
    # Only paths are expanded: a template may say what it likes.
    kept = load_recipe(tree(**{"domains.math.prompt": {"template": "${SOME_DATA} {prompt}"}}))
    assert kept.domains["math"].prompt.template == "${SOME_DATA} {prompt}"


def test_a_file_beside_the_recipe_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "judge.py").write_text("def judge(row):\n    return True\n")
    (tmp_path / "a" / "r.yaml").write_text(to_yaml(tree(**{"domains.math.verifier": "judge.py:judge"})))
    monkeypatch.chdir(tmp_path)
    assert load_recipe("a/r.yaml").domains["math"].verifier.name == "a/judge.py:judge"
    (tmp_path / "judge.py").write_text("def judge(row):\n    return True\n")
    assert load_recipe("a/r.yaml").domains["math"].verifier.name == "judge.py:judge"


@pytest.mark.parametrize(
    "changes",
    [
        {"engine.options": {"api_key": "sk-123"}},
        {"engine.options": {"headers": {"Authorization": "x"}}},
        {"engine.options": {"extra": {"hf_token": "x"}}},
        {"engine.options": {"api_key_env": "sk-abcdefghijklmnopqrst"}},
        {"model": "hf_abcdefghijklmnopqrstuv"},
        {"engine.options": {"base_url": "http://me:hunter2@host/v1"}},
        {"domains.math.verifier": {"name": "v.py:judge", "options": {"api_key": "hunter2"}}},
        {"domains.math.train": "${DATA_URL}"},
    ],
)
def test_secrets_are_refused_and_not_repeated(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_URL", "https://me:hunter2@host/rows.jsonl")
    error = error_of(**changes)
    assert "environment variable" in str(error)
    for secret in ("sk-", "hunter2", "hf_abc", "'x'"):
        assert secret not in str(error)


def test_half_a_surrogate_pair_is_named_by_its_field() -> None:
    problem = error_of(**{"domains.math.prompt": {"template": "\ud800 {prompt}"}})
    assert "domains.math.prompt.template" in problem.where
    assert "surrogate" in problem.seen
    str(problem).encode("ascii")


def test_a_superscript_is_no_list_index() -> None:
    with pytest.raises(InputError, match="in a list of"):
        load_recipe("demo", ["evaluate.k.\u00b2=1"])


def test_names_of_keys_are_no_secrets() -> None:
    options = {"api_key_env": "MY_KEY", "base_url": "http://localhost:8000/v1"}
    recipe = load_recipe(tree(**{"engine": {"name": "openai", "options": options}, "train.method": "none"}))
    assert recipe.engine.options["api_key_env"] == "MY_KEY"


def test_verifier_options_from_set(tmp_path: Path) -> None:
    assert verifier_options("math", ["tolerance=1e-6"])["tolerance"] == 1e-6
    with pytest.raises(InputError, match="did you mean 'tolerance'"):
        verifier_options("math", ["tolerence=1"])
    with pytest.raises(InputError, match="--set tolerance"):
        verifier_options("math", ["tolerance=big"])
    (tmp_path / "v.py").write_text("def judge(row, limit=1):\n    return True\n")
    assert verifier_options(f"{tmp_path}/v.py:judge", ["limit=3"]) == {"limit": 3}


def test_names_and_paths() -> None:
    assert load_recipe("gsm8k-rest").name == "gsm8k-rest"
    with pytest.raises(InputError, match="did you mean 'gsm8k-rest'"):
        load_recipe("gsm8k-rset")
    with pytest.raises(InputError, match="cannot be read"):
        load_recipe("gsm8k-rest.yaml")
