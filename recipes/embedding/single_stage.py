"""Single stages of an `embedding` recipe from the command line (`synth train`, `synth evaluate`)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes import models
from recipes.embedding.beside import check_kind
from recipes.embedding.context import Encoders, check_training
from recipes.embedding.curated import held_out_ids, held_out_pairs, judged, with_verdict
from recipes.embedding.measure import all_sets, exam_of, fixed_sets, kept_scores, texts_of
from recipes.embedding.pairs import given_pairs
from recipes.embedding.schema import HeldOutShare
from recipes.embedding.split import without_negatives
from recipes.embedding.training import split_validation, tune
from recipes.problems import Loaded
from recipes.single_stage import read_rows
from synth.records.errors import InputError
from synth.records.ids import content_hash, model_hash

if TYPE_CHECKING:
    from recipes.embedding.schema import EmbeddingRecipe
    from recipes.progress import Progress

log = logging.getLogger("synthloop")
Row = dict[str, Any]


def train_alone(recipe: EmbeddingRecipe, data: str | None, out: Path, progress: Progress) -> Path:
    """`synth train`: rows of `data` (JSONL or parquet file, run or stage directory), else the recipe's given pairs
    without those that `held_out: {share}` sets apart, and without negatives that are held-out texts.

    Nothing is verified, curated or mined; rows of `data` that were not kept still say what answers their query. Raises
    InputError when there are no pairs.
    """
    from recipes.runner import make_folder

    make_folder(out.parent, "--out")
    rows, others = read_rows(Path(data)) if data else (_given(recipe), [])
    if data:
        rows = _rows_of(rows)
    base = models.resolve(recipe.model.path, recipe.model.revision)
    check_training(recipe, base)
    trained, validation = split_validation(recipe, rows)
    lineage = {"base model": recipe.model.path, "recipe": recipe.name, "rows": len(trained)}
    with progress.stage(f"training on {len(trained)} pairs") as bar:
        tune(recipe, base, trained, validation, out, recipe.rng_seed, lineage, bar, known=others)
    progress.say(f"model: {out}")
    return out


def _rows_of(rows: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Pairs of a file or a run, with what a split needs to know of them."""
    made = []
    for number, row in enumerate(rows, start=1):
        if not all(isinstance(row.get(name), str) for name in ("query", "positive")):
            fix = "rows need `query` and `positive`; `negatives`, `instruction` and `source` are read where they are"
            raise InputError(f"--data, row {number}", f"has {', '.join(map(str, row))}", fix)
        name = row.get("sample_id")
        if not isinstance(name, str):
            name = content_hash("pair", row["query"], row["positive"], row.get("instruction") or "", number)
        negatives = [] if row.get("negatives") is None else row["negatives"]
        if not (isinstance(negatives, list) and all(isinstance(text, str) for text in negatives)):
            raise InputError(f"--data, row {number}, negatives", f"{negatives!r:.60}", "give a list of texts")
        made.append({"group": None, "meta": None, **row, "sample_id": name, "negatives": negatives})
    return made


def _given(recipe: EmbeddingRecipe) -> list[Row]:
    written = [name for name, domain in recipe.domains.items() if domain.generator is not None]
    if written:
        fix = "name the pairs with --data: the run directory that has them, or an export of it"
        raise InputError(f"domains.{written[0]}.generator", "`synth train` writes no pairs", fix)
    loaded = {
        name: given_pairs(recipe, name, "train")
        for name, domain in recipe.domains.items()
        if domain.train is not None
    }
    apart = held_out_ids(recipe, loaded)
    rows = [row for each in loaded.values() for row in each.rows if row["sample_id"] not in apart]
    if not any(row["negatives"] for row in rows):
        return rows  # held-out sets may be large, or not at hand
    held = {name: [row for row in each.rows if row["sample_id"] in apart] for name, each in loaded.items()}
    texts = texts_of(all_sets(recipe, fixed_sets(recipe), held))
    return without_negatives(rows, [text for each in texts.values() for text in each])


def evaluate_alone(
    recipe: EmbeddingRecipe, model: str, out: Path, progress: Progress, workers: int
) -> dict[str, Any]:
    """`synth evaluate`: the scores of `model` on the recipe's held-out sets; they are kept beside `out`, so that a
    second call has them. Pairs that are set apart by share are those that a run would set apart."""
    from recipes.runner import make_folder

    if out.is_dir():
        raise InputError("--out", f"{out} is a folder", "name the JSON file that the scores go to")
    make_folder(out.parent, "--out")
    path = models.resolve(model, field="--model")
    check_kind("--model", model, path, "bi")
    encoders = Encoders(recipe)
    held_out = _held_out(recipe, encoders, progress, workers)
    exam = exam_of(recipe, all_sets(recipe, fixed_sets(recipe), held_out))
    if not (exam.own or exam.further or exam.sts):
        seen = "no domain with `held_out`, so there is nothing to measure on"
        raise InputError("domains", seen, "give held-out pairs: --set domains.NAME.held_out=FILE")
    digest = model_hash(path)
    with progress.stage("evaluating"):
        folder = out.with_name(f"{out.name}.work") / digest
        scores = kept_scores(lambda: encoders.at(path).encode, exam, folder, digest)
    return {"model": str(path), "model_hash": digest, "scores": scores.scores}


def _held_out(
    recipe: EmbeddingRecipe, encoders: Encoders, progress: Progress, workers: int
) -> dict[str, list[Row]]:
    """{domain: the pairs that a run sets apart and measures on}."""
    shares = [n for n, domain in recipe.domains.items() if isinstance(domain.held_out, HeldOutShare)]
    written = [name for name in shares if recipe.domains[name].generator is not None]
    if written:
        where = f"domains.{written[0]}.held_out"
        seen = "a share of pairs that a run of the recipe makes"
        raise InputError(
            where, seen, "name the run as `train` and leave `generator` out, or give held-out pairs"
        )
    loaded: dict[str, Loaded] = {name: given_pairs(recipe, name, "train") for name in shares}
    if not loaded:
        return {}
    base = models.resolve(recipe.model.path, recipe.model.revision)
    with progress.stage("verifying", sum(len(each.rows) for each in loaded.values())) as bar:
        verdicts = judged(recipe, loaded, lambda: encoders.at(base).encode, None, bar, workers)
    ids = held_out_ids(recipe, loaded)
    return {
        name: held_out_pairs((with_verdict(row, verdicts.get(row["sample_id"])) for row in each.rows), ids)
        for name, each in loaded.items()
    }
