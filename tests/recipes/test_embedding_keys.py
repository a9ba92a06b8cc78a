"""Every key of an `embedding` recipe changes what a run does, or reaches its callee unchanged; a stand-in trains."""

from __future__ import annotations

import ast
import json
import re
import sys
import time
from dataclasses import asdict, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from embedding_samples import TOPICS, dataset, decisions, pairs, run
from fake_embedder import FakeEncoder, Fakes
from recipe_samples import write_rows

import synth.retrieval
import verifiers
from recipes import models
from recipes.embedding import curated as curated_module
from recipes.embedding import measure
from recipes.embedding.schema import EmbeddingRecipe
from recipes.embedding.writing import writing_recipe
from recipes.explain import leaf_keys
from recipes.retrieval.sets import pairs_set
from recipes.retrieval.sts import StsSet
from recipes.settings import load_any
from synth.records.errors import InputError
from synth.store import read_parts
from trainers.core.checkpoint import Progress
from trainers.core.evaluate import Stopper

HERE = Path(__file__)
SHARED = ("curate.", "train.lora.", "train.early_stopping.", "writer.model.scratch.")
"""Sections whose options reach their callee as one object (tests below), their own rooms testing each of them; a writer
made from scratch is refused."""
PLACES = ("test_embedding.py", "test_embedding_pairs.py", "test_embedding_keys.py", "test_problems.py")
_SPLIT, _SOURCE = (
    "test_rng_seed_draws_training_mining_and_split",
    "test_a_source_reaches_the_reader_as_it_is_told",
)
_NESTED = "test_generators_and_writer_become_a_recipe_of_their_own"
TESTED = {
    "name": "test_the_run_directory_is_the_contracts",
    "kind": "test_a_generate_only_command_line_refuses_the_kind",
    "rng_seed": _SPLIT,
    "rounds": "test_rounds_mine_with_the_accepted_model_and_start_from_the_base_or_from_it",
    "model.": "test_trust_remote_code_and_revision",
    "writer.": _NESTED,
    "domains.*.train.": _SOURCE,
    "domains.*.train.exclude": _NESTED,
    "domains.*.train.sample": _NESTED,
    "domains.*.held_out.": _SOURCE,
    "domains.*.held_out.beir": "test_a_folder_in_beirs_layout_is_measured_on",
    "domains.*.held_out.share": _SPLIT,
    "domains.*.distractors.": _SOURCE,
    "domains.*.generator.": _NESTED,
    "domains.*.columns.*.": "test_kinds_of_columns",  # those of every recipe
    "domains.*.columns.*.values": "test_values_of_a_column_get_names_and_others_are_unusable",
    "domains.*.instruction": "test_an_instruction_goes_with_every_query_that_has_none",
    "domains.*.verifier.": "test_the_verifier_rejects_and_null_takes_all",
    "problems.max_bad": "test_equal_pairs_count_once_and_unusable_ones_up_to_max_bad",
    "mine.": "test_mining_options_reach_the_search_unchanged",
    "mine.rescore.": "test_rescore_by_a_cross_encoder",
    "train.": "test_train_options_reach_trainer_and_encoder_unchanged",
    "train.method": "test_method_none_mines_and_measures_nothing",
    "train.start_from": "test_rounds_mine_with_the_accepted_model_and_start_from_the_base_or_from_it",
    "train.data": "test_data_all_rounds_adds_the_negatives_of_earlier_rounds",
    "train.validation_share": "test_validation_share_is_searched_and_not_trained_on",
    "evaluate.": "test_k_metrics_and_bootstrap",
    "evaluate.sts": "test_sts_and_mteb_are_told_beside_the_domains",
    "evaluate.mteb": "test_sts_and_mteb_are_told_beside_the_domains",
    "evaluate.max_queries": "test_max_queries",
    "gate.": "test_patience_alpha_and_metric_of_the_gate",
    "gate.max_sts_loss": "test_max_sts_loss_rejects_what_retrieves_better",
    "limits.hours": "test_limits_hours_stop_a_run_that_goes_on_with_more",
    "keep.checkpoints": "test_keep_checkpoints",
    "workers": "test_workers_reach_the_verifier",
}
"""{key, or what keys begin with: the test of it}; the longest that fits a key is meant."""


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fakes:
    return Fakes(monkeypatch, tmp_path)


