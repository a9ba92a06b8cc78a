"""How much the demo gains, and whether its rounds and its verifiers are what gains it.

    python benchmarks/demo_gain.py --out runs/demo-gain [--rng-seeds 0 1 2] [--arms demo supervised ...]

For every rng_seed a base is trained on its own draw of supervised rows, and from it four arms at equal cost (as many
sampled completions and optimizer steps in all as the demo has):

- demo: the recipe `demo`, its rounds of self-training.
- supervised: as many steps on the base's own supervised rows; nothing is sampled.
- unverified: the demo with every completion counted as passed.
- one_round: one round with the samples and steps of all rounds.

Everything lies in --out; a second call goes on where the first was stopped. Prints a Markdown table and writes it
with all numbers to --out/gain.json. The interval of a mean over rng_seeds is Student's t; the interval below each
rng_seed is a bootstrap over paired held-out problems.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipes import load_recipe, run
from recipes.runner import evaluate_stage, train_stage
from recipes.schema import Recipe
from recipes.stats import bootstrap_interval
from synth.records.ids import content_hash, model_hash
from synth.records.jsonl import write_json
from synth.store import read_json

# Two-sided 95 % quantiles of Student's t by degrees of freedom.
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
Outcomes = dict[str, dict[str, float]]


def accept_all(row: dict[str, Any]) -> bool:
    """The verifier of the arm `unverified`."""
    return True


@dataclass(frozen=True)
class Seed:
    """One rng_seed's folder, and what the command line changes in both recipes."""

    rng_seed: int
    folder: Path
    demo_set: tuple[str, ...]
    base_set: tuple[str, ...]

    @property
    def base(self) -> Path:
        return self.folder / "base"

    def demo(self, *changes: str) -> Recipe:
        fixed = (f"rng_seed={self.rng_seed}", f"model.path={self.base.resolve()}", "gate.patience=0")
        return load_recipe("demo", [*fixed, *self.demo_set, *changes])

    def supervised(self, *changes: str) -> Recipe:
        return load_recipe("demo-base", [f"rng_seed={self.rng_seed}", *self.base_set, *changes])


def make_base(seed: Seed) -> None:
    """Train the base on this rng_seed's supervised rows, through `synth train demo-base`."""
    train_stage(seed.supervised(), None, str(seed.base))


def demo(seed: Seed, folder: Path) -> list[Outcomes]:
    """The recipe as shipped: outcomes after every round."""
    run(seed.demo(), folder)
    return [outcomes_in(path / "evaluation") for path in sorted(folder.glob("round-*"))]


def supervised(seed: Seed, folder: Path) -> list[Outcomes]:
    """All rounds' steps, with the demo's learning rate and batches, on the rows the base was made from."""
    recipe = seed.demo()
    train = recipe.train
    steps = _steps(recipe) * recipe.rounds
    # A whole section is replaced, so that the new model's shape goes with `scratch`.
    changes = (
        f'model={{"path": "{seed.base.resolve()}"}}',
        f"train.max_steps={steps}",
        f"train.batch_size={train.batch_size}",
        f"train.lr={train.lr}",
        f"train.warmup_steps={train.warmup_steps}",
        f"train.weight_decay={train.weight_decay}",
    )
    train_stage(seed.supervised(*changes), None, str(folder / "model"))
    return [measured(seed, folder / "model", folder)]


def unverified(seed: Seed, folder: Path) -> list[Outcomes]:
    """The demo's rounds where nothing is judged; the models are measured with the real verifiers."""
    everything = f"{Path(__file__).resolve()}:accept_all"
    recipe = seed.demo(*(f"domains.{name}.verifier.name={everything}" for name in seed.demo().domains))
    run(recipe, folder / "run")
    return [measured(seed, folder / "run" / "model", folder)]


def one_round(seed: Seed, folder: Path) -> list[Outcomes]:
    """One round with as many problems as all rounds of the demo."""
    recipe = seed.demo()
    changes = ["rounds=1", f"train.max_steps={_steps(recipe) * recipe.rounds}"]
    if recipe.problems.per_round is not None:
        changes.append(f"problems.per_round={recipe.problems.per_round * recipe.rounds}")
    for name, domain in recipe.domains.items():
        count = domain.train.count if domain.train else None
        if count is not None:
            changes.append(f"domains.{name}.train.count={count * recipe.rounds}")
    run(seed.demo(*changes), folder)
    return [outcomes_in(folder / "round-00" / "evaluation")]


ARMS: dict[str, Callable[[Seed, Path], list[Outcomes]]] = {
    "demo": demo,
    "supervised": supervised,
    "unverified": unverified,
    "one_round": one_round,
}


def _steps(recipe: Recipe) -> int:
    if recipe.train.max_steps is None:
        raise SystemExit("the demo must fix train.max_steps, or equal cost has no meaning")
    return recipe.train.max_steps


def outcomes_in(folder: Path) -> Outcomes:
    """Greedy outcome (0 or 1) of each held-out problem, by domain; problems that were not judged are left out."""
    found = read_json(folder / "evaluation.json")
    assert found is not None, f"{folder} holds no evaluation"
    return {
        domain: {name: float(each["greedy"]) for name, each in problems.items() if each["greedy"] is not None}
        for domain, problems in found["outcomes"].items()
    }


