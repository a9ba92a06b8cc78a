"""Lisa's turns, its anchor and its pull."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safety_cases
import tiny_models
import torch
from hypothesis import given
from hypothesis import strategies as st
from safety_cases import STEP_ROWS

import trainers
from trainers import sft
from trainers.core.batching import micro_batches
from trainers.core.method import Moment
from trainers.lisa import Lisa
from trainers.method_options import LisaOptions
from trainers.options import TrainOptions


@given(first=st.integers(0, 5), second=st.integers(0, 5), steps=st.integers(1, 40))
def test_turns_go_on_where_the_last_of_their_kind_left_off(first: int, second: int, steps: int) -> None:
    if first + second == 0:
        return
    method = Lisa(LisaOptions(first, second))
    drawn = [method.draws(Moment(step, steps, 0)) for step in range(steps)]
    kinds = [next(iter(step)) for step in drawn]
    expected = (["alignment"] * first + ["user"] * second) * steps
    assert kinds == expected[:steps]
    for kind in ("alignment", "user"):
        places = [step[kind] for step in drawn if kind in step]
        assert places == list(range(len(places)))


class Weight(torch.nn.Module):
    """One weight w; the loss of any trained token 0 is log(1 + exp(-w)), of token 1 log(1 + exp(w))."""

    def __init__(self) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor(0.5))

    def get_output_embeddings(self) -> None:
        return None

    def forward(self, input_ids: torch.Tensor, use_cache: bool = False) -> Any:
        class Output:
            logits = torch.stack([self.w, torch.zeros(())]).expand(*input_ids.shape, 2)

        return Output


def test_turns_in_closed_form() -> None:
    """Plain gradient descent: every number follows from w, the anchor and the sigmoid."""
    from trainers.core.batching import Example

    model, method, rate, rho = Weight(), Lisa(LisaOptions(2, 3, rho=2.0)), 0.3, 2.0
    rows = {"alignment": [Example.of([1, 0], [0, 1])], "user": [Example.of([0, 1], [0, 1])]}
    w, anchor = 0.5, None
    for step in range(10):
        at = Moment(step, 10, 0)
        kind = "alignment" if step % 5 < 2 else "user"
        if step in (2, 5, 7):
            anchor = w
        share = 1 / (1 + torch.exp(torch.tensor(-w)).item())
        slope = share - 1 if kind == "alignment" else share
        pull = 0.0 if anchor is None else w - anchor
        logs = method.step(model, {kind: micro_batches(rows[kind], 10)}, at)
        assert model.w.grad is not None
        assert float(model.w.grad) == pytest.approx(slope + rho * pull, abs=1e-5)
        assert float(logs["proximal"]) == pytest.approx(rho / 2 * pull**2, abs=1e-5)
        assert float(logs["aligning"]) == (kind == "alignment")
        w -= rate * (slope + rho * pull)
        with torch.no_grad():
            model.w -= rate * model.w.grad
        model.w.grad = None
    assert anchor is not None
    assert w != pytest.approx(anchor, abs=1e-3), "nothing moved: the test says nothing"


def test_before_the_first_switch_and_with_rho_zero_it_is_sft() -> None:
    for options, step in ((LisaOptions(2, 3), 1), (LisaOptions(2, 3, rho=0.0), 4)):
        model, method = tiny_models.build(), Lisa(options)
        either = dict.fromkeys(("alignment", "user"), micro_batches(STEP_ROWS["user"], 60))
        for before in range(step):
            method.step(model, either, Moment(before, 9, 0))
        model.zero_grad(set_to_none=True)
        (kind,) = method.draws(Moment(step, 9, 0))
        batches = micro_batches(STEP_ROWS[kind], 60)
        method.step(model, {kind: batches}, Moment(step, 9, 0))
        found = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        model.zero_grad(set_to_none=True)
        sft.step(model, batches)
        plain = [p.grad for p in model.parameters() if p.grad is not None]
        assert all(torch.equal(a, b) for a, b in zip(found, plain, strict=True))
        assert method.tensors() == {}


def test_a_stronger_pull_stays_nearer_and_every_turn_logs(tmp_path: Path, model_folder: Any) -> None:
    """The user's rows make the epochs; alignment turns are among their steps."""
    rows = safety_cases.safety_rows() + safety_cases.user_rows()
    start, away = tiny_models.weights(model_folder()), {}
    for rho in (0.0, 100.0):
        options = TrainOptions(
            epochs=4, batch_size=4, lr=3e-3, dtype="float32", max_grad_norm=None, schedule="constant",
            lisa=LisaOptions(1, 3, rho=rho),
        )  # fmt: skip
        result = trainers.train(str(model_folder()), rows, tmp_path / str(rho), options, 0, method="lisa")
        assert [log["aligning"] for log in result.logs] == [1, 0, 0, 0, 1, 0, 0, 0]
        assert result.logs[-1]["epoch"] == 4
        assert (result.counts["user"], result.counts["alignment"], result.counts["rows"]) == (7, 10, 17)
        end = tiny_models.weights(tmp_path / str(rho))
        away[rho] = sum(float((end[name] - start[name]).square().sum()) for name in start)
    assert away[100.0] < away[0.0]
