"""The engine protocol: submit requests, iterate completions as they finish, load weights, close.

One request is one completion. Text goes in as `prompt` and, where the caller has tokenised it already, as
`prompt_token_ids`; what was sampled comes back as token ids, so that nothing is ever tokenised twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Protocol, TypeVar

from synth.records.errors import InputError, did_you_mean

FinishReason = Literal["stop", "length", "rejected", "error"]


@dataclass(frozen=True)
class Capabilities:
    """What an engine can do; a recipe that needs what is False here is refused before any work."""

    loads_weights: bool
    """`load_weights` changes the model that samples."""
    token_ids: bool
    """Outputs carry `token_ids`."""
    prompt_logprobs: bool
    """`prompt_logprobs` works."""
    per_request_seed: bool
    """Each request has its own random stream: its completion does not depend on its neighbours' seeds."""
    structured_output: bool
    """`Sampling.schema` constrains the completion."""


@dataclass(frozen=True)
class Sampling:
    """How to sample. `top_k` 0 is off, `temperature` 0 is greedy, `schema` is a JSON schema for the completion.

    With `stop` strings the text ends before the stop string, while the token ids go on to the token that completed it.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    schema: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(
                f"temperature: seen {self.temperature}; give a number of at least 0 (0 is greedy)"
            )
        if self.top_k < 0:
            raise ValueError(f"top_k: seen {self.top_k}; give 0 (off) or a positive number")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p: seen {self.top_p}; give a number in (0, 1]")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens: seen {self.max_tokens}; give at least 1")
        if "" in self.stop:
            raise ValueError("stop: seen an empty string; a stop string needs at least one character")


@dataclass(frozen=True)
class Request:
    """One completion to sample. `id` is unique among what is in flight; `index` counts a problem's completions.

    `prompt_token_ids` win over `messages` (rendered with the model's chat template), which win over `prompt`; a
    remote chat server is given `messages` whenever they are there. `problem_id` and `source_id` (what the problem's
    row calls itself) are for an engine that looks completions up instead of sampling them.
    """

    id: str
    prompt: str
    prompt_token_ids: tuple[int, ...] | None
    seed: int
    sampling: Sampling
    messages: list[dict[str, Any]] | None = None
    index: int = 0
    problem_id: str | None = None
    source_id: str | None = None


@dataclass(frozen=True)
class Output:
    """What became of a request.

    `finish_reason`: `stop` (end of sequence or a stop string), `length` (`max_tokens` or the model's context is
    full), `rejected` (never sampled: the request does not fit the engine) or `error` (the engine failed on it);
    the last two say why in `error`. `token_ids` include the end-of-sequence token when it was sampled.
    `transient`: an `error` of the moment (the server is away or overloaded), not of the request. It is no result:
    the same request may be answered later.
    """

    id: str
    text: str
    prompt_token_ids: list[int] | None
    token_ids: list[int] | None
    finish_reason: FinishReason
    error: str | None = None
    transient: bool = False


class Engine(Protocol):
    """A source of completions. Not thread-safe: one thread submits and iterates."""

    capabilities: Capabilities

    @property
    def max_model_len(self) -> int | None:
        """Tokens the model takes, prompt and completion together; None if the engine does not know."""
        ...

    def submit(self, requests: Iterable[Request]) -> None:
        """Queue requests and return at once. Allowed while `outputs` is being iterated."""
        ...

    def outputs(self) -> Iterator[Output]:
        """Yield each output as it finishes; ends when nothing is in flight. May be called again after more submits."""
        ...

    def load_weights(self, path: str) -> None:
        """Sample from the model at `path` from now on. Raises ValueError while requests are in flight."""
        ...

    def prompt_logprobs(self, token_ids: list[list[int]]) -> list[list[float]]:
        """For each sequence of n ids the n - 1 values log p(t_i | t_<i), i >= 1, at temperature 1 (natural log)."""
        ...

    def close(self) -> None:
        """End the engine and whatever it started. May be called twice."""
        ...


def unfit(ids: Sequence[int], max_model_len: int, vocab_size: int) -> str | None:
    """Why a prompt cannot be sampled from, or None. One token must be left for the completion."""
    if not ids:
        return "prompt has no tokens, a model needs at least 1"
    if len(ids) + 1 > max_model_len:
        return f"prompt has {len(ids)} tokens, model takes {max_model_len} with its completion"
    if min(ids) < 0 or max(ids) >= vocab_size:
        return f"prompt has token ids outside the model's vocabulary of {vocab_size}"
    return None


def unsupported(engine: str, what: str, fix: str) -> InputError:
    """The error of a call that the engine's capabilities rule out."""
    return InputError(f"engine {engine}", f"cannot {what}", fix)


OptionsT = TypeVar("OptionsT")


def make_options(cls: type[OptionsT], options: Mapping[str, Any], where: str = "engine.options") -> OptionsT:
    """An options dataclass from a mapping. Raises InputError for an unknown name, a wrong type or a bad value."""
    known = [item.name for item in fields(cls)]  # type: ignore[arg-type]
    for name in options:
        if name not in known:
            raise InputError(f"{where}.{name}", "unknown option", did_you_mean(str(name), known))
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(cls).validate_python(dict(options))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join([where, *(str(part) for part in first["loc"])])
        raise InputError(place, f"{first['msg']} (seen {first['input']!r})") from None
