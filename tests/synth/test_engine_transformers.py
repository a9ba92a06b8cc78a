"""The transformers engine against plain forward passes of the same model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import engine_checks as checks
import pytest
from engine_models import make_model
from hypothesis import given, settings
from hypothesis import strategies as st

from synth import engines
from synth.engines import Request, Sampling
from synth.records.errors import InputError

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("models")
    return make_model(root / "first", seed=0), make_model(root / "second", seed=1)


@pytest.fixture(scope="module")
def engine(folders: tuple[Path, Path]) -> Iterator[Any]:
    opened = engines.open("transformers", str(folders[0]), {"batch_size": 32, "device": "cpu"})
    yield opened
    opened.close()


def test_greedy_matches_plain_forward_passes(engine: Any, folders: tuple[Path, Path]) -> None:
    checks.check_greedy_matches_plain_forward_passes(engine, folders[0])


def test_completions_end_where_they_should(engine: Any, folders: tuple[Path, Path]) -> None:
    checks.check_ends(engine, folders[0])


def test_requests_that_do_not_fit_are_rejected(engine: Any) -> None:
    checks.check_rejections(engine)
    [output] = checks.sample(engine, "x", schema={"type": "object"})
    assert output.finish_reason == "rejected"
    assert "structured output" in str(output.error)


def test_sampling_settings_count(engine: Any) -> None:
    checks.check_sampling_settings(engine)


def test_seeds_count(engine: Any) -> None:
    checks.check_seeds(engine)


def test_weights_are_replaced_and_logprobs_are_the_models(engine: Any, folders: tuple[Path, Path]) -> None:
    checks.check_weights_and_logprobs(engine, *folders)


def test_messages_go_through_the_chat_template(engine: Any, folders: tuple[Path, Path]) -> None:
    checks.check_chat(engine, folders[0])


def test_requests_can_be_added_while_outputs_stream(engine: Any) -> None:
    engine.submit(Request(f"a{n}", "The", None, n, Sampling(max_tokens=2)) for n in range(40))
    seen = []
    for output in engine.outputs():
        seen.append(output.id)
        if output.id.startswith("a"):
            engine.submit([Request(f"b{output.id}", "sum", None, 0, Sampling(max_tokens=3))])
    assert len(set(seen)) == 80
    with pytest.raises(ValueError, match="in flight"):
        engine.submit([Request("x", "a", None, 0, Sampling()), Request("x", "a", None, 0, Sampling())])
    assert [output.id for output in engine.outputs()] == ["x"]


@settings(max_examples=25, deadline=None)
@given(
    logits=st.lists(st.floats(-5, 5, width=32), min_size=2, max_size=12, unique=True),
    top_k=st.integers(0, 14),
    top_p=st.floats(0.05, 1.0),
)
def test_top_k_and_top_p_keep_the_smallest_likely_set(logits: list[float], top_k: int, top_p: float) -> None:
    import torch

    from synth.engines.transformers import choose

    ranked = sorted(range(len(logits)), key=lambda token: -logits[token])[: top_k or len(logits)]
    weights = [math.exp(logits[token]) for token in ranked]
    allowed, mass = set(), 0.0
    for token, weight in zip(ranked, weights, strict=True):
        if mass < top_p + 1e-6:
            allowed.add(token)
        mass += weight / sum(weights)
    rows = torch.tensor([logits] * 300)
    chosen = choose(rows, Sampling(top_k=top_k, top_p=top_p), torch.Generator().manual_seed(0))
    assert set(chosen.tolist()) <= allowed
    assert ranked[0] in chosen.tolist()


def test_options_reach_the_model(folders: tuple[Path, Path]) -> None:
    import torch

    opened = engines.open(
        "transformers", str(folders[0]), {"dtype": "bfloat16", "max_model_len": 20, "device": "cpu"}
    )
    assert (opened.model.dtype, opened.max_model_len) == (torch.bfloat16, 20)  # type: ignore[attr-defined]
    [output] = checks.sample(opened, "The", max_tokens=100, temperature=0.0)
    assert len(output.token_ids or []) + len(output.prompt_token_ids or []) <= 20
    opened.close()
    auto = engines.open("transformers", str(folders[0]), {"device": "meta"})
    assert auto.model.device.type == "meta"  # type: ignore[attr-defined]


def test_loading_options_reach_transformers(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    seen: list[dict[str, Any]] = []
    real = transformers.AutoModelForCausalLM.from_pretrained

    def load(path: str, **given: Any) -> Any:
        seen.append(given)
        return real(path, **{**given, "revision": None, "trust_remote_code": False})

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", load)
    engines.open(
        "transformers", str(folders[0]), {"revision": "v1", "trust_remote_code": True, "device": "cpu"}
    ).close()
    assert {key: seen[0][key] for key in ("revision", "trust_remote_code")} == {
        "revision": "v1",
        "trust_remote_code": True,
    }


def test_a_batch_holds_no_more_than_batch_size(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: Any = engines.open("transformers", str(folders[0]), {"batch_size": 3, "device": "cpu"})
    sizes = []
    real = opened._sample
    monkeypatch.setattr(opened, "_sample", lambda batch: sizes.append(len(batch)) or real(batch))
    checks.sample(opened, "The", 7, max_tokens=2)
    assert sizes == [3, 3, 1]


def test_a_folder_without_a_model_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot load"):
        engines.open("transformers", str(tmp_path), {})
