"""What holds for every safety method: off it is SFT, cutting a step up changes nothing, everything is put back."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safety_cases
import tiny_models
import torch
from safety_cases import METHODS, OFF, method_name, one_step
from test_trainer_numerics import assert_close
from test_trainer_resume import Stopped, assert_same_folders, stop_at

import trainers
from synth.records.errors import InputError
from synth.records.jsonl import read_jsonl
from trainers import sft
from trainers.core.batching import micro_batches
from trainers.method_options import BoosterOptions, LisaOptions
from trainers.options import LoraOptions, TrainOptions

Folder = Callable[..., Path]


LORA = LoraOptions(r=4, dropout=0.1)


@pytest.fixture(scope="module")
def supervised(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, torch.Tensor]]:
    """supervised(model, stream, lora) -> weights after SFT on that stream's rows; trained once each."""
    made: dict[str, dict[str, torch.Tensor]] = {}

    def weights(model: str, stream: str, lora: LoraOptions | None) -> dict[str, torch.Tensor]:
        key = f"{stream}-{lora is None}"
        if key not in made:
            plain = [
                {"sample_id": row["sample_id"], "prompt": row["prompt"], "completion": row["refusal"]}
                for row in safety_cases.safety_rows()
            ]
            rows = plain if stream == "alignment" else safety_cases.user_rows()
            options = TrainOptions(epochs=2, batch_size=4, lr=1e-2, dtype="float32", lora=lora)
            out = tmp_path_factory.mktemp("sft") / key
            trainers.train(model, rows, out, options, 5)
            made[key] = tiny_models.weights(out)
        return made[key]

    return weights


@pytest.mark.parametrize(
    ("case", "lora"), [*((case, None) for case in OFF), ("booster", LORA), ("lisa", LORA)]
)
def test_a_method_that_is_off_is_sft_bitwise(
    tmp_path: Path, model_folder: Folder, supervised: Any, case: str, lora: LoraOptions | None
) -> None:
    """Dropout is on, so the random numbers are compared too, and so is the order of rows over two epochs."""
    model, (stream, section) = str(model_folder("gpt2", dropout=0.2)), OFF[case]
    safety_cases.train(case, model, str(tmp_path / "off"), section, lora=lora)
    assert tiny_models.same(tiny_models.weights(tmp_path / "off"), supervised(model, stream, lora))


@pytest.mark.parametrize("case", [case for case in METHODS if case != "antidote"])
def test_a_method_that_is_on_is_not_sft(case: str) -> None:
    """Otherwise what follows would be about SFT alone. Antidote's steps are SFT's."""
    model = tiny_models.build()
    (stream, *_) = safety_cases.method_of(case, model).draws(safety_cases.AT)
    sft.step(model, micro_batches(safety_cases.STEP_ROWS[stream], 10_000))
    plain = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    _, found = one_step(case, model)
    assert max(float((plain[name] - found[name]).abs().max()) for name in plain) > 1e-3


@pytest.mark.parametrize("case", METHODS)
def test_a_rate_of_zero_leaves_every_weight_bitwise(tmp_path: Path, model_folder: Folder, case: str) -> None:
    start = tiny_models.weights(model_folder())
    safety_cases.train(case, str(model_folder()), str(tmp_path / "m"), lr=0.0)
    end = tiny_models.weights(tmp_path / "m")
    if case != "antidote":
        assert tiny_models.same(start, end)
    else:  # it prunes after the last step
        assert all(((end[name] == start[name]) | (end[name] == 0)).all() for name in start)


@pytest.mark.parametrize("case", METHODS)
@pytest.mark.parametrize("build", [tiny_models.build, safety_cases.adapted], ids=["full", "lora"])
def test_cutting_a_step_does_not_change_its_gradient(case: str, build: Callable[..., Any]) -> None:
    """1x8 = 2x4 = 8x1 on ragged rows: norms and logarithms are those of the whole step."""
    model = build("llama")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    logs, expected = one_step(case, model)
    assert any(float(grad.abs().max()) > 1e-3 for grad in expected.values())
    for budget in (1, 40, 90):
        again, found = one_step(case, model, budget)
        assert again == pytest.approx(logs, rel=1e-4, abs=1e-5)
        assert_close(found, expected, atol=1e-5)
    assert tiny_models.same(before, {name: p.detach() for name, p in model.named_parameters()})


