"""The process that holds a vLLM engine: `python -m synth.engines.vllm_worker FD PARENT_PID`.

1. Requests arrive on the socket FD in frames and wait here in order; at most `window` of them are inside vLLM, so the
   parent knows which ones a crash can be blamed on (the first `window` unfinished in the order sent).
2. The loop admits, steps the engine, and sends what finished in that step in one frame. New requests are read by a
   thread meanwhile and join at the next step.
3. A new model means a new `LLM` in this process: the imports are kept and no stale buffer can survive.
4. The process ends with its parent: by the closed socket, by the parent's disappearance, or by the kernel's signal.

Only this file and `vllm.py` beside it know vLLM.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import os
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from collections import deque
from typing import Any

from synth.engines.base import unfit
from synth.engines.frames import Channel
from synth.records.jsonl import repair_text

PULSE_SECONDS = 2.0
SEND_SECONDS = 2.0
_PR_SET_PDEATHSIG = 1


class Outbox:
    """Messages on their way to the parent, sent by a thread so that a slow parent does not stop the engine."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self._messages: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._unsent = 0
        self._changed = threading.Condition()
        self._backlogged = False

    def put(self, message: dict[str, Any]) -> None:
        with self._changed:
            self._unsent += 1
        self._messages.put(message)

    def drain(self, timeout: float) -> None:
        """Wait until all is sent, so that a crash in the next step cannot take finished work with it.

        A parent that does not read makes this wait once, not at every step.
        """
        with self._changed:
            if self._unsent == 0:
                self._backlogged = False
            elif not self._backlogged:
                self._backlogged = not self._changed.wait_for(lambda: self._unsent == 0, timeout)

    def run(self) -> None:
        try:
            while True:
                self.channel.send(self._messages.get())
                with self._changed:
                    self._unsent -= 1
                    self._changed.notify_all()
        except OSError:
            _end_group()


