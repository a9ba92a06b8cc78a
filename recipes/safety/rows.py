"""The rows of a `safety` run: what the model is aligned on, and what each attack fine-tunes on."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recipes.problems import load
from recipes.prompting import Prompter
from recipes.safety.schema import ANSWERS
from recipes.schema import Domain
from synth.records.errors import InputError
from synth.records.ids import content_hash

if TYPE_CHECKING:
    from recipes.safety.schema import SafetyRecipe
    from recipes.schema import Source

Row = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One attack: which downstream task, how many rows, which share of them harmful, which rate and draw."""

    task: str
    n: int
    p: float
    lr: float
    rng_seed: int

    @property
    def name(self) -> str:
        """A folder's name."""
        return f"{self.task}-n{self.n}-p{self.p:g}-lr{self.lr:g}-seed{self.rng_seed}"

    @property
    def harmful(self) -> int:
        """Harmful rows, of `n`."""
        return round(self.p * self.n)

    def facts(self) -> Row:
        """As plain values."""
        return {"task": self.task, "n": self.n, "p": self.p, "lr": self.lr, "rng_seed": self.rng_seed}


def cells(recipe: SafetyRecipe) -> list[Cell]:
    """Every attack of the recipe, seeds outermost: the first seeds give a whole table."""
    attack = recipe.attack
    tasks = recipe.named("task") if attack.tasks is None else attack.tasks
    rates = attack.lr or [attack.train.lr]
    return [
        Cell(task, n, p, lr, seed)
        for seed in attack.rng_seeds
        for task in tasks
        for n in attack.n
        for lr in rates
        for p in attack.p
    ]


@dataclass(frozen=True)
class Pools:
    """Rows that attacks draw from: harmful ones, and each task's."""

    harmful: list[Row]
    tasks: dict[str, list[Row]]

    def rows(self) -> list[Row]:
        """All of them."""
        return [*self.harmful, *(row for rows in self.tasks.values() for row in rows)]

    def without(self, names: Collection[str]) -> Pools:
        """Less the rows with these sample ids."""
        kept = {
            task: [row for row in rows if row["sample_id"] not in names] for task, rows in self.tasks.items()
        }
        return Pools([row for row in self.harmful if row["sample_id"] not in names], kept)

    def check(self, recipe: SafetyRecipe) -> None:
        """Raise InputError where an attack needs more rows than there are."""
        for cell in cells(recipe):
            for where, rows, count in (
                ("attack.harmful", self.harmful, cell.harmful),
                (f"domains.{cell.task}.train", self.tasks[cell.task], cell.n - cell.harmful),
            ):
                if count > len(rows):
                    seen = f"{len(rows)} rows, and the attack n {cell.n}, p {cell.p:g} needs {count}"
                    raise InputError(where, seen, "give more rows, or lower attack.n")

    def drawn(self, cell: Cell) -> list[Row]:
        """The rows of one attack. Of one seed the harmful rows of a small share are among those of a larger one."""
        harmful = _drawn(self.harmful, cell.rng_seed)[: cell.harmful]
        return [*harmful, *_drawn(self.tasks[cell.task], cell.rng_seed)[: cell.n - cell.harmful]]


def _drawn(rows: list[Row], rng_seed: int) -> list[Row]:
    return sorted(rows, key=lambda row: content_hash("attack", rng_seed, row["sample_id"]))


def alignment_rows(recipe: SafetyRecipe, tokenizer: Any) -> list[Row]:
    """Rows with `refusal` and `harmful` (or one of them), and answered harmless prompts. Raises InputError."""
    attacked = recipe.attack.train.method != "sft" and recipe.named("task")
    if recipe.train.method == "none" and not attacked:
        return []
    rows: list[Row] = []
    for name in recipe.named("harmful", "over_refusal", "utility"):
        domain = recipe.domains[name]
        if domain.train is None:
            continue
        answers = ("refusal", "harmful") if domain.role == "harmful" else ("completion",)
        rows += trained(recipe, name, domain.train, "train", answers, tokenizer)
    return rows


def pools(recipe: SafetyRecipe, tokenizer: Any) -> Pools:
    """What the recipe's attacks draw from. Raises InputError."""
    attacks = cells(recipe)
    harmful: list[Row] = []
    if recipe.attack.harmful is not None and any(cell.harmful for cell in attacks):
        rows = trained(
            recipe, recipe.harmful, recipe.attack.harmful, "attack.harmful", ("harmful",), tokenizer
        )
        harmful = [_ordinary(row) for row in rows]
    tasks: dict[str, list[Row]] = {}
    for task in dict.fromkeys(cell.task for cell in attacks):
        source = recipe.domains[task].train
        assert source is not None
        tasks[task] = trained(recipe, task, source, "train", ("completion",), tokenizer)
    return Pools(harmful, tasks)


def _ordinary(row: Row) -> Row:
    """A harmful row as the attacker gives it: a prompt and its completion."""
    plain = {key: value for key, value in row.items() if key not in ANSWERS}
    return {**plain, "completion": row["harmful"]}


def trained(
    recipe: SafetyRecipe, name: str, source: Source, part: str, answers: tuple[str, ...], tokenizer: Any
) -> list[Row]:
    """Rows to train on: `sample_id`, the rendered `prompt`, the bare `question`, and the `answers` that they have.

    Raises InputError for a row with none of the answers, and for one that is no text.
    """
    section = recipe.domains[name]
    columns = section.columns
    if part == "attack.harmful" and recipe.attack.columns is not None:
        columns = recipe.attack.columns
    wanted = {column: spec for column, spec in columns.items() if column in ("prompt", *answers)}
    own = Domain(train=source, columns=wanted, prompt=section.prompt, verifier=section.verifier)
    where = part if part == "attack.harmful" else f"domains.{name}.{part}"
    needs = () if answers == ("refusal", "harmful") else answers
    loaded = load(recipe.examined(), name, own, source, part, needs)
    prompter = Prompter(section.prompt, tokenizer, f"domains.{name}.prompt")
    rows = []
    for problem in loaded.rows:
        given = {column: problem[column] for column in answers if problem.get(column) is not None}
        wrong = next((column for column, value in given.items() if not isinstance(value, str)), None)
        if wrong is not None or not given:
            seen = f"{wrong} is no text" if wrong else f"a row has none of {', '.join(answers)}"
            raise InputError(where, seen, f"map the columns: columns: {{{answers[0]}: ...}}")
        rows.append(
            {
                "sample_id": content_hash(
                    "safety", name, problem["problem_id"], prompter.template_hash, given
                ),
                "problem_id": problem["problem_id"],
                "domain": name,
                "question": problem["prompt"],
                "prompt": prompter(problem).text,
                **given,
            }
        )
    return rows