def hooks(model: Any) -> list[int]:
    """How many hooks each module has."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [sum(len(getattr(module, kind)) for kind in kinds) for module in model.modules()]


@pytest.mark.parametrize("case", METHODS)
def test_the_row_of_no_weight_that_keeps_a_rank_busy_adds_nothing(case: str) -> None:
    model = tiny_models.build()
    method = safety_cases.method_of(case, model)
    found = []
    for idle in (False, True):
        batches = {
            name: micro_batches(safety_cases.STEP_ROWS[name], 60)
            + (micro_batches(safety_cases.STEP_ROWS[name][:1], 60, ranks=2, rank=1) if idle else [])
            for name in method.draws(safety_cases.AT)
        }
        method.step(model, batches, safety_cases.AT)
        found.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
        model.zero_grad(set_to_none=True)
    assert_close(*found, atol=1e-7)


@pytest.mark.parametrize("case", ["booster", "booster+vaccine", "vaccine", "repnoise"])
@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_checkpointing_changes_nothing_and_no_hook_stays(family: str, case: str) -> None:
    results = []
    for checkpointing in (False, True):
        model = tiny_models.build(family, dropout=0.2).train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model(
            input_ids=torch.ones(1, 2, dtype=torch.long)
        )  # transformers adds hooks of its own at the first call
        before = hooks(model)
        results.append(one_step(case, model, budget=90))
        for _ in range(2):
            one_step(case, model, budget=90)
        assert hooks(model) == before
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    assert_close(results[0][1], results[1][1], atol=1e-6)
    everything = [name for name, p in model.named_parameters() if p.requires_grad]
    assert list(results[0][1]) == everything
    assert all(float(grad.abs().max()) > 0 for grad in results[0][1].values())


@pytest.mark.parametrize("case", METHODS)
def test_hooks_are_gone_after_a_step_that_failed(case: str) -> None:
    model = tiny_models.build()
    model(input_ids=torch.ones(1, 2, dtype=torch.long))
    before, hooked = {name: p.detach().clone() for name, p in model.named_parameters()}, hooks(model)
    calls = []

    def fail(_module: Any, _inputs: Any, _output: Any) -> None:
        calls.append(1)
        if len(calls) == (1 if case in ("lisa", "antidote") else 2):
            raise RuntimeError("no memory")

    handle = model.model.norm.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="no memory"):
        one_step(case, model)
    handle.remove()
    assert hooks(model) == hooked
    assert tiny_models.same(before, {name: p.detach() for name, p in model.named_parameters()})


@pytest.mark.parametrize(
    ("case", "lora"), [*((case, None) for case in METHODS), ("booster", LORA), ("lisa", LORA)]
)
def test_resume_is_bitwise(tmp_path: Path, model_folder: Folder, case: str, lora: LoraOptions | None) -> None:
    """Stopped within a turn of Lisa's, which has an anchor by then."""
    model = str(model_folder("gpt2", dropout=0.2))
    whole = safety_cases.train(case, model, str(tmp_path / "whole"), lora=lora, save_every=1)
    with pytest.raises(Stopped):
        safety_cases.train(case, model, str(tmp_path / "part"), lora=lora, save_every=1, on_step=stop_at(3))
    if case == "lisa":
        assert list(tmp_path.glob(".part.training/*/method.safetensors")), "no anchor: the test is vacuous"
    torch.manual_seed(99)
    part = safety_cases.train(case, model, str(tmp_path / "part"), lora=lora, save_every=1)
    assert (part.resumed_from, part.logs) == (2, whole.logs)
    assert_same_folders(tmp_path / "whole", tmp_path / "part")


def test_a_killed_process_resumes_bitwise(tmp_path: Path, model_folder: Folder) -> None:
    model = str(model_folder("gpt2", dropout=0.2))
    safety_cases.train("lisa", model, str(tmp_path / "whole"), save_every=1)
    code = (
        "import os, signal, sys, safety_cases\n"
        "def die(entry):\n"
        "    if entry['step'] == 3: os.kill(os.getpid(), signal.SIGKILL)\n"
        "safety_cases.train('lisa', sys.argv[1], sys.argv[2], save_every=1, on_step=die)\n"
    )
    job = subprocess.run(
        [sys.executable, "-c", code, model, str(tmp_path / "part")],
        env=environment(), timeout=400, check=False,
    )  # fmt: skip
    assert job.returncode == -signal.SIGKILL
    assert safety_cases.train("lisa", model, str(tmp_path / "part"), save_every=1).resumed_from == 2
    assert_same_folders(tmp_path / "whole", tmp_path / "part")


def environment(**more: str) -> dict[str, str]:
    """Of a process of its own."""
    root = Path(__file__).resolve().parents[2]
    paths = {"PYTHONPATH": f"{root}:{Path(__file__).parent}"}
    return os.environ | paths | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"} | more


# (case, rows of a step): steps of up to three rows leave one rank fewer of them, steps of one row leave one rank none.
# Antidote's steps are SFT's.
RANKS = [*((case, 3) for case in METHODS if case != "antidote"), ("vaccine", 1), ("repnoise", 1)]


def train_ranks_case(case: str, rows: int, model: str, out: str) -> trainers.TrainResult:
    """Fewer steps than in the other tests: rounding errors of a gradient grow with each."""
    return safety_cases.train(
        case, model, f"{out}-{case}-{rows}", max_steps=2, batch_size=rows, micro_batch_tokens=40
    )


