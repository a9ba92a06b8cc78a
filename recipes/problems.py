"""Problems of a recipe: read, map columns, give ids, choose each round's.

A problem is a dict: `problem_id, domain, prompt` and whatever the source has, above all what the verifier needs.
Rows that cannot be used (a pattern that finds nothing, an empty prompt) are set aside, up to `problems.max_bad`.
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.judging import Shared, fetch_models, open_verifier
from recipes.prompting import Prompter, open_tokenizer
from recipes.reading import chosen_rows, read_source
from recipes.schema import AssertTests, Constant, FromJson, Pick, Problems, Recipe, Relabel, Source
from recipes.schema import Domain as DomainSection
from synth.records.errors import InputError, did_you_mean
from synth.records.ids import content_hash, problem_id

if TYPE_CHECKING:
    from recipes.sampling import Domain
    from synth.store import RunFolder

log = logging.getLogger("synthloop")
Row = dict[str, Any]
PassRates = Callable[[int], Mapping[str, float]]
"""Before round r: the share of passed samples of each problem tried so far."""


class Unusable(Exception):
    """Why one row of a source is set aside."""


@dataclass
class Loaded:
    """Problems of one source, and what was left out of them."""

    rows: list[Row]
    duplicates: list[str] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)


def load_domains(recipe: Recipe, base: Path | None, pass_rates: PassRates | None = None) -> list[Domain]:
    """Every domain of the recipe, ready to use. `base` is the folder whose tokenizer renders the prompts.

    Raises InputError naming domain, column and the available columns when something is missing.
    """
    tokenizer = open_tokenizer(base, recipe.model.trust_remote_code) if base is not None else None
    shared: Shared = {}
    domains = [load_domain(recipe, name, tokenizer, pass_rates, shared) for name in recipe.domains]
    for domain in domains:
        fetch_models(domain.verifier)
    return domains


def load_domain(
    recipe: Recipe,
    name: str,
    tokenizer: Any,
    pass_rates: PassRates | None = None,
    shared: Shared | None = None,
) -> Domain:
    """One domain, as `load_domains` makes them; `tokenizer` may be None, `shared` holds other domains' judges."""
    from recipes.sampling import Domain

    section = recipe.domains[name]
    where = f"domains.{name}.verifier.options"
    verifier = open_verifier(section.verifier.name, section.verifier.options, where, shared)
    needs = tuple(column for column in getattr(verifier, "needs", ()) if column != "completion")
    prompter = Prompter(section.prompt, tokenizer, f"domains.{name}.prompt")
    # Given rows are trained on as they are: they need what is trained on, and nobody judges them.
    train_needs = ("completion",) if recipe.kind == "sft" else needs
    train = TrainProblems(recipe, name, section, train_needs, pass_rates)
    firsts, held_out = train(0)[:1], []
    if section.held_out is not None:
        held_out = load(recipe, name, section, section.held_out, "held_out", needs).rows
    for first in (*firsts, *held_out[:1]):
        prompter(first)  # a template that names a missing column is found before any work
    return Domain(
        name=name,
        verifier_name=section.verifier.name,
        verifier=verifier,
        render=prompter,
        template_hash=prompter.template_hash,
        stop=prompter.stop,
        held_out=held_out,
        train=train,
        left_out=train.left_out,
    )


# ---- Which problems a round gets ---------------------------------------------------------------------------------


