"""The vLLM engine's process: options, streaming, crashes, requeueing. vLLM itself is a stand-in here (fake_vllm)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from synth import engines
from synth.engines import Output, Request, Sampling, vllm
from synth.records.errors import InputError, WorkError

FAKE = Path(__file__).parent / "fake_vllm"
ROOT = Path(__file__).parents[2]
KILL, HANG, REFUSED = 666, 667, 668
GUARD_S = 60.0

Open = Callable[..., Any]


@pytest.fixture
def events(tmp_path: Path) -> Callable[[str], list[Any]]:
    """What the stand-in recorded under a name, in order."""

    def read(name: str) -> list[Any]:
        lines = (tmp_path / "events").read_text().splitlines()
        return [event[name] for event in map(json.loads, lines) if name in event]

    return read


@pytest.fixture
def fake_vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Opens vllm engines on the stand-in, and closes them."""
    monkeypatch.syspath_prepend(str(FAKE))
    monkeypatch.setenv("PYTHONPATH", str(FAKE))
    monkeypatch.setenv("FAKE_VLLM_LOG", str(tmp_path / "events"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    opened = []

    def open_engine(model: str = "tiny", **options: Any) -> Any:
        opened.append(engines.open("vllm", model, options))
        return opened[-1]

    yield open_engine
    for engine in opened:
        engine.close()


def request(name: str, *ids: int, **sampling: Any) -> Request:
    return Request(name, "", tuple(ids or (5, 6)), 3, Sampling(**sampling))


def ask(engine: Any, *requests: Request) -> dict[str, Output]:
    engine.submit(requests)
    outputs = list(engine.outputs())
    assert len({output.id for output in outputs}) == len(outputs), "an output came twice"
    return {output.id: output for output in outputs}


def own_requests(count: int, killers: Container[int] = ()) -> list[Request]:
    """Requests r0, r1, ... that differ in everything that is sent: ids, seed, sampling settings."""
    return [
        Request(
            f"r{n}", "", (KILL if n in killers else 5, 100 + n), 1000 + n, Sampling(max_tokens=n + 1, top_k=n)
        )
        for n in range(count)
    ]


def assert_each_ran_as_asked(requests: list[Request], outputs: Iterable[Output]) -> None:
    """Every request has one output, and the engine was given that request's own ids, seed and settings for it."""
    outputs = list(outputs)
    assert sorted(output.id for output in outputs) == sorted(request.id for request in requests)
    asked = {request.id: request for request in requests}
    for output in outputs:
        assert output.finish_reason == "stop", output
        own, seen = asked[output.id], json.loads(output.text)
        assert tuple(seen["ids"]) == own.prompt_token_ids == tuple(output.prompt_token_ids or ())
        assert (seen["seed"], seen["max_tokens"], seen["top_k"]) == (
            own.seed,
            own.sampling.max_tokens,
            own.sampling.top_k,
        )


# name -> value given, and what must arrive in LLM(...) for it; a str key is looked up in the environment instead.
REACHES: dict[str, tuple[Any, str, Any]] = {
    "dtype": ("bfloat16", "dtype", "bfloat16"),
    "max_model_len": (48, "max_model_len", 48),
    "gpu_memory_utilization": (0.5, "gpu_memory_utilization", 0.5),
    "tensor_parallel_size": (2, "tensor_parallel_size", 2),
    "max_num_seqs": (7, "max_num_seqs", 7),
    "kv_cache_gib": (3, "kv_cache_memory_bytes", 3 << 30),
    "enforce_eager": (False, "enforce_eager", False),
    "enable_prefix_caching": (False, "enable_prefix_caching", False),
    "trust_remote_code": (True, "trust_remote_code", True),
    "revision": ("main2", "revision", "main2"),
    "threads": (2, "OMP_NUM_THREADS", "2"),
    "extra": ({"block_size": 16}, "block_size", 16),
}
OWN_TESTS = {"restarts", "startup_timeout_s", "stall_timeout_s", "log_file"}


def test_every_option_reaches_vllm(fake_vllm: Open, events: Any) -> None:
    assert set(REACHES) | OWN_TESTS == {field.name for field in fields(engines.options_class("vllm"))}
    engine = fake_vllm(**{name: value for name, (value, _, _) in REACHES.items()})
    assert engine.max_model_len == 48
    seen = {**events("env")[0], **events("llm")[0]}
    for name, (_, key, expected) in REACHES.items():
        assert seen[key] == expected, name
    assert seen["VLLM_CPU_KVCACHE_SPACE"] == "3"
    assert seen["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert seen["model"] == "tiny"


def test_defaults_leave_the_choice_to_vllm(fake_vllm: Open, events: Any) -> None:
    assert fake_vllm().max_model_len == 64
    [arguments] = events("llm")
    assert not {"max_model_len", "max_num_seqs", "revision", "kv_cache_memory_bytes", "enforce_eager"} & set(
        arguments
    )
    assert arguments["enable_prefix_caching"] is True
    assert arguments["enable_chunked_prefill"] is False  # on CPUs only


def test_small_models_run_eagerly_on_one_thread_in_float32(
    fake_vllm: Open, events: Any, tmp_path: Path
) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"x")
    _ = fake_vllm(str(tmp_path)).max_model_len
    _ = fake_vllm(str(tmp_path), dtype="bfloat16", enforce_eager=False, threads=3).max_model_len
    _ = fake_vllm("owner/large").max_model_len
    seen = [(llm.get("enforce_eager"), llm["dtype"]) for llm in events("llm")]
    assert seen == [(True, "float32"), (False, "bfloat16"), (None, "auto")]
    threads = [environment["OMP_NUM_THREADS"] for environment in events("env")]
    assert threads == ["1", "3", os.environ.get("OMP_NUM_THREADS")]
    assert [environment["VLLM_CPU_KVCACHE_SPACE"] for environment in events("env")] == ["1", "1", "4"]


def test_sampling_reaches_vllm(fake_vllm: Open) -> None:
    schema = {"type": "object"}
    given = {"temperature": 0.5, "top_k": 9, "top_p": 0.7, "max_tokens": 5, "stop": ("\n", "END")}
    got = ask(fake_vllm(), request("a", **given, schema=schema), request("g", temperature=0.0))
    seen = json.loads(got["a"].text)
    assert {key: seen[key] for key in given} == {**given, "stop": ["\n", "END"]}
    assert (seen["seed"], seen["structured_outputs"]) == (3, {"json": schema})
    greedy = json.loads(got["g"].text)
    assert (greedy["temperature"], greedy["seed"], greedy["stop"]) == (0.0, None, None)


def test_older_vllm_gets_schemas_under_its_own_name(fake_vllm: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_VLLM_SCHEMA_CLASS", "GuidedDecodingParams")
    schema = {"type": "object"}
    seen = json.loads(ask(fake_vllm(), request("a", schema=schema))["a"].text)
    assert (seen["guided_decoding"], seen["structured_outputs"]) == ({"json": schema}, None)


def test_token_ids_go_in_and_out(fake_vllm: Open) -> None:
    engine = fake_vllm()
    chat = [{"role": "user", "content": "AB"}]
    got = ask(
        engine,
        request("ids", 5, 6),
        Request("text", "A\ud800", None, 0, Sampling()),
        Request("chat", "", None, 0, Sampling(), messages=chat),
    )
    assert (got["ids"].prompt_token_ids, got["ids"].token_ids) == ([5, 6], [7, 8])
    assert got["text"].prompt_token_ids == list("A\ufffd".encode())
    assert got["chat"].prompt_token_ids == [1, 65, 66]
    assert got["ids"].finish_reason == "stop"


def test_requests_can_be_added_while_outputs_stream(fake_vllm: Open) -> None:
    engine = fake_vllm(max_num_seqs=1)
    engine.submit(request(f"first-{number}") for number in range(3))
    seen = []
    for output in engine.outputs():
        seen.append(output.id)
        if output.id.startswith("first"):
            engine.submit([request(output.id.replace("first", "second"))])
    assert sorted(seen) == [f"{kind}-{number}" for kind in ("first", "second") for number in range(3)]
    assert list(engine.outputs()) == []
    assert ask(engine, request("first-0"))["first-0"].finish_reason == "stop"


def test_requests_that_do_not_fit_are_rejected_with_their_cause(fake_vllm: Open) -> None:
    engine = fake_vllm()
    got = ask(
        engine,
        request("long", *range(64)),
        Request("empty", "", None, 0, Sampling()),
        request("refused", REFUSED),
        request("fits", *range(63)),
    )
    assert {name: output.finish_reason for name, output in got.items()} == {
        "long": "rejected",
        "empty": "rejected",
        "refused": "rejected",
        "fits": "stop",
    }
    assert "64 tokens, model takes 64" in str(got["long"].error)
    assert "no tokens" in str(got["empty"].error)
    assert "out of vocabulary" in str(got["refused"].error)
    assert got["refused"].token_ids is None


def test_a_broken_schema_is_rejected_before_it_can_break_the_engine(fake_vllm: Open) -> None:
    pytest.importorskip("jsonschema")
    got = ask(
        fake_vllm(),
        request("bad", schema={"type": "no such type"}),
        request("good", schema={"type": "object"}),
    )
    assert (got["bad"].finish_reason, got["good"].finish_reason) == ("rejected", "stop")
    assert "no such type" in str(got["bad"].error)


def test_a_killed_engine_is_restarted_and_nothing_is_lost(
    fake_vllm: Open, events: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VLLM_STEP", "0.02")
    engine = fake_vllm()
    requests = own_requests(40)
    engine.submit(requests)
    outputs = []
    for output in engine.outputs():
        outputs.append(output)
        if len(outputs) == 10:
            os.kill(events("pid")[-1], signal.SIGKILL)
    assert_each_ran_as_asked(requests, outputs)
    assert len(events("llm")) == 2


def test_the_one_request_that_kills_the_engine_is_found(fake_vllm: Open, events: Any) -> None:
    engine = fake_vllm(max_num_seqs=2)
    requests = own_requests(20, killers={5})
    got = ask(engine, *requests)
    guilty = got.pop("r5")
    assert guilty.finish_reason == "error"
    assert "killed by signal 9" in str(guilty.error)
    assert_each_ran_as_asked(requests[:5] + requests[6:], got.values())
    _ = engine.max_model_len
    assert len(events("llm")) == 5  # together twice, alone twice, and once more for the rest


# name -> (places of the killers among 20 requests, max_num_seqs); a window holds twice as many.
SEVERAL_KILLERS = {
    "two at once": ((0, 1), 16),
    "two far apart": ((3, 17), 2),
    "one in every window": ((0, 2, 4, 6), 1),
    "all of a problem": ((0, 1, 2, 3), 4),
    "the last ones": ((16, 17, 18, 19), 4),
}


@pytest.mark.parametrize(("places", "seqs"), SEVERAL_KILLERS.values(), ids=SEVERAL_KILLERS)
def test_several_requests_that_kill_the_engine_are_all_found(
    fake_vllm: Open, places: tuple[int, ...], seqs: int
) -> None:
    engine = fake_vllm(max_num_seqs=seqs)
    requests = own_requests(20, killers=places)
    got = ask(engine, *requests)
    assert {got.pop(f"r{number}").finish_reason for number in places} == {"error"}
    assert_each_ran_as_asked([r for n, r in enumerate(requests) if n not in places], got.values())


def test_an_engine_that_dies_of_everything_stops_the_work(
    fake_vllm: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm, "GUILTY_IN_A_ROW", 2)
    engine = fake_vllm(max_num_seqs=8, restarts=4)
    engine.submit(request(f"r{number}", KILL) for number in range(10))
    outputs: list[Output] = []
    with pytest.raises(WorkError, match="killed by signal 9, after 4 restarts"):
        outputs.extend(engine.outputs())
    # The fourth is found guilty by the very crash that ends the work; its row must not be lost with the engine.
    assert [(output.id, output.finish_reason) for output in outputs] == [
        (f"r{number}", "error") for number in range(4)
    ]


def test_restarts_are_bounded_and_the_log_is_shown(fake_vllm: Open, tmp_path: Path, events: Any) -> None:
    log = tmp_path / "vllm.log"
    engine = fake_vllm(restarts=1, log_file=str(log))
    engine.submit([request("bad", KILL)])
    with pytest.raises(WorkError, match="killed by signal 9, after 1 restarts") as caught:
        list(engine.outputs())
    assert "about to die" in str(caught.value)
    assert str(log) in str(caught.value)
    assert len(events("llm")) == 2


def test_a_hanging_engine_is_replaced(fake_vllm: Open, events: Any) -> None:
    engine = fake_vllm(stall_timeout_s=3.0)
    requests = [Request("hangs-once", "", (HANG,), 7, Sampling(max_tokens=9)), *own_requests(3)]
    assert_each_ran_as_asked(requests, ask(engine, *requests).values())
    assert len(events("llm")) == 2


def test_an_engine_that_does_not_start_is_an_error(fake_vllm: Open) -> None:
    with pytest.raises(WorkError, match="did not start within 2 s"):
        _ = fake_vllm(startup_timeout_s=2.0, extra={"never_start": 1}).max_model_len
    with pytest.raises(InputError, match="nonsense"):
        _ = fake_vllm(extra={"nonsense": 1}).max_model_len
    with pytest.raises(WorkError, match="no memory left"):
        _ = fake_vllm(extra={"break_down": 1}).max_model_len


@pytest.mark.parametrize(("device", "processes"), [("cpu", 1), ("cuda", 2)])
def test_new_weights_mean_a_new_engine(
    fake_vllm: Open, events: Any, monkeypatch: pytest.MonkeyPatch, device: str, processes: int
) -> None:
    monkeypatch.setenv("FAKE_VLLM_DEVICE", device)
    engine = fake_vllm("old")
    assert json.loads(ask(engine, request("a"))["a"].text)["model"] == "old"
    engine.load_weights("new")
    assert json.loads(ask(engine, request("a"))["a"].text)["model"] == "new"
    assert len(set(events("pid"))) == processes


def test_a_crash_after_new_weights_restarts_with_them(fake_vllm: Open, events: Any) -> None:
    engine = fake_vllm("old")
    engine.load_weights("new")
    os.kill(events("pid")[-1], signal.SIGKILL)
    assert json.loads(ask(engine, request("a"))["a"].text)["model"] == "new"


def test_prompt_logprobs_come_back_even_after_a_crash(fake_vllm: Open, events: Any) -> None:
    engine = fake_vllm()
    assert engine.prompt_logprobs([[4, 5, 6], [9]]) == [[-5.0, -6.0], []]
    os.kill(events("pid")[-1], signal.SIGKILL)
    assert engine.prompt_logprobs([[4, 5]]) == [[-5.0]]
    with pytest.raises(WorkError, match="out of vocabulary"):
        engine.prompt_logprobs([[4, REFUSED]])
    assert ask(engine, request("a"))["a"].finish_reason == "stop"


def test_misuse_is_refused(fake_vllm: Open) -> None:
    engine = fake_vllm()
    engine.submit([request("a")])
    with pytest.raises(ValueError, match="'a' is in flight"):
        engine.submit([request("a")])
    with pytest.raises(ValueError, match="1 requests are in flight"):
        engine.load_weights("new")
    with pytest.raises(ValueError, match="1 requests are in flight"):
        engine.prompt_logprobs([[1, 2]])


def test_the_log_is_kept_where_it_was_asked_for_or_when_the_engine_fails(
    fake_vllm: Open, tmp_path: Path
) -> None:
    kept = fake_vllm(log_file=str(tmp_path / "kept.log"))
    kept.submit([request("bad", KILL)])
    assert [output.finish_reason for output in kept.outputs()] == ["error"]
    kept.close()
    kept.close()
    assert "about to die" in (tmp_path / "kept.log").read_text()
    failing = fake_vllm(restarts=0)
    failing.submit([request("bad", KILL)])
    with pytest.raises(WorkError, match="about to die") as caught:
        list(failing.outputs())
    log = Path(str(caught.value).rsplit("log: ", 1)[1].rstrip(")"))
    assert "about to die" in log.read_text()
    with pytest.raises(InputError, match="log_file"):
        fake_vllm(log_file=str(tmp_path / "no" / "such.log"))


def test_a_closed_engine_says_so(fake_vllm: Open) -> None:
    engine = fake_vllm()
    engine.close()
    with pytest.raises(WorkError, match="is closed"):
        _ = engine.max_model_len


SCRIPT = """
import sys, threading, time
from synth import engines
def start():
    global engine
    engine = engines.open("vllm", "tiny", {})
    print(engine._worker.process.pid, engine.max_model_len, flush=True)
if sys.argv[1] == "thread":
    thread = threading.Thread(target=start); thread.start(); thread.join(); time.sleep(1.5)
    print(engine.prompt_logprobs([[4, 5]]), flush=True)  # the thread that started it is gone, the engine is not
else:
    start()
time.sleep(600)
"""


@pytest.mark.parametrize("started_by", ["main", "thread"])
@pytest.mark.usefixtures("fake_vllm")
def test_the_engine_ends_with_its_parent(started_by: str) -> None:
    parent = subprocess.Popen([sys.executable, "-c", SCRIPT, started_by], stdout=subprocess.PIPE, cwd=ROOT)
    try:
        assert parent.stdout is not None
        child = int(parent.stdout.readline().split()[0])
        if started_by == "thread":
            assert parent.stdout.readline() == b"[[-5.0]]\n"
        assert _alive(child)
    finally:
        parent.kill()
        parent.wait()
    until = time.monotonic() + GUARD_S
    while _alive(child):
        assert time.monotonic() < until, "the engine outlives its parent"
        time.sleep(0.05)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
