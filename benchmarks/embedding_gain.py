"""How much better `embed-code-search` makes its embedder, and what each of its ingredients earns.

    python benchmarks/embedding_gain.py --out runs/embedding-gain --model FOLDER --data FOLDER [--arms shipped plain]

For every rng_seed the standard library's modules are divided anew: 400 functions of some of them (docstring to
function, name and docstring removed) are what is searched, and the other modules' functions, found by docstring or by
name, and those of installed packages are tuned on. Each arm is one run: `shipped` is the recipe as it is; `plain` is
the same in few steps on pairs of docstring and function alone, and every further arm is `plain` with one ingredient, in
as many steps. Of a model with a token bag the transformer alone is measured, too. Besides, every model ranks
HumanEval's solutions by their problem's text (transfer), and the base, `shipped`, `plain` and `token bag` rank STS-B's
sentence pairs (what tuning must not cost). --data holds `humaneval/` and `stsb/`.

Everything lies in --out; a second call goes on where the first was stopped. Prints a Markdown table and writes it with
all numbers to --out/gain.json. Intervals of means over rng_seeds are Student's t. Seconds are wall seconds of whole
runs; mining the pairs, once for all of them, is `mining_s` besides.
"""

from __future__ import annotations

import argparse
import ast
import gzip
import json
import os
import shutil
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

from demo_gain import over_seeds  # type: ignore[reportMissingImports]

from recipes import run
from recipes.runner import evaluate_stage
from recipes.settings import load_any
from synth.generators.mined_pairs import INSTRUCTIONS
from synth.records.ids import content_hash, file_hash
from synth.records.jsonl import write_json, write_jsonl
from synth.store import RunFolder, read_json, read_parts

HELD_OUT = 400
"""Pairs that are searched."""
LARGEST = 120
"""Modules with more functions are always tuned on: a few of them would be the whole test."""
ASKED, NAMES, PACKAGES = "functions", "names", "packages"
"""The recipe's domains: what is searched, and what is only tuned on."""
DOMAINS = {ASKED: "tuning.jsonl", NAMES: "names.jsonl", PACKAGES: "packages.jsonl"}
STEPS = 16
"""Optimizer steps of `plain` and of the arms that are compared with it, so that three rng_seeds take an hour or two."""
FEW, NO_BAG, NO_STS = f"train.max_steps={STEPS}", "train.token_bag=null", "evaluate.sts=[]"
SHORT = (FEW, NO_BAG, NO_STS)
ROUND_TRIP = {"same_language": False, "max_copy": None, "max_verbatim": None, "model": "base", "top_k": 50}
ARMS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "shipped": ((ASKED, NAMES, PACKAGES), ()),
    "plain": ((ASKED,), (FEW, NO_BAG)),
    "names": ((ASKED, NAMES), SHORT),
    "packages": ((ASKED, PACKAGES), SHORT),
    "token bag": ((ASKED,), (FEW, "train.token_bag={}")),
    "negatives": (
        (ASKED,),
        (
            *SHORT, "mine.method=dense", "mine.count=1", "mine.window=[1,50]", "mine.relative_margin=0.05",
            "train.hard_negatives=1",
        ),
    ),
    # The limits that the recipe ships with drop nothing here: every mined pair keeps them. A round trip does.
    "verification": (
        (ASKED,),
        (*SHORT, f"domains.{ASKED}.verifier={json.dumps({'name': 'pairs', 'options': ROUND_TRIP})}"),
    ),
    "guide": ((ASKED,), (*SHORT, "train.guide=MODEL")),
    "prompts": (
        (ASKED,),
        (*SHORT, f"domains.{ASKED}.instruction={INSTRUCTIONS['docstring_function']}"),
    ),
}  # fmt: skip
"""Each arm's domains to tune on, and how else it differs from the recipe."""
METRIC = "ndcg@10"


def timed(recipe: Any, place: Path) -> tuple[Any, float | None]:
    """A run, and its wall seconds; None where it is taken up again: what it took before, nobody knows."""
    begun, started = RunFolder(place).recipe.exists(), time.monotonic()
    result = run(recipe, place)
    return result, None if begun else time.monotonic() - started


def mined(out: Path) -> tuple[list[dict[str, Any]], float | None]:
    """All pairs that the recipe mines, with the `module` of the standard library that each function is in; those of
    installed packages are in none. And the seconds that this took, None where they were there already."""
    recipe = load_any("embed-code-search").resolved()
    domains = {
        name: {"train": domain["train"], "generator": domain["generator"]}
        for name, domain in recipe["domains"].items()
    }
    tree = {"name": "pairs", "kind": "generate", "domains": domains, "curate": {"decontaminate": None}}
    _, seconds = timed(load_any(tree), out)
    root = Path(sysconfig.get_path("stdlib"))
    rows = []
    for row in read_parts(RunFolder(out).round(0) / "dataset"):
        if row["decision"] == "kept":
            module = None
            if row["domain"] != PACKAGES:
                place = Path(json.loads(row["meta"])["path"]).relative_to(root)
                module = place.parts[0].removesuffix(".py")
            rows.append({name: row[name] for name in ("domain", "query", "positive")} | {"module": module})
    return rows, seconds