def test_two_ranks_train_as_one(tmp_path: Path, model_folder: Folder) -> None:
    """Every method, one after the other, on two gloo ranks."""
    script = tmp_path / "rank.py"
    script.write_text(
        "import sys, test_trainer_safety as t\n"
        "from accelerate import PartialState\n"
        "for case, rows in t.RANKS:\n"
        "    t.train_ranks_case(case, rows, sys.argv[1], sys.argv[2])\n"
        "    assert PartialState().num_processes == 2, 'the ranks did not find each other'\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    start = str(model_folder())
    group = environment(WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    command = [sys.executable, str(script), start, str(tmp_path / "two")]
    jobs = [subprocess.Popen(command, env=group | {"RANK": r, "LOCAL_RANK": r}) for r in "01"]
    alone = {}
    try:
        for case, rows in RANKS:
            alone[f"{case}-{rows}"] = train_ranks_case(case, rows, start, str(tmp_path / "one"))
        assert [job.wait(timeout=400) for job in jobs] == [0, 0]
    finally:
        for job in jobs:
            job.kill()
    for case, result in alone.items():
        record = (tmp_path / f"two-{case}" / "training.jsonl").read_text().splitlines()
        assert len(record) == 1 + result.steps
        logs = read_jsonl(tmp_path / f"two-{case}" / "training.jsonl")
        for seen, expected in zip(list(logs)[1:], result.logs, strict=True):
            assert seen == pytest.approx(expected, rel=2e-3, abs=2e-4), case
        pair = [tiny_models.weights(tmp_path / f"{ranks}-{case}") for ranks in ("two", "one")]
        # Adam divides by the gradient's own size, so a rounding error of the gradient can grow; the rate bounds it.
        assert_close(*pair, atol=1e-4)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("boster", {}, "did you mean 'booster'"),
        ("sft", {"booster": BoosterOptions()}, r"train\.booster.*(?s:.)*method: booster"),
        ("vaccine", {"lisa": LisaOptions()}, r"train\.lisa.*'vaccine'"),
    ],
)
def test_methods_and_sections_must_fit(
    tmp_path: Path, model_folder: Folder, method: str, options: dict[str, Any], message: str
) -> None:
    rows = safety_cases.safety_rows()
    with pytest.raises(InputError, match=message):
        trainers.train(str(model_folder()), rows, tmp_path / "m", TrainOptions(**options), method=method)


@pytest.mark.parametrize("name", [case for case in METHODS if method_name(case) == case])
def test_null_section_is_the_defaults_and_the_card_tells_them(
    tmp_path: Path, model_folder: Folder, name: str
) -> None:
    """The paper's values, and only the method's own section."""
    safety_cases.train(name, str(model_folder()), str(tmp_path / "m"), {name: None}, max_steps=1)
    card = (tmp_path / "m" / "README.md").read_text()
    told = {
        "booster": ['"lam": 5.0', '"alpha": 0.1'],
        "vaccine": ['"rho": 2.0'],
        "repnoise": ['"alpha": 1.0', '"beta": 0.001'],
        "lisa": ['"alignment_steps": 100', '"user_steps": 900', '"rho": 1.0'],
        "antidote": ['"ratio": 0.1'],
    }[name]
    assert all(value in card for value in told)
    assert [section for section in OFF if f'"{section}": {{' in card] == [name]


@pytest.mark.parametrize("case", ["booster+vaccine", "repnoise"])
def test_bfloat16_under_an_adapter_computes_what_float32_does(
    tmp_path: Path, model_folder: Folder, case: str
) -> None:
    """The frozen base is stored and computed in bfloat16, the adapter and its perturbation are float32."""
    model, logs = str(model_folder("llama", dtype=torch.bfloat16)), {}
    for dtype in ("float32", "bfloat16"):
        out = str(tmp_path / dtype)
        logs[dtype] = safety_cases.train(case, model, out, lora=LORA, dtype=dtype, max_steps=2).logs
    for exact, rough in zip(*logs.values(), strict=True):
        assert exact != rough
        assert rough == pytest.approx(exact, rel=0.1, abs=0.05)


@pytest.mark.parametrize(("case", "stream"), [("booster", "alignment"), ("lisa", "user")])
def test_validation_rows_are_of_the_stream_that_makes_the_epochs(
    tmp_path: Path, model_folder: Folder, case: str, stream: str
) -> None:
    rows, safety = safety_cases.safety_rows() + safety_cases.user_rows(), safety_cases.safety_rows(4)
    refusals = [{"prompt": row["prompt"], "completion": row["refusal"]} for row in safety]
    users = safety_cases.user_rows(3)
    held, plain = (safety, refusals) if stream == "alignment" else (users, users)
    losses = []
    for method, trained, validation in ((case, rows, held), ("sft", users, plain)):
        options = TrainOptions(max_steps=1, lr=0.0, dtype="float32")
        model, out = str(model_folder()), tmp_path / method
        result = trainers.train(model, trained, out, options, method=method, validation=validation)
        losses.append(result.logs[-1]["validation_loss"])
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
