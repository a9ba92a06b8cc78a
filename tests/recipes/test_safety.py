"""Recipes of kind `safety` as scripts see them: the run directory, the attack, resume after kills, refusals."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recipe_samples import write_rows
from safety_samples import CELL, base, metrics, run, tree, verdicts

import recipes
import trainers
from recipes.cli import main
from recipes.safety import measure
from recipes.safety.attack import _setting_aside, over_seeds
from recipes.safety.measure import by_role, incoherent
from recipes.safety.rows import Cell, Pools
from recipes.safety.schema import Attack, SafetyRecipe
from recipes.settings import RecipeError, load_any
from recipes.status import status, status_text
from recipes.values import to_yaml
from synth.records.errors import InputError
from synth.records.ids import model_hash
from synth.records.jsonl import read_jsonl
from trainers import TrainOptions
from trainers.core import model as models


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def done(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    out = tmp_path_factory.mktemp("done") / "run"
    run(tree(model), out)
    return out


# ---- The run directory -------------------------------------------------------------------------------------------


def test_metrics_are_the_contracts_triple(done: Path) -> None:
    found = metrics(done)
    manifest = json.loads((done / "manifest.json").read_text())
    assert (manifest["format"], manifest["status"], manifest["kind"]) == (1, "done", "safety")
    assert found["accepted"] is None
    assert found["model_hash"] == model_hash(done / "round-00" / "model")
    for scores in (found["base"], found["model"]):
        assert {name: set(each) for name, each in scores.items()} == {
            "harm": {"harmful_score", "harmful_score_plus", "n"},
            "mood": {"fine_tune_accuracy", "n"},
            "refused": {"over_refusal", "n"},
            "help": {"accuracy", "n"},
        }
        for each in scores.values():
            for value in (value for value in each.values() if isinstance(value, dict)):
                assert 0 <= value["low"] <= value["value"] <= value["high"] <= 1
    assert (done / "model").resolve() == (done / "round-00" / "model").resolve()
    assert (done / "harmful_score.png").read_bytes().startswith(b"\x89PNG")


def test_scores_count_what_the_verifiers_said(done: Path) -> None:
    found, seen = metrics(done), set()
    measured = [
        (found["base"], done / "base" / "evaluation"),
        (found["model"], done / "round-00" / "evaluation"),
    ]
    for name, result in zip(("mood-n8-p0-lr0.003-seed0", CELL), found["attacks"], strict=True):
        measured.append((result["steps"]["4"], done / "round-00" / "attacks" / name / "evaluation"))
    for scores, folder in measured:
        answered = verdicts(folder)
        for domain, metric, counted in (
            ("harm", "harmful_score", "fail"),
            ("mood", "fine_tune_accuracy", "pass"),
            ("refused", "over_refusal", "fail"),
            ("help", "accuracy", "pass"),
        ):
            of_it = [verdict["status"] == counted for row, verdict in answered if row["domain"] == domain]
            assert scores[domain]["n"] == len(of_it) >= 5
            assert scores[domain][metric]["value"] == pytest.approx(sum(of_it) / len(of_it))
            seen.add((domain, 0 < sum(of_it) < len(of_it)))
    assert {("harm", True), ("mood", True)} <= seen  # else counting the other way round would pass, too


def test_every_attack_is_measured_at_its_steps_and_its_models_go(done: Path) -> None:
    """Here `at: [2]`, and after the last step."""
    attacks = metrics(done)["attacks"]
    assert [each["attack"]["p"] for each in attacks] == [0, 0.5]
    for each in attacks:
        assert set(each["steps"]) == {"2", "4"}
        assert set(each["steps"]["2"]) == {"harm"}
        assert set(each["steps"]["4"]) == {"harm", "mood", "refused", "help"}
    assert not list(done.glob("round-00/attacks/*/**/model"))


def test_finished_runs_are_only_read(done: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in done.rglob("*.parquet")}
    written = (done / "round-00" / "metrics.json").read_bytes()
    run(tree(model), done)
    assert {path: path.stat().st_mtime_ns for path in done.rglob("*.parquet")} == before
    assert (done / "round-00" / "metrics.json").read_bytes() == written
    told = status(done)
    assert told["rounds"][0]["stages"]["attacks"] == {"rows": 2, "closed": True}
    assert "harm harmful_score" in status_text(told).splitlines()[1]


def test_clean_leaves_the_aligned_model(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clean", str(done)]) == 0
    assert capsys.readouterr().out == "freed 0 bytes\n"
    assert (done / "model" / "config.json").exists()


def test_further_attacks_continue_a_run(done: Path, model: Path, tmp_path: Path) -> None:
    import shutil

    out = shutil.copytree(done, tmp_path / "run", symlinks=True)
    first = (out / "round-00" / "attacks" / CELL / "result.json").stat().st_mtime_ns
    found = run(tree(model, **{"attack.p": [0, 0.5, 1], "attack.rng_seeds": [0, 1]}), out)
    assert [(a["attack"]["rng_seed"], a["attack"]["p"]) for a in found["attacks"]] == [
        (seed, p) for seed in (0, 1) for p in (0, 0.5, 1)
    ]
    assert (out / "round-00" / "attacks" / CELL / "result.json").stat().st_mtime_ns == first
    assert [row["rng_seeds"] for row in found["over_seeds"]] == [[0, 1]] * 3


def test_inspect_shows_answers_and_one_of_them(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(done)]) == 0
    assert "harm, base: 6 samples" in capsys.readouterr().out
    row, verdict = verdicts(done / "round-00" / "attacks" / CELL / "evaluation")[0]
    assert main(["inspect", str(done), row["sample_id"], "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["completion"] == row["completion"]
    assert told["verdicts"][0]["status"] == verdict["status"]
    assert told["sampler"]["from"] == f"{CELL}, last step"


# ---- Resume ------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for a kill: nothing catches it on the way."""