class Worker:
    """Runs requests through one LLM. `channel` leads to the parent."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.inbox: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self.outbox = Outbox(channel)
        self.waiting: deque[dict[str, Any]] = deque()
        self.running: dict[str, dict[str, Any]] = {}
        self.probes: dict[str, list[float]] = {}
        self.rejected: list[dict[str, Any]] = []
        self.alone = False
        self.llm: Any = None
        self.engine: Any = None
        self.tokenizer: Any = None
        self.max_model_len = self.vocab_size = self.window = 0
        self.pulsed = time.monotonic()

    def loop(self) -> None:
        """Serve until the parent closes. An exception of the engine ends the process; the parent restarts it."""
        while True:
            busy = bool(self.running or self.waiting)
            while not busy or not self.inbox.empty():
                message = self.inbox.get()
                if message["op"] == "close":
                    return
                self.handle(message)
                busy = bool(self.running or self.waiting)
            self.admit()
            self.outbox.drain(SEND_SECONDS)
            self.step()
            if time.monotonic() - self.pulsed > PULSE_SECONDS:
                self.outbox.put({"op": "pulse"})
                self.pulsed = time.monotonic()

    def handle(self, message: dict[str, Any]) -> None:
        if message["op"] == "load":
            self.load(message["llm"], message["window_factor"], message["small"])
        elif message["op"] == "add":
            sampling = message["sampling"]
            for settings in sampling:
                settings["refused"] = schema_error(settings["schema"])
            self.waiting.extend(
                {**request, "sampling": sampling[request["s"]]} for request in message["requests"]
            )
        elif message["op"] == "logprobs":
            self.outbox.put({"op": "logprobs", "values": self.prompt_logprobs(message["token_ids"])})

    def load(self, arguments: dict[str, Any], window_factor: int, small: bool) -> None:
        started = time.monotonic()
        import vllm
        from vllm.platforms import current_platform

        imported = time.monotonic()
        self.unload()
        if current_platform.is_cpu():
            # A prompt prefilled in pieces makes the CPU runner rewind its request's random stream by an offset that
            # CPU generators do not have (seen in vLLM 0.32): whole prompts only.
            arguments = {"enable_chunked_prefill": False, **arguments}
            if (
                small
            ):  # compiling takes longer than it saves, and float32 is faster where bfloat16 has no units
                arguments = {"enforce_eager": True, **arguments}
                arguments["dtype"] = "float32" if arguments["dtype"] == "auto" else arguments["dtype"]
        self.llm = vllm.LLM(**arguments)
        self.engine = self.llm.llm_engine
        self.tokenizer = self.llm.get_tokenizer()
        self.max_model_len = self.engine.model_config.max_model_len
        self.vocab_size = self.engine.model_config.get_vocab_size()
        self.window = window_factor * self.engine.vllm_config.scheduler_config.max_num_seqs
        self.outbox.put(
            {
                "op": "ready",
                "max_model_len": self.max_model_len,
                "window": self.window,
                "device": current_platform.device_type,
                "version": vllm.__version__,
                "import_seconds": imported - started,
                "start_seconds": time.monotonic() - imported,
            }
        )

    def unload(self) -> None:
        if self.llm is None:
            return
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        self.engine.engine_core.shutdown()
        self.llm = self.engine = self.tokenizer = None
        gc.collect()
        cleanup_dist_env_and_memory()

    def admit(self) -> None:
        """Hand waiting requests to vLLM while there is room; one marked `alone` runs with no neighbour."""
        while self.waiting and len(self.running) < self.window and not self.alone:
            request = self.waiting[0]
            if request.get("alone"):
                if self.running:
                    return
                self.alone = True
            self.waiting.popleft()
            self._admit_one(request)

    def _admit_one(self, request: dict[str, Any]) -> None:
        key = str(request["k"])
        error = request["sampling"]["refused"]
        try:
            prompt = self.token_ids(request)
            error = error or unfit(prompt, self.max_model_len, self.vocab_size)
            if error is None:
                self.running[key] = {**request, "prompt": prompt}
                self.engine.add_request(key, {"prompt_token_ids": prompt}, sampling_params(request))
        except (ValueError, TypeError, NotImplementedError) as failure:
            error = f"vLLM refuses the request: {str(failure) or type(failure).__name__}"
        if error is not None:
            self.running.pop(key, None)
            self.alone = False
            self.rejected.append({"k": request["k"], "f": "rejected", "e": error})

    def token_ids(self, request: dict[str, Any]) -> list[int]:
        if request.get("ids") is not None:
            return request["ids"]
        if request.get("messages") is not None:
            rendered = self.tokenizer.apply_chat_template(
                request["messages"], add_generation_prompt=True, tokenize=True, return_dict=True
            )
            return list(rendered["input_ids"])
        return list(self.tokenizer.encode(repair_text(request["prompt"])[0]))

    def step(self) -> None:
        finished, self.rejected = self.rejected, []
        for output in self.engine.step() if self.running else ():
            if output.finished:
                request = self.running.pop(output.request_id)
                self.alone = False
                finished.append(_finished(request, output.outputs[0]))
        if finished:
            self.outbox.put({"op": "outputs", "outputs": finished})

    def prompt_logprobs(self, sequences: list[list[int]]) -> list[list[float]] | str:
        """Log-probs of given sequences; the parent asks only while nothing is running. A string is an error."""
        from vllm import SamplingParams

        found: dict[str, list[float]] = {}
        params = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)
        for number, ids in enumerate(sequences):
            if len(ids) < 2:
                found[f"probe-{number}"] = []
                continue
            try:
                self.engine.add_request(f"probe-{number}", {"prompt_token_ids": ids}, params)
            except ValueError as failure:
                return str(failure)
        while self.engine.has_unfinished_requests():
            for output in self.engine.step():
                if output.finished:
                    pairs = zip(output.prompt_token_ids[1:], output.prompt_logprobs[1:], strict=True)
                    found[output.request_id] = [entry[token].logprob for token, entry in pairs]
        return [found[f"probe-{number}"] for number in range(len(sequences))]


def _finished(request: dict[str, Any], completion: Any) -> dict[str, Any]:
    reason = completion.finish_reason
    row = {"k": request["k"], "x": completion.text, "t": list(completion.token_ids), "f": reason}
    if request.get("ids") is None:
        row["p"] = request["prompt"]
    if reason not in ("stop", "length"):
        row["f"], row["e"] = "error", f"vLLM ended the request with finish_reason {reason!r}"
    return row


def schema_error(schema: dict[str, Any] | None) -> str | None:
    """What is wrong with a JSON schema: vLLM lets some through that break the engine at the next step."""
    if schema is None or importlib.util.find_spec("jsonschema") is None:
        return None
    from jsonschema import SchemaError
    from jsonschema.validators import validator_for

    try:
        validator_for(schema).check_schema(schema)
    except SchemaError as error:
        return f"sampling.schema is no JSON schema: {error.message} (at {error.json_path})"
    return None


def sampling_params(request: dict[str, Any]) -> Any:
    """vLLM's SamplingParams of a request; structured output by whichever name this vLLM has for it."""
    import vllm.sampling_params as api

    sampling = request["sampling"]
    greedy = sampling["temperature"] == 0
    arguments: dict[str, Any] = {
        "temperature": sampling["temperature"],
        "max_tokens": sampling["max_tokens"],
        "stop": sampling["stop"] or None,
        "output_kind": api.RequestOutputKind.FINAL_ONLY,
    }
    if not greedy:  # a greedy request needs no random stream, and vLLM batches it faster without one
        arguments.update(top_k=sampling["top_k"], top_p=sampling["top_p"], seed=request["seed"])
    if sampling["schema"] is not None:
        if hasattr(api, "StructuredOutputsParams"):
            arguments["structured_outputs"] = api.StructuredOutputsParams(json=sampling["schema"])
        else:
            guided = vars(api)["GuidedDecodingParams"]  # its name before vLLM 0.11
            arguments["guided_decoding"] = guided(json=sampling["schema"])
    return api.SamplingParams(**arguments)


def main() -> None:
    descriptor, parent, from_main_thread = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "main"
    _end_with_parent(parent, from_main_thread)
    worker = Worker(Channel(socket.socket(fileno=descriptor)))
    threading.Thread(target=_read, args=(worker,), daemon=True).start()
    threading.Thread(target=worker.outbox.run, daemon=True).start()
    try:
        worker.loop()
    except BaseException as failure:
        traceback.print_exc()
        wrong_input = isinstance(failure, (ValueError, TypeError, OSError)) and worker.engine is None
        worker.outbox.put(
            {"op": "failed", "input": wrong_input, "error": f"{type(failure).__name__}: {failure}"}
        )
    worker.outbox.drain(SEND_SECONDS)
    sys.stdout.flush()
    _end_group()


def _read(worker: Worker) -> None:
    while (message := worker.channel.receive()) is not None:
        worker.inbox.put(message)
    _end_group()


def _end_with_parent(parent: int, from_main_thread: bool) -> None:
    # The kernel sends its signal when the parent's *thread* ends, so it is asked for only where that thread is the
    # process; the watch below covers the rest, even if a forked sibling still holds the socket open.
    if from_main_thread and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        _end_group()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        _end_group()

    threading.Thread(target=watch, daemon=True).start()


def _end_group() -> None:
    """End this process and what vLLM started under it (tensor-parallel workers), at once."""
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(0)


if __name__ == "__main__":
    main()
