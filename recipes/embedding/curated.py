"""From pairs to the dataset that rounds mine for: verified, held out, deduplicated, decontaminated. Once a run.

1. The domain's verifier judges every pair (DIR/round-00/verdicts).
2. `held_out: {share}` sets pairs apart with all that hangs together with them; those that passed are measured on.
3. Curation looks at the rest: duplicates, and what is too close to a held-out query or document of any domain.
4. DIR/curated holds every pair with its decision: kept, rejected or held_out. Rounds add negatives to it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.curation_files import named_sets, open_embed
from recipes.embedding.checks import COMPARED
from recipes.embedding.pairs import documents_anywhere, written_pairs
from recipes.embedding.schema import BASE, HeldOutShare
from recipes.embedding.split import set_apart, without_negatives
from recipes.judging import fetch_models, open_verifier
from recipes.problems import Loaded
from recipes.supervised import given_funnel
from recipes.verdicts import verdict_row
from synth.curate import CurateOptions, CurateResult, curate
from synth.curate.report import report_on
from synth.records.errors import InputError
from synth.store import RunFolder, Stage
from verifiers.base import self_test_problems
from verifiers.language import detect

if TYPE_CHECKING:
    from recipes.embedding.schema import EmbeddingRecipe
    from recipes.progress import Bar

Row = dict[str, Any]
Encoded = Callable[[], Any]
"""Opens the base model; gives its `encode`."""
HELD_OUT = "held_out"
PASSED = {"status": "pass", "reward": 1.0, "reason": None}
GUIDED = ("not_retrieved", "false_negative")
"""What the verifier `pairs` says by the eyes of its guide."""


@dataclass(frozen=True)
class Pairs:
    """Every pair of a run with its decision, sorted by sample id, and where the others went."""

    rows: list[Row]
    funnel: dict[str, Any]

    @property
    def kept(self) -> list[Row]:
        return [row for row in self.rows if row["decision"] == "kept"]

    @property
    def answers(self) -> list[tuple[str, str]]:
        """(query, positive) of every pair: what became of one does not unmake what it says."""
        return [(row["query"], row["positive"]) for row in self.rows]

    @property
    def held_out(self) -> dict[str, list[Row]]:
        """{domain: pairs} of those set apart to be measured on."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            if row["decision"] == HELD_OUT:
                found.setdefault(row["domain"], []).append(row)
        return found


def all_pairs(recipe: EmbeddingRecipe, given: Mapping[str, Loaded], pairs: RunFolder) -> dict[str, Loaded]:
    """{domain: its pairs}, given or written, in the recipe's order."""
    written: dict[str, list[Row]] = {}
    if any(domain.generator for domain in recipe.domains.values()):
        for row in written_pairs(recipe, pairs):
            written.setdefault(row["domain"], []).append(row)
    return {
        name: Loaded(written.get(name, [])) if domain.generator else given[name]
        for name, domain in recipe.domains.items()
        if domain.generator or name in given
    }


# ---- Verifying ---------------------------------------------------------------------------------------------------


def pair_verifier(recipe: EmbeddingRecipe, name: str, encode: Encoded, rows: Iterable[Row] = ()) -> Any:
    """A domain's verifier, or None. The guide `base` of the verifier `pairs` is the run's base, opened when asked; it
    reads the queries of `rows` as queries, with their instructions.

    Raises InputError for one that fails its self-test.
    """
    section = recipe.domains[name].verifier
    if section is None:
        return None
    where = f"domains.{name}.verifier"
    if section.name == "pairs" and section.options.get("model") == BASE:
        import verifiers

        verifier = verifiers.get("pairs", embed=_guide(encode, rows), **{**section.options, "model": None})
    else:
        verifier = open_verifier(section.name, section.options, f"{where}.options")
    wrong = self_test_problems(verifier)
    fetch_models(verifier)
    if wrong:
        raise InputError(where, f"{section.name} fails its self-test: {wrong[0]}", "see `synth validate`")
    return verifier