def test_every_key_is_spoken_of_in_its_test() -> None:
    tests: dict[str, str] = {}
    for place in PLACES:
        text = HERE.with_name(place).read_text()
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef):
                tests[node.name] = ast.get_source_segment(text, node) or ""
    keys = [key for key in leaf_keys(EmbeddingRecipe) if not key.startswith(SHARED)]
    assert len(keys) > 100
    meant = {
        key: max(
            (each for each in TESTED if key == each or (each[-1] == "." and key.startswith(each))), key=len
        )
        for key in keys
    }
    assert set(TESTED) == set(meant.values())
    words = {name: set(re.findall(r"\w+", body)) for name, body in tests.items()}
    assert [key for key in keys if key.rsplit(".", 1)[-1] not in words[TESTED[meant[key]]]] == []


# ---- Rounds ------------------------------------------------------------------------------------------------------


def test_rounds_mine_with_the_accepted_model_and_start_from_the_base_or_from_it(
    fakes: Fakes, tmp_path: Path
) -> None:
    done = run(fakes.tree(rounds=2), tmp_path / "run")
    assert [call.model for call in fakes.trained] == [fakes.base, fakes.base]
    assert [metrics["accepted"] for metrics in done.rounds] == [True, True]
    first = tmp_path / "run" / "round-00" / "model"
    assert done.rounds[1]["sampler"] == done.rounds[0]["model_hash"]
    mined = [call.folder for call in fakes.encoded if call.role == "document" and len(call.texts) == 48]
    assert mined == [fakes.base, first]
    assert fakes.trained[1].lineage["negatives mined by"] == done.rounds[0]["model_hash"]
    run(fakes.tree(rounds=2, **{"train.start_from": "previous"}), tmp_path / "previous")
    assert fakes.trained[3].model == tmp_path / "previous" / "round-00" / "model"


def test_a_worse_model_is_rolled_back_and_the_next_round_mines_with_the_one_before(
    fakes: Fakes, tmp_path: Path
) -> None:
    fakes.noises = [50.0, 0.2]
    done = run(fakes.tree(rounds=2), tmp_path / "run")
    assert [metrics["accepted"] for metrics in done.rounds] == [False, True]
    assert (
        done.rounds[0]["model"]["it"]["ndcg@10"]["value"] < done.rounds[0]["base"]["it"]["ndcg@10"]["value"]
    )
    assert {metrics["sampler"] for metrics in done.rounds} == {done.rounds[0]["sampler"]}
    assert (tmp_path / "run" / "model").resolve() == tmp_path / "run" / "round-01" / "model"
    assert not (tmp_path / "run" / "round-00" / "model").exists()  # keep.checkpoints: accepted


@pytest.mark.parametrize(("keep", "left"), [("accepted", 1), ("all", 2), ("last", 1)])
def test_keep_checkpoints(fakes: Fakes, tmp_path: Path, keep: str, left: int) -> None:
    fakes.noises = [50.0, 0.2]
    run(fakes.tree(rounds=2, **{"keep.checkpoints": keep}), tmp_path / "run")
    assert len(list((tmp_path / "run").glob("round-*/model"))) == left


