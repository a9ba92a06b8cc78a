"""Completions from a file: the engine for data that was sampled elsewhere and for runs that must repeat bitwise.

Rows are JSONL or parquet with `prompt` and `completion`; optional `index`, `completion_token_ids`, `finish_reason`
and a problem id (`problem_id` or `id`: the problem's id in a run, or the `id` of its source row). A request is given
the row of its prompt, else of its problem, whose place is the request's `index`: the row's own `index` column where
there is one, else its order of appearance among the rows of that prompt or problem. So what a request gets depends on
its content alone, never on what was submitted before it or in which order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, get_args

from synth.engines.base import Capabilities, FinishReason, Output, Request, unsupported
from synth.records.errors import InputError
from synth.records.jsonl import read_jsonl

# `token_ids` is about every request: a file may have the column, but nothing makes it.
CAPABILITIES = Capabilities(
    loads_weights=False,
    token_ids=False,
    prompt_logprobs=False,
    per_request_seed=True,
    structured_output=False,
)


@dataclass(frozen=True)
class Options:
    """Options of the `replay` engine."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    path: str = ""
    """The JSONL (may be .gz) or parquet file of completions."""
    prompt: str = "prompt"
    """Column that holds the prompt text."""
    completion: str = "completion"
    """Column that holds the completion."""


class ReplayEngine:
    """Answers requests from a file. A request beyond the rows of its prompt is `rejected`."""

    capabilities = CAPABILITIES
    max_model_len: int | None = None

    def __init__(self, options: Options) -> None:
        if not options.path:
            raise InputError("engine.options.path", "not given", "name the file of completions to replay")
        self.options = options
        self._by_prompt: dict[str, dict[int, dict[str, Any]]] = {}
        self._by_problem: dict[str, dict[int, dict[str, Any]]] = {}
        self._queue: deque[Request] = deque()
        for number, row in enumerate(_read(options.path), start=1):
            self._add(row, f"{options.path}, row {number}")

    def _add(self, row: dict[str, Any], where: str) -> None:
        completion = row.get(self.options.completion)
        if not isinstance(completion, str):
            raise InputError(
                where, f"no text in column '{self.options.completion}'", f"columns: {', '.join(row)}"
            )
        reason = row.get("finish_reason")
        if reason is not None and reason not in get_args(FinishReason):
            raise InputError(
                where, f"finish_reason is {reason!r}", f"known: {', '.join(get_args(FinishReason))}"
            )
        prompt = row.get(self.options.prompt)
        problem = row.get("problem_id", row.get("id"))
        if not isinstance(prompt, str) and problem is None:
            raise InputError(
                where, f"no text in column '{self.options.prompt}'", f"columns: {', '.join(row)}"
            )
        index = row.get("index")
        place = None if index is None else _whole(index, where, "index is")
        row = {**row, "completion_token_ids": _token_ids(row.get("completion_token_ids"), where)}
        for table, key in ((self._by_prompt, prompt), (self._by_problem, problem)):
            if isinstance(key, (str, int)):
                rows = table.setdefault(str(key), {})
                index = len(rows) if place is None else place
                if index in rows:
                    raise InputError(
                        where, f"index {index} of this prompt is there already", "number them apart"
                    )
                rows[index] = row

    def submit(self, requests: Iterable[Request]) -> None:
        self._queue.extend(requests)

    def outputs(self) -> Iterator[Output]:
        while self._queue:
            yield self._answer(self._queue.popleft())

    def _answer(self, request: Request) -> Output:
        rows = self._rows(request)
        ids = list(request.prompt_token_ids) if request.prompt_token_ids is not None else None
        row = rows.get(request.index)
        if row is None:
            error = (
                f"{self.options.path} has {len(rows)} completions of this prompt, none with index {request.index}"
                if rows
                else f"{self.options.path} has no completion of this prompt"
            )
            return Output(request.id, "", ids, None, "rejected", error)
        return Output(
            id=request.id,
            text=row[self.options.completion],
            prompt_token_ids=ids,
            token_ids=row["completion_token_ids"],
            finish_reason=row.get("finish_reason") or "stop",
            error=row.get("error"),
        )

    def _rows(self, request: Request) -> Mapping[int, dict[str, Any]]:
        """The rows of a request: by exact prompt text, by the last user message, by problem id, by the source's id."""
        if request.prompt in self._by_prompt:
            return self._by_prompt[request.prompt]
        for message in reversed(request.messages or []):
            if message.get("role") == "user":
                if message.get("content") in self._by_prompt:
                    return self._by_prompt[message["content"]]
                break
        for name in (request.problem_id, request.source_id, request.id):
            if name is not None and name in self._by_problem:
                return self._by_problem[name]
        return {}

    def load_weights(self, path: str) -> None:
        raise unsupported("replay", "load weights", "use the engine vllm or transformers")

    def prompt_logprobs(self, token_ids: list[list[int]]) -> list[list[float]]:
        raise unsupported("replay", "compute log-probabilities", "use the engine vllm or transformers")

    def close(self) -> None:
        self._queue.clear()


def _token_ids(value: Any, where: str) -> list[int] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise InputError(where, f"completion_token_ids is {value!r}", "give a list of whole numbers")
    return [_whole(token, where, "completion_token_ids holds") for token in value]


def _whole(value: Any, where: str, what: str) -> int:
    """A whole number; tables with gaps make floats of them (1.0), which are taken as what they were."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(where, f"{what} {value!r}", "give whole numbers")
    return value


def _read(path: str) -> Iterator[dict[str, Any]]:
    if not path.endswith(".parquet"):
        yield from read_jsonl(path)
        return
    if not Path(path).is_file():
        raise InputError(path, "cannot be read (no such file)", "check the path")
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        yield from pq.read_table(path).to_pylist()
    except pa.ArrowException as error:
        raise InputError(path, f"not a parquet file ({error})", "check the path") from None


def open_engine(model: str | None, options: Options) -> ReplayEngine:
    """The replay engine of a file; `model` is not used."""
    return ReplayEngine(options)
