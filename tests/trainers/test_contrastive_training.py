"""A whole contrastive tuning: it learns, goes on after a kill, and leaves a folder that others open."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_embedders
import tiny_models
from tiny_embedders import Stopped, stop_at

torch = pytest.importorskip("torch")
pytest.importorskip("sentence_transformers")

import trainers  # noqa: E402
from synth.records.errors import InputError, WorkError  # noqa: E402
from trainers.contrastive_options import ContrastiveOptions, TokenBagOptions  # noqa: E402
from trainers.core import checkpoint  # noqa: E402
from trainers.embedding.encoder import Encoder  # noqa: E402
from trainers.embedding.model import open_for_training  # noqa: E402
from trainers.embedding.rows import read_pairs  # noqa: E402
from trainers.embedding.steps import Steps  # noqa: E402
from trainers.options import EarlyStopping, LoraOptions  # noqa: E402

ROWS = tiny_embedders.pairs(10)
# 10 rows in steps of at most 4: 3 steps an epoch, 6 in all.
OPTIONS = ContrastiveOptions(epochs=2, batch_size=4, lr=1e-2, temperature=0.1, save_every=1, dtype="float32")
Make = Callable[..., Path]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """folder(kind, **options) -> folder of a tiny model, built on first use."""
    made: dict[str, Path] = {}

    def make(kind: str = "encoder", **options: Any) -> Path:
        if kind == "encoder":
            options = {"dropout": 0.2, **options}
        key = repr((kind, options))
        if key not in made:
            made[key] = getattr(tiny_embedders, kind)(tmp_path_factory.mktemp(kind) / "model", **options)
        return made[key]

    return make


@pytest.fixture(scope="module")
def on_cpu() -> Iterator[None]:
    """For fixtures that train before a test's own `plain_cpu` is there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", "1")
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, folder: Make, on_cpu: None) -> Path:
    """The model of an undisturbed training with OPTIONS."""
    out = tmp_path_factory.mktemp("undisturbed") / "whole"
    trainers.train_embedder(str(folder()), ROWS, out, OPTIONS, 5)
    return out


def records(folder: Path) -> list[dict[str, Any]]:
    """The steps that a model folder tells of."""
    return [json.loads(line) for line in (folder / "training.jsonl").read_text().splitlines()][1:]


def assert_same_folders(left: Path, right: Path, but: str = "") -> None:
    names = sorted(str(p.relative_to(left)) for p in left.rglob("*"))
    assert names == sorted(str(p.relative_to(right)) for p in right.rglob("*"))
    for name in names:
        if (left / name).is_file() and name != but:
            a, b = (f.joinpath(name).read_bytes().replace(f.name.encode(), b"OUT") for f in (left, right))
            assert a == b, name


def test_it_learns(tmp_path: Path, folder: Make) -> None:
    seen: list[dict[str, Any]] = []
    options = replace(OPTIONS, epochs=20, lr=3e-3)
    start = str(folder(dropout=0.0))

    def first(encoder: trainers.Encoder) -> float:
        """Share of queries whose positive is nearest."""
        queries = encoder.encode([row["query"] for row in ROWS], "query")
        documents = encoder.encode([row["positive"] for row in ROWS])
        return float((np.argmax(queries @ documents.T, axis=1) == np.arange(len(ROWS))).mean())

    result = trainers.train_embedder(
        start, ROWS, tmp_path / "m", options, 5, lambda encoder, step: {"first": first(encoder)}, seen.append
    )
    assert first(trainers.open_encoder(start, device="cpu")) < 0.6
    assert result.logs[-1]["first"] == 1.0
    assert first(trainers.open_encoder(str(tmp_path / "m"), device="cpu")) == 1.0
    assert (result.steps, len(result.logs), result.resumed_from, result.stopped_early) == (60, 60, 0, False)
    assert result.counts == {"rows": 10, "without_negatives": 0, "trained": 10}
    assert result.tokens == sum(entry["tokens"] for entry in result.logs) > 0
    assert result.seconds > 0
    assert [entry["step"] for entry in seen] == list(range(1, 61))
    assert seen[0].keys() >= {
        "step",
        "steps",
        "epoch",
        "loss",
        "grad_norm",
        "lr",
        "rows",
        "tokens",
        "seconds",
    }
    assert [entry["rows"] for entry in result.logs[:3]].count(4) == 1
    rates = [entry["lr"] for entry in result.logs]
    assert max(rates) == rates[6] == 3e-3
    assert rates[0] == pytest.approx(3e-3 / 7)