class TrainProblems:
    """`problems(round)` gives the round's problems, the same for the same recipe however often it is asked."""

    def __init__(
        self,
        recipe: Recipe,
        name: str,
        section: DomainSection,
        needs: tuple[str, ...],
        pass_rates: PassRates | None = None,
    ) -> None:
        self.recipe, self.name, self.section, self.needs = recipe, name, section, needs
        self.options, self.pass_rates = recipe.problems, pass_rates
        self.left_out: dict[str, list[str]] = {}
        self._pool: list[Row] | None = None
        self._rounds: dict[int, list[Row]] = {}

    def __call__(self, round_index: int) -> list[Row]:
        if round_index not in self._rounds:
            self._rounds[round_index] = self._choose(round_index)
        return self._rounds[round_index]

    def _choose(self, round_index: int) -> list[Row]:
        pool, size = self.pool(round_index), self.options.per_round
        if self._fresh_pieces():
            return ordered(pool, self.options, self.recipe.rng_seed)
        if pool and self.options.fresh and size is not None:
            return self._window(pool, round_index * size, size)
        rows = ordered(pool, self.options, self.recipe.rng_seed)
        if self.options.curriculum == "pass_rate" and self.pass_rates is not None and round_index > 0:
            rows = by_pass_rate(rows, self.pass_rates(round_index))
        return rows[:size]

    def pool(self, round_index: int) -> list[Row]:
        """Every problem that the round's are chosen from."""
        source = self.section.train
        if source is None:
            return []
        if self._fresh_pieces():
            count = self.options.per_round or source.count or 0
            return self._load(source.model_copy(update={"count": count}), offset=round_index * count)
        if self._pool is None:
            self._pool = self._load(source, offset=0)
        return self._pool

    def _fresh_pieces(self) -> bool:
        """Whether each round's problems are generated for it."""
        source = self.section.train
        return source is not None and self.options.fresh and source.path.startswith("procedural:")

    def _window(self, pool: list[Row], start: int, size: int) -> list[Row]:
        """Rows `start` to `start + size` of the pool repeated without end, each time in another order."""
        chosen: dict[str, Row] = {}
        for turn in range(start // len(pool), (start + size - 1) // len(pool) + 1):
            rows, before = ordered(pool, self.options, self.recipe.rng_seed, turn), turn * len(pool)
            for row in rows[max(0, start - before) : start + size - before]:
                chosen[row["problem_id"]] = row
        return list(chosen.values())

    def _load(self, source: Source, offset: int) -> list[Row]:
        loaded = load(self.recipe, self.name, self.section, source, "train", self.needs, offset)
        self.left_out |= {"unusable": loaded.unusable, "duplicate": loaded.duplicates}
        return loaded.rows


def ordered(rows: list[Row], options: Problems, rng_seed: int, turn: int = 0) -> list[Row]:
    """The rows in the recipe's order; a shuffle depends on the problems' ids alone, not on their places."""
    if options.order == "file":
        return rows
    return sorted(rows, key=lambda row: content_hash("order", rng_seed, turn, row["problem_id"]))


UNTRIED = 0.25
"""A problem never tried counts as this far from being solved half the time: before those always or never solved."""


def by_pass_rate(rows: list[Row], rates: Mapping[str, float]) -> list[Row]:
    """The rows with those first that teach most: solved about half the time, then untried, then the settled ones."""

    def distance(row: Row) -> float:
        rate = rates.get(row["problem_id"])
        return UNTRIED if rate is None else abs(rate - 0.5)

    return sorted(rows, key=distance)


def pass_rates_before(folder: RunFolder, round_index: int) -> dict[str, float]:
    """Share of passed samples of each problem in the closed rounds before `round_index` (judged samples only)."""
    from synth.store import read_parts

    passed: Counter[str] = Counter()
    judged: Counter[str] = Counter()
    for index in range(round_index):
        stage = folder.round(index)
        problems = {row["sample_id"]: row["problem_id"] for row in read_parts(stage / "completions")}
        for verdict in read_parts(stage / "verdicts"):
            if verdict["status"] != "error" and verdict["sample_id"] in problems:
                judged[problems[verdict["sample_id"]]] += 1
                passed[problems[verdict["sample_id"]]] += verdict["status"] == "pass"
    return {name: passed[name] / count for name, count in judged.items()}


# ---- From source rows to problems --------------------------------------------------------------------------------


def load(
    recipe: Recipe,
    name: str,
    section: DomainSection,
    source: Source,
    part: str,
    needs: Iterable[str] = (),
    offset: int = 0,
) -> Loaded:
    """Problems of one source of a domain; `part` is `train`, `held_out` or `mix`. Duplicates are left out.

    Raises InputError for a missing column, an empty source, or more unusable rows than `problems.max_bad`.
    """
    where = f"domains.{name}.{part}" if part != "mix" else f"train.mix.{name}"
    raw = list(source_rows(source, recipe.rng_seed, where, offset))
    if not raw:
        raise InputError(where, f"{source.path} holds no rows", "check path, split and limit")
    wanted = ("prompt", *needs) if part != "mix" else ("prompt", "completion")
    check_columns(raw, section.columns, wanted, where)
    return collect(
        raw, lambda row: _problem(name, row, section, wanted), "problem", "problem_id", where,
        recipe.problems.max_bad, offset,
    )  # fmt: skip


def collect(
    raw: Sequence[Row],
    made: Callable[[Row], Row],
    what: str,
    key: str,
    where: str,
    max_bad: float,
    offset: int = 0,
) -> Loaded:
    """What `made` makes of the rows of one source, the first of each `key`. `what` they are called; `offset`:
    rows that stood before these.

    Raises InputError where a larger share than `max_bad` raised Unusable.
    """
    loaded = Loaded([])
    seen: set[str] = set()
    for number, row in enumerate(raw, start=1 + offset):
        try:
            one = made(row)
        except Unusable as reason:
            loaded.unusable.append(f"row {number}: {reason}")
            continue
        if one[key] in seen:
            loaded.duplicates.append(f"row {number}: the same {what} as an earlier row")
        else:
            seen.add(one[key])
            loaded.rows.append(one)
    if len(loaded.unusable) > max_bad * len(raw):
        raise InputError(
            where,
            f"{len(loaded.unusable)} of {len(raw)} rows unusable; {loaded.unusable[0]}",
            "mend the source or its column mapping, or raise problems.max_bad",
        )
    found = f"{len(loaded.rows)} {what}s, {len(loaded.duplicates)} duplicates left out"
    examples = "".join(f"; {reason}" for reason in loaded.unusable[:3])
    log.info("%s: %s, %d unusable%s", where, found, len(loaded.unusable), examples)
    return loaded


def source_rows(source: Source, rng_seed: int, where: str, offset: int = 0) -> Iterable[Row]:
    """Raw rows of a source, before column mapping."""
    if not source.path.startswith("procedural:"):
        return read_source(source, where)
    from synth.generators import procedural

    name = source.path.partition(":")[2]
    try:
        rows = procedural.generate(name, source.split or "train", source.count or 0, rng_seed, offset)
    except InputError as error:
        raise InputError(where, f"{error.where} {error.seen}", error.fix) from None
    return chosen_rows(rows, source)


def check_columns(
    rows: list[Row], columns: Mapping[str, Any], wanted: Collection[str], where: str, user: str = "verifier"
) -> None:
    """Raise InputError for a column that a mapping, the prompt or the `user` needs and that no row has."""
    users = {"prompt": "prompt", "completion": "training"} if user == "verifier" else {}
    available = dict.fromkeys(key for row in rows for key in row)
    listed = ", ".join(available)
    for name, spec in columns.items():
        for column in source_columns(spec):
            if _optional(name, wanted):
                continue
            if not any(lookup(row, column) is not None for row in rows):
                hint = did_you_mean(column, available)
                fix = f"{hint}; available: {listed}" if hint.startswith("did") else f"available: {listed}"
                raise InputError(f"{where}, columns.{name}", f"no column '{column}' in the source", fix)
    for name in wanted:
        if name not in columns and name not in available:
            fix = f"map it: columns: {{{name}: ...}}; available: {listed}"
            raise InputError(where, f"no column '{name}', which the {users.get(name, user)} needs", fix)


def _optional(name: str, wanted: Collection[str]) -> bool:
    """Whether a row may lack a mapped column: problems to sample need no completion, given rows nothing else."""
    return name not in wanted and (name == "completion" or "completion" in wanted)


def source_columns(spec: Any) -> list[str]:
    """Columns of the source that a mapping reads."""
    if isinstance(spec, str):
        return [spec]
    if isinstance(spec, AssertTests):
        return [column for column in (spec.asserts, spec.setup, spec.entry_point) if column]
    return (
        [spec.column]
        if isinstance(spec, Pick | Relabel)
        else [spec.from_json]
        if isinstance(spec, FromJson)
        else []
    )


def _problem(domain: str, row: Row, section: DomainSection, wanted: tuple[str, ...]) -> Row:
    content = {key: value for key, value in row.items() if key not in ("problem_id", "domain")}
    mapped = {}
    for name, spec in section.columns.items():
        if _optional(name, wanted) and any(lookup(row, column) is None for column in source_columns(spec)):
            continue
        mapped[name] = column_value(name, row, spec)
    content.update(mapped)
    for name in wanted:
        if content.get(name) is None:
            raise Unusable(f"no {name}")
    if not isinstance(content["prompt"], str):
        raise Unusable(
            f"prompt is a {type(content['prompt']).__name__}, not text (map a part of it: prompt.0.content)"
        )
    if not content["prompt"].strip():
        raise Unusable("empty prompt")
    return {**content, "problem_id": problem_id(domain, content), "domain": domain}


def column_value(name: str, row: Row, spec: Any) -> Any:
    """What the mapping `spec` makes of a row for the column `name`. Raises Unusable."""
    if isinstance(spec, Constant):
        return spec.value
    if isinstance(spec, AssertTests):
        return _assert_tests(row, spec)
    column = source_columns(spec)[0]
    value = lookup(row, column)
    if value is None:
        raise Unusable(f"no {column} for {name}")
    if isinstance(spec, Pick):
        found = list(re.finditer(spec.regex, str(value), re.MULTILINE))
        if not found:
            raise Unusable(f"'{spec.regex}' finds nothing in {column}")
        last = found[-1]
        return (last[1] if last.re.groups else last[0]).strip()
    if isinstance(spec, Relabel):
        if str(value) not in spec.values:
            raise Unusable(f"{column} is {str(value)[:40]!r}, for which {name} has no value")
        return spec.values[str(value)]
    if isinstance(spec, FromJson):
        try:
            return json.loads(value)
        except (TypeError, ValueError):
            raise Unusable(f"{column} is not JSON text") from None
    return value


def _assert_tests(row: Row, spec: AssertTests) -> Row:
    code = lookup(row, spec.asserts)
    if not code:
        raise Unusable(f"no {spec.asserts} for tests")
    tests: Row = {"type": "assert", "code": _lines(code)}
    if spec.setup and (setup := lookup(row, spec.setup)):
        tests["setup"] = _lines(setup)
    if spec.entry_point and (name := lookup(row, spec.entry_point)):
        tests["entry_point"] = name
    return tests


def _lines(value: Any) -> str:
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)


def lookup(row: Any, column: str) -> Any:
    """A column by its name, else by a dotted path into it (`answers.text`, `prompt.0.content`); None if absent.

    A path leads into JSON text, too (`meta.reference` of what a generator wrote).
    """
    if isinstance(row, dict) and column in row:
        return row[column]
    head, dot, rest = column.partition(".")
    if not dot:
        return None
    if isinstance(row, dict):
        return _lookup_part(row.get(head), rest)
    return None


def _lookup_part(value: Any, rest: str) -> Any:
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if isinstance(value, list):
        head, dot, tail = rest.partition(".")
        item = value[int(head)] if head.isdigit() and int(head) < len(value) else None
        return _lookup_part(item, tail) if dot else item
    return lookup(value, rest)
