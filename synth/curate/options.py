"""What curation is told: torch-free dataclasses that the recipe schema nests."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from typing import ClassVar

from synth.records.errors import InputError, did_you_mean

DEDUP_METHODS = ("exact", "normalized", "minhash", "semantic")
BALANCE_RULES = ("none", "difficulty")
SELECT_METHODS = ("k_center", "best", "random")
LANGUAGE, LENGTH = "language", "length"
_RANGE = re.compile(r"([0-9]+)-([0-9]*)")


@dataclass(frozen=True)
class DedupOptions:
    """Which samples count as the same."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    method: str = "normalized"
    """`exact`: equal text. `normalized`: equal after NFKC, case folding and collapsing of white space (digits
    and punctuation count). `minhash`: word 5-grams with a Jaccard similarity of at least `threshold`. `semantic`:
    embeddings with a cosine of at least `threshold`."""
    threshold: float | None = None
    """Similarity in (0, 1] from which two samples are duplicates. None: 0.8 for `minhash`, 0.95 for `semantic`."""
    chains: bool = False
    """Whether rows that are alike by way of others are duplicates: of each group that hangs together one row stays
    (`minhash` and `semantic`)."""
    against: list[str] = field(default_factory=list)
    """Files of earlier exports (JSONL or parquet): a row that is like one of theirs is a duplicate."""

    def __post_init__(self) -> None:
        if self.method not in DEDUP_METHODS:
            raise InputError(
                "dedup.method", f"unknown '{self.method}'", did_you_mean(self.method, DEDUP_METHODS)
            )
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise ValueError(f"dedup.threshold: seen {self.threshold}; use a number above 0 and at most 1")

    @property
    def least(self) -> float:
        """The threshold, or the method's own."""
        return self.threshold or (0.95 if self.method == "semantic" else 0.8)