def test_the_folder_is_whole(tmp_path: Path, folder: Make) -> None:
    lineage = {"dataset": "abc"}
    result = trainers.train_embedder(str(folder()), ROWS, tmp_path / "m", OPTIONS, 5, lineage=lineage)
    lines = [json.loads(line) for line in (tmp_path / "m" / "training.jsonl").read_text().splitlines()]
    assert lines[1:] == result.logs
    card = (tmp_path / "m" / "README.md").read_text()
    for text in (
        "# m",
        "library_name: sentence-transformers",
        "synthloop",
        '"dataset": "abc"',
        '"batch_size": 4',
    ):
        assert text in card
    assert not [line for line in card.splitlines() if str(tmp_path) in line or str(folder()) in line]
    assert not list(tmp_path.glob(".*"))
    from transformers import AutoModel, AutoTokenizer

    AutoTokenizer.from_pretrained(tmp_path / "m")
    _, loading = AutoModel.from_pretrained(tmp_path / "m", output_loading_info=True)
    assert not loading["missing_keys"]


@pytest.mark.parametrize(
    ("kind", "instructions"),
    [
        ("encoder", ()),
        ("encoder", ("w1 w2",)),
        ("decoder", ()),
        ("decoder", ("w1", "w2")),
        ("decoder with start", ("w1 w2",)),
    ],
)
def test_the_peer_encodes_the_same(
    tmp_path: Path, folder: Make, kind: str, instructions: tuple[str, ...]
) -> None:
    from sentence_transformers import SentenceTransformer

    start = folder(*kind.split()[:1], **({"bos": True} if "with" in kind else {}))
    rows = [
        {**row, "instruction": instructions[i % len(instructions)] if instructions else ""}
        for i, row in enumerate(ROWS)
    ]
    seen: list[np.ndarray] = []
    texts = ["w3 w4", "w5", "w6 " * 50]

    def evaluate(encoder: trainers.Encoder, step: int) -> dict[str, float]:
        seen.append(encoder.encode(texts, "query", "w7"))
        return {}

    options = replace(OPTIONS, max_steps=2, document_template="w8 {document}", max_length=30)
    trainers.train_embedder(str(start), rows, tmp_path / "m", options, 5, evaluate)
    ours = trainers.open_encoder(str(tmp_path / "m"), device="cpu")
    theirs = SentenceTransformer(str(tmp_path / "m"), device="cpu")
    np.testing.assert_allclose(ours.encode(texts), theirs.encode_document(texts), atol=1e-6)
    np.testing.assert_allclose(ours.encode(texts, "query"), theirs.encode_query(texts), atol=1e-6)
    # With the template that it was trained with, which the folder keeps.
    told = "Instruct: w7\nQuery: "
    np.testing.assert_allclose(
        ours.encode(texts, "query", "w7"), theirs.encode(texts, prompt=told), atol=1e-6
    )
    np.testing.assert_allclose(ours.encode(texts, "query", "w7"), seen[-1], atol=1e-5)
    if len(instructions) == 1:
        np.testing.assert_array_equal(ours.encode(texts, "query"), ours.encode(texts, "query", "w1 w2"))


# --- killed and called again ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stop", "save_every"), [(1, 1), (4, 1), (5, 2), (6, 4)])
def test_resume_is_bitwise(tmp_path: Path, folder: Make, whole: Path, stop: int, save_every: int) -> None:
    model, options = str(folder()), replace(OPTIONS, save_every=save_every)
    with pytest.raises(Stopped):
        trainers.train_embedder(model, ROWS, tmp_path / "part", options, 5, on_step=stop_at(stop))
    assert not (tmp_path / "part").exists()
    torch.manual_seed(random.randrange(2**32))
    resumed = trainers.train_embedder(model, ROWS, tmp_path / "part", options, 5)
    # The step that was stopped at had not been saved yet.
    assert resumed.resumed_from == (stop - 1) // save_every * save_every
    assert resumed.logs == records(whole)
    # `save_every` is free: the card tells it, and nothing else knows of it.
    assert_same_folders(whole, tmp_path / "part", "README.md" if save_every > 1 else "")
    assert not list(tmp_path.glob(".*"))


