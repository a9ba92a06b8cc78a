"""Recipes of kind `embedding` as scripts see them: the run directory, resume after kills, held-out sets, refusals."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from embedding_samples import TOPICS, dataset, decisions, encoder, pairs, run, tree
from fake_embedder import Fakes
from obedient_model import answer, document
from recipe_samples import write_rows
from stub_server import Stub

import synth.retrieval
from recipes.cli import main
from recipes.embedding import rounds as rounds_module
from recipes.embedding.pairs import given_pairs
from recipes.embedding.schema import EmbeddingRecipe
from recipes.embedding.training import search, split_validation
from recipes.retrieval.indexing import search_index
from recipes.settings import RecipeError, load_any
from recipes.status import status, status_text
from recipes.values import to_yaml
from synth.records.errors import InputError, WorkError
from synth.records.jsonl import read_jsonl
from synth.store import Stage, read_parts


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fakes:
    return Fakes(monkeypatch, tmp_path)


def written(folder: Path, made: dict[str, Any]) -> str:
    path = folder / "recipe.yaml"
    path.write_text(to_yaml(made))
    return str(path)


# ---- The real thing ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a finished run of a tiny random encoder, and its recipe."""
    pytest.importorskip("sentence_transformers")
    folder = tmp_path_factory.mktemp("real")
    changes = {"rounds": 2, "train.max_steps": 6, "train.lr": 3e-3, "name": "tuned"}
    recipe = written(folder, tree(encoder(folder / "base"), folder, **changes))
    assert main(["run", recipe, "--out", str(folder / "run")]) == 0
    return folder, recipe