def test_patience_alpha_and_metric_of_the_gate(fakes: Fakes, tmp_path: Path) -> None:
    fakes.noises = [2.0, 2.0, 2.0]  # the base's own: no round gains
    assert len(run(fakes.tree(rounds=3, **{"gate.patience": 1}), tmp_path / "one").rounds) == 1
    fakes.noises, fakes.trained[:] = [2.5] * 3, []
    # A little worse: rejected by a lenient test only.
    told = {}
    for alpha in (1e-6, 0.999999):
        fakes.trained.clear()
        done = run(fakes.tree(**{"gate.alpha": alpha, "gate.metric": "mrr@10"}), tmp_path / f"run{alpha}")
        told[alpha] = done.rounds[0]
    assert [each["accepted"] for each in told.values()] == [True, False]
    gate = told[1e-6]["gate"]
    assert gate["metric"] == "mrr@10"
    values = [told[1e-6][model]["it"]["mrr@10"]["value"] for model in ("base", "model")]
    assert gate["difference"] == pytest.approx(values[1] - values[0])
    assert next(iter(told[1e-6]["model"]["it"])) == "mrr@10"


def test_max_sts_loss_rejects_what_retrieves_better(
    fakes: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"sentence1": f"the tides {a}", "sentence2": f"the {b}", "score": score}
        for a, b, score in (("cost", "tides cost", 5), ("age", "tides weight", 3), ("age", "bees colour", 0))
    ]
    sts = write_rows(tmp_path / "similar.jsonl", rows)
    found = {"base": 0.8, "model": 0.7}

    def scored(encode: Any, sets: Any, **more: Any) -> dict[str, Any]:
        value = found["base" if encode.__self__.folder == fakes.base else "model"]
        return {each.name: {"spearman": {"value": value, "low": 0.0, "high": 1.0}, "n": 3} for each in sets}

    monkeypatch.setattr(measure, "evaluate_sts", scored)
    for limit, accepted in ((None, True), (0.2, True), (0.05, False)):
        fakes.trained.clear()
        changes = {"evaluate.sts": [str(sts)], "gate.max_sts_loss": limit}
        (metrics,) = run(fakes.tree(**changes), tmp_path / f"run{limit}").rounds
        assert metrics["accepted"] is accepted
        assert metrics["gate"]["sts_loss"] == pytest.approx(0.1)
        assert metrics["gate"]["difference"] > 0
        assert metrics["model"]["similar"]["n"] == 3