def divided(rows: list[dict[str, Any]], rng_seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Pairs to tune on and `HELD_OUT` pairs of other modules, whole modules drawn by a hash."""
    sizes: dict[str, int] = {}
    asked = [row for row in rows if row["domain"] == ASKED]
    for row in asked:
        sizes[row["module"]] = sizes.get(row["module"], 0) + 1
    taken: set[str] = set()
    for module in sorted(sizes, key=lambda name: content_hash("split", rng_seed, name)):
        if sizes[module] <= LARGEST and sum(sizes[name] for name in taken) < HELD_OUT:
            taken.add(module)
    apart = [row for row in asked if row["module"] in taken]
    apart.sort(key=lambda row: content_hash("draw", rng_seed, row["query"], row["positive"]))
    return [row for row in rows if row["module"] not in taken], apart[:HELD_OUT]


def transfer_rows(data: Path) -> list[dict[str, Any]]:
    """HumanEval: the text of each problem, and its canonical solution."""
    rows = []
    with gzip.open(data / "humaneval" / "HumanEval.jsonl.gz", "rt", encoding="utf-8") as handle:
        for line in handle:
            problem = json.loads(line)
            tree = ast.parse(problem["prompt"] + "    pass\n")
            named = next(
                node for node in ast.walk(tree) if getattr(node, "name", "") == problem["entry_point"]
            )
            assert isinstance(named, ast.FunctionDef)
            text = (ast.get_docstring(named) or "").split(">>>")[0]
            rows.append({"query": " ".join(text.split()), "positive": problem["canonical_solution"]})
    return [row for row in rows if row["query"]]


class Experiment:
    """One rng_seed: its division of the modules, and the runs on it."""

    def __init__(self, rng_seed: int, args: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
        self.rng_seed, self.args = rng_seed, args
        self.folder = args.out / f"rng-seed-{rng_seed}"
        self.folder.mkdir(parents=True, exist_ok=True)
        tuning, held_out = divided(rows, rng_seed)
        for name, file in DOMAINS.items():
            write_jsonl(self.folder / file, [row for row in tuning if row["domain"] == name])
        write_jsonl(self.folder / "held_out.jsonl", held_out)
        write_jsonl(self.folder / "transfer.jsonl", transfer_rows(args.data))
        self.pairs = [file_hash(self.folder / name) for name in (*DOMAINS.values(), "held_out.jsonl")]
        self.sizes = {"tuning": len(tuning), "held_out": len(held_out)}

    def recipe(self, names: tuple[str, ...] = tuple(DOMAINS), changes: tuple[str, ...] = ()) -> Any:
        """The shipped recipe on this division with the domains `names`, changed by `changes`."""
        shipped = load_any("embed-code-search", [f"model={self.args.model}"])
        domains: dict[str, Any] = {
            name: {
                "train": {"path": str(self.folder / DOMAINS[name])},
                **{key: shipped.resolved()["domains"][name][key] for key in ("verifier", "instruction")},
            }
            for name in names
        }
        domains[ASKED]["held_out"] = {"path": str(self.folder / "held_out.jsonl")}
        fixed = (
            f"rng_seed={self.rng_seed}",
            f"model={self.args.model}",
            f"domains={json.dumps(domains)}",
            f"evaluate.sts={json.dumps([str(self.args.data / 'stsb' / 'sts-test.csv')])}",
        )
        changes = tuple(each.replace("MODEL", self.args.model) for each in changes)
        return load_any("embed-code-search", [*fixed, *self.args.set, *changes])

    def transfer(self) -> Any:
        """The same with HumanEval's solutions to be found."""
        held_out = str(self.folder / "transfer.jsonl")
        return load_any(
            self.recipe().resolved(), [f"domains.{ASKED}.held_out.path={held_out}", "evaluate.sts=[]"]
        )

    def arm(self, name: str) -> dict[str, Any]:
        """Scores of the base and of what this arm tuned; read from disk if it is finished."""
        recipe = self.recipe(*ARMS[name])
        stored = self.folder / f"{name}.json"
        made_with = content_hash(recipe.identity(), self.pairs)
        found = read_json(stored)
        if found is not None:
            if found["recipe"] != made_with:
                raise SystemExit(
                    f"{stored} was measured with another recipe or other pairs: choose another --out, or --fresh"
                )
            return found
        print(f"== rng_seed {self.rng_seed}: {name}", flush=True)
        place = self.folder / name
        result, seconds = timed(recipe, place)
        metrics = result.rounds[-1]
        found = {"recipe": made_with, "seconds": seconds, "timings": metrics["timings"]}
        models = {"base": Path(self.args.model), "model": place / "round-00" / "model"}
        if (models["model"] / "token_bag").exists():
            models["transformer"] = without_bag(models["model"], place / "transformer")
            alone = str(self.folder / f"alone-{place.name}.json")
            metrics["transformer"] = evaluate_stage(recipe, str(models["transformer"]), alone)["scores"]
        for model, path in models.items():
            told = evaluate_stage(
                self.transfer(), str(path), str(self.folder / f"transfer-{place.name}-{model}.json")
            )
            found[model] = {**flat(metrics[model]), "transfer": told["scores"][ASKED][METRIC]["value"]}
        write_json(stored, found)
        return found


def without_bag(model: Path, out: Path) -> Path:
    """The model's transformer alone, as a folder of its own."""
    shutil.copytree(model, out, ignore=shutil.ignore_patterns("token_bag"), dirs_exist_ok=True)
    settings = json.loads((out / "config.json").read_text("utf-8"))
    del settings["token_bag"]
    write_json(out / "config.json", settings)
    return out


def flat(scores: dict[str, Any]) -> dict[str, float]:
    """{"search": nDCG@10, "sts": Spearman, if it was measured} of a run's scores."""
    found = {"search": scores[ASKED][METRIC]["value"]}
    for name in scores.keys() - {ASKED}:
        found["sts"] = scores[name]["spearman"]["value"]
    return found


MEASURED = {"search": "docstring to function", "transfer": "HumanEval", "sts": "STS-B"}


def table(results: dict[int, dict[str, dict[str, Any]]]) -> str:
    """The Markdown table: means in percent over rng_seeds, differences by rng_seed, seconds of a run."""
    head = " | ".join(f"{title} [95 %]" for title in MEASURED.values())
    lines = [
        f"| arm | {head} | more than the base | more than `plain` | seconds |",
        f"|{'---|' * (len(MEASURED) + 4)}",
    ]
    first = next(iter(results.values()))
    plain = [found["plain"] for found in results.values()] if "plain" in first else None
    # `prompts` measures the base with its instruction.
    reference = next((name for name in ("shipped", "plain") if name in first), next(iter(first)))
    base = [arms[reference]["base"] for arms in results.values()]
    lines.append(f"| base | {' | '.join(_cell(base, key) for key in MEASURED)} | | | |")
    for name in first:
        found = [arms[name] for arms in results.values()]
        tuned = [each["model"] for each in found]
        cells = [_cell(tuned, key) for key in MEASURED]
        cells.append(_gain(tuned, base))
        cells.append(_gain(tuned, [each["model"] for each in plain]) if plain and name != "plain" else "")
        known = [each["seconds"] for each in found if each["seconds"] is not None]
        seconds = f"{sum(known) / len(known):.0f}" if known else ""
        label = name if name in ("shipped", "plain") else f"plain, with {name}"
        lines.append(f"| {label} | {' | '.join(cells)} | {seconds} |")
        if all("transformer" in each for each in found):
            alone = [each["transformer"] for each in found]
            cells = [*(_cell(alone, key) for key in MEASURED), _gain(alone, base)]
            cells.append(_gain(alone, [each["model"] for each in plain]) if plain else "")
            lines.append(f"| {label}, the transformer alone | {' | '.join(cells)} | |")
    return "\n".join(lines)


def _gain(found: list[dict[str, float]], compared: list[dict[str, float]]) -> str:
    pairs = zip(found, compared, strict=True)
    return _cell([{"search": one["search"] - other["search"]} for one, other in pairs], "search", "+")


def _cell(found: list[dict[str, float]], key: str, sign: str = "") -> str:
    if any(key not in each for each in found):
        return ""
    told = over_seeds([100 * each[key] for each in found])
    shown = f"{told['value']:{sign}.1f}"
    return shown if told["low"] is None else f"{shown} [{told['low']:{sign}.1f}, {told['high']:{sign}.1f}]"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure what tuning an embedder gains; resumable.")
    parser.add_argument("--out", type=Path, required=True, help="folder of all runs; call again to go on")
    parser.add_argument("--model", required=True, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--data", type=Path, required=True, help="folder with humaneval/ and stsb/")
    parser.add_argument("--rng-seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--set", action="append", default=[], help="change the recipe, as in `synth run`")
    parser.add_argument("--fresh", action="store_true", help="delete what --out holds first")
    args = parser.parse_args(arguments)
    args.data = args.data.resolve()
    # As the command line does: beside another process, threads that spin while they wait cost it its core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if args.fresh and args.out.exists():
        shutil.rmtree(args.out)
    rows, mining = mined(args.out / "pairs")
    if mining is None:  # an earlier call may have mined them
        mining = (read_json(args.out / "gain.json") or {}).get("mining_s")
    told = "pairs mined before" if mining is None else f"pairs mined in {mining:.0f} s"
    results: dict[int, dict[str, dict[str, Any]]] = {}
    for rng_seed in args.rng_seeds:
        experiment = Experiment(rng_seed, args, rows)
        results[rng_seed] = {}
        for name in args.arms:
            results[rng_seed][name] = experiment.arm(name)
            whole = {seed: found for seed, found in results.items() if len(found) == len(args.arms)}
            shown = table(whole or results)
            write_json(
                args.out / "gain.json",
                {"table": shown, "results": results, "sizes": experiment.sizes, "mining_s": mining},
            )
        print(f"\nafter rng_seeds {list(results)} ({experiment.sizes}; {told}):\n\n{shown}\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
