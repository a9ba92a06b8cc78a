"""A training that was stopped and called again is, bit for bit, the one that never stopped."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch

import trainers
from synth.records.errors import InputError, WorkError
from trainers.core import checkpoint
from trainers.options import EarlyStopping, LoraOptions, TrainOptions

ROWS = tiny_models.token_rows(10)
# 10 rows in steps of at most 4: 3 steps an epoch, 9 in all.
OPTIONS = TrainOptions(
    epochs=3, batch_size=4, lr=1e-2, warmup_steps=2, weight_decay=0.1, save_every=1, dtype="float32"
)
Folder = Callable[..., Path]


class Stopped(Exception):
    """Stands for the power cut."""


def stop_at(step: int) -> Callable[[dict[str, Any]], None]:
    def check(entry: dict[str, Any]) -> None:
        if entry["step"] == step:
            raise Stopped

    return check


def assert_same_folders(left: Path, right: Path) -> None:
    names = sorted(str(p.relative_to(left)) for p in left.rglob("*") if p.is_file())
    assert names == sorted(str(p.relative_to(right)) for p in right.rglob("*") if p.is_file())
    for name in names:
        a, b = (
            f.joinpath(name).read_bytes().replace(f"# {f.name}\n".encode(), b"# OUT\n") for f in (left, right)
        )
        assert a == b, name


@pytest.mark.parametrize(
    ("stop", "save_every"),
    [(1, 1), (2, 1), (3, 1), (4, 1), (4, 2), (9, 2)],
    ids=["first", "mid", "boundary", "second epoch", "older state", "last"],
)
def test_resume_is_bitwise(tmp_path: Path, model_folder: Folder, stop: int, save_every: int) -> None:
    model, options = str(model_folder("gpt2", dropout=0.2)), replace(OPTIONS, save_every=save_every)
    whole = trainers.train(model, ROWS, tmp_path / "whole", options, 5)
    with pytest.raises(Stopped):
        trainers.train(model, ROWS, tmp_path / "part", options, 5, on_step=stop_at(stop))
    assert not (tmp_path / "part").exists()
    torch.manual_seed(random.randrange(2**32))
    resumed = trainers.train(model, ROWS, tmp_path / "part", options, 5)
    # The step that was stopped at had not been saved yet.
    assert resumed.resumed_from == (stop - 1) // save_every * save_every
    assert resumed.logs == whole.logs
    assert_same_folders(tmp_path / "whole", tmp_path / "part")
    assert not list(tmp_path.glob(".*"))


def test_a_rate_that_follows_the_losses_is_resumed(tmp_path: Path, model_folder: Folder) -> None:
    model = str(model_folder())
    options = replace(OPTIONS, epochs=4, lr=0.3, schedule="plateau", plateau_window=2)
    whole = trainers.train(model, ROWS, tmp_path / "whole", options, 5)
    assert len({entry["lr"] for entry in whole.logs[2:]}) > 1
    with pytest.raises(Stopped):
        trainers.train(model, ROWS, tmp_path / "part", options, 5, on_step=stop_at(10))
    assert trainers.train(model, ROWS, tmp_path / "part", options, 5).logs == whole.logs


def test_dropout_was_on(tmp_path: Path, model_folder: Folder) -> None:
    """Otherwise the tests above say nothing of random numbers."""
    results = [
        trainers.train(str(model_folder("gpt2", dropout=drop)), ROWS, tmp_path / str(drop), OPTIONS, 5).logs[
            -1
        ]["loss"]
        for drop in (0.0, 0.2)
    ]
    assert results[0] != results[1]


def test_killed_process_resumes_bitwise(tmp_path: Path, model_folder: Folder) -> None:
    model = str(model_folder("gpt2", dropout=0.2))
    trainers.train(model, ROWS, tmp_path / "whole", OPTIONS, 5)
    code = (
        "import os, signal, sys, trainers, test_trainer_resume as t\n"
        "def die(entry):\n"
        "    if entry['step'] == 5: os.kill(os.getpid(), signal.SIGKILL)\n"
        "trainers.train(sys.argv[1], t.ROWS, sys.argv[2], t.OPTIONS, 5, on_step=die)\n"
    )
    root = Path(__file__).resolve().parents[2]
    env = os.environ | {"PYTHONPATH": f"{root}:{Path(__file__).parent}", "OMP_NUM_THREADS": "1"}
    job = subprocess.run(
        [sys.executable, "-c", code, model, str(tmp_path / "part")], env=env, timeout=400, check=False
    )
    assert job.returncode == -signal.SIGKILL
    assert trainers.train(model, ROWS, tmp_path / "part", OPTIONS, 5).resumed_from == 4
    assert_same_folders(tmp_path / "whole", tmp_path / "part")


def test_death_while_saving_leaves_the_older_state(
    tmp_path: Path, model_folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = str(model_folder())
    trainers.train(model, ROWS, tmp_path / "whole", OPTIONS, 5)
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
            trainers.train(model, ROWS, tmp_path / "part", OPTIONS, 5)
    assert trainers.train(model, ROWS, tmp_path / "part", OPTIONS, 5).resumed_from == 3
    assert_same_folders(tmp_path / "whole", tmp_path / "part")


def test_lora_and_early_stopping_resume_bitwise(tmp_path: Path, model_folder: Folder) -> None:
    stopping = EarlyStopping(metric="score", mode="max", patience=2)
    options = replace(
        OPTIONS, lora=LoraOptions(r=4, dropout=0.1), early_stopping=stopping, eval_every=1, save_every=2
    )
    scores = {1: 0.1, 2: 0.5, 3: 0.2, 4: 0.9, 5: 0.3, 6: 0.4, 7: 1.0}
    calls: list[int] = []

    def evaluate(_model: Any, step: int) -> dict[str, float]:
        calls.append(step)
        torch.rand(3)  # an evaluation may sample; it must not disturb the training
        return {"score": scores[step]}

    def go(name: str, stop: int | None = None) -> trainers.TrainResult:
        hook = stop_at(stop) if stop else None
        return trainers.train(str(model_folder()), ROWS, tmp_path / name, options, 5, evaluate, hook)

    whole = go("whole")
    assert whole.stopped_early
    assert whole.steps == 6
    assert calls == [1, 2, 3, 4, 5, 6]
    assert "0.9000 at step 4" in (tmp_path / "whole" / "README.md").read_text()
    with pytest.raises(Stopped):
        go("part", 5)
    assert go("part").resumed_from == 4
    assert_same_folders(tmp_path / "whole", tmp_path / "part")
    # The weights exported are those of step 4, not of the last.
    short = replace(options, early_stopping=replace(stopping, restore_best=False))
    last = trainers.train(str(model_folder()), ROWS, tmp_path / "last", short, 5, evaluate)
    assert last.steps == 6
    assert not tiny_models.same(
        tiny_models.weights(tmp_path / "whole"), tiny_models.weights(tmp_path / "last")
    )


def test_order_does_not_depend_on_arrival(tmp_path: Path, model_folder: Folder) -> None:
    shuffled = random.Random(1).sample(ROWS, len(ROWS))
    for name, rows in (("a", ROWS), ("b", shuffled)):
        trainers.train(str(model_folder()), rows, tmp_path / name, OPTIONS, 5)
    assert_same_folders(tmp_path / "a", tmp_path / "b")
    trainers.train(str(model_folder()), ROWS, tmp_path / "c", OPTIONS, 6)
    assert not tiny_models.same(tiny_models.weights(tmp_path / "a"), tiny_models.weights(tmp_path / "c"))


def test_finished_training_is_not_done_again(tmp_path: Path, model_folder: Folder) -> None:
    model = str(model_folder())
    first = trainers.train(model, ROWS, tmp_path / "m", OPTIONS, 5)
    again = trainers.train(model, ROWS, tmp_path / "m", replace(OPTIONS, save_every=7), 5, on_step=stop_at(1))
    assert (again.logs, again.steps, again.resumed_from) == (first.logs, 9, 9)


@pytest.mark.parametrize("change", ["rows", "options", "rng_seed", "model"])
@pytest.mark.parametrize("stop", [5, None], ids=["unfinished", "finished"])
def test_other_arguments_are_refused(
    tmp_path: Path, model_folder: Folder, change: str, stop: int | None
) -> None:
    try:
        trainers.train(str(model_folder()), ROWS, tmp_path / "m", OPTIONS, 5, on_step=stop_at(stop or 99))
    except Stopped:
        assert stop
    arguments: dict[str, Any] = {
        "model": str(model_folder("qwen2" if change == "model" else "llama")),
        "rows": ROWS[:-1] if change == "rows" else ROWS,
        "options": replace(OPTIONS, lr=1e-3) if change == "options" else OPTIONS,
        "rng_seed": 6 if change == "rng_seed" else 5,
    }
    with pytest.raises(InputError, match="trained otherwise" if stop is None else "unfinished training"):
        trainers.train(out=tmp_path / "m", **arguments)


@pytest.mark.parametrize(
    ("name", "value", "difference"),
    [
        ("compute type", "bfloat16", "compute type was bfloat16 and is float32"),
        ("device", "cuda", "device was cuda and is cpu"),
        ("number of processes", 2, "number of processes was 2 and is 1"),
    ],
)
def test_another_machine_is_refused(
    tmp_path: Path, model_folder: Folder, name: str, value: object, difference: str
) -> None:
    """What `auto` and the launcher decide is in no option, but it is in every number that follows."""
    options = replace(OPTIONS, dtype="auto")
    with pytest.raises(Stopped):
        trainers.train(str(model_folder()), ROWS, tmp_path / "m", options, 5, on_step=stop_at(3))
    (file,) = (tmp_path / ".m.training").glob("step-*/state.json")
    state = json.loads(file.read_text())
    assert state["machine"] == {"compute type": "float32", "device": "cpu", "number of processes": 1}
    state["machine"][name] = value
    file.write_text(json.dumps(state))
    with pytest.raises(InputError, match=rf"(?s)cannot go on as it began: {difference}\n.*delete"):
        trainers.train(str(model_folder()), ROWS, tmp_path / "m", options, 5)
    assert file.exists()


def test_state_follows_the_type_that_auto_means(
    tmp_path: Path, model_folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = replace(OPTIONS, dtype="auto")
    with pytest.raises(Stopped):
        trainers.train(str(model_folder()), ROWS, tmp_path / "m", options, 5, on_step=stop_at(3))
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    with pytest.raises(InputError, match="compute type was float32 and is bfloat16"):
        trainers.train(str(model_folder()), ROWS, tmp_path / "m", options, 5)


def test_foreign_folder_is_never_overwritten(tmp_path: Path, model_folder: Folder) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="not a trained model"):
        trainers.train(str(model_folder()), ROWS, tmp_path / "m", OPTIONS, 5)
    assert (tmp_path / "m" / "thesis.txt").read_text() == "mine"


def test_loss_that_is_not_finite_stops_the_work(tmp_path: Path, model_folder: Folder) -> None:
    with pytest.raises(WorkError, match="not finite"):
        trainers.train(
            str(model_folder()), ROWS, tmp_path / "m", replace(OPTIONS, lr=1e30, max_grad_norm=None), 5
        )
    assert not (tmp_path / "m").exists()


def test_caller_keeps_its_random_state_and_threads(tmp_path: Path, model_folder: Folder) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    before = torch.get_num_threads()
    seen: list[int] = []
    trainers.train(
        str(model_folder()), ROWS, tmp_path / "m", replace(OPTIONS, max_steps=1, threads=2), 5,
        on_step=lambda _entry: seen.append(torch.get_num_threads()),
    )  # fmt: skip
    assert seen == [2]
    assert torch.get_num_threads() == before
    assert torch.equal(torch.rand(3), expected)


def test_record_is_one_line_a_step(tmp_path: Path, model_folder: Folder) -> None:
    result = trainers.train(str(model_folder()), ROWS, tmp_path / "m", OPTIONS, 5)
    lines = [json.loads(line) for line in (tmp_path / "m" / "training.jsonl").read_text().splitlines()]
    assert lines[1:] == result.logs
    assert [line["step"] for line in lines[1:]] == list(range(1, 10))
    assert sum(line["rows"] for line in lines[1:]) == 30