@dataclass(frozen=True)
class DecontaminateOptions:
    """Which samples are too close to an evaluation problem."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    against: list[str] = field(default_factory=lambda: ["held_out"])
    """Names of evaluation sets (domains; `held_out`: the held-out problems of every one) or paths. Empty = off."""
    ngram: int | list[int] = 13
    """Words per n-gram; with several numbers a match by any of them counts. Evaluation texts shorter than the least
    are compared by normalised equality only."""
    threshold: float = 0.5
    """Share of an evaluation text's n-grams, in (0, 1], found in one sample from which it is contaminated."""
    reworded: float | None = None
    """Share, in (0, 1], of an evaluation text's wording without its names and numbers, found in one sample in any
    order, from which that is a rewording of it. None: off, as where problems share templates on purpose."""
    semantic: float | None = None
    """Cosine, in (0, 1], of the embeddings of an evaluation text and of a compared text from which they are the
    same problem; needs `embed`. None: off."""
    text: str | list[str] | None = None
    """Column or columns (joined) of the rows of evaluation files. None: the first of `prompt, question, problem,
    instruction, text` that a row has."""

    def __post_init__(self) -> None:
        if not self.ngrams or min(self.ngrams) < 1:
            raise ValueError(
                f"decontaminate.ngram: seen {self.ngram}; use a number of at least 1, or several"
            )
        if not 0 < self.threshold <= 1:
            raise ValueError(
                f"decontaminate.threshold: seen {self.threshold}; use a number above 0 and at most 1"
            )
        for name in ("reworded", "semantic"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise ValueError(f"decontaminate.{name}: seen {value}; use a number above 0 and at most 1")
        if self.text == []:
            raise ValueError("decontaminate.text: seen an empty list; name at least one column")

    @property
    def ngrams(self) -> tuple[int, ...]:
        """The numbers of words, each once, longest first."""
        given = [self.ngram] if isinstance(self.ngram, int) else self.ngram
        return tuple(sorted(set(given), reverse=True))


@dataclass(frozen=True)
class SelectOptions:
    """Which rows are chosen of those that passed everything else."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    size: int | None = None
    """At most this many rows. None: all that the other rules leave."""
    method: str = "k_center"
    """How `size` and shares choose. `k_center`: by quality and distance to what is chosen already (time grows with
    rows x size). `best`: by quality. `random`: by a hash of the row's id."""
    quality_weight: float = 0.5
    """What quality counts in `k_center`, in [0, 1]: 0 is diversity alone."""
    quality: str | None = None
    """Column with a number, higher being better (`details.measures.value` is what the quality verifier's classifier
    says). None: `quality` where rows have it, else `reward`."""
    min_quality: float | None = None
    """A row needs at least this quality."""
    pass_rate: list[float] | None = None
    """[lowest, highest] share of a problem's judged samples that passed (or the row's own `pass_rate`)."""
    length: list[int] | None = None
    """[fewest, most] words of the compared texts."""
    quotas: dict[str, dict[str, float]] = field(default_factory=dict)
    """{column: {value: most rows}}; below 1: share of `size`. `*` stands for each value not named. `language` is found
    out where rows have no such column, `length` has ranges of words (`0-99`, `100-`) as values. A dotted path reaches
    into objects, here and in `quality` and `source`; they may be JSON text."""
    mix: dict[str, float] | None = None
    """{source: weight}: rows in these proportions, as many as the scarcest source allows; others are left out."""
    source: str = "source"
    """Column that names a row's source, for `mix`."""

    def __post_init__(self) -> None:
        if self.method not in SELECT_METHODS:
            hint = did_you_mean(self.method, SELECT_METHODS)
            raise InputError("select.method", f"unknown '{self.method}'", hint)
        if self.size is not None and self.size < 1:
            raise ValueError(f"select.size: seen {self.size}; use at least 1, or null for all")
        if not 0 <= self.quality_weight <= 1:
            raise ValueError(f"select.quality_weight: seen {self.quality_weight}; use a number from 0 to 1")
        for name in ("pass_rate", "length"):
            band = getattr(self, name)
            if band is not None and (len(band) != 2 or not 0 <= band[0] <= band[1]):
                raise ValueError(f"select.{name}: seen {band}; use [lowest, highest]")
        for column, quotas in self.quotas.items():
            for value, quota in quotas.items():
                self._check_quota(f"select.quotas.{column}.{value}", column, value, quota)
        if self.mix is not None and (
            not any(self.mix.values()) or not all(0 <= w < math.inf for w in self.mix.values())
        ):
            raise ValueError(f"select.mix: seen {self.mix}; use weights of at least 0, one of them above it")

    def _check_quota(self, where: str, column: str, value: str, quota: float) -> None:
        if not 0 <= quota < math.inf:
            raise ValueError(f"{where}: seen {quota}; use a number of rows, or a share of `size` below 1")
        if 0 < quota < 1 and self.size is None:
            raise ValueError(f"{where}: seen the share {quota}; set select.size, which it is a share of")
        if column == LENGTH and value != "*" and not _RANGE.fullmatch(value):
            raise ValueError(f"{where}: seen '{value}'; use a range of words such as 0-99 or 100-")

    @property
    def counts(self) -> bool:
        """Whether a rule counts rows, so that some must be chosen before others."""
        return self.size is not None or bool(self.quotas) or self.mix is not None

    @property
    def quality_columns(self) -> tuple[str, ...]:
        """Where a row's quality stands, the first that rows have."""
        return ("quality", "reward") if self.quality is None else (self.quality,)

    @property
    def grouped(self) -> tuple[str, ...]:
        """Columns whose values are counted."""
        return tuple(dict.fromkeys((*self.quotas, *((self.source,) if self.mix is not None else ()))))

    def range_of(self, words: int) -> str:
        """The range of `quotas.length` that a length falls in; empty if in none."""
        for name in self.quotas.get(LENGTH, ()):
            found = _RANGE.fullmatch(name)
            if found and int(found[1]) <= words <= int(found[2] or words):
                return name
        return ""


@dataclass(frozen=True)
class CurateOptions:
    """Everything the recipe key `curate` may say."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    text: str | list[str] | None = None
    """Column or columns that are compared. None: `prompt` and `completion`, which decontamination always looks at."""
    dedup: DedupOptions | None = field(default_factory=DedupOptions)
    """None: duplicates stay."""
    decontaminate: DecontaminateOptions | None = field(default_factory=DecontaminateOptions)
    """None (or an empty `against`): off."""
    cap_per_problem: int | None = 10
    """At most this many samples a problem (ReST-EM: 10). None: no cap."""
    min_reward: float | None = None
    """A passed sample needs at least this reward, too. None: a pass is enough."""
    reward_schedule: list[float] = field(default_factory=list)
    """Threshold of each round instead of `min_reward` (ReST); later rounds keep the last one."""
    distinct_reasoning: bool = False
    """One sample per problem and distinct reasoning path (RFT)."""
    balance: str = "none"
    """`difficulty`: no bin of problem pass rates may be larger than the (lower) median bin."""
    across_rounds: bool = False
    """Compare with, and count towards the cap, what earlier rounds kept."""
    select: SelectOptions | None = None
    """None: every row that passes the other stages stays."""
    embed: str | None = None
    """Folder of a sentence-embedding model, for `semantic`, diversity and the report. It is for the caller to open and
    to hand in. None: diversity goes by words, `semantic` is refused."""

    def __post_init__(self) -> None:
        if isinstance(self.text, list) and not self.text:
            raise ValueError("text: seen an empty list; name at least one column")
        if self.cap_per_problem is not None and self.cap_per_problem < 1:
            raise ValueError(
                f"cap_per_problem: seen {self.cap_per_problem}; use at least 1, or null for no cap"
            )
        if any(math.isnan(x) for x in [self.min_reward or 0.0, *self.reward_schedule]):
            raise ValueError("min_reward, reward_schedule: seen nan; use numbers")
        if self.reward_schedule != sorted(self.reward_schedule):
            raise ValueError(f"reward_schedule: seen {self.reward_schedule}; thresholds must not fall")
        if self.balance not in BALANCE_RULES:
            raise InputError(
                "balance", f"unknown '{self.balance}'", did_you_mean(self.balance, BALANCE_RULES)
            )

    @property
    def semantic(self) -> bool:
        """Whether a stage needs an embedding model."""
        by_meaning = self.decontaminate is not None and self.decontaminate.semantic is not None
        return by_meaning or (self.dedup is not None and self.dedup.method == "semantic")

    @property
    def text_columns(self) -> tuple[str, ...]:
        """The compared columns."""
        if self.text is None:
            return ("prompt", "completion")
        return (self.text,) if isinstance(self.text, str) else tuple(self.text)

    def for_round(self, round_index: int) -> CurateOptions:
        """The options of one round: `min_reward` is that round's threshold, the schedule is spent."""
        if not self.reward_schedule:
            return self
        threshold = self.reward_schedule[min(round_index, len(self.reward_schedule) - 1)]
        return replace(self, min_reward=threshold, reward_schedule=[])