def test_an_interrupt_goes_through_and_resumes(tmp_path: Path, folder: Make, whole: Path) -> None:
    def interrupt(entry: dict[str, Any]) -> None:
        if entry["step"] == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainers.train_embedder(str(folder()), ROWS, tmp_path / "part", OPTIONS, 5, on_step=interrupt)
    assert trainers.train_embedder(str(folder()), ROWS, tmp_path / "part", OPTIONS, 5).resumed_from == 3
    assert_same_folders(whole, tmp_path / "part")


def test_dropout_was_on(tmp_path: Path, folder: Make) -> None:
    """Otherwise the tests above say nothing of random numbers."""
    losses = [
        trainers.train_embedder(str(folder(dropout=drop)), ROWS, tmp_path / str(drop), OPTIONS, 5).logs[-1][
            "loss"
        ]
        for drop in (0.0, 0.2)
    ]
    assert losses[0] != losses[1]


def test_without_dropout_the_configured_share_changes_nothing(tmp_path: Path, folder: Make) -> None:
    options = replace(OPTIONS, dropout=False)
    for drop in (0.0, 0.2):
        trainers.train_embedder(str(folder(dropout=drop)), ROWS, tmp_path / str(drop), options, 5)
    logs = [[entry["loss"] for entry in records(tmp_path / str(drop))] for drop in (0.0, 0.2)]
    assert logs[0] == logs[1]
    assert tiny_models.same(tiny_models.weights(tmp_path / "0.0"), tiny_models.weights(tmp_path / "0.2"))
    # What is exported still asks for dropout when others train it.
    assert json.loads((tmp_path / "0.2" / "config.json").read_text())["hidden_dropout_prob"] == 0.2


def test_a_killed_process_resumes_bitwise(tmp_path: Path, folder: Make, whole: Path) -> None:
    model = str(folder())
    code = (
        "import os, signal, sys, trainers, test_contrastive_training as t\n"
        "def die(entry):\n"
        "    if entry['step'] == 4: os.kill(os.getpid(), signal.SIGTERM)\n"
        "trainers.train_embedder(sys.argv[1], t.ROWS, sys.argv[2], t.OPTIONS, 5, on_step=die)\n"
    )
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": f"{root}:{Path(__file__).parent}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, model, str(tmp_path / "part")]
    job = subprocess.run(command, env=environment, timeout=400, check=False, capture_output=True)
    assert job.returncode == -signal.SIGTERM
    assert trainers.train_embedder(model, ROWS, tmp_path / "part", OPTIONS, 5).resumed_from == 3
    assert_same_folders(whole, tmp_path / "part")


