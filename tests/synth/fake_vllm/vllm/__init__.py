"""A stand-in for vLLM that records what reaches it and dies on command.

Every LLM appends its arguments to $FAKE_VLLM_LOG. A completion's text is the JSON of its prompt's ids and its sampling
parameters. A prompt holding token KILL kills the process while it is in the engine; HANG blocks the first step that
meets it; REFUSED is not accepted.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

__version__ = "0.0.fake"
KILL, HANG, REFUSED = 666, 667, 668


@dataclass
class StructuredOutputsParams:
    json: Any = None


@dataclass
class SamplingParams:
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    max_tokens: int = 16
    stop: list[str] | None = None
    seed: int | None = None
    structured_outputs: StructuredOutputsParams | None = None
    guided_decoding: StructuredOutputsParams | None = None
    output_kind: str = ""
    prompt_logprobs: int | None = None
    detokenize: bool = True


class Tokenizer:
    def encode(self, text: str) -> list[int]:
        return list(text.encode("utf-8"))

    def apply_chat_template(self, messages: list[dict[str, str]], **how: Any) -> dict[str, list[int]]:
        return {"input_ids": [1, *self.encode(messages[-1]["content"])]}


class Engine:
    def __init__(self, arguments: dict[str, Any]) -> None:
        self.arguments = arguments
        self.model_config = SimpleNamespace(
            max_model_len=arguments.get("max_model_len", 64), get_vocab_size=lambda: 1000
        )
        scheduler = SimpleNamespace(max_num_seqs=arguments.get("max_num_seqs", 4))
        self.vllm_config = SimpleNamespace(scheduler_config=scheduler)
        self.engine_core = SimpleNamespace(shutdown=lambda: record({"shutdown": arguments["model"]}))
        self.running: dict[str, tuple[list[int], SamplingParams]] = {}

    def add_request(self, key: str, prompt: dict[str, list[int]], params: SamplingParams) -> None:
        if REFUSED in prompt["prompt_token_ids"]:
            raise ValueError("token 668 is out of vocabulary")
        self.running[key] = (prompt["prompt_token_ids"], params)

    def has_unfinished_requests(self) -> bool:
        return bool(self.running)

    def step(self) -> list[Any]:
        """Finish the oldest request; a step takes as long as $FAKE_VLLM_STEP says."""
        time.sleep(float(os.environ.get("FAKE_VLLM_STEP", "0")))
        for ids, _ in self.running.values():
            if KILL in ids:
                print("about to die", file=sys.stderr, flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
            marker = Path(os.environ["FAKE_VLLM_LOG"] + ".hung")
            if HANG in ids and not marker.exists():
                marker.touch()
                time.sleep(600)
        key, (ids, params) = next(iter(self.running.items()))
        del self.running[key]
        text = json.dumps(
            {**asdict(params), "ids": ids, "model": self.arguments["model"], "neighbours": len(self.running)}
        )
        completion = SimpleNamespace(text=text, token_ids=[7, 8], finish_reason="stop")
        logprobs = [None] + [{token: SimpleNamespace(logprob=-float(token))} for token in ids[1:]]
        done = {"request_id": key, "finished": True, "outputs": [completion]}
        return [SimpleNamespace(**done, prompt_token_ids=ids, prompt_logprobs=logprobs)]


class LLM:
    def __init__(self, **arguments: Any) -> None:
        names = ("VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_CPU_KVCACHE_SPACE", "OMP_NUM_THREADS")
        record({"llm": arguments, "pid": os.getpid(), "env": {name: os.environ.get(name) for name in names}})
        if "nonsense" in arguments:
            raise TypeError("unexpected keyword argument 'nonsense'")
        if "break_down" in arguments:
            raise RuntimeError("no memory left on the device")
        if "never_start" in arguments:
            time.sleep(600)
        self.llm_engine = Engine(arguments)

    def get_tokenizer(self) -> Tokenizer:
        return Tokenizer()


def record(event: dict[str, Any]) -> None:
    with open(os.environ["FAKE_VLLM_LOG"], "a") as log:
        log.write(json.dumps(event) + "\n")


def _module(name: str, **content: Any) -> None:
    module = ModuleType(name)
    vars(module).update(content)
    sys.modules[name] = module


_device = os.environ.get("FAKE_VLLM_DEVICE", "cpu")
_platform = SimpleNamespace(device_type=_device, is_cpu=lambda: _device == "cpu")
_module("vllm.platforms", current_platform=_platform)
_module("vllm.distributed")
_module("vllm.distributed.parallel_state", cleanup_dist_env_and_memory=lambda: None)
_module(
    "vllm.sampling_params",
    SamplingParams=SamplingParams,
    **{os.environ.get("FAKE_VLLM_SCHEMA_CLASS", "StructuredOutputsParams"): StructuredOutputsParams},
    RequestOutputKind=SimpleNamespace(FINAL_ONLY="final_only"),
)