def test_limits_hours_stop_a_run_that_goes_on_with_more(
    fakes: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks, real = iter(range(0, 10**9, 600)), time.monotonic  # ten minutes more at each look at the clock
    monkeypatch.setattr(time, "monotonic", lambda: real() + next(ticks))
    done = run(fakes.tree(**{"limits.hours": 0.5}), tmp_path / "run")
    assert (done.status, done.rounds) == ("stopped", [])
    done = run(fakes.tree(**{"limits.hours": 1000}), tmp_path / "run")
    assert (done.status, len(done.rounds)) == ("done", 1)


# ---- Training ----------------------------------------------------------------------------------------------------


def test_train_options_reach_trainer_and_encoder_unchanged(fakes: Fakes, tmp_path: Path) -> None:
    lora = {"r": 4, "alpha": 8.0, "dropout": 0.1, "target_modules": ["query"]}
    changed: dict[str, Any] = {
        "epochs": 2, "max_steps": 9, "batch_size": 7, "temperature": 0.1, "hard_negatives": 1, "symmetric": True,
        "query_template": "Task {instruction}: {query}", "document_template": "Text: {document}", "pooling": "cls",
        "max_length": 33, "training_length": 22, "cache": "on", "micro_batch_tokens": 99, "matryoshka": [8, 16],
        "matryoshka_weights": [1.0, 0.5], "lora": lora, "guide": str(fakes.base), "guide_margin": 0.1,
        "homogeneous": True, "mixing": "temperature", "mixing_exponent": 0.7, "duplicate_free": False, "lr": 3e-4,
        "schedule": "cosine", "warmup": 3, "weight_decay": 0.2, "max_grad_norm": 2.0, "dtype": "bfloat16",
        "save_dtype": "float32", "gradient_checkpointing": True, "eval_every": 5, "save_every": 6,
        "trackers": ["tensorboard"], "threads": 1,
        "early_stopping": {"metric": "mrr@10", "mode": "max", "patience": 2, "min_delta": 0.1, "restore_best": False},
        "validation_share": 0.2,
        "token_bag": {"weight": 0.3, "dimensions": 8, "epochs": 2, "batch_size": 5, "lr": 0.1, "temperature": 0.2},
    }  # fmt: skip
    made = fakes.tree(**{f"train.{name}": value for name, value in changed.items()})
    run(made, tmp_path / "run")
    (call,) = fakes.trained
    assert call.options == fakes.opened[0].options == load_any(made).train_options()
    for field in fields(call.options):
        # `dropout: false` goes with neither checkpointing nor an adapter's own.
        assert getattr(call.options, field.name) != field.default or field.name == "dropout", field.name
        if field.name in changed and field.name not in ("lora", "early_stopping", "token_bag"):
            assert getattr(call.options, field.name) == changed[field.name]
    assert asdict(call.options)["token_bag"] == changed["token_bag"]
    assert set(changed) - {field.name for field in fields(call.options)} == {"validation_share"}


def test_train_dropout_reaches_the_trainer(fakes: Fakes, tmp_path: Path) -> None:
    run(fakes.tree(**{"train.dropout": False}), tmp_path / "run")
    assert fakes.trained[0].options.dropout is False


def test_early_stopping_takes_more_of_a_metric_for_better(fakes: Fakes, tmp_path: Path) -> None:
    changes = {
        "train.early_stopping": {"metric": "ndcg@10"},
        "train.eval_every": 1,
        "train.validation_share": 0.2,
    }
    run(fakes.tree(**changes), tmp_path / "run")
    (call,) = fakes.trained
    stopper, progress = Stopper(call.options.early_stopping), Progress()
    seen = []
    for step, value in enumerate((0.5, 0.7, 0.6), start=1):
        progress.step = step
        seen.append(stopper.improved({"ndcg@10": value}, progress))
    assert (seen, progress.best_step) == ([True, True, False], 2)
    with pytest.raises(InputError, match=r"train\.early_stopping\.mode: seen \"min\"\n  use max"):
        load_any(fakes.tree(**changes, **{"train.early_stopping.mode": "min"}))


def test_method_none_mines_and_measures_nothing(fakes: Fakes, tmp_path: Path) -> None:
    made = fakes.tree(**{"train.method": "none"})
    del made["domains"]["it"]["held_out"]
    made["curate"] = {"decontaminate": None}
    (metrics,) = run(made, tmp_path / "run").rounds
    assert (metrics["base"], metrics["model"], metrics["accepted"]) == (None, None, None)
    assert fakes.trained == []
    assert {len(row["negatives"]) for row in dataset(tmp_path / "run")} == {2}
    assert not (tmp_path / "run" / "base").exists()


def test_data_all_rounds_adds_the_negatives_of_earlier_rounds(fakes: Fakes, tmp_path: Path) -> None:
    run(fakes.tree(rounds=2), tmp_path / "own")
    first, own = ({row["query"]: row["negatives"] for row in call.rows} for call in fakes.trained)
    fakes.trained.clear()
    run(fakes.tree(rounds=2, **{"train.data": "all_rounds"}), tmp_path / "all")
    every = {row["query"]: row["negatives"] for row in fakes.trained[1].rows}
    assert own == {row["query"]: row["negatives"] for row in dataset(tmp_path / "own", 1)}
    assert every == {query: list(dict.fromkeys(own[query] + first[query])) for query in own}
    assert any(len(negatives) > 2 for negatives in every.values())


def test_validation_share_is_searched_and_not_trained_on(fakes: Fakes, tmp_path: Path) -> None:
    run(fakes.tree(**{"train.validation_share": 0.25}), tmp_path / "run")
    (call,) = fakes.trained
    assert len(call.rows) == 36
    assert set(call.evaluated) == {"ndcg@10", "mrr@10", "recall@10"}
    searched = [each for each in fakes.encoded if len(each.texts) == 12]
    texts = {text for each in searched for text in each.texts}
    trained = {text for row in call.rows for text in (row["query"], row["positive"], *row["negatives"])}
    assert len(texts) == 24
    assert not texts & trained


def test_trust_remote_code_and_revision(
    fakes: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    real = models.resolve
    monkeypatch.setattr(models, "resolve", lambda *given: asked.append(given) or real(*given))
    model = {"path": str(fakes.base), "trust_remote_code": True, "revision": "v2"}
    run({**fakes.tree(), "model": model}, tmp_path / "run")
    assert (str(fakes.base), "v2") in asked
    assert {each.hub["trust_remote_code"] for each in fakes.opened} == {True}
    assert fakes.trained[0].hub == {"trust_remote_code": True}
    with pytest.raises(InputError, match=r"model\.path"):
        run({**fakes.tree(), "model": str(tmp_path / "nowhere")}, tmp_path / "other")


def test_rng_seed_draws_training_mining_and_split(fakes: Fakes, tmp_path: Path) -> None:
    seeds, held = set(), []
    for rng_seed in (0, 1):
        changes = {"rng_seed": rng_seed, "domains.it.held_out": {"share": 0.25}, "mine.pick": "random"}
        run(fakes.tree(**changes), tmp_path / f"run{rng_seed}")
        seeds.add(fakes.trained[-1].rng_seed)
        held.append({row["query"] for row in dataset(tmp_path / f"run{rng_seed}", decision="held_out")})
    assert len(seeds) == 2
    assert held[0] != held[1]
    given = []
    real = synth.retrieval.mine_negatives

    def record(*args: Any, **more: Any) -> Any:
        given.append(more["rng_seed"])
        return real(*args, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synth.retrieval, "mine_negatives", record)
        run(fakes.tree(rng_seed=5), tmp_path / "run5")
    assert given == [5]


# ---- Mining ------------------------------------------------------------------------------------------------------


@pytest.fixture
def mining(monkeypatch: pytest.MonkeyPatch) -> list[SimpleNamespace]:
    """What `mine_negatives` was given."""
    calls: list[SimpleNamespace] = []
    real = synth.retrieval.mine_negatives

    def record(rows: Any, options: Any, **more: Any) -> Any:
        calls.append(SimpleNamespace(rows=list(rows), options=options, **more))
        return real(rows, options, **more)

    monkeypatch.setattr(synth.retrieval, "mine_negatives", record)
    return calls


def test_mining_options_reach_the_search_unchanged(
    fakes: Fakes, mining: list[SimpleNamespace], tmp_path: Path
) -> None:
    changed: dict[str, Any] = {
        "method": "both", "count": 3, "keep": False, "window": [2, 30], "absolute_margin": 0.01,
        "relative_margin": 0.02, "max_score": 0.99, "min_score": -0.5, "pick": "random", "exact": True,
    }  # fmt: skip
    made = fakes.tree(**{f"mine.{name}": value for name, value in changed.items()})
    run(made, tmp_path / "run")
    (call,) = mining
    assert call.options == load_any(made).mining_options()
    assert {f.name: getattr(call.options, f.name) for f in fields(call.options)} == {
        **changed,
        "window": (2, 30),
    }
    assert call.rescore is None
    assert "corpus" not in vars(call)


def test_method_none_of_mining_keeps_what_rows_bring_along(fakes: Fakes, tmp_path: Path) -> None:
    rows = [{**row, "negatives": ["never wells age ."]} for row in pairs(TOPICS[:4])]
    train = write_rows(tmp_path / "with.jsonl", rows)
    changes = {"mine": {"method": "none"}, "domains.it.train": str(train), "domains.it.verifier": None}
    run(fakes.tree(**changes), tmp_path / "run")
    assert {tuple(row["negatives"]) for row in fakes.trained[0].rows} == {("never wells age .",)}


def test_rescore_by_another_embedder(fakes: Fakes, mining: list[SimpleNamespace], tmp_path: Path) -> None:
    other = fakes.model("other", 0.0)
    run(fakes.tree(**{"mine.rescore": str(other)}), tmp_path / "run")
    (call,) = mining
    query, positive = call.rows[0]["query"], call.rows[0]["positive"]
    encoder = FakeEncoder(str(other), [], None, None)
    expected = float(encoder.encode([query])[0] @ encoder.encode([positive])[0])
    scores = call.rescore([(query, positive), (query, call.rows[9]["positive"])])
    assert scores[0] == pytest.approx(expected)
    evidence = {row["query"]: json.loads(row["evidence"]) for row in dataset(tmp_path / "run")}
    assert evidence[query]["positive_score"] == pytest.approx(expected, abs=1e-5)


def test_a_round_opens_the_model_that_rescores_once(fakes: Fakes, tmp_path: Path) -> None:
    other = fakes.model("other", 0.0)
    made = fakes.tree(**{"mine.rescore": str(other)})
    more = write_rows(tmp_path / "more.jsonl", pairs(TOPICS[:4], seed=2))
    made["domains"]["more"] = {"train": str(more)}
    run(made, tmp_path / "run")
    assert [encoder.folder for encoder in fakes.opened].count(other) == 1


def test_rescore_by_a_cross_encoder(
    fakes: Fakes, mining: list[SimpleNamespace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reranker = fakes.model("reranker", 0.0)
    (reranker / "config.json").write_text(json.dumps({"architectures": ["BertForSequenceClassification"]}))

    class CrossEncoder:
        num_labels = 1

        def __init__(self, path: str, trust_remote_code: bool) -> None:
            assert (path, trust_remote_code) == (str(reranker), False)

        def predict(self, pairs: list[tuple[str, str]], **more: Any) -> Any:
            return np.array([len(query) - len(text) for query, text in pairs], np.float32)

    package = SimpleNamespace(CrossEncoder=CrossEncoder, __spec__="here")
    monkeypatch.setitem(sys.modules, "sentence_transformers", package)
    rescore = {"model": str(reranker), "kind": "cross"}
    run(fakes.tree(**{"mine.rescore": rescore, "domains.it.verifier": None}), tmp_path / "run")
    (call,) = mining
    assert call.rescore([("abc", "a"), ("a", "abc")]).tolist() == [2, -2]
    CrossEncoder.num_labels = 3
    with pytest.raises(InputError, match=r"mine\.rescore\.model: .* gives 3 scores a pair"):
        run(fakes.tree(**{"mine.rescore": rescore, "domains.it.verifier": None}), tmp_path / "other")


# ---- Domains -----------------------------------------------------------------------------------------------------


def test_an_instruction_goes_with_every_query_that_has_none(fakes: Fakes, tmp_path: Path) -> None:
    rows = pairs()
    rows[0]["instruction"] = "own"
    train = write_rows(tmp_path / "own.jsonl", rows)
    run(
        fakes.tree(**{"domains.it.train": str(train), "domains.it.instruction": "the domain's"}),
        tmp_path / "run",
    )
    told = {row["query"]: row["instruction"] for row in fakes.trained[0].rows}
    assert told.pop(rows[0]["query"]) == "own"
    assert set(told.values()) == {"the domain's"}
    queries = [call for call in fakes.encoded if call.role == "query"]
    assert {text for call in queries for text in call.instructions} == {"own", "the domain's"}
    measured = [call for call in queries if len(call.texts) == 24]
    assert {text for call in measured for text in call.instructions} == {"the domain's"}


def test_the_verifier_rejects_and_null_takes_all(fakes: Fakes, tmp_path: Path) -> None:
    rows = pairs()
    rows[3]["positive"] = rows[3]["query"]
    train = str(write_rows(tmp_path / "copy.jsonl", rows))
    run(fakes.tree(**{"domains.it.train": train}), tmp_path / "judged")
    assert decisions(tmp_path / "judged") == {"kept": 47, "failed:copy": 1}
    assert len(fakes.trained[0].rows) == 47
    options = {"name": "pairs", "options": {"max_copy": None, "max_verbatim": None}}
    run(fakes.tree(**{"domains.it.train": train, "domains.it.verifier": options}), tmp_path / "lenient")
    assert decisions(tmp_path / "lenient") == {"kept": 48}
    run(fakes.tree(**{"domains.it.train": train, "domains.it.verifier": None}), tmp_path / "none")
    assert decisions(tmp_path / "none") == {"kept": 48}
    assert not (tmp_path / "none" / "round-00" / "verdicts").exists()


def test_the_base_may_be_the_guide_of_the_verifier_pairs(fakes: Fakes, tmp_path: Path) -> None:
    verifier = {"name": "pairs", "options": {"model": "base", "top_k": 1}}
    run(fakes.tree(**{"domains.it.verifier": verifier, "domains.it.instruction": "Find."}), tmp_path / "run")
    details = [json.loads(row["details"]) for row in read_parts(tmp_path / "run" / "round-00" / "verdicts")]
    assert {tuple(each["not_checked"]) for each in details} == {("leakage",)}
    counts = decisions(tmp_path / "run")
    assert counts["failed:not_retrieved"] == sum(each["measures"]["rank"] > 1 for each in details) > 0
    guided = fakes.encoded[: next(n for n, call in enumerate(fakes.encoded) if len(call.texts) == 24)]
    assert {call.folder for call in guided} == {fakes.base}
    asked = {
        (text, told)
        for c in guided
        if c.role == "query"
        for text, told in zip(c.texts, c.instructions, strict=True)
    }
    assert asked == {(row["query"], "Find.") for row in pairs()}


def test_workers_reach_the_verifier(fakes: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    real = verifiers.get("pairs").__class__.verify_batch

    def batch(self: Any, rows: Any, workers: int | None = None) -> Any:
        asked.append(workers)
        return real(self, rows, workers)

    monkeypatch.setattr(verifiers.get("pairs").__class__, "verify_batch", batch)
    run(fakes.tree(workers=3), tmp_path / "run")
    assert asked == [3]


def test_generators_and_writer_become_a_recipe_of_their_own(fakes: Fakes, tmp_path: Path) -> None:
    writer = {
        "model": {"path": "served", "dtype": "bfloat16", "trust_remote_code": True, "revision": "v1"},
        "engine": {"name": "openai", "options": {"base_url": "http://x", "timeout_s": 3}},
        "sampling": {"temperature": 0.3, "top_k": 4, "top_p": 0.5, "max_tokens": 6},
        "parse": {"attempts": 7, "structured": False, "min_yield": 0.2},
        "chat": False,
    }  # fmt: skip
    domain = {
        "train": {"path": str(tmp_path / "*.md"), "exclude": ["old"], "sample": 5},
        "columns": {"text": "body", "title": "head", "query": "ignored"},
        "generator": {"name": "document_queries", "options": {"queries": 2}},
        "held_out": {"share": 0.5},
    }
    changes = {
        "writer": writer,
        "domains": {"it": domain},
        "limits.hours": 3,
        "problems.max_bad": 0.3,
        "workers": 2,
    }
    nested = writing_recipe(load_any(fakes.tree(rng_seed=4, **changes)))
    assert nested is not None
    assert nested.model.model_dump(exclude_unset=True) == writer["model"]
    assert nested.engine.options["timeout_s"] == 3
    assert nested.sampling.model_dump() == writer["sampling"]
    assert nested.parse.model_dump() == writer["parse"]
    told = nested.domains["it"]
    assert told.train is not None
    assert told.train.model_dump(exclude_unset=True) == {**domain["train"], "split": "train"}
    assert (told.chat, told.system, told.generator.options["queries"]) == (False, None, 2)
    assert set(told.columns) == {"text", "title"}
    assert (nested.rng_seed, nested.limits.hours, nested.problems.max_bad, nested.workers) == (4, 3, 0.3, 2)
    assert (nested.curate.dedup, nested.curate.decontaminate, nested.curate.cap_per_problem) == (
        None,
        None,
        None,
    )
    system = writing_recipe(
        load_any(fakes.tree(**{**changes, "writer": {"model": "served", "system": "Be brief."}}))
    )
    assert system is not None
    assert system.domains["it"].system == "Be brief."


def test_curate_reaches_curation_with_the_pairs_as_text(
    fakes: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    real = curated_module.curate

    def record(rows: Any, options: Any, sets: Any, **more: Any) -> Any:
        calls.append((options, sets))
        return real(rows, options, sets, **more)

    monkeypatch.setattr(curated_module, "curate", record)
    section = {"dedup": {"method": "minhash", "threshold": 0.5}, "select": {"size": 20}, "cap_per_problem": 2}
    made = fakes.tree(curate=section)
    run(made, tmp_path / "run")
    ((options, sets),) = calls
    expected = load_any(made).curate
    for field in fields(options):
        wanted = ["query", "positive"] if field.name == "text" else getattr(expected, field.name)
        assert getattr(options, field.name) == wanted
    held_out = pairs(TOPICS[8:], seed=1)
    assert set(sets["it"]) == {row[side] for row in held_out for side in ("query", "positive")}
    assert len(fakes.trained[0].rows) == 20
    own = fakes.tree(curate={"text": "query"})
    run(own, tmp_path / "own")
    assert calls[-1][0].text == "query"


# ---- Measuring ---------------------------------------------------------------------------------------------------


def test_k_metrics_and_bootstrap(fakes: Fakes, tmp_path: Path) -> None:
    changes = {"evaluate.k": [1, 3], "evaluate.metrics": ["recall", "ndcg"], "gate.metric": "ndcg@3"}
    (metrics,) = run(fakes.tree(**changes), tmp_path / "run").rounds
    assert list(metrics["base"]["it"]) == ["ndcg@3", "recall@1", "recall@3", "ndcg@1", "n"]
    (other,) = run(fakes.tree(**changes, **{"evaluate.bootstrap": 300}), tmp_path / "other").rounds
    first, second = (each["base"]["it"]["ndcg@3"] for each in (metrics, other))
    assert first["value"] == second["value"]
    assert first != second


def test_max_queries(fakes: Fakes, tmp_path: Path) -> None:
    (metrics,) = run(fakes.tree(**{"evaluate.max_queries": 5}), tmp_path / "run").rounds
    assert metrics["base"]["it"]["n"] == 5
    assert metrics["gate"]["problems"] == 5


def test_sts_and_mteb_are_told_beside_the_domains(
    fakes: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"sentence1": f"{a} cost", "sentence2": f"{b} {word}", "score": (a == b) + (word == "cost")}
        for a in TOPICS
        for b in TOPICS
        for word in ("cost", "age")
    ]
    sts = write_rows(tmp_path / "similar.jsonl", rows)
    tasks = {
        "SciFact": pairs_set("SciFact", pairs(TOPICS[:2], seed=3)),
        "STS12": StsSet("STS12", ["salt", "bees"], ["salt", "tea"], [1, 0]),
    }
    mteb = SimpleNamespace(find_task=lambda name: None, read_mteb=lambda name: [tasks[name]])
    monkeypatch.setitem(sys.modules, "recipes.retrieval.mteb", mteb)
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *more: SimpleNamespace())
    changes = {"evaluate.sts": [str(sts)], "evaluate.mteb": ["SciFact", "STS12"]}
    (metrics,) = run(fakes.tree(**changes), tmp_path / "run").rounds
    assert list(metrics["base"]) == ["it", "SciFact", "similar", "STS12"]
    assert metrics["base"]["STS12"]["n"] == 2
    assert metrics["base"]["SciFact"]["n"] == 12
    assert metrics["gate"]["problems"] == 24  # the recipe's own queries alone
    assert metrics["model"]["similar"]["spearman"]["value"] > metrics["base"]["similar"]["spearman"]["value"]