def _guide(encode: Encoded, rows: Iterable[Row]) -> Callable[[Sequence[str]], Any]:
    """What the verifier `pairs` embeds texts with. It says not which are queries: those that are a pair's query and no
    document of one."""
    asked: dict[str, str] = {}
    documents: set[str] = set()
    for row in rows:
        asked.setdefault(row["query"], row["instruction"])
        documents.update((row["positive"], *row["negatives"]))

    def embed(texts: Sequence[str]) -> Any:
        import numpy as np

        places = [number for number, text in enumerate(texts) if text in asked and text not in documents]
        queries = [texts[number] for number in places]
        vectors = np.array(encode()(list(texts), "document"))
        if queries:
            vectors[places] = encode()(queries, "query", [asked[text] for text in queries])
        return vectors

    return embed


def judged(
    recipe: EmbeddingRecipe,
    loaded: Mapping[str, Loaded],
    encode: Encoded,
    stage: Stage | None,
    bar: Bar,
    workers: int,
) -> dict[str, Row]:
    """{sample id: verdict row}, kept in `stage` where there is one; what is there is not judged again.

    The verifier `pairs` compares each pair with the others of its domain, unless its options name a corpus.
    """
    done = {row["sample_id"]: row for row in stage.each()} if stage else {}
    if stage is not None and stage.closed:
        return done
    for name, each in loaded.items():
        section = recipe.domains[name].verifier
        waiting = [row for row in each.rows if row["sample_id"] not in done]
        if section is None or not waiting:
            continue
        verifier = pair_verifier(recipe, name, encode, each.rows)
        try:
            if section.name == "pairs" and verifier.options.corpus is None:
                verifier.fit([row["known"] for row in each.rows])
            known = (row["known"] for row in waiting)
            for row, verdict in zip(waiting, verifier.verify_batch(known, workers=workers), strict=True):
                told = (verdict.status, verdict.reward, verdict.reason, verdict.details)
                made = verdict_row(row, section.name, *told)
                done[row["sample_id"]] = made
                if stage is not None:
                    stage.append(made)
                bar.advance()
        finally:
            verifier.close()
    if stage is not None:
        stage.close()
    return done


# ---- Splitting and curating --------------------------------------------------------------------------------------


def held_out_ids(recipe: EmbeddingRecipe, loaded: Mapping[str, Loaded]) -> set[str]:
    """Ids of the pairs set apart by `held_out: {share}`. Raises InputError where a share cannot be set apart."""
    found: set[str] = set()
    for name, each in loaded.items():
        section = recipe.domains[name].held_out
        if isinstance(section, HeldOutShare):
            where = f"domains.{name}.held_out.share"
            found |= set_apart(each.rows, section.share, recipe.rng_seed, where, "held_out")
    return found


def with_verdict(row: Row, verdict: Row | None) -> Row:
    """The pair without what only its verifier saw, and with what that said."""
    plain = {key: value for key, value in row.items() if key != "known"} | {"round": 0}
    if verdict is None:
        return plain
    return {**plain, **{key: verdict[key] for key in ("status", "reward", "reason")}}


def held_out_pairs(rows: Iterable[Row], ids: Collection[str]) -> list[Row]:
    """The pairs of the held-out side that passed, were judged by nobody, or failed by a guide's eyes alone: a test of
    what the base finds would flatter the base."""
    return [
        row
        for row in rows
        if row["sample_id"] in ids and (row.get("status", "pass") == "pass" or row["reason"] in GUIDED)
    ]