def test_the_run_directory_is_the_contracts(real: tuple[Path, str]) -> None:
    out = real[0] / "run"
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["format"], manifest["status"], manifest["kind"]) == (1, "done", "embedding")
    assert (manifest["name"], manifest["rounds"], set(manifest["data"]["it"])) == (
        "tuned",
        2,
        {"train", "held_out"},
    )
    assert load_any(str(out / "recipe.yaml")) == load_any(real[1])
    for index in (0, 1):
        folder = out / f"round-{index:02d}"
        metrics = json.loads((folder / "metrics.json").read_text())
        assert set(metrics) == {
            "base", "model", "accepted", "sampler", "funnel", "mining", "timings", "tokens", "model_hash", "gate",
            "training",
        }  # fmt: skip
        assert set(metrics["timings"]) == {"mine", "train", "evaluate"}
        assert list(metrics["model"]["it"]) == ["ndcg@10", "mrr@10", "recall@10", "n"]
        for score in (metrics["base"]["it"]["ndcg@10"], metrics["model"]["it"]["ndcg@10"]):
            assert 0 <= score["low"] <= score["value"] <= score["high"] <= 1
        assert metrics["training"]["rows"]["trained"] == 48
        assert metrics["tokens"]["trained"] > 1000
        rows = dataset(out, index)
        assert [row["sample_id"] for row in rows] == sorted(row["sample_id"] for row in rows)
        assert {row["round"] for row in rows} == {index}
        assert {len(row["negatives"]) for row in rows} == {2}
        for row in rows:
            assert row["positive"] not in row["negatives"]
            assert len(json.loads(row["evidence"])["scores"]) == 2
    stages = ["base/evaluation", "curated", "round-00/verdicts"]
    for index in (0, 1):
        stages += [f"round-{index:02d}/{name}" for name in ("dataset", "training", "evaluation")]
    told = {stage: json.loads((out / stage / "manifest.json").read_text()) for stage in stages}
    for stage in ("base/evaluation", "round-00/evaluation", "round-01/evaluation"):
        scores = json.loads((out / stage / "evaluation.json").read_text())
        assert told[stage] == {name: scores[name] for name in ("model", "examination")}
    assert told["round-01/evaluation"]["model"] == told["round-01/training"]["model"]
    assert (out / "score.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "round-00" / "curation.report.md").exists()
    card = (out / "model" / "README.md").read_text()
    assert "library_name: sentence-transformers" in card
    assert "base_model" not in card  # a folder
    assert "ndcg@10" in card
    for index in (0, 1):
        told = json.loads((out / f"round-{index:02d}" / "metrics.json").read_text())
        mined, losses = told["mining"]["it"]["counts"]["mined"], told["training"]["loss"]
        assert mined > 0
        verdict = "accepted" if told["accepted"] else "rejected"
        first, last = f"{losses['first']:.4f}", f"{losses['last']:.4f}"
        rows = told["training"]["rows"]["trained"]
        line = f"| {index} | {rows} | {mined} | 6 | {first} to {last} | {verdict} | `{told['model_hash']}` |"
        assert line in card


def test_the_model_is_what_everybody_opens(real: tuple[Path, str]) -> None:
    import numpy as np
    from sentence_transformers import SentenceTransformer

    import trainers

    folder = str((real[0] / "run" / "model").resolve())
    texts = [row["query"] for row in pairs()[:5]]
    ours = trainers.open_encoder(folder).encode(texts, "query")
    theirs = SentenceTransformer(folder, device="cpu").encode_query(texts, normalize_embeddings=True)
    assert np.allclose(ours, theirs, atol=1e-5)


def test_a_run_mines_measures_and_searches_with_its_token_bag(tmp_path: Path) -> None:
    """What pairs have in common is that their words go together, which a random transformer hardly learns."""
    pytest.importorskip("sentence_transformers")
    bag = {"dimensions": 24, "epochs": 30, "batch_size": 16, "lr": 2e-2}
    changes = {"rounds": 2, "train.max_steps": 1, "train.lr": 1e-5}
    base = encoder(tmp_path / "base")
    scores = {}
    for name, option in (("with", bag), ("without", None)):
        made = tree(base, tmp_path, **changes, name=name, **{"train.token_bag": option})
        assert main(["run", written(tmp_path, made), "--out", str(tmp_path / name)]) == 0
        metrics = json.loads((tmp_path / name / "round-00" / "metrics.json").read_text())
        scores[name] = metrics["model"]["it"]["ndcg@10"]["value"]
    assert scores["with"] > scores["without"] + 0.1
    model = tmp_path / "with" / "model"
    card = (model / "README.md").read_text()
    assert 'open_encoder("PATH").model' in card
    assert "SentenceTransformer(" not in card
    assert "SentenceTransformer(" in (tmp_path / "without" / "model" / "README.md").read_text()
    import trainers

    sides = ("query", "query"), ("positive", "document")
    # The second round mines with the first one's model.
    mined = dataset(tmp_path / "with", 1)
    first = trainers.open_encoder(str(tmp_path / "with" / "round-00" / "model"), device="cpu")
    asked, answers = (first.encode([r[side] for r in mined], role) for side, role in sides)
    scores_there = [json.loads(row["evidence"])["positive_score"] for row in mined]
    assert scores_there == pytest.approx((asked * answers).sum(axis=1).tolist(), abs=1e-5)
    rows = pairs(TOPICS[8:], seed=1)
    documents = write_rows(tmp_path / "documents.jsonl", [{"text": row["positive"]} for row in rows])
    index = str(tmp_path / "index")
    assert main(["index", "--model", str(model), "--input", str(documents), "--out", index]) == 0
    hits = [search_index(index, row["query"], 1)[0] for row in rows]
    found = [hit.text == row["positive"] for hit, row in zip(hits, rows, strict=True)]
    assert sum(found) / len(found) > scores["without"]
    shutil.rmtree(model.resolve() / "token_bag")
    with pytest.raises(InputError, match="is not the model that made the index"):
        search_index(index, rows[0]["query"], 1)


UNLIKE = ("README.md", "score.png", "log.txt", "lock", "manifest.json", "recipe.yaml")
"""What a call writes again though nothing is left to do."""


def test_a_finished_run_does_nothing_and_tells_the_table_again(
    real: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = real[0] / "run"
    kept = [path for path in out.rglob("*") if path.is_file() and path.name not in UNLIKE]
    before = {path: path.stat().st_mtime_ns for path in kept}
    assert main(["run", real[1], "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "nothing was left to do: 2 rounds are closed" in said
    assert "it (24 queries)" in said
    assert f"model: {out / 'model'}" in said
    index, search = (shlex.split(line) for line in said.splitlines()[-2:])
    capsys.readouterr()
    assert main(index[3:]) == 0
    assert main([*search[1:], "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert search[-1] in {row["query"] for row in pairs(TOPICS[8:], seed=1)}
    documents = {row["id"]: row["text"] for row in read_jsonl(out / "documents.jsonl")}
    assert set(documents.values()) == {row["positive"] for row in [*pairs(), *pairs(TOPICS[8:], seed=1)]}
    assert len(found["results"]) == 10
    assert all(documents[each["id"]] == each["text"] for each in found["results"])
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_status_inspect_and_export(
    real: tuple[Path, str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = real[0] / "run"
    assert main(["status", str(out)]) == 0
    said = capsys.readouterr().out
    assert "tuned (embedding): done, 2 rounds closed" in said
    assert "base: it ndcg@10 " in said
    assert main(["inspect", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["domains"]["it"]["samples"] == found["domains"]["it"]["kept"] == 48
    row = dataset(out, 1)[0]
    assert main(["inspect", str(out), row["sample_id"][:10]]) == 0
    said = capsys.readouterr().out
    assert f"query: {row['query']}" in said
    assert "verdict pairs: pass, sound" in said
    assert said.count("negative (rank ") == 4
    assert said.count("trained on: model ") == 2
    export = tmp_path / "pairs.jsonl"
    assert main(["export", str(out), "--format", "jsonl", "--layout", "embedding", "--out", str(export)]) == 0
    rows = {each["sample_id"]: each["negatives"] for each in read_jsonl(export)}
    assert rows == {each["sample_id"]: each["negatives"] for each in dataset(out, 1)}
    assert "Pairs were given, or came from a corpus or a model" in (tmp_path / "pairs.card.md").read_text()


def test_evaluate_alone_gives_the_runs_scores(real: tuple[Path, str], tmp_path: Path) -> None:
    out = real[0] / "run"
    metrics = json.loads((out / "round-01" / "metrics.json").read_text())
    file = tmp_path / "scores.json"
    words = ["evaluate", real[1], "--model", str(real[0] / "base"), "--out", str(file)]
    assert main(words) == 0
    assert json.loads(file.read_text())["scores"] == metrics["base"]
    assert main([*words, "--set", "evaluate.max_queries=3"]) == 2  # another test, whose scores do not compare


def test_train_alone_takes_a_runs_pairs(real: tuple[Path, str], tmp_path: Path) -> None:
    import trainers

    out = tmp_path / "model"
    assert main(["train", real[1], "--data", str(real[0] / "run"), "--out", str(out)]) == 0
    assert trainers.open_encoder(str(out)).dimensions == 32
    counts = [json.loads(line) for line in (out / "training.jsonl").read_text().splitlines()]
    assert len(counts) == 1 + 6


def test_training_stops_by_the_search_among_pairs_set_apart(tmp_path: Path) -> None:
    """And leaves the model of the best step: measured again, it has that step's score."""
    trainers = pytest.importorskip("trainers")
    pytest.importorskip("sentence_transformers")
    changes = {
        "train.max_steps": 30, "train.lr": 0.03, "train.eval_every": 1, "train.validation_share": 0.3,
        "train.early_stopping": {"metric": "mrr@10", "patience": 3},
    }  # fmt: skip
    recipe = load_any(tree(encoder(tmp_path / "base"), tmp_path, **changes))
    assert isinstance(recipe, EmbeddingRecipe)
    out = tmp_path / "model"
    assert main(["train", written(tmp_path, recipe.resolved()), "--out", str(out)]) == 0
    header, *logs = [json.loads(line) for line in (out / "training.jsonl").read_text().splitlines()]
    assert header["stopped_early"]
    scores = [entry["mrr@10"] for entry in logs]
    best = max(scores[:-3])
    assert max(scores[-3:]) <= best
    _, validation = split_validation(recipe, given_pairs(recipe, "it", "train").rows)
    assert len(validation) > 8
    again = search(recipe, validation)(trainers.open_encoder(str(out), device="cpu"), 0)
    assert again["mrr@10"] == pytest.approx(best, abs=1e-6)


# ---- Going on ----------------------------------------------------------------------------------------------------


def files(out: Path) -> dict[str, bytes]:
    """Every file whose content must not depend on how it was reached; timings are left out."""
    found = {}
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        if path.is_file() and not name.startswith(("model", "lock", "log.txt", "manifest.json")):
            found[name] = path.read_bytes()
            if path.name == "metrics.json":
                metrics = json.loads(path.read_text())
                found[name] = json.dumps({**metrics, "timings": sorted(metrics["timings"])}).encode()
    return found


PLACES = {
    "verifying": (Stage, "append", 10),
    "mining": (synth.retrieval, "mine_negatives", 1),
    "mining again": (synth.retrieval, "mine_negatives", 2),
    "training": (rounds_module, "tune", 1),
    "a later training": (rounds_module, "tune", 2),
    "measuring the base": (rounds_module, "kept_scores", 1),
    "measuring": (rounds_module, "kept_scores", 2),
    "deciding": (rounds_module, "decide", 1),
    "closing": (rounds_module, "write_json", 2),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_stopped_run_becomes_the_undisturbed_one(place: str, fakes: Fakes, tmp_path: Path) -> None:
    made = fakes.tree(rounds=2)
    run(made, tmp_path / "calm")
    fakes.trained.clear()
    holder, name, calls = PLACES[place]
    whole, left = getattr(holder, name), calls

    def stopped(*given: Any, **more: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt
        return whole(*given, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(holder, name, stopped)
        with pytest.raises(KeyboardInterrupt):
            run(made, tmp_path / "stopped")
    assert json.loads((tmp_path / "stopped" / "manifest.json").read_text())["status"] == "stopped"
    before = files(tmp_path / "stopped")
    trained = len(fakes.trained)
    run(made, tmp_path / "stopped")
    after = files(tmp_path / "stopped")
    assert after == files(tmp_path / "calm")
    assert {n: after[n] for n in before if not n.endswith("journal.jsonl")} == {
        n: data for n, data in before.items() if not n.endswith("journal.jsonl")
    }
    assert len(fakes.trained) == 2
    assert trained <= 2


def test_more_rounds_go_on_and_fewer_take_nothing_back(fakes: Fakes, tmp_path: Path) -> None:
    run(fakes.tree(), tmp_path / "run")
    done = run(fakes.tree(rounds=2), tmp_path / "run")
    assert len(done.rounds) == len(fakes.trained) == 2
    run(fakes.tree(), tmp_path / "run")
    assert (tmp_path / "run" / "model").resolve() == tmp_path / "run" / "round-01" / "model"


def test_what_changed_since_is_refused(fakes: Fakes, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(fakes.tree(), out)
    for change in (
        {"train.lr": 1e-5},
        {"mine.count": 3},
        {"gate.alpha": 0.1},
        {"domains.it.instruction": "Find."},
    ):
        with pytest.raises(InputError, match=f"differs in {next(iter(change))}"):
            run(fakes.tree(**change), out)
    run(fakes.tree(workers=1, name="renamed", **{"keep.checkpoints": "all"}), out)
    made = fakes.tree()
    write_rows(tmp_path / "train.jsonl", pairs()[1:])
    with pytest.raises(InputError, match="the data changed since this run began"):
        run(made, out)


def test_a_first_run_that_was_refused_leaves_no_trace(fakes: Fakes, tmp_path: Path) -> None:
    made = fakes.tree(**{"domains.it.held_out": {"share": 0.5}})
    rows = [{**row, "group": "all"} for row in pairs()]
    write_rows(tmp_path / "train.jsonl", rows)
    with pytest.raises(
        InputError, match=r"held_out\.share: 0\.5 of 48 pairs is 24, but 48 or more hang together"
    ):
        run(made, tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"lock", "log.txt"}


# ---- Held-out sets -----------------------------------------------------------------------------------------------


def test_a_share_is_set_apart_with_all_that_hangs_together(fakes: Fakes, tmp_path: Path) -> None:
    rows = [{**row, "group": row["topic"]} for row in pairs()]
    made = fakes.tree(**{"domains.it.held_out": {"share": 0.26}})
    write_rows(tmp_path / "train.jsonl", rows)
    (metrics,) = run(made, tmp_path / "run").rounds
    assert decisions(tmp_path / "run") == {"kept": 36, "held_out": 12}
    apart = {row["group"] for row in dataset(tmp_path / "run", decision="held_out")}
    assert len(apart) == 2
    assert not apart & {row["group"] for row in dataset(tmp_path / "run")}
    assert metrics["base"]["it"]["n"] == 12
    funnel = metrics["funnel"]
    assert list(funnel["it"].values()) == [48, 48, 48, 48, 36, 36, 36]
    assert funnel["reasons"]["it"]["held_out"]["count"] == 12
    trained = {
        text for row in fakes.trained[0].rows for text in (row["query"], row["positive"], *row["negatives"])
    }
    held = {
        row[side] for row in dataset(tmp_path / "run", decision="held_out") for side in ("query", "positive")
    }
    assert not trained & held


def test_evaluate_alone_sets_the_same_pairs_apart(fakes: Fakes, tmp_path: Path) -> None:
    made = fakes.tree(**{"domains.it.held_out": {"share": 0.25}})
    (metrics,) = run(made, tmp_path / "run").rounds
    recipe = written(tmp_path, made)
    out = tmp_path / "scores.json"
    assert main(["evaluate", recipe, "--model", str(fakes.base), "--out", str(out)]) == 0
    assert json.loads(out.read_text())["scores"] == metrics["base"]


def test_train_alone_leaves_out_what_is_set_apart(fakes: Fakes, tmp_path: Path) -> None:
    made = fakes.tree(**{"domains.it.held_out": {"share": 0.25}})
    run(made, tmp_path / "run")
    held = {row["sample_id"] for row in dataset(tmp_path / "run", decision="held_out")}
    fakes.trained.clear()
    assert main(["train", written(tmp_path, made), "--out", str(tmp_path / "model")]) == 0
    trained = {row["sample_id"] for row in fakes.trained[0].rows}
    assert held
    assert not held & trained
    assert trained >= {row["sample_id"] for row in dataset(tmp_path / "run")}


def test_what_is_too_close_to_a_held_out_pair_is_not_trained_on(fakes: Fakes, tmp_path: Path) -> None:
    held = pairs(TOPICS[8:], seed=1)
    rows = [*pairs(), {**held[0], "positive": "another answer to a held-out query ."}]
    rows.append({"query": "who asks for this ?", "positive": held[1]["positive"]})
    made = fakes.tree()
    write_rows(tmp_path / "train.jsonl", rows)
    run(made, tmp_path / "run")
    assert decisions(tmp_path / "run") == {"kept": 48, "contaminated": 2}
    matched = {row["matched_id"] for row in dataset(tmp_path / "run", decision="rejected")}
    assert all(name.startswith("it[") for name in matched)


def beir(folder: Path) -> Path:
    """The held-out samples in BEIR's layout, with a document that answers nothing."""
    rows = pairs(TOPICS[8:], seed=1)
    (folder / "qrels").mkdir(parents=True)
    write_rows(
        folder / "queries.jsonl", [{"_id": f"q{n}", "text": row["query"]} for n, row in enumerate(rows)]
    )
    documents = [{"_id": f"d{n}", "title": "", "text": row["positive"]} for n, row in enumerate(rows)]
    write_rows(folder / "corpus.jsonl", [*documents, {"_id": "d99", "text": "none ."}])
    lines = ["query-id\tcorpus-id\tscore", *(f"q{n}\td{n}\t1" for n in range(len(rows)))]
    (folder / "qrels" / "dev.tsv").write_text("\n".join(lines) + "\n")
    return folder


def test_a_folder_in_beirs_layout_is_measured_on(fakes: Fakes, tmp_path: Path) -> None:
    made = fakes.tree(**{"domains.it.held_out": {"beir": str(beir(tmp_path / "beir")), "split": "dev"}})
    (metrics,) = run(made, tmp_path / "run").rounds
    assert metrics["base"]["it"]["n"] == 24
    with pytest.raises(InputError, match="no such file"):
        run({**made, "domains": {"it": {**made["domains"]["it"], "held_out": {"beir": str(tmp_path / "beir")}}}},
            tmp_path / "other")  # fmt: skip


# ---- Generators --------------------------------------------------------------------------------------------------

FUNCTION = '''
def {name}(a, b):
    """{doc}

    More of it.
    """
    return {name}(a, {number})
'''


def sources(folder: Path) -> str:
    """Python files of three functions each, their pattern."""
    for number in range(6):
        functions = [
            FUNCTION.format(name=f"do_{topic}", doc=f"Tell the {detail} of {topic}.", number=number)
            for topic, detail in zip(TOPICS[2 * number : 2 * number + 2], ("cost", "age"), strict=True)
        ]
        folder.mkdir(exist_ok=True)
        (folder / f"module{number}.py").write_text("\n".join(functions))
    return str(folder / "*.py")


def mined(fakes: Fakes, folder: Path, **changes: Any) -> dict[str, Any]:
    domain = {
        "train": sources(folder / "sources"),
        "generator": {"name": "mined_pairs", "options": {"kind": "docstring_function", "hide_names": True}},
        "held_out": {"share": 0.34},
        "verifier": {"name": "pairs", "options": {"same_language": False}},
    }
    return {**fakes.tree(), "domains": {"code": domain}, **changes}


def test_no_other_domain_trains_on_a_held_out_pairs_file(fakes: Fakes, tmp_path: Path) -> None:
    made = mined(fakes, tmp_path, curate={"decontaminate": None})
    generator = {"name": "mined_pairs", "options": {"kind": "name_function", "min_words": 2}}
    made["domains"]["names"] = {"train": made["domains"]["code"]["train"], "generator": generator}
    (metrics,) = run(made, tmp_path / "run").rounds
    rows = dataset(tmp_path / "run", decision=None)
    apart = {json.loads(row["meta"])["path"] for row in rows if row["decision"] == "held_out"}
    assert {row["domain"] for row in rows if row["decision"] == "held_out"} == {"code"}
    kept = [row for row in rows if row["decision"] == "kept"]
    assert {row["domain"] for row in kept} == {"code", "names"}
    assert not apart & {json.loads(row["meta"])["path"] for row in kept}
    siblings = [row for row in rows if row["decision_reason"] == "contaminated"]
    assert siblings
    assert {row["domain"] for row in siblings} == {"names"}
    assert all(row["matched_id"] in {r["sample_id"] for r in rows} for row in siblings)
    assert metrics["funnel"]["reasons"]["names"]["contaminated"]["count"] == len(siblings)
    assert sum(row["domain"] == "names" for row in rows) == metrics["funnel"]["names"]["asked"]


def test_where_nothing_but_held_out_files_is_left_no_pair_is_trained_on(fakes: Fakes, tmp_path: Path) -> None:
    """Two domains of the same two files, of which each holds out the other one."""
    folder = tmp_path / "two"
    folder.mkdir()
    for number in range(2):
        (folder / f"m{number}.py").write_text(
            "".join(
                FUNCTION.format(name=f"do_{t}", doc=f"Tell {t} of {number}.", number=number)
                for t in ("abc", "xyz")[number]
            )
        )
    domains = {
        name: {
            "train": str(folder / "*.py"),
            "generator": {"name": "mined_pairs", "options": {"kind": kind, "min_words": 1}},
            "held_out": {"share": 0.5},
        }
        for name, kind in (("code", "docstring_function"), ("names", "name_function"))
    }
    said = []
    for rng_seed in range(8):
        made = {**fakes.tree(curate={"decontaminate": None}, rng_seed=rng_seed), "domains": domains}
        try:
            run(made, tmp_path / f"run-{rng_seed}")
        except WorkError as error:
            said.append(str(error))
    assert said
    assert all("no pair was kept" in each for each in said)


def test_a_generator_makes_the_pairs_in_a_run_of_its_own(fakes: Fakes, tmp_path: Path) -> None:
    (metrics,) = run(mined(fakes, tmp_path), tmp_path / "run").rounds
    assert "pairs: closed; code/mined 12, dataset 12" in status_text(status(tmp_path / "run"))
    assert decisions(tmp_path / "run") == {"kept": 8, "held_out": 4}
    assert (tmp_path / "run" / "pairs" / "round-00" / "metrics.json").exists()
    rows = dataset(tmp_path / "run", decision=None)
    assert all(row["positive"].startswith("def f(a, b):") and "do_" not in row["positive"] for row in rows)
    sides: dict[str, set[str]] = {}
    for row in rows:
        sides.setdefault(json.loads(row["meta"])["path"], set()).add(row["decision"])
    assert {len(each) for each in sides.values()} == {1}  # no file is on both sides
    assert metrics["base"]["code"]["n"] == 4
    assert {row["instruction"] for row in fakes.trained[0].rows} == {
        "Given a description of what a function does, retrieve the Python function that does it."
    }


def test_inspect_shows_how_a_generator_made_a_pair(
    fakes: Fakes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(mined(fakes, tmp_path), tmp_path / "run")
    name = dataset(tmp_path / "run")[0]["sample_id"]
    capsys.readouterr()
    assert main(["inspect", str(tmp_path / "run"), name]) == 0
    assert "=== step mined: kept" in capsys.readouterr().out


def asked(fakes: Fakes, folder: Path, stub: Stub) -> dict[str, Any]:
    documents = [{"text": document(number), "title": f"Annals {number}"} for number in range(4)]
    domain = {
        "train": str(write_rows(folder / "documents.jsonl", documents)),
        "generator": {"name": "document_queries", "options": {"passage_words": 60}},
        "held_out": {"share": 0.3},
    }
    engine = {
        "name": "openai",
        "options": {"base_url": stub.url, "retries": 1, "backoff_s": 0.001, "backoff_max_s": 0.002},
    }
    return {**fakes.tree(), "domains": {"notes": domain}, "writer": {"model": "served", "engine": engine}}


def test_a_writer_asks_for_queries_of_the_users_documents(fakes: Fakes, tmp_path: Path) -> None:
    with Stub(answer=answer) as stub:
        (metrics,) = run(asked(fakes, tmp_path, stub), tmp_path / "run").rounds
        served = len(stub.seen)
        run(asked(fakes, tmp_path, stub), tmp_path / "run")
        assert len(stub.seen) == served
    counts = decisions(tmp_path / "run")
    assert counts["kept"] > counts["held_out"] > 0
    asking = json.loads((tmp_path / "run" / "pairs" / "round-00" / "metrics.json").read_text())
    assert metrics["tokens"]["sampled"] == asking["tokens"]["sampled"]
    assert asking["funnel"]["notes"]["kept"] == sum(counts.values())
    rows = dataset(tmp_path / "run", decision=None)
    sides: dict[str, set[str]] = {}
    for row in rows:
        sides.setdefault(json.loads(row["meta"])["document_id"], set()).add(
            "held_out" if row["decision"] == "held_out" else "trained"
        )
    assert {len(each) for each in sides.values()} == {1}


@pytest.mark.parametrize("grouped", [False, True])
def test_no_other_generator_trains_on_a_held_out_document(
    grouped: bool, fakes: Fakes, tmp_path: Path
) -> None:
    """Queries that a model wrote are held out; sections of the same documents are mined in another domain."""
    with Stub(answer=answer) as stub:
        made = {**asked(fakes, tmp_path, stub), "curate": {"decontaminate": None}}
        rows = [{"text": f"# Annals {n}\n\n{document(n)}", "title": f"Annals {n}"} for n in range(4)]
        if grouped:
            rows = [{**row, "group": f"binder {n // 2}"} for n, row in enumerate(rows)]
            made["domains"]["notes"]["train"] = str(write_rows(tmp_path / "grouped.jsonl", rows))
            made["domains"]["notes"]["held_out"] = {"share": 0.5}
        written = str(write_rows(tmp_path / "documents.jsonl", rows))
        generator = {"name": "mined_pairs", "options": {"kind": "heading_section", "min_words": 1}}
        made["domains"]["sections"] = {"train": written, "generator": generator}
        run(made, tmp_path / "run")
    found = dataset(tmp_path / "run", decision=None)
    documents: dict[tuple[str, str], set[str]] = {}
    for row in found:
        side = documents.setdefault((row["domain"], row["decision"]), set())
        side.add(json.loads(row["meta"])["document_id"])
    held = documents["notes", "held_out"]
    assert held
    assert documents["sections", "rejected"] == held
    assert documents["sections", "kept"] == documents["notes", "kept"]


def test_pairs_made_of_a_group_of_documents_stay_together(fakes: Fakes, tmp_path: Path) -> None:
    rows = [{"text": f"# Annals {n}\n\n{document(n)}", "manual": f"m{n // 2}"} for n in range(4)]
    made = mined(fakes, tmp_path)
    made["domains"]["code"] |= {
        "train": str(write_rows(tmp_path / "manuals.jsonl", rows)),
        "columns": {"group": "manual"},
        "generator": {"name": "mined_pairs", "options": {"kind": "heading_section", "min_words": 1}},
        "held_out": {"share": 0.5},
    }
    run(made, tmp_path / "run")
    sides: dict[str, set[bool]] = {}
    for row in dataset(tmp_path / "run", decision=None):
        sides.setdefault(row["group"], set()).add(row["decision"] == "held_out")
    assert sorted(sides) == ["m0", "m1"]
    assert sorted(map(list, sides.values())) == [[False], [True]]


def test_a_writer_that_goes_away_is_asked_for_the_rest(fakes: Fakes, tmp_path: Path) -> None:
    with Stub(answer=answer) as stub:
        made = asked(fakes, tmp_path, stub)
        calm = run(made, tmp_path / "calm").rounds[0]
        fakes.trained.clear()
        stub.down_after = 12
        stub.seen.clear()
        stub.served.clear()
        with pytest.raises(WorkError, match="were not answered"):
            run(made, tmp_path / "run")
        stub.down_after = None
        done = run(made, tmp_path / "run").rounds[0]
    assert done["funnel"] == calm["funnel"]
    assert list(read_parts(tmp_path / "run" / "curated")) == list(read_parts(tmp_path / "calm" / "curated"))


def test_a_finished_run_of_kind_generate_is_a_source_of_pairs(fakes: Fakes, tmp_path: Path) -> None:
    run(mined(fakes, tmp_path), tmp_path / "first")
    domain = {"train": str(tmp_path / "first" / "pairs"), "held_out": {"share": 0.3}, "verifier": None}
    run({**fakes.tree(), "domains": {"code": domain}}, tmp_path / "second")
    assert decisions(tmp_path / "second") == {"kept": 8, "held_out": 4}
    rows = dataset(tmp_path / "second", decision=None)
    assert {row["source"] for row in rows} == {"code"}
    assert all("path" in json.loads(row["meta"]) for row in rows)
    shutil.rmtree(tmp_path / "first" / "pairs" / "round-00")
    with pytest.raises(InputError, match="is a run without a dataset yet"):
        run({**fakes.tree(), "domains": {"code": domain}}, tmp_path / "third")


# ---- Before the run ----------------------------------------------------------------------------------------------


def test_validate_and_preview(fakes: Fakes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = written(tmp_path, fakes.tree(**{"domains.it.instruction": "Find the fact."}))
    assert main(["validate", recipe]) == 0
    assert capsys.readouterr().out == "small: valid\n"
    assert main(["preview", recipe, "-n", "2"]) == 0
    said = capsys.readouterr().out
    assert said.count("=== it: pair ") == 2
    assert f"query: Find the fact.|{pairs()[0]['query']}" in said
    assert said.count("--- verdict: pass, sound") == 2


def test_preview_shows_what_a_generator_does(
    fakes: Fakes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["preview", written(tmp_path, mined(fakes, tmp_path))]) == 0
    said = capsys.readouterr().out
    assert "=== code: 00-mined" in said
    assert "=== code: row 0\nquery: Tell the cost of tides." in said


def test_a_generate_only_command_line_refuses_the_kind(fakes: Fakes, tmp_path: Path) -> None:
    from recipes.settings import load_recipe

    with pytest.raises(InputError, match="'embedding' trains and measures no language model"):
        load_recipe(fakes.tree())
    with pytest.raises(RecipeError, match="use self_training, sft, generate, embedding"):
        load_any({**fakes.tree(), "kind": "embeding"})


WRONG = [
    ({"domains.it.trian": "x"}, r"domains\.it\.trian: unknown key 'trian'\n  did you mean 'train'"),
    ({"domains.it.held_out": {"share": 1.5}}, r"held_out\.share: seen 1\.5\n  use below 1"),
    ({"domains.it.held_out": {"beri": "x"}}, r"held_out\.beri: unknown key"),
    ({"domains.it.generator": "evol_instruct"}, r"generator\.name: evol_instruct makes no pairs"),
    (
        {"domains.it.generator": "embedding_pairs"},
        r"domains\.it\.train: the generator embedding_pairs takes no rows",
    ),
    ({"domains.it.generator": "document_queries"}, r"writer: missing, and the generator of it asks one"),
    ({"writer": {"model": "x"}}, r"writer: set, but no generator asks it"),
    ({"writer": {"model": {"path": "scratch"}}}, r"writer\.model\.path: 'scratch' has nothing to write with"),
    ({"domains.it.verifier": {"name": "math", "options": {"model": "base"}}}, r"unknown key 'model'"),
    ({"gate.metric": "ndcg@3"}, r"gate\.metric: 'ndcg@3' is not measured"),
    ({"gate.metric": "pass@1"}, r"gate\.metric: seen \"pass@1\""),
    ({"gate.max_sts_loss": 0.01}, r"gate\.max_sts_loss: no sentence pairs to measure it on"),
    ({"evaluate.sts": ["a/it.jsonl"]}, r"evaluate\.sts\.0: its name 'it' is taken"),
    (
        {"train.early_stopping": {"metric": "ndcg@10"}, "train.eval_every": 2},
        r"no pairs to see an improvement on",
    ),
    ({"train.temperature": 0}, r"train\.temperature: seen 0\.0\n  use a positive number"),
    ({"mine.window": [9, 3]}, r"mine\.window: seen \[9, 3\]"),
    ({"mine": {"method": "none", "rescore": "x"}}, r"mine\.rescore: nothing is mined"),
    ({"curate.across_rounds": True}, r"curate\.across_rounds: every round has the same pairs"),
    ({"curate.text": "prompt"}, r"curate\.text: 'prompt', a column that no row will have"),
    ({"limits.tokens": 3}, r"limits\.tokens: unknown key"),
]


@pytest.mark.parametrize(("change", "said"), WRONG)
def test_what_does_not_go_together_is_refused_in_one_line(
    change: dict[str, Any], said: str, fakes: Fakes, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=said):
        load_any(fakes.tree(**change))


def test_a_run_without_anything_to_measure_is_refused(fakes: Fakes, tmp_path: Path) -> None:
    made = fakes.tree()
    del made["domains"]["it"]["held_out"]
    with pytest.raises(RecipeError, match="no domain with `held_out`") as caught:
        load_any(made)
    assert "curate.decontaminate" in str(caught.value)


def test_nothing_kept_is_explained(fakes: Fakes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = fakes.tree()
    rows = [{"query": row["query"], "positive": row["query"]} for row in pairs()]
    write_rows(tmp_path / "train.jsonl", rows)
    with pytest.raises(WorkError, match="no pair was kept"):
        run(made, tmp_path / "run")
    assert "failed:copy" in capsys.readouterr().out


def test_a_missing_package_is_told_with_its_remedy(
    fakes: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *more: None if name in ("bm25s", "mteb") else real(name, *more),
    )
    recipe = written(tmp_path, fakes.tree(**{"mine.method": "both", "evaluate.mteb": ["SciFact"]}))
    assert main(["validate", recipe]) == 2
    said = capsys.readouterr().err
    assert "error: mine.method: needs the package bm25s\n  pip install 'synthloop[embedding]'" in said
    assert "error: evaluate.mteb: needs the package mteb\n  pip install 'synthloop[mteb]'" in said
    with pytest.raises(InputError, match="needs the package bm25s"):
        run(load_any(recipe).resolved(), tmp_path / "run")
