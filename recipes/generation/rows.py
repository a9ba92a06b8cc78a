"""From what generators return to the dataset: columns, verdicts, curation, and the funnel of it all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.curation_files import open_embed
from recipes.verdicts import verdict_row
from synth.curate import curate, funnel
from synth.curate.report import report_on
from synth.generators.base import Generator, Item
from synth.records import schemas
from synth.records.ids import problem_id
from synth.store import Stage
from verifiers.language import detect

if TYPE_CHECKING:
    from recipes.generation.prepare import Prepared, Writing
    from recipes.progress import Bar

Row = dict[str, Any]
COLUMNS = ("prompt", "completion", "query", "positive", "negatives", "instruction", "refusal", "harmful")
"""What a generator may fill; everything else an item holds goes into `meta`."""


def dataset_rows(domain: str, generator: Generator, items: Sequence[Item]) -> list[Row]:
    """One row an item: its columns, its ids, and beside them (under `known`) all that its verifier may look at."""
    rows = []
    for item in items:
        columns = {name: item.content.get(name) for name in COLUMNS}
        asked = {name: columns[name] for name in generator.compared[:1]}
        meta = {name: value for name, value in item.content.items() if name not in COLUMNS}
        rows.append(
            {
                "sample_id": item.id,
                "problem_id": problem_id(domain, asked),
                "domain": domain,
                "round": 0,
                **columns,
                "retokenised": True,
                "source": generator.name,
                "meta": json.dumps(meta, ensure_ascii=False, sort_keys=True),
                "known": item.content,
            }
        )
    return rows


def judged(prepared: Prepared, rows: Sequence[Row], folder: Path, bar: Bar) -> dict[str, Row]:
    """{sample id: verdict row} of the rows whose domain has a verifier, kept in the stage `folder`."""
    stage, recipe = Stage(folder, schemas.verdicts), prepared.recipe
    if not any(domain.verifier for domain in recipe.domains.values()):
        return {}
    if not stage.closed:
        done = {row["sample_id"] for row in stage.each()}
        for name, domain in recipe.domains.items():
            waiting = [r for r in rows if r["domain"] == name and r["sample_id"] not in done]
            if domain.verifier is None or not waiting:
                continue
            verifier = prepared.pool.open(domain.verifier.name, domain.verifier.options)
            known = (row["known"] for row in waiting)
            for row, verdict in zip(
                waiting, verifier.verify_batch(known, workers=prepared.pool.workers), strict=True
            ):
                told = (verdict.status, verdict.reward, verdict.reason, verdict.details)
                stage.append(verdict_row(row, domain.verifier.name, *told))
                bar.advance()
        stage.close()
    return {row["sample_id"]: row for row in stage.each()}


@dataclass(frozen=True)
class Curated:
    """Dataset rows, kept and rejected, sorted by sample id; the counts and reasons of `synth.curate.funnel`."""

    rows: list[Row]
    funnel: dict[str, Any]

    @property
    def kept(self) -> int:
        return sum(row["decision"] == "kept" for row in self.rows)


def curate_rows(
    prepared: Prepared, rows: Sequence[Row], verdicts: Mapping[str, Row], folder: Path
) -> Curated:
    """Curate all rows that are compared by the same columns together, so that domains of one kind share no row.

    The report goes into `folder`: one for each such group, with its domains in the name if there are several.
    """
    recipe, options = prepared.recipe, prepared.recipe.curate
    groups: dict[tuple[Any, ...], list[str]] = {}
    for writing in prepared.writings:
        compared = writing.generator.compared if options.text is None else options.text_columns
        judging = recipe.domains[writing.name].verifier is not None
        groups.setdefault((compared, judging), []).append(writing.name)
    done: list[Row] = []
    counts: dict[str, Any] = {"reasons": {}}
    embed = open_embed(options)
    for (compared, _), domains in groups.items():
        mine = [_with_verdict(row, verdicts) for row in rows if row["domain"] in domains]
        chosen = replace(options, text=list(compared))
        result = curate(mine, chosen, prepared.evaluation, embed=embed, language=detect)
        names = f"curation-{'-'.join(domains)}" if len(groups) > 1 else "curation"
        report_on(result, mine, folder / names)
        found = funnel(mine, result, asked=dict.fromkeys(domains, 0))
        reasons = found.pop("reasons")
        counts = {**counts, **found, "reasons": {**counts["reasons"], **reasons}}
        done += [*result.kept, *result.dropped]
    done.sort(key=lambda row: row["sample_id"])
    columns = schemas.generated().names
    return Curated([{name: row.get(name) for name in columns} for row in done], counts)


def _with_verdict(row: Row, verdicts: Mapping[str, Row]) -> Row:
    plain = {key: value for key, value in row.items() if key != "known"}
    verdict = verdicts.get(row["sample_id"])
    if verdict is None:
        return plain
    return {**plain, "status": verdict["status"], "reward": verdict["reward"], "reason": verdict["reason"]}


def full_funnel(
    writings: Sequence[Writing], steps: Mapping[str, Mapping[str, Row]], curated: Curated
) -> dict[str, Any]:
    """The funnel with `asked`, `generated` and `parsed` of the steps whose results become rows (`rows_from`), and
    every step's reasons for loss as `STEP:CAUSE`."""
    result: dict[str, Any] = {}
    reasons: dict[str, dict[str, Row]] = {}
    for writing in writings:
        found = _step_reasons(steps[writing.name])
        counts = dict(curated.funnel[writing.name])
        last = [
            each for stage, each in steps[writing.name].items() if _step(stage) in writing.generator.rows_from
        ]
        for place, sifted in (("asked", "seen"), ("generated", "seen"), ("parsed", "kept")):
            counts[place] = sum(each[place] if place in each else each[sifted] for each in last)
        result[writing.name] = counts
        reasons[writing.name] = found | curated.funnel["reasons"].get(writing.name, {})
    return {**result, "reasons": reasons}


def _step(stage: str) -> str:
    """`03-novel` is the step `novel`."""
    return stage.partition("-")[2]


def _step_reasons(steps: Mapping[str, Row]) -> dict[str, Row]:
    """Reasons for loss of all rounds of each step together, the most frequent first."""
    found: dict[str, Row] = {}
    for stage, counts in steps.items():
        for cause, entry in counts["reasons"].items():
            name = f"{_step(stage)}:{cause}"
            before = found.get(name)
            found[name] = {**entry, "count": entry["count"] + (before["count"] if before else 0)}
    return dict(sorted(found.items(), key=lambda item: (-item[1]["count"], item[0])))