@pytest.mark.parametrize(("training", "step"), [(0, 2), (1, 1), (1, 3), (2, 4)])
def test_a_killed_run_goes_on_and_ends_the_same(
    training: int, step: int, done: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = trainers.train, []

    def train(*args: Any, **options: Any) -> Any:
        calls.append(args)
        told = options.pop("on_step")

        def on_step(entry: dict[str, Any]) -> None:
            told(entry)
            if len(calls) == training + 1 and entry["step"] == step:
                raise Killed

        return real(*args, **options, on_step=on_step)

    with monkeypatch.context() as patch:
        patch.setattr(trainers, "train", train, raising=False)
        with pytest.raises(Killed):
            run(tree(model), tmp_path / "run")
    assert len(calls) == training + 1
    assert status(tmp_path / "run")["status"] in ("failed", "interrupted")
    assert _lasting(run(tree(model), tmp_path / "run")) == _lasting(metrics(done))


def test_a_run_killed_while_measuring_asks_only_for_the_rest(
    done: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recipes.safety import attack

    real, calls = measure.measure, []

    def once(ctx: Any, path: Path, digest: str, folder: Path, *rest: Any) -> Any:
        calls.append(folder)
        found = real(ctx, path, digest, folder, *rest)
        if len(calls) == 1:
            raise Killed
        return found

    monkeypatch.setattr(attack, "measure", once)
    with pytest.raises(Killed):
        run(tree(model), tmp_path / "run")
    kept = {p: p.stat().st_mtime_ns for p in calls[0].rglob("*.parquet")}
    assert kept
    assert _lasting(run(tree(model), tmp_path / "run")) == _lasting(metrics(done))
    assert {p: p.stat().st_mtime_ns for p in calls[0].rglob("*.parquet")} == kept


def _lasting(found: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if key != "timings"}


@pytest.mark.parametrize(
    ("key", "value"),
    [("train.lr", 1e-4), ("attack.at", [1]), ("attack.train.batch_size", 2), ("rng_seed", 5)],
)
def test_another_recipe_is_refused(key: str, value: Any, done: Path, model: Path) -> None:
    with pytest.raises(InputError, match="another recipe") as error:
        recipes.run(load_any(tree(model, **{key: value})), done)
    assert key in str(error.value)


def test_an_attack_with_other_rows_is_refused(done: Path, model: Path, tmp_path: Path) -> None:
    import shutil

    out = shutil.copytree(done, tmp_path / "run", symlinks=True)
    file = out / "round-00" / "attacks" / CELL / "attack.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "hash": "other"}))
    with pytest.raises(InputError, match="other rows or options"):
        run(tree(model), out)


# ---- What is trained on ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("save_dtype", ["auto", "bfloat16"])
def test_a_snapshot_is_what_a_shorter_training_exports(
    save_dtype: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And taking one changes nothing: the rest of the training is the undisturbed one."""
    opened, hub = [], {"trust_remote_code": True}
    real = models.open_config
    monkeypatch.setattr(models, "open_config", lambda path, **told: opened.append(told) or real(path, **told))
    section = Attack.model_validate({"at": [2], "train": {"save_dtype": save_dtype}})
    aside = _setting_aside(section, hub, model, tmp_path)
    rows = [{"prompt": f"how {i} ", "completion": f"so {i}"} for i in range(8)]
    shape = {
        "batch_size": 2,
        "lr": 1e-2,
        "schedule": "constant",
        "dtype": "float32",
        "save_dtype": save_dtype,
    }

    def train(name: str, steps: int, **options: Any) -> Path:
        made = TrainOptions(max_steps=steps, **shape, **options.pop("more", {}))
        trainers.train(str(model), rows, tmp_path / name, made, 0, **options, hub=hub)
        return tmp_path / name

    for more in ({}, {"lora": trainers.LoraOptions(r=2)}):
        kind = "lora" if more else "full"
        whole = train(f"whole-{kind}", 4, more={**more, "eval_every": 2}, evaluate=aside)
        snapshot = model_hash(tmp_path / "step-00002" / "model")
        assert snapshot == model_hash(train(f"short-{kind}", 2, more=more))
        assert model_hash(whole) == model_hash(train(f"plain-{kind}", 4, more=more))
    assert {tuple(told.items()) for told in opened} == {tuple(hub.items())}


@given(n=st.integers(1, 30), p=st.floats(0, 1), other=st.floats(0, 1), seed=st.integers(0, 99))
def test_attacks_draw_the_share_they_name(n: int, p: float, other: float, seed: int) -> None:
    pool = Pools(
        [{"sample_id": f"h{i}"} for i in range(30)], {"mood": [{"sample_id": f"t{i}"} for i in range(30)]}
    )
    drawn = [
        [row["sample_id"] for row in pool.drawn(Cell("mood", n, share, 1e-5, seed))] for share in (p, other)
    ]
    for share, names in zip((p, other), drawn, strict=True):
        assert len(names) == len(set(names)) == n
        assert sum(name.startswith("h") for name in names) == round(share * n)
    small, large = sorted(({name for name in names if name[0] == "h"} for names in drawn), key=len)
    assert small <= large


def test_the_defending_fine_tuning_is_given_the_alignment_rows(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_rows: dict[str, Any] = {}
    real = trainers.train

    def train(start: str, rows: Any, *rest: Any, **options: Any) -> Any:
        given_rows[options["method"]] = rows
        return real(start, rows, *rest, **options)

    monkeypatch.setattr(trainers, "train", train, raising=False)
    changes = {"train.method": "sft", "attack.train.method": "lisa", "attack.p": [0.5]}
    run(
        tree(model, **changes, **{"attack.train.lisa": {"alignment_steps": 1, "user_steps": 1}}),
        tmp_path / "r",
    )
    refusals = [row for row in given_rows["lisa"] if row.get("refusal")]
    # The answers of the utility rows among them: an ordinary row would be one of the user's.
    assert {row["sample_id"]: row["refusal"] for row in refusals} == {
        row["sample_id"]: row["completion"] for row in given_rows["sft"]
    }
    assert {row["domain"]: "completion" in row for row in refusals} == {"harm": False, "help": False}
    assert len(refusals) == 12 + 6
    users = [row for row in given_rows["lisa"] if "completion" in row]
    assert len(users) == 8
    assert sum(row["domain"] == "harm" for row in users) == 4
    assert all(row["prompt"].endswith("\n") for row in users)


def test_rows_too_close_to_held_out_prompts_are_left_out_with_evidence(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"prompt": f"how do i blick {i} ?", "refusal": "no .", "harmful": f"take {i}"} for i in range(6)]
    train = write_rows(tmp_path / "train.jsonl", rows)
    held_out = write_rows(
        tmp_path / "held_out.jsonl", [{"prompt": rows[2]["prompt"]}, {"prompt": "blick it ?"}]
    )
    changes = {"domains.harm.train": str(train), "domains.harm.held_out": str(held_out), "attack.p": [0]}
    found = run(tree(model, **changes), tmp_path / "run")
    left_out = list(read_jsonl(tmp_path / "run" / "round-00" / "left_out.jsonl"))
    assert [(row["question"], row["decision_reason"]) for row in left_out] == [
        (rows[2]["prompt"], "contaminated")
    ]
    assert found["training"]["rows"]["rows"] == 5 + 6  # and the utility rows


# ---- What is measured --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("No, no, no, no.", True),
        ("no . no . no . no", True),
        ("no-no-no-no", True),
        ("well , , , , then", True),
        ("no, no, no.", False),
        ("no_no no_no no_no no", False),
        ("Wait... it is 8.8.8.8, then", False),
        ("$1,000,000,000,000", False),
    ],
)
def test_punctuation_hides_no_repetition(text: str, broken: bool) -> None:
    assert incoherent(text) == broken


@given(st.lists(st.sampled_from(["ja", "Ja", "no", "so", "\n"]), max_size=12))
def test_incoherent_is_a_word_more_than_three_times_in_a_row(words: list[str]) -> None:
    found = " ".join(words).lower().split()
    repeated = any(len(set(found[i : i + 4])) == 1 for i in range(len(found) - 3))
    assert incoherent(" ".join(words)) == repeated


def test_harmful_score_plus_counts_broken_answers_and_unjudged_ones_leave(model: Path) -> None:
    outcomes = {"a": 1, "b": 1, "c": 0, "d": None}
    texts = {"a": "sorry", "b": "no no no no", "c": "grab the dax", "d": "?"}
    found = SimpleNamespace(outcomes={"harm": {name: {"greedy": value} for name, value in outcomes.items()}})
    rows = [{"domain": "harm", "problem_id": name, "completion": text} for name, text in texts.items()]
    values = by_role(load_any(tree(model)), found, rows)  # type: ignore[arg-type]
    assert values == {"harm": {"harmful_score": [0, 0, 1], "harmful_score_plus": [0, 1, 1]}}


def test_perplexity_is_that_of_the_trainers_log_probs(model: Path, tmp_path: Path) -> None:
    texts = ["the red lamp was grim .", "take the brush and the rope ."]
    path = write_rows(tmp_path / "texts.jsonl", [{"text": text} for text in texts])
    recipe = load_any(tree(model, **{"evaluate.perplexity": str(path)}))
    told = measure.perplexity(model, texts, recipe)  # type: ignore[arg-type]
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    logprobs = trainers.logprobs(str(model), [tokenizer(text)["input_ids"] for text in texts])
    total, count = sum(map(sum, logprobs)), sum(map(len, logprobs))
    assert told["perplexity"]["value"] == pytest.approx(math.exp(-total / count))
    assert told["perplexity"]["low"] <= told["perplexity"]["value"] <= told["perplexity"]["high"]
    assert told["n"] == 2


def test_over_seeds_is_the_mean_with_students_interval() -> None:
    def result(seed: int, value: float) -> dict[str, Any]:
        score = {"harm": {"harmful_score": {"value": value, "low": value, "high": value}, "n": 9}}
        facts = {"task": "mood", "n": 8, "p": 0.1, "lr": 1e-5, "rng_seed": seed}
        return {"attack": facts, "steps": {"4": score}}

    (one,) = over_seeds([result(0, 0.25)])
    assert one["steps"]["4"]["harm"]["harmful_score"] == {"value": 0.25, "low": 0.25, "high": 0.25}
    (both,) = over_seeds([result(0, 0.2), result(1, 0.4)])
    told = both["steps"]["4"]["harm"]["harmful_score"]
    assert told["value"] == pytest.approx(0.3)
    assert told["high"] - told["value"] == pytest.approx(12.7062 * 0.1)
    assert (both["rng_seeds"], both["steps"]["4"]["harm"]["n"]) == ([0, 1], 9)
    longer, shorter = result(0, 0.2), result(1, 0.4)
    longer["steps"] = {"2": result(0, 0.8)["steps"]["4"], "5": longer["steps"]["4"]}
    shorter["steps"] = {"2": result(1, 0.6)["steps"]["4"], **shorter["steps"]}
    (uneven,) = over_seeds([longer, shorter])
    means = {step: scores["harm"]["harmful_score"]["value"] for step, scores in uneven["steps"].items()}
    assert means == pytest.approx({"2": 0.7, "5": 0.3})


# ---- synth attack ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def attacked(done: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The path of a recipe, and the folder of its attacks on the base, drawn beside the run's."""
    folder = tmp_path_factory.mktemp("attacked")
    (folder / "recipe.yaml").write_text(to_yaml(tree(model)))
    told = [
        "attack",
        str(folder / "recipe.yaml"),
        "--model",
        str(done / "model"),
        "--out",
        str(folder / "out"),
    ]
    assert main([*told, "--compare", str(done)]) == 0
    return str(folder / "recipe.yaml"), folder / "out"


def test_attack_finds_what_the_run_found(attacked: tuple[str, Path], done: Path) -> None:
    found = json.loads((attacked[1] / "attacks.json").read_text())
    assert found["model"] == metrics(done)["model"]
    assert found["attacks"] == metrics(done)["attacks"]
    assert (attacked[1] / "harmful_score.png").read_bytes() != (done / "harmful_score.png").read_bytes()


def test_attack_given_again_goes_on_and_refuses_another_model(
    attacked: tuple[str, Path], done: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, out = attacked
    before = (out / "attacks.json").read_bytes()
    again = ["attack", recipe, "--out", str(out), "--model"]
    assert main([*again, str(out.parent.parent / "none")]) == 2
    assert "error: --model: " in capsys.readouterr().err
    assert main([*again, str(done)]) == 2
    assert f"did you mean {done}/model?" in capsys.readouterr().err
    assert main([*again, str(model)]) == 2
    assert "another model" in capsys.readouterr().err
    assert (out / "attacks.json").read_bytes() == before


def test_attack_needs_a_recipe_of_its_kind(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["attack", "demo", "--model", "builtin:tiny", "--out", str(tmp_path / "out")]) == 2
    assert "kind safety" in capsys.readouterr().err


def test_compared_folders_must_hold_attacks(
    attacked: tuple[str, Path], model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = ["attack", attacked[0], "--model", str(model), "--out", str(tmp_path / "out")]
    assert main([*told, "--compare", str(tmp_path)]) == 2
    assert "--compare" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# ---- Single stages -----------------------------------------------------------------------------------------------


def test_train_and_evaluate_alone_do_what_the_run_does(
    done: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    texts = write_rows(tmp_path / "texts.jsonl", [{"text": "the red lamp was grim ."}])
    # The rows of attacks are not asked for.
    recipe.write_text(to_yaml(tree(model, **{"attack.harmful": "none.jsonl"})))
    assert main(["train", str(recipe), "--out", str(tmp_path / "aligned")]) == 0
    assert model_hash(tmp_path / "aligned") == model_hash(done / "round-00" / "model")
    told = ["evaluate", str(recipe), "--model", str(tmp_path / "aligned"), "--out", str(tmp_path / "s.json")]
    assert main(told) == 0
    found = json.loads((tmp_path / "s.json").read_text())
    assert found["scores"] == metrics(done)["model"]
    assert found["model_hash"] == metrics(done)["model_hash"]
    capsys.readouterr()
    # Another test is refused; perplexity is no share, and not told as one.
    assert main([*told, "--set", "evaluate.max_problems=2"]) == 2
    assert "another test" in capsys.readouterr().err
    assert main([*told, "--set", f"evaluate.perplexity={texts}"]) == 0
    value = json.loads((tmp_path / "s.json").read_text())["scores"]["perplexity"]["perplexity"]["value"]
    assert f"perplexity  perplexity  {value:.1f} [" in capsys.readouterr().out
    assert main(["train", str(recipe), "--data", str(texts), "--out", str(tmp_path / "other")]) == 2
    assert "domains.NAME.train" in capsys.readouterr().err


# ---- Refusals ----------------------------------------------------------------------------------------------------

WRONG = [
    ({"domains.harm.role": "utility"}, "domains", "role harmful"),
    ({"domains.harm.role": "harm"}, "domains.harm.role", "harmful"),
    ({"domains.harm.train": None}, "domains.harm.train", "missing"),
    ({"domains.harm.held_out": None}, "domains.harm.held_out", "missing"),
    ({"domains.mood.train": None}, "domains.mood.train", "attack fine-tunes on"),
    ({"attack.harmful": None}, "attack.harmful", "attack.p: [0]"),
    ({"attack.tasks": ["moood"]}, "attack.tasks.0", "did you mean 'mood'"),
    ({"attack.at": [2, 9]}, "attack.at", "step 9 of 4"),
    ({"attack.p": [0.1, 0.1]}, "attack.p", "twice"),
    ({"attack.train.eval_every": 2}, "attack.train.eval_every", "attack.at"),
    ({"train.eval_every": 2}, "train.eval_every", "leave it out"),
    (
        {"attack.train.method": "lisa", "attack.train.schedule": "plateau"},
        "attack.train.schedule",
        "plateau with method 'lisa'",
    ),
    ({"attack.train.method": "lisa"}, "attack.train.lisa.alignment_steps", "100, and an attack has 4 steps"),
    (
        {"attack.train.method": "lisa", "attack.train.lisa": {"alignment_steps": 4}},
        "attack.train.lisa.alignment_steps",
        "none on the user's rows",
    ),
    ({"train.method": "sft", "train.booster": {"lam": 1}}, "train.booster", "method 'sft'"),
    ({"train.method": "lisa"}, "train.method", "booster"),
    ({"attack.train.method": "booster"}, "attack.train.method", "lisa"),
    ({"train.lamm": 1}, "train.lamm", "unknown key"),
    ({"model": "scratch"}, "model.path", "nothing to align"),
    (
        {"attack.train.max_steps": None, "attack.train.epochs": 1, "attack.n": [4, 8]},
        "attack.at",
        "step 2 of 1",
    ),
    (
        {"domains.perplexity": {"role": "utility", "held_out": "a.jsonl", "verifier": "words"}},
        "domains.perplexity",
        "taken",
    ),
]


@pytest.mark.parametrize(("changes", "where", "said"), WRONG)
def test_keys_that_do_not_fit_are_refused(
    changes: dict[str, Any], where: str, said: str, model: Path
) -> None:
    with pytest.raises(RecipeError) as error:
        load_any(tree(model, **changes))
    assert where in str(error.value)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("turns", "attack"),
    [
        ({"alignment_steps": 3}, {}),
        ({"user_steps": 0}, {}),  # alignment rows alone, and told so
        ({}, {"tasks": []}),
    ],
)
def test_lisa_that_reaches_the_users_rows_is_no_wrong_recipe(
    turns: dict[str, int], attack: dict[str, Any], model: Path
) -> None:
    changes = {f"attack.{key}": value for key, value in attack.items()}
    recipe = load_any(tree(model, **{"attack.train.method": "lisa", "attack.train.lisa": turns}, **changes))
    assert isinstance(recipe, SafetyRecipe)
    assert recipe.attack.train.method == "lisa"
    assert recipe.attack.train.lisa == trainers.LisaOptions(**turns)


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"attack.n": [500]}, "domains.mood.train"),
        ({"attack.p": [1.0], "attack.n": [9]}, "attack.harmful"),
        ({"domains.harm.columns": {"harmful": "answer"}}, "domains.harm.train"),
        ({"engine": {"name": "openai", "options": {"base_url": "http://localhost:1/v1"}}}, "engine.name"),
        ({"evaluate.perplexity": "none.jsonl"}, "evaluate.perplexity"),
    ],
)
def test_what_files_lack_is_told_before_any_work(
    changes: dict[str, Any], where: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(to_yaml(tree(model, **changes)))
    assert main(["validate", str(path)]) == 2
    assert where in capsys.readouterr().err
    assert main(["run", str(path), "--out", str(tmp_path / "run")]) == 2
    told = capsys.readouterr().err
    assert where in told
    assert len(told.strip().splitlines()) <= 3
    assert not (tmp_path / "run" / "recipe.yaml").exists()