def decided(
    recipe: EmbeddingRecipe,
    loaded: Mapping[str, Loaded],
    verdicts: Mapping[str, Row],
    texts: Callable[[dict[str, list[Row]]], dict[str, list[str]]],
    report: Path,
) -> Pairs:
    """Decide about every pair. texts: from the pairs held out, by domain, to each domain's held-out texts. The report
    on what curation did goes into the folder `report`."""
    rows = [
        with_verdict(row, verdicts.get(row["sample_id"])) for each in loaded.values() for row in each.rows
    ]
    apart = held_out_ids(recipe, loaded)
    held = held_out_pairs(rows, apart)
    by_domain: dict[str, list[Row]] = {}
    for row in held:
        by_domain.setdefault(row["domain"], []).append(row)
    names = {row["sample_id"] for row in held}
    held_out_texts = texts(by_domain)
    sets = held_out_texts | named_sets(recipe)
    options = recipe.curate
    if options.text is None:
        options = replace(options, text=list(COMPARED))
    embed = open_embed(options)
    # Models are measured on finding these, in any domain.
    measured = [text for each in held_out_texts.values() for text in each]
    rest = without_negatives([row for row in rows if row["sample_id"] not in names], measured)
    siblings = _siblings(recipe, rest, held)
    known = {row["sample_id"] for row in siblings}
    mine = [row for row in rest if row["sample_id"] not in known]
    result = _curated(mine, options, sets, embed, report / "curation")
    result = replace(result, dropped=[*result.dropped, *siblings])
    done = [*result.kept, *result.dropped]
    told = {"decision": HELD_OUT, "decision_reason": HELD_OUT, "matched_id": None, "evidence": None}
    done += [{**row, **told} for row in held]
    done.sort(key=lambda row: row["sample_id"])
    return Pairs(done, _funnel(rest, result, held, loaded))


def _curated(
    rows: list[Row], options: CurateOptions, sets: Mapping[str, Any], embed: Any, report: Path
) -> CurateResult:
    """All pairs curated together. Among judged ones, those of domains without a verifier count as passed meanwhile."""
    unjudged = {row["sample_id"] for row in rows if "status" not in row}
    if len(unjudged) < len(rows):
        rows = [{**PASSED, **row} for row in rows]
    result = curate(rows, options, sets, embed=embed, language=detect)
    report_on(result, rows, report)

    def plain(row: Row) -> Row:
        if row["sample_id"] not in unjudged:
            return row
        return {key: value for key, value in row.items() if key not in PASSED}

    return replace(result, kept=list(map(plain, result.kept)), dropped=list(map(plain, result.dropped)))


def _siblings(recipe: EmbeddingRecipe, rows: Iterable[Row], held: Iterable[Row]) -> list[Row]:
    """The pairs that other domains made of a held-out pair's document, dropped as contaminated by it. (A `group` has a
    meaning in its own domain alone, where the split has seen to it.)"""

    def names(row: Row) -> list[tuple[str, ...]]:
        source = recipe.domains[row["domain"]].train
        return documents_anywhere(row, source.path if source is not None else row["domain"])

    documents = {name: row for row in held for name in names(row)}
    dropped = []
    for row in rows:
        if row.get("status", "pass") != "pass":
            continue  # what failed is lost for that reason
        others = (documents[name] for name in names(row) if name in documents)
        other = next((each for each in others if each["domain"] != row["domain"]), None)
        if other is not None:
            told = {
                "decision": "rejected",
                "decision_reason": "contaminated",
                "matched_id": other["sample_id"],
            }
            dropped.append({**row, **told, "evidence": None})
    return dropped


def _funnel(
    rest: list[Row], result: CurateResult, held: list[Row], loaded: Mapping[str, Loaded]
) -> dict[str, Any]:
    """The funnel of all pairs. Those held out were lost to training for that reason."""

    def shown(row: Row) -> Row:
        return {**row, "prompt": row["query"], "completion": row["positive"]}

    decided = replace(result, dropped=[shown(row) for row in result.dropped])
    left_out = {n: {"unusable": each.unusable, "duplicate": each.duplicates} for n, each in loaded.items()}
    counts = given_funnel(rest, decided, left_out)
    for row in held:
        domain = row["domain"]
        for stage in ("asked", "generated", "parsed"):
            counts[domain][stage] += 1
        counts[domain]["passed"] += row.get("status", "pass") == "pass"
        empty = {"count": 0, "example": {
            "sample_id": row["sample_id"], "prompt": row["query"], "completion": row["positive"],
            "matched_id": None, "evidence": None,
        }}  # fmt: skip
        counts["reasons"][domain].setdefault(HELD_OUT, empty)["count"] += 1
    return counts