def test_death_while_exporting_costs_no_training(
    tmp_path: Path, folder: Make, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sentence_transformers import SentenceTransformer

    def full(*_arguments: Any, **_settings: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(SentenceTransformer, "save_pretrained", full)
        with pytest.raises(OSError, match="No space"):
            trainers.train_embedder(str(folder()), ROWS, tmp_path / "part", OPTIONS, 5)
    again = trainers.train_embedder(str(folder()), ROWS, tmp_path / "part", OPTIONS, 5, on_step=stop_at(6))
    assert (again.resumed_from, again.steps) == (6, 6)
    assert_same_folders(whole, tmp_path / "part")


def test_death_while_saving_leaves_the_older_state(
    tmp_path: Path, folder: Make, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish, calls = checkpoint.publish, []

    def torn(temporary: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 4:
            (temporary / "weights.safetensors").write_bytes(b"half")
            raise Stopped
        publish(temporary, target)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "publish", torn)
        with pytest.raises(Stopped):
            trainers.train_embedder(str(folder()), ROWS, tmp_path / "part", OPTIONS, 5)
    assert trainers.train_embedder(str(folder()), ROWS, tmp_path / "part", OPTIONS, 5).resumed_from == 3
    assert_same_folders(whole, tmp_path / "part")


def test_lora_early_stopping_and_guide_resume_bitwise(tmp_path: Path, folder: Make) -> None:
    options = replace(
        OPTIONS, epochs=4, lora=LoraOptions(r=4, dropout=0.1), eval_every=1, save_every=2, guide=str(folder(seed=8)),
        early_stopping=EarlyStopping(metric="score", mode="max", patience=2), homogeneous=True, cache="on",
    )  # fmt: skip
    scores = {1: 0.1, 2: 0.5, 3: 0.2, 4: 0.9, 5: 0.3, 6: 0.4, 7: 1.0}

    def evaluate(encoder: trainers.Encoder, step: int) -> dict[str, float]:
        encoder.encode(["w1"])
        torch.rand(3)  # an evaluation may sample; it must not disturb the training
        return {"score": scores[step]}

    def go(name: str, options: ContrastiveOptions, stop: int = 99) -> trainers.TrainResult:
        return trainers.train_embedder(
            str(folder()), ROWS, tmp_path / name, options, 5, evaluate, stop_at(stop)
        )

    whole = go("whole", options)
    assert (whole.stopped_early, whole.steps) == (True, 6)
    assert "0.9000 at step 4" in (tmp_path / "whole" / "README.md").read_text()
    with pytest.raises(Stopped):
        go("part", options, 5)
    assert go("part", options).resumed_from == 4
    assert_same_folders(tmp_path / "whole", tmp_path / "part")
    # The weights exported are those of step 4, not of the last.
    assert options.early_stopping
    short = replace(options, early_stopping=replace(options.early_stopping, restore_best=False))
    assert go("last", short).steps == 6
    assert not tiny_models.same(*(tiny_models.weights(tmp_path / name) for name in ("whole", "last")))


def test_finished_training_is_not_done_again(folder: Make, whole: Path) -> None:
    options = replace(OPTIONS, save_every=7)
    again = trainers.train_embedder(str(folder()), ROWS, whole, options, 5, on_step=stop_at(1))
    assert (again.logs, again.steps, again.resumed_from) == (records(whole), 6, 6)
    assert again.path == whole


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, folder: Make, on_cpu: None) -> dict[str, Path]:
    """A training with a guide that is finished, and one that was stopped."""
    root = tmp_path_factory.mktemp("begun")
    options = replace(OPTIONS, max_steps=3, guide=str(folder(seed=8)))
    trainers.train_embedder(str(folder()), ROWS, root / "finished", options, 5)
    with pytest.raises(Stopped):
        trainers.train_embedder(str(folder()), ROWS, root / "unfinished", options, 5, on_step=stop_at(2))
    return {name: root / name for name in ("finished", "unfinished")}


@pytest.mark.parametrize("change", ["rows", "options", "rng_seed", "model", "guide"])
@pytest.mark.parametrize("state", ["unfinished", "finished"])
def test_other_arguments_are_refused(folder: Make, begun: dict[str, Path], change: str, state: str) -> None:
    options = replace(OPTIONS, max_steps=3, guide=str(folder(seed=9 if change == "guide" else 8)))
    arguments: dict[str, Any] = {
        "model": str(folder(**({"seed": 1} if change == "model" else {}))),
        "rows": ROWS[:-1] if change == "rows" else ROWS,
        "options": replace(options, lr=1e-3) if change == "options" else options,
        "rng_seed": 6 if change == "rng_seed" else 5,
    }
    with pytest.raises(
        InputError, match="trained otherwise" if state == "finished" else "unfinished training"
    ):
        trainers.train_embedder(out=begun[state], **arguments)


def test_a_guide_is_known_by_what_it_is_not_where(
    tmp_path: Path, folder: Make, begun: dict[str, Path]
) -> None:
    moved = shutil.copytree(folder(seed=8), tmp_path / "moved")
    options = replace(OPTIONS, max_steps=3, guide=str(moved))
    assert trainers.train_embedder(str(folder()), ROWS, begun["finished"], options, 5).resumed_from == 3


# --- models and adapters -------------------------------------------------------------------------------------------


def test_a_decoder_with_adapter(tmp_path: Path, folder: Make) -> None:
    """Every adapter matrix moves; the export is the merged model, and nothing else of it changed."""
    options = replace(
        OPTIONS, lora=LoraOptions(r=2), gradient_checkpointing=True, cache="on", save_dtype="float32"
    )
    start = folder("decoder")
    trainers.train_embedder(str(start), ROWS, tmp_path / "m", options, 5)
    before, after = tiny_models.weights(start), tiny_models.weights(tmp_path / "m")
    names = {name: name.removeprefix("model.") for name in before}
    assert after.keys() == set(names.values()) - {"lm_head.weight"}
    for name, short in names.items():
        if short in after:
            moved = not torch.equal(before[name], after[short])
            assert moved == any(part in name for part in ("_proj",)), name


def asked(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same rows, each query with one of two instructions or none."""
    return [{**row, "instruction": ("w1 w2", "", "w3")[i % 3]} for i, row in enumerate(rows)]


@pytest.mark.parametrize("lora", [None, LoraOptions(r=2)], ids=["whole", "lora"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_decoder_learns_the_same_on_both_padding_sides(
    tmp_path: Path, family: str, lora: LoraOptions | None
) -> None:
    """Of learned positions or relative ones: on which side a neighbour's length shows must not matter."""
    options = replace(OPTIONS, lr=1e-3, lora=lora, dropout=False)
    losses, vectors = [], []
    for side in ("left", "right"):
        start = tiny_embedders.decoder(tmp_path / side, padding_side=side, family=family)
        tiny_embedders.laid_out(start, "lasttoken")
        tuned = tmp_path / f"{side}-tuned"
        seen: list[str] = []
        result = trainers.train_embedder(
            str(start), asked(ROWS), tuned, options, 5,
            lambda encoder, _step, seen=seen: {"sides": seen.append(encoder.tokens.tokenizer.padding_side) or 0},
        )  # fmt: skip
        assert seen == [side]
        losses.append([entry["loss"] for entry in result.logs])
        encoder = trainers.open_encoder(str(tuned), device="cpu")
        assert encoder.tokens.tokenizer.padding_side == side
        vectors.append(encoder.encode([row["query"] for row in ROWS], "query", "w3"))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_tuned_decoder_reads_what_was_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, side: str
) -> None:
    """Token for token: templates, the limit that cuts, and the end token, also behind what was cut."""
    start = tiny_embedders.decoder(tmp_path / "start", padding_side=side, family=family)
    tiny_embedders.laid_out(start, "lasttoken")
    limit, rows = 60, asked(ROWS)
    options = replace(OPTIONS, max_steps=1, max_length=limit)
    pairs = read_pairs(rows, options.hard_negatives)
    model, tokens, _ = open_for_training(str(start), options, torch.float32, pairs)
    trained = [ids.tolist() for ids in Steps(pairs, Encoder(model, tokens, 999))(range(len(rows))).texts]

    trainers.train_embedder(str(start), rows, tmp_path / "m", options, 5)
    encoder = trainers.open_encoder(str(tmp_path / "m"), device="cpu")
    texts = [encoder.text(query, "query", instruction) for instruction, query in pairs.queries]
    texts += [encoder.text(document) for document in pairs.documents]
    assert [ids.tolist() for ids in encoder.tokens.ids(texts)] == trained
    encoded: list[list[int]] = []
    batch = encoder.tokens.batch
    monkeypatch.setattr(
        encoder.tokens, "batch", lambda rows: encoded.extend(ids.tolist() for ids in rows) or batch(rows)
    )
    for instruction, query in pairs.queries:
        encoder.encode([query], "query", instruction)
    for document in pairs.documents:
        encoder.encode([document])
    assert encoded == trained

    tokenizer = encoder.tokens.tokenizer
    for text, ids in zip(texts, trained, strict=True):
        told = tokenizer.decode(ids[:-1])
        assert ids[-1] == tokenizer.eos_token_id
        assert told == text if len(ids) < limit else (text.startswith(told) and len(ids) == limit)
    for part in (trained[: len(pairs.queries)], trained[len(pairs.queries) :]):
        assert {len(ids) == limit for ids in part} == {True, False}, "some texts are cut, and some are whole"


@pytest.mark.parametrize(("save_dtype", "stored"), [("auto", "float32"), ("bfloat16", "bfloat16")])
def test_weights_are_saved_as_asked(tmp_path: Path, folder: Make, save_dtype: Any, stored: str) -> None:
    options = replace(OPTIONS, max_steps=1, save_dtype=save_dtype)
    trainers.train_embedder(str(folder()), ROWS, tmp_path / "m", options, 5)
    assert {str(t.dtype) for t in tiny_models.weights(tmp_path / "m").values()} == {f"torch.{stored}"}
    assert json.loads((tmp_path / "m" / "config.json").read_text())["dtype"] == stored


def test_too_many_dimensions_are_refused(tmp_path: Path, folder: Make) -> None:
    with pytest.raises(InputError, match=r"train.matryoshka: 32 of 16 dimensions"):
        trainers.train_embedder(str(folder()), ROWS, tmp_path / "m", replace(OPTIONS, matryoshka=[8, 32]))


def test_loss_that_is_not_finite_stops_the_work(tmp_path: Path, folder: Make) -> None:
    options = replace(OPTIONS, lr=1e30, max_grad_norm=None, warmup=0)
    with pytest.raises(WorkError, match="not finite"):
        trainers.train_embedder(str(folder()), ROWS, tmp_path / "m", options, 5)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(("warmup", "said"), [(3, True), (2, False), (0.5, False), (0.9, True)])
def test_a_warm_up_without_an_end_is_told(
    warmup: float, said: bool, tmp_path: Path, folder: Make, on_cpu: None
) -> None:
    lines: list[str] = []
    options = replace(OPTIONS, epochs=1, warmup=warmup)
    assert trainers.train_embedder(str(folder()), ROWS, tmp_path / "m", options, log=lines.append).steps == 3
    told = "train.warmup: all 3 steps, so that train.lr is never reached; lower it"
    assert (told in lines) is said


def test_early_stopping_needs_an_evaluation(tmp_path: Path, folder: Make) -> None:
    options = replace(OPTIONS, eval_every=1, early_stopping=EarlyStopping(metric="x"))
    with pytest.raises(InputError, match=r"early_stopping: nothing is evaluated"):
        trainers.train_embedder(str(folder()), ROWS, tmp_path / "m", options, 5)
    with pytest.raises(InputError, match=r"early_stopping.metric: 'x'"):
        trainers.train_embedder(str(folder()), ROWS, tmp_path / "m", options, 5, lambda *_: {"y": 1.0})


def test_eval_every(tmp_path: Path, folder: Make) -> None:
    for every, expected in ((None, [6]), (4, [4, 6])):
        steps: list[int] = []
        trainers.train_embedder(
            str(folder()), ROWS, tmp_path / str(every), replace(OPTIONS, eval_every=every), 5,
            lambda _encoder, step, steps=steps: {"step": steps.append(step) or step},
        )  # fmt: skip
        assert steps == expected


def test_caller_keeps_its_random_state_and_threads(tmp_path: Path, folder: Make) -> None:
    def draws() -> list[float]:
        return [float(torch.rand(1)), random.random(), float(np.random.rand())]

    def seed() -> None:
        torch.manual_seed(1)
        random.seed(1)
        np.random.seed(1)

    seed()
    expected = draws()
    seed()
    seen: list[int] = []
    before = torch.get_num_threads()
    trainers.train_embedder(
        str(folder()), ROWS, tmp_path / "m", replace(OPTIONS, max_steps=1, threads=2), 5,
        on_step=lambda _entry: seen.append(torch.get_num_threads()),
    )  # fmt: skip
    assert draws() == expected
    assert (seen, torch.get_num_threads()) == ([2], before)


def test_trackers_get_every_step(tmp_path: Path, folder: Make) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = trainers.train_embedder(
        str(folder()), ROWS, tmp_path / "m", replace(OPTIONS, trackers=["tensorboard"]), 5
    )
    files = (tmp_path / "m.trackers").rglob("events.out*")
    logs = [
        log for file in files if "loss" in (log := EventAccumulator(str(file)).Reload()).Tags()["scalars"]
    ]
    (events,) = (log.Scalars("loss") for log in logs)
    assert [event.step for event in events] == [1, 2, 3, 4, 5, 6]
    assert [event.value for event in events] == pytest.approx([entry["loss"] for entry in result.logs])


# --- ranks ---------------------------------------------------------------------------------------------------------

# Eight rows a step, which is four a rank, with a token bag; ragged rows, cached with a guide; fewer texts than ranks.
BAG = TokenBagOptions(dimensions=4, batch_size=8)
TWO_RANKS: list[tuple[int, dict[str, Any]]] = [
    (10, {"epochs": 2, "batch_size": 8, "micro_batch_tokens": 60, "cache": "off", "token_bag": BAG}),
    (10, {"epochs": 1, "micro_batch_tokens": 60, "cache": "on", "symmetric": True, "guide": "here"}),
    (1, {"epochs": 1, "batch_size": 1}),
]


def train_case(start: str, out: str, count: int, settings: dict[str, Any]) -> trainers.TrainResult:
    """One training of TWO_RANKS; the start model is the guide too."""
    if "guide" in settings:
        settings = {**settings, "guide": start}
    return trainers.train_embedder(start, ROWS[:count], out, replace(OPTIONS, **settings), 3)


def counted_exchanges() -> list[int]:
    """A list that gets one entry for every exchange of the whole gradient between ranks."""
    from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
    from torch.nn.parallel import DistributedDataParallel

    seen: list[int] = []
    init = DistributedDataParallel.__init__

    def hook(_state: Any, bucket: Any) -> Any:
        if bucket.is_last():
            seen.append(1)
        return allreduce_hook(None, bucket)  # type: ignore[arg-type]

    hook.__annotations__.clear()  # torch takes a bare hook, or one annotated with the very class

    def counted(self: Any, *arguments: Any, **settings: Any) -> None:
        init(self, *arguments, **settings)
        self.register_comm_hook(None, hook)

    DistributedDataParallel.__init__ = counted  # type: ignore[method-assign]
    return seen


def test_two_ranks_train_as_one(tmp_path: Path, folder: Make) -> None:
    """On two gloo ranks as in one process, with one exchange of gradients a step."""
    script = tmp_path / "rank.py"
    script.write_text(
        "import sys, test_contrastive_training as t\n"
        "from accelerate import PartialState\n"
        "exchanges = t.counted_exchanges()\n"
        "for number, (count, settings) in enumerate(t.TWO_RANKS):\n"
        "    exchanges.clear()\n"
        "    result = t.train_case(sys.argv[1], f'{sys.argv[2]}-{number}', count, settings)\n"
        "    assert PartialState().num_processes == 2, 'the ranks did not find each other'\n"
        "    assert len(exchanges) == result.steps, f'{len(exchanges)} exchanges in {result.steps} steps'\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {
        "PYTHONPATH": f"{root}:{Path(__file__).parent}", "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1",
        "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
    }  # fmt: skip
    start = str(folder(dropout=0.0))
    command = [sys.executable, str(script), start, str(tmp_path / "two")]
    jobs = [subprocess.Popen(command, env=environment | {"RANK": r, "LOCAL_RANK": r}) for r in "01"]
    alone: list[trainers.TrainResult] = []
    try:
        for number, (count, settings) in enumerate(TWO_RANKS):
            alone.append(train_case(start, str(tmp_path / f"one-{number}"), count, settings))
        assert [job.wait(timeout=400) for job in jobs] == [0, 0]
    finally:
        for job in jobs:
            job.kill()
    for number, result in enumerate(alone):
        lines = (tmp_path / f"two-{number}" / "training.jsonl").read_text().splitlines()[1:]
        for one, two in zip(result.logs, map(json.loads, lines), strict=True):
            assert two["loss"] == pytest.approx(one["loss"], rel=1e-4, abs=1e-6)
            assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-3, abs=1e-5)
        one, two = (tiny_models.weights(tmp_path / f"{name}-{number}") for name in ("one", "two"))
        for name in one:
            # Attention is blind to the keys' bias: its gradient is rounding, which AdamW makes whole steps of.
            if not name.endswith("key.bias"):
                torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=1e-4)
    one, two = (tiny_models.weights(tmp_path / f"{name}-0" / "token_bag") for name in ("one", "two"))
    torch.testing.assert_close(two, one, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("changes", [{}, {"batch_size": 1}])
def test_rows_that_nothing_can_be_learned_from_are_refused(
    folder: Make, tmp_path: Path, changes: dict[str, Any]
) -> None:
    rows = ROWS if changes else ROWS[:1]
    rows = [{"query": row["query"], "positive": row["positive"]} for row in rows]
    options = replace(OPTIONS, **changes)
    with pytest.raises(InputError, match="no step has a negative for any of its queries"):
        trainers.train_embedder(str(folder()), rows, tmp_path / "out", options, 5)
    assert list(tmp_path.iterdir()) == []
