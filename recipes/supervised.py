"""Rows that are given instead of sampled: their training rows, their curation, and where they went."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.curation_files import open_embed, recipe_sets
from recipes.problems import load
from synth.curate import CurateOptions, CurateResult, curate, funnel
from synth.curate.report import report_on
from synth.records import schemas
from synth.records.errors import InputError
from synth.records.ids import content_hash
from synth.records.jsonl import write_jsonl
from verifiers.language import detect

if TYPE_CHECKING:
    from recipes.sampling import Domain
    from recipes.schema import Recipe
    from synth.store import Stage

Row = dict[str, Any]


def supervised_rows(domain: Domain, rows: list[Row]) -> list[Row]:
    """Training rows (`prompt`, `completion`, `sample_id`, ...) of problems that carry a `completion`.

    Raises InputError when a problem has none.
    """
    return [_row(domain, row, domain.render(row).text) for row in rows]


def _row(domain: Domain, row: Row, prompt: str) -> Row:
    completion = row.get("completion")
    if not isinstance(completion, str):
        fix = f"map it: domains.{domain.name}.columns: {{completion: ...}}"
        raise InputError(
            f"domains.{domain.name}", f"problem {row['problem_id']} has no completion to train on", fix
        )
    return {
        "sample_id": content_hash("supervised", row["problem_id"], domain.template_hash, completion),
        "problem_id": row["problem_id"],
        "domain": domain.name,
        "prompt": prompt,
        "completion": completion,
        "source": "supervised",
    }


def mix_rows(recipe: Recipe, domains: list[Domain], left_out: Path, say: Callable[[str], None]) -> list[Row]:
    """Training rows of `train.mix`, each domain's rendered as its problems are, without those too close to a held-out
    problem. These go to the file `left_out` with their evidence, and `say` tells how many they are."""
    by_name = {domain.name: domain for domain in domains}
    rows, samples = [], []
    for name, source in (recipe.train.mix or {}).items():
        loaded, domain = load(recipe, name, recipe.domains[name], source, "mix"), by_name[name]
        rows += supervised_rows(domain, loaded.rows)
        samples += [_row(domain, problem, problem["prompt"]) for problem in loaded.rows]
    options = CurateOptions(dedup=None, decontaminate=recipe.curate.decontaminate, cap_per_problem=None)
    embed = open_embed(recipe.curate) if options.semantic else None
    dropped = curate(samples, options, recipe_sets(recipe, domains), embed=embed).dropped
    if dropped:
        left_out.parent.mkdir(parents=True, exist_ok=True)
        write_jsonl(left_out, dropped)
        say(
            f"train.mix: {len(dropped)} of {len(rows)} rows are too close to held-out problems, left out: {left_out}"
        )
    names = {row["sample_id"] for row in dropped}
    return [row for row in rows if row["sample_id"] not in names]


def trainable(row: Mapping[str, Any]) -> Row:
    """A row as the trainer takes it. A dataset row's prompt is rendered already; its `messages`, the JSON text of the
    turns that the prompt was made of, are no conversation to train on. Unless a server rendered them: then the prompt
    is that text itself, and the row is a conversation for the template of the model to be trained."""
    turns = row.get("messages")
    if isinstance(turns, str) and turns == row.get("prompt") and row.get("token_ids") is None:
        answer = {"role": "assistant", "content": row["completion"]}
        return {**row, "messages": [*json.loads(turns), answer]}
    return {key: value for key, value in row.items() if key != "messages" or not isinstance(value, str)}


def curate_given(recipe: Recipe, domains: list[Domain], dataset: Stage) -> tuple[list[Row], dict[str, Any]]:
    """Curate the domains' own `train` rows into `dataset`; returns its rows (kept and rejected) and the funnel.

    Nothing is sampled or judged, so curation's tests of verdict and reward do not apply.
    """
    samples = [
        {**_row(domain, problem, problem["prompt"]), "rendered": domain.render(problem)}
        for domain in domains
        for problem in domain.train(0)
    ]
    options, sets = recipe.curate_options(0), recipe_sets(recipe, domains)
    result = curate(samples, options, sets, embed=open_embed(options), language=detect)
    report_on(result, samples, dataset.folder.parent / "curation")
    counts = given_funnel(samples, result, {domain.name: domain.left_out for domain in domains})
    if not dataset.closed:
        rows = [_dataset_row(row) for row in (*result.kept, *result.dropped)]
        dataset.write(sorted(rows, key=lambda row: row["sample_id"]), {"kept": len(result.kept)})
    return dataset.rows(), counts


def _dataset_row(row: Row) -> Row:
    prompt = row["rendered"]
    return {
        **{name: row.get(name) for name in schemas.dataset().names},
        "round": 0,
        "prompt": prompt.text,
        "retokenised": True,
        "messages": json.dumps(prompt.messages, ensure_ascii=False) if prompt.messages else None,
    }


def given_funnel(
    samples: list[Row], result: CurateResult, left_out: Mapping[str, Mapping[str, list[str]]]
) -> dict[str, Any]:
    """The funnel of given rows, in the shape of `synth.curate.funnel`.

    `asked` are the source's rows. All were written, so as many are `generated`; `parsed` are those with a prompt and a
    completion; without verdicts as many are `passed`. left_out: {domain: {reason: what was seen, a text a row}}, of
    rows that never became samples (`unusable`, `duplicate`).
    """
    counts = funnel(samples, result, dict.fromkeys(left_out, 0))
    for domain, found in left_out.items():
        lost, stages = Counter({reason: len(texts) for reason, texts in found.items()}), counts[domain]
        for stage in ("asked", "generated"):
            stages[stage] += lost.total()
        for stage in ("parsed", "passed"):
            stages[stage] += lost["duplicate"]
        reasons = counts["reasons"][domain]
        for reason, texts in found.items():
            if texts:
                entry = reasons.setdefault(reason, {"count": 0, "example": _example(texts[0])})
                entry["count"] += len(texts)
        ranked = sorted(reasons.items(), key=lambda item: (-item[1]["count"], item[0]))
        counts["reasons"][domain] = dict(ranked)
    return counts


def _example(text: str) -> dict[str, Any]:
    return {"sample_id": None, "prompt": "", "completion": "", "matched_id": None, "evidence": text}
