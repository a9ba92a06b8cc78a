"""The schema: ranges, keys that contradict one another, resume marks, and where every key's effect is tested."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from recipe_samples import tree, write_rows

import synth.engines
from recipes.explain import leaf_keys
from recipes.schema import ENGINE_FREE, EXTEND, FREE, Recipe, diff_identity, resume_mark
from recipes.settings import RecipeError, dump_yaml, library, load_any, load_recipe

ROOT = Path(__file__).resolve().parents[2]

TRAINER = "tests/trainers"  # TrainOptions reach the trainer unchanged: test_schema.test_train_options_reach_the_trainer
CURATE = "tests/synth/test_curate.py"
CURATE_VERB = "tests/recipes/test_curate_verb.py"
CONTAMINATION = "tests/synth/test_curate_contamination.py"
EMBEDDING = "tests/recipes/test_curate_embed.py"
SELECT = "tests/synth/test_curate_select.py"
RUN = "tests/recipes/test_run.py"
LOOP = "tests/recipes/test_loop_keys.py"
SELF_TRAINING = "tests/recipes/test_self_training.py"
EVALUATION = "tests/recipes/test_evaluation.py"
PROBLEMS = "tests/recipes/test_problems.py"
PROMPTING = "tests/recipes/test_prompting.py"
SETTINGS = "tests/recipes/test_settings.py"
SCHEMA = "tests/recipes/test_schema.py"
VALIDATION = "tests/recipes/test_validation.py"

WHERE_TESTED = {
    "name": RUN,
    "kind": SCHEMA,
    "rng_seed": LOOP,
    "rounds": RUN,
    "model.path": SETTINGS,
    "model.dtype": SCHEMA,
    "model.trust_remote_code": SCHEMA,
    "model.revision": VALIDATION,
    "model.scratch": TRAINER,
    "engine.name": SCHEMA,
    "engine.options": SETTINGS,
    "domains.*.train": PROBLEMS,
    "domains.*.held_out": PROBLEMS,
    "domains.*.columns": PROBLEMS,
    "domains.*.prompt": PROMPTING,
    "domains.*.verifier.name": SETTINGS,
    "domains.*.verifier.options": SCHEMA,
    "problems": PROBLEMS,
    "sampling": LOOP,
    "curate": CURATE,
    "curate.dedup.against": CURATE_VERB,
    "curate.dedup.chains": CURATE_VERB,
    "curate.decontaminate.text": CURATE_VERB,
    "curate.decontaminate.reworded": CONTAMINATION,
    "curate.decontaminate.semantic": CONTAMINATION,
    "curate.embed": EMBEDDING,
    "curate.select": SELECT,
    "train.method": RUN,
    "train.start_from": LOOP,
    "train.data": LOOP,
    "train.mix": PROBLEMS,
    "train.rationalise": LOOP,
    "train.validation_share": SELF_TRAINING,
    "train": TRAINER,
    "evaluate": LOOP,
    "evaluate.k": EVALUATION,
    "evaluate.n": EVALUATION,
    "gate": LOOP,
    "limits.tokens": RUN,
    "limits.hours": LOOP,
    "keep.checkpoints": LOOP,
    "attack": "tests/recipes/test_safety_rounds.py",
    "workers": LOOP,
}
"""Dotted key, or the section of keys tested together: the file whose tests fail when the key loses its effect."""

LEAVES = {
    "problems": {"per_round", "fresh", "max_bad", "order", "curriculum"},
    "sampling": {"n", "temperature", "top_k", "top_p", "max_tokens", "block", "stop_at_cap"},
    "curate": {
        "text", "dedup.method", "dedup.threshold", "dedup.chains", "dedup.against",
        "decontaminate.against", "decontaminate.ngram",
        "decontaminate.threshold", "decontaminate.reworded", "decontaminate.semantic", "decontaminate.text",
        "cap_per_problem", "min_reward", "reward_schedule", "distinct_reasoning", "balance",
        "across_rounds", "embed", "select.size", "select.method", "select.quality_weight", "select.quality",
        "select.min_quality", "select.pass_rate", "select.length", "select.quotas", "select.mix", "select.source",
    },
    "evaluate": {"k", "n", "temperature", "top_p", "top_k", "max_tokens", "max_problems", "bootstrap"},
    "gate": {"metric", "alpha", "patience"},
    "limits": {"tokens", "hours"},
    "domains.*.prompt": {
        "template", "system", "few_shot.*.prompt", "few_shot.*.completion", "chat", "stop", "max_prompt_tokens",
        "render",
    },
    "domains.*.columns": {
        "*.column", "*.regex", "*.value", "*.values", "*.from_json", "*.asserts", "*.setup", "*.entry_point",
    },
    "domains.*.train": {"path", "split", "count", "limit", "where", "format", "config"},
}  # fmt: skip
"""Leaves of the sections above: a new key fails here until its test is written."""


def entry_of(key: str) -> str | None:
    parts = key.split(".")
    return next((e for end in range(len(parts), 0, -1) if (e := ".".join(parts[:end])) in WHERE_TESTED), None)


@cache
def text_of(place: str) -> str:
    """Source of the tests entered for an entry of WHERE_TESTED."""
    path = ROOT / WHERE_TESTED[place]
    files = sorted(path.glob("test_*.py")) if path.is_dir() else [path]
    return "".join(file.read_text("utf-8") for file in files)


def test_every_key_has_a_place_where_its_effect_is_tested() -> None:
    keys = list(leaf_keys())
    assert not [key for key in keys if entry_of(key) is None]
    unused = {
        entry
        for entry in WHERE_TESTED
        if not any(key == entry or key.startswith(f"{entry}.") for key in keys)
    }
    assert not unused
    missing = [place for place in WHERE_TESTED.values() if not (ROOT / place).exists()]
    assert not missing
    # At the least, the tests of a key must speak of it.
    unnamed = [key for key in keys if key.rsplit(".", 1)[-1].strip("*") not in text_of(str(entry_of(key)))]
    assert not unnamed
    for section, leaves in LEAVES.items():
        assert {key[len(section) + 1 :] for key in keys if key.startswith(f"{section}.")} == leaves, section


def test_defaults_of_the_resolved_recipe() -> None:
    resolved = load_recipe(tree()).resolved()
    assert (resolved["kind"], resolved["rng_seed"], resolved["rounds"], resolved["workers"]) == (
        "self_training",
        0,
        3,
        None,
    )
    assert resolved["sampling"] == {
        "n": 4, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_tokens": 256, "block": None, "stop_at_cap": False,
    }  # fmt: skip
    assert resolved["domains"]["math"]["train"]["split"] == "train"
    assert resolved["domains"]["math"]["held_out"]["split"] == "test"
    assert resolved["domains"]["math"]["verifier"]["options"]["answer_type"] is not None
    assert resolved["curate"]["decontaminate"]["against"] == ["held_out"]
    assert Recipe.model_validate(resolved) == load_recipe(tree())


def problems_of(**changes: Any) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load_recipe(tree(**changes))
    return [problem.where.rpartition(", ")[2] for problem in caught.value.problems]


WRONG = [
    ({"name": "a/b"}, "name"),
    ({"kind": "stf"}, "kind"),
    ({"rng_seed": -1}, "rng_seed"),
    ({"rounds": 0}, "rounds"),
    ({"rounds": "3"}, "rounds"),
    ({"rounds": True}, "rounds"),
    ({"rounds": 2.5}, "rounds"),
    ({"model": {"path": ""}}, "model.path"),
    ({"model": {"path": "m", "dtype": "fp16"}}, "model.dtype"),
    ({"model": {"path": "m", "trust_remote_code": "no"}}, "model.trust_remote_code"),
    ({"model": "scratch"}, "model.scratch"),
    ({"model": {"path": "m", "scratch": {"layers": 2}}}, "model.scratch"),
    ({"model": {"path": "scratch", "scratch": {"vocab_size": 3}}}, "model.scratch.vocab_size"),
    ({"engine": "vlm"}, "engine.name"),
    ({"engine.options": {"pth": "x"}}, "engine.options.pth"),
    (
        {"engine": {"name": "vllm", "options": {"gpu_memory_utilization": 2}}},
        "engine.options.gpu_memory_utilization",
    ),
    ({"domains": {}}, "domains"),
    ({"domains.math.train": None}, "domains"),
    ({"domains.math.held_out": None}, "domains"),
    ({"domains.math.train": {"path": "procedural:math"}}, "domains.math.train.count"),
    ({"domains.math.train": {"path": "a.jsonl", "count": 3}}, "domains.math.train.count"),
    ({"domains.math.train": {"path": "a.jsonl", "limit": 0}}, "domains.math.train.limit"),
    ({"domains.math.train": {"path": "a.jsonl", "format": "xml"}}, "domains.math.train.format"),
    (
        {"domains.math.columns": {"reference": {"column": "a", "regex": "("}}},
        "domains.math.columns.reference.regex",
    ),
    ({"domains.math.columns": {"reference": {"column": "a"}}}, "domains.math.columns.reference.regex"),
    ({"domains.math.columns": {"reference": 3}}, "domains.math.columns.reference"),
    ({"domains.math.prompt": {"few_shot": [{"prompt": "a"}]}}, "domains.math.prompt.few_shot.0.completion"),
    ({"domains.math.prompt": {"stop": [""]}}, "domains.math.prompt.stop.0"),
    ({"domains.math.verifier": "mth"}, "domains.math.verifier.name"),
    ({"domains.math.verifier": {"name": "math", "options": {"tol": 1}}}, "domains.math.verifier.options.tol"),
    ({"domains.reasons": {"train": "train.jsonl", "verifier": "math"}}, "domains.reasons"),
    ({"problems": {"max_bad": 2}}, "problems.max_bad"),
    ({"problems": {"curriculum": "pass_rate"}}, "problems.curriculum"),
    ({"problems": {"curriculum": "pass_rate", "per_round": 2, "fresh": True}}, "problems.curriculum"),
    ({"sampling": {"n": 2, "block": 4}}, "sampling.block"),
    ({"domains.math.held_out": None, "train.method": "none"}, "curate.decontaminate"),
    ({"sampling": {"stop_at_cap": True}}, "sampling.stop_at_cap"),
    ({"sampling": {"temperature": 0}}, "sampling.n"),
    ({"sampling": {"top_p": 0}}, "sampling.top_p"),
    ({"curate": {"cap_per_problem": 0}}, "curate.cap_per_problem"),
    ({"train": {"method": "dpo"}}, "train.method"),
    ({"train": {"lora": {"r": 0}}}, "train.lora.r"),
    ({"train": {"eval_every": 1, "early_stopping": {}}}, "train.early_stopping"),
    (
        {"train": {"eval_every": 1, "early_stopping": {"metric": "pass@1"}, "validation_share": 0.1}},
        "train.early_stopping.metric",
    ),
    ({"train": {"mix": {"code": "a.jsonl"}}}, "train.mix.code"),
    ({"kind": "sft", "train": {"method": "none"}}, "train.method"),
    ({"evaluate": {"k": [1, 9]}}, "evaluate.k"),
    ({"evaluate": {"k": []}}, "evaluate.k"),
    ({"evaluate": {"temperature": 0}}, "evaluate.temperature"),
    ({"gate": {"metric": "pass@2"}}, "gate.metric"),
    ({"gate": {"metric": "accuracy"}}, "gate.metric"),
    ({"limits": {"hours": 0}}, "limits.hours"),
    ({"keep": {"checkpoints": "best"}}, "keep.checkpoints"),
    ({"workers": 0}, "workers"),
]


@pytest.mark.parametrize(
    ("changes", "where"), WRONG, ids=[f"{where}-{i}" for i, (_, where) in enumerate(WRONG)]
)
def test_what_is_wrong_is_named(changes: dict[str, Any], where: str) -> None:
    assert problems_of(**changes) == [where]


def test_unknown_keys_are_errors_at_every_level() -> None:
    for section in (
        "",
        "model",
        "engine",
        "problems",
        "sampling",
        "curate",
        "train",
        "evaluate",
        "gate",
        "limits",
        "keep",
    ):
        base = {"model": {"path": "m"}}.get(section, {})
        changes = {section: {**base, "zzz": 1}} if section else {"zzz": 1}
        assert problems_of(**changes) == [f"{section}.zzz".lstrip(".")]


def test_whole_numbers_may_be_written_as_floats() -> None:
    assert load_recipe(tree(), ["limits.tokens=1e6"]).limits.tokens == 1_000_000


def test_model_settings_reach_the_engines_options() -> None:
    model = {"path": "m", "dtype": "float32", "trust_remote_code": True}
    options = load_recipe(tree(model=model, engine="vllm")).engine.options
    assert (options["dtype"], options["trust_remote_code"]) == ("float32", True)
    own = {"name": "vllm", "options": {"dtype": "bfloat16"}}
    assert load_recipe(tree(model=model, engine=own)).engine.options["dtype"] == "bfloat16"
    # What `auto` will be is not known yet, so nothing is filled in.
    assert load_recipe(tree(engine="auto")).engine.options == {}


def test_verifier_options_are_checked_and_filled_in() -> None:
    verifier = {"name": "math", "options": {"tolerance": 0.5}}
    options = load_recipe(tree(**{"domains.math.verifier": verifier})).domains["math"].verifier.options
    assert options["tolerance"] == 0.5
    assert "percent" in options


def test_train_options_reach_the_trainer() -> None:
    recipe = load_recipe(tree(), ["train.lr=0.5", "train.start_from=previous", "train.betas=[0.5, 0.6]"])
    options = recipe.train_options()
    assert (options.lr, options.betas) == (0.5, (0.5, 0.6))
    assert not hasattr(options, "start_from")


def test_reward_schedule_is_applied_by_round() -> None:
    recipe = load_recipe(tree(curate={"reward_schedule": [0.5, 0.9], "min_reward": 0.1}))
    assert [recipe.curate_options(index).min_reward for index in range(3)] == [0.5, 0.9, 0.9]
    assert load_recipe(tree(curate={"min_reward": 0.1})).curate_options(2).min_reward == 0.1


# ---- Resume marks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["rounds=9", "limits.tokens=5", "limits.hours=1", "workers=2", "keep.checkpoints=all",
                                 'train.trackers=["tensorboard"]', "name=other"])  # fmt: skip
def test_extend_and_free_keys_do_not_refuse_a_resume(key: str) -> None:
    assert diff_identity(load_recipe(tree()), load_recipe(tree(), [key])) == []


IDENTITY = [
    "train.lr=0.1",
    "sampling.n=5",
    "rng_seed=1",
    "domains.math.train.limit=3",
    "gate.alpha=0.1",
    "curate.dedup.method=exact",
    "model.path=other",
    "evaluate.n=5",
]


@pytest.mark.parametrize("key", IDENTITY)
def test_identity_keys_refuse_a_resume_and_are_named(key: str) -> None:
    assert diff_identity(load_recipe(tree()), load_recipe(tree(), [key])) == [key.partition("=")[0]]


def test_added_and_removed_keys_are_named_too() -> None:
    old = load_recipe(tree())
    new = load_recipe(tree(**{"domains.math.columns": {"prompt": "question"}}))
    assert diff_identity(old, new) == ["domains.math.columns.reference"]
    assert diff_identity(new.identity(), old.identity()) == ["domains.math.columns.reference"]


def test_engine_options_about_memory_and_patience_are_free() -> None:
    old = load_recipe(tree(engine="vllm"))
    free = load_recipe(
        tree(engine="vllm"), ["engine.options.gpu_memory_utilization=0.5", "engine.options.restarts=9"]
    )
    assert diff_identity(old, free) == []
    meant = load_recipe(tree(engine="vllm"), ["engine.options.max_model_len=64"])
    assert diff_identity(old, meant) == ["engine.options.max_model_len"]


def test_every_mark_names_a_key_that_exists() -> None:
    keys = [f"{key}." for key in leaf_keys()]
    options = {
        name
        for engine in synth.engines.NAMES
        for name in synth.engines.options_class(engine).__dataclass_fields__
    }
    assert set(ENGINE_FREE) <= options
    for mark in (EXTEND | FREE) - {f"engine.options.{name}" for name in ENGINE_FREE}:
        assert any(key.startswith(f"{mark}.") for key in keys), mark
    assert resume_mark("limits.tokens") == "extend"
    assert resume_mark("keep.checkpoints") == "free"
    assert resume_mark("train.lr") == "identity"


# ---- Shipped recipes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(library()))
def test_every_shipped_recipe_is_valid_and_begins_with_a_comment(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNTHLOOP_DATA", str(tmp_path))
    recipe = load_any(name)
    assert recipe.name == name
    (tmp_path / "copy.yaml").write_text(dump_yaml(recipe), encoding="utf-8")
    assert load_any(tmp_path / "copy.yaml") == recipe
    head = library()[name].read_text("utf-8").split("\nname:")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    assert head.startswith("#")


def test_shipped_recipes_for_gpus_follow_the_paper() -> None:
    for name, n in (("gsm8k-rest", 32), ("math-rest", 32), ("mbpp-rest", 64)):
        recipe = load_recipe(name)
        sampling, train = recipe.sampling, recipe.train
        assert (sampling.n, sampling.temperature, sampling.top_k) == (n, 0.7, 40)
        assert (recipe.curate.cap_per_problem, train.start_from, train.mix) == (10, "base", None)
        assert (recipe.evaluate.temperature, recipe.evaluate.top_p) == (1.0, 0.95)
        assert f"synth run {name}" in library()[name].read_text("utf-8")


def test_gsm8k_replay_names_the_variable_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SYNTHLOOP_DATA", raising=False)
    with pytest.raises(RecipeError, match="SYNTHLOOP_DATA, which is not set"):
        load_recipe("gsm8k-replay")


def test_a_problem_file_can_replace_a_hub_data_set(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", [{"question": "1+1?", "answer": "#### 2"}])
    recipe = load_recipe(
        "gsm8k-rest", [f"domains.gsm8k.train={rows}", "model=builtin:tiny", "engine.name=transformers"]
    )
    assert recipe.domains["gsm8k"].train is not None
    assert recipe.domains["gsm8k"].train.config is None
