"""What `recipes` hands to generators: verifiers of the other room, language, the model's own chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from recipes.judging import Shared, open_verifier
from recipes.prompting import open_tokenizer
from synth.generators.base import Tools, UserTurn
from synth.records.errors import InputError
from synth.records.ids import content_hash

if TYPE_CHECKING:
    from pathlib import Path

Row = dict[str, Any]
MARK = "\ue000user\ue000"
"""Stands for a user's message while the chat template is taken apart; no template and no message holds it."""
SPOKEN = 0.5
"""Share of the letters, and of known function words, from which a text counts as being in a language."""


class VerifierPool:
    """Verifiers by name and options, each opened when it is first asked."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._open: dict[str, Any] = {}
        self._shared: Shared = {}

    def judge(self, verifier: str, rows: Sequence[Mapping[str, Any]], **options: Any) -> list[Row]:
        """One verdict row {status, reward, reason, details} a row, in order."""
        judging = self.open(verifier, options)
        if len(rows) == 1:  # no pool of threads for what is asked reply by reply
            return [judging.verify(rows[0]).as_row()]
        return [verdict.as_row() for verdict in judging.verify_batch(rows, workers=self.workers)]

    def open(self, name: str, options: Mapping[str, Any], where: str | None = None) -> Any:
        """The verifier `name` with these options, the same one every time; a judge gets its engine.

        Raises InputError, at `where` for what a judge lacks.
        """
        key = content_hash(name, dict(options))
        if key not in self._open:
            self._open[key] = open_verifier(name, options, where, self._shared)
        return self._open[key]

    def close(self) -> None:
        for verifier in self._open.values():
            verifier.close()
        self._open.clear()


def speaks(text: str, language: str) -> bool:
    """Whether the text is in the language, by script and function words; True for one that cannot be told so."""
    from verifiers.language import KNOWN_BY_WORDS, language_share

    if language not in KNOWN_BY_WORDS:
        return True
    share = language_share(text, language)
    return share is None or share >= SPOKEN


def final_answer(solution: str) -> str | None:
    """The answer that a worked solution ends with, by the rules of the verifier `math`; None unless there is one."""
    from verifiers.math.extract import extract

    found = extract(solution)
    return None if found is None or found.ambiguous or not found.value.strip() else found.value


class ChatTurns:
    """Takes a chat template apart: the text before a user's message, and what ends one."""

    def __init__(self, folder: Path, trust_remote_code: bool = False) -> None:
        self.folder, self.trust_remote_code = folder, trust_remote_code
        self._tokenizer: Any = None

    def __call__(self, system: str | None) -> tuple[str, tuple[str, ...]]:
        """(prompt that ends where a user's message would begin, stop strings). Raises InputError without a template."""
        if self._tokenizer is None:
            self._tokenizer = open_tokenizer(self.folder, self.trust_remote_code)
        if getattr(self._tokenizer, "chat_template", None) is None:
            fix = "use a chat model: the user's turn is what its template begins"
            raise InputError("model.path", f"the tokenizer of {self.folder} has no chat template", fix)
        turns = [{"role": "system", "content": system}] if system else []
        turns.append({"role": "user", "content": MARK})
        text = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=False)
        before, found, after = text.partition(MARK)
        if not found:
            raise InputError("model.path", "the chat template changes what a user says", "use another model")
        begin = self._tokenizer.bos_token
        if begin and before.startswith(begin) and self._adds_begin():
            before = before[len(begin) :]  # the engine puts it before the tokens: two would be one too many
        lines = [line for line in after.split("\n") if line.strip()]
        return before, tuple(dict.fromkeys([lines[0]] if lines else ["\n"]))

    def _adds_begin(self) -> bool:
        return self._tokenizer("")["input_ids"][:1] == [self._tokenizer.bos_token_id]


def no_turns(system: str | None) -> tuple[str, tuple[str, ...]]:
    """In place of `ChatTurns` for generators that do not read the template."""
    raise InputError("generator", "does not read the chat template", "")


def tools(pool: VerifierPool, turns: UserTurn) -> Tools:
    """What a session is handed."""
    return Tools(judge=pool.judge, speaks=speaks, user_turn=turns, final_answer=final_answer)