def measured(seed: Seed, model: Path, folder: Path) -> Outcomes:
    """Outcomes of a model on the demo's held-out problems with the demo's verifiers."""
    evaluate_stage(seed.demo(), str(model.resolve()), str(folder / "scores.json"))
    return outcomes_in(folder / "scores.json.work" / model_hash(model.resolve()))


def one_seed(seed: Seed, arms: list[str]) -> dict[str, Any]:
    """Every arm of one rng_seed: finished ones are read from disk, where the recipes are those they were made with."""
    seed.folder.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {"arms": {}, "seconds": {}}
    recipes = content_hash(seed.demo().identity(), seed.demo().rounds, seed.supervised().identity())
    for name in ("base", *arms):
        stored = seed.folder / f"{name}.json"
        found = read_json(stored)
        if found is not None and found.get("recipes", recipes) != recipes:
            raise SystemExit(
                f"{stored} was measured with other recipes or --set: give the same ones, another --out, or --fresh"
            )
        if found is None:
            started = time.monotonic()
            print(f"== rng_seed {seed.rng_seed}: {name}", flush=True)
            if name == "base":
                make_base(seed)
                rounds = [measured(seed, seed.base, seed.folder / "base-scores")]
            else:
                rounds = ARMS[name](seed, seed.folder / name)
            found = {"recipes": recipes, "rounds": rounds, "seconds": time.monotonic() - started}
            write_json(stored, found)
        result["arms"][name], result["seconds"][name] = found["rounds"], found["seconds"]
    return result


def gains(base: Outcomes, after: Outcomes, domain: str) -> list[float]:
    """Paired differences over the problems that both evaluations judged."""
    before = base[domain]
    return [value - before[name] for name, value in after[domain].items() if name in before]


def over_seeds(values: list[float]) -> dict[str, float | None]:
    """Mean over rng_seeds with Student's 95 % interval; a single value has none."""
    mean, count = sum(values) / len(values), len(values)
    if count < 2:
        return {"value": mean, "low": None, "high": None}
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1))
    half = STUDENT.get(count - 1, 1.96) * deviation / math.sqrt(count)
    return {"value": mean, "low": mean - half, "high": mean + half}


def summarise(results: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """For each arm, round and domain: the score and the gain over the base, by rng_seed and over all."""
    first = next(iter(results.values()))["arms"]
    summary: dict[str, Any] = {}
    for arm, rounds in first.items():
        for index in range(len(rounds)):
            label = f"{arm}, round {index + 1}" if len(rounds) > 1 else arm
            summary[label] = {domain: _cell(results, arm, index, domain) for domain in first["base"][0]}
    return summary


def _cell(results: dict[int, dict[str, Any]], arm: str, index: int, domain: str) -> dict[str, Any]:
    scores, differences = {}, {}
    for rng_seed, result in results.items():
        after = result["arms"][arm][index]
        scores[rng_seed] = sum(after[domain].values()) / len(after[domain])
        differences[rng_seed] = gains(result["arms"]["base"][0], after, domain)
    return {
        "score": over_seeds(list(scores.values())),
        "gain": over_seeds([sum(d) / len(d) for d in differences.values()]),
        "by_rng_seed": {
            rng_seed: {"score": scores[rng_seed], "gain": bootstrap_interval(differences[rng_seed])}
            for rng_seed in results
        },
    }


def table(summary: dict[str, Any]) -> str:
    """The Markdown table: scores and gains in points."""
    domains = list(next(iter(summary.values())))
    head = [f"{domain} pass@1 | {domain} gain [95 %]" for domain in domains]
    lines = [f"| arm | {' | '.join(head)} |", "|---" * (1 + 2 * len(domains)) + "|"]
    for label, cells in summary.items():
        parts = []
        for domain in domains:
            gain = cells[domain]["gain"]
            interval = (
                "" if gain["low"] is None else f" [{100 * gain['low']:+.1f}, {100 * gain['high']:+.1f}]"
            )
            shown = "" if label == "base" else f"{100 * gain['value']:+.1f}{interval}"
            parts += [f"{100 * cells[domain]['score']['value']:.1f}", shown]
        lines.append(f"| {label} | {' | '.join(parts)} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure the demo's gain and its controls; resumable.")
    parser.add_argument("--out", type=Path, required=True, help="folder of all runs; call again to go on")
    parser.add_argument("--rng-seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument(
        "--set", action="append", default=[], help="change the demo recipe, as in `synth run`"
    )
    parser.add_argument("--base-set", action="append", default=[], help="change the demo-base recipe")
    parser.add_argument("--fresh", action="store_true", help="delete what --out holds first")
    args = parser.parse_args(arguments)
    # As the command line does: beside another process, threads that spin while they wait cost it its core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if args.fresh and args.out.exists():
        shutil.rmtree(args.out)
    results: dict[int, dict[str, Any]] = {}
    for rng_seed in args.rng_seeds:
        folder = args.out / f"rng-seed-{rng_seed}"
        seed = Seed(rng_seed, folder, tuple(args.set), tuple(args.base_set))
        results[rng_seed] = one_seed(seed, args.arms)
        summary = summarise(results)
        shown = table(summary)
        seconds = {rng_seed: result["seconds"] for rng_seed, result in results.items()}
        write_json(args.out / "gain.json", {"table": shown, "summary": summary, "seconds": seconds})
        print(f"\nafter rng_seeds {list(results)}:\n\n{shown}\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
