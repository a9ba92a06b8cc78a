"""Magpie (Xu et al. 2024, arXiv 2406.08464): an aligned model writes the user's turn of its own chat template.

1. The prompt is the chat template up to where a user's message begins, and nothing else; the model goes on with what a
   user would say. Sampling alone makes the variety, so the temperature should be 1 or more.
2. What is no instruction (too short, cut off, a special token in it, a repetition) is dropped.
3. A fresh turn answers it, by default greedily as in the paper.

Departures: near-duplicates go by ROUGE-L instead of embeddings and no quality model rates instructions: `curate` and
the domain's verifier do what they can.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from synth.generators.answers import answer_step, answer_task
from synth.generators.base import Generator, Item, Row, Step, Task, Unusable
from synth.generators.novelty import Novelty, novel
from synth.generators.options import at_least, similarity
from synth.generators.session import Session

# Tokens of chat templates: the turn went on into the next one, or the model left its template.
_SPECIAL = re.compile(r"<\|[^|<>]{1,40}\|>|</?s>|\[/?INST\]|<(?:start|end)_of_turn>|<｜[^｜]{1,40}｜>")


@dataclass(frozen=True)
class Options:
    """Options of the generator `magpie`."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    count: int = 1000
    """User turns to sample."""
    min_words: int = 3
    """Shorter ones are no instruction."""
    max_words: int = 400
    """Longer ones are dropped."""
    novelty: float = 0.9
    """ROUGE-L with an earlier one from which an instruction is called a repetition."""
    answer_temperature: float | None = 0.0
    """Temperature of the answers; null: the recipe's."""

    def __post_init__(self) -> None:
        at_least(self, 1, "count", "min_words")
        at_least(self, self.min_words, "max_words")
        similarity(self, "novelty")
        if self.answer_temperature is not None and self.answer_temperature < 0:
            raise ValueError(f"answer_temperature: seen {self.answer_temperature}; use 0 or more, or null")


def generate(session: Session, options: Options, nothing: list[Item]) -> list[Item]:
    """Rows `prompt, completion`."""
    beginning, ends = session.tools.user_turn(session.settings.system)

    def read(task: Task, reply: Any) -> Iterator[Row | Unusable]:
        size = len(reply.split())
        special = _SPECIAL.search(reply)
        if special:
            yield Unusable("special_token", special[0])
        elif not options.min_words <= size <= options.max_words:
            yield Unusable("too_short" if size < options.min_words else "too_long", reply[:200])
        else:
            yield {"prompt": reply}

    # A turn that sounds like a refusal is an odd instruction, but no refusal: nothing was asked.
    turn = Step("turn", None, read, raw=True, stop=ends, refusals=True)
    written = session.ask(turn, [Task({"prompt": beginning}) for _ in range(options.count)])
    new = session.sift("novel", lambda: novel(Novelty(options.novelty), written))
    step = answer_step(session, temperature=options.answer_temperature)
    return session.ask(step, [answer_task(item) for item in new])


GENERATOR = Generator(
    name="magpie",
    options=Options,
    generate=generate,
    rows_from=("answer",),
    verifiers=("refusal",),
    reads_turn=True,
)
