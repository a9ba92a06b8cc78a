"""What a run of kind `embedding` leaves for people: the card of its model, and the lines to try it with."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from recipes.cards import base_model
from recipes.report import summary_text
from synth.export import redact
from synth.records.jsonl import atomic_write, repair_text
from synth.store import RunFolder
from trainers.core.card import TOKEN_BAG

if TYPE_CHECKING:
    from recipes.embedding.context import Context
    from recipes.embedding.schema import EmbeddingRecipe

DOCUMENTS = "documents.jsonl"
"""Of a run: what its pairs have for documents."""
QUERY_CHARACTERS = 60
STARTS = {"base": "the base", "previous": "the last accepted model"}


def end_lines(ctx: Context) -> list[str]:
    """Where the model is, and two commands that search the run's own documents with it."""
    root = ctx.folder.root
    model, documents, index = (shlex.quote(str(root / name)) for name in ("model", DOCUMENTS, "index"))
    query, instruction = (" ".join(text.split()) for text in ctx.example)
    told = f" --instruction {shlex.quote(instruction)}" if instruction else ""
    return [
        f"model: {root / 'model'}",
        f"try it: synth index --model {model} --input {documents} --out {index}{told}",
        f"        synth search {index} {shlex.quote(query[:QUERY_CHARACTERS])}",
    ]


def write_card(folder: RunFolder, recipe: EmbeddingRecipe) -> bool:
    """Write the card as README.md of DIR/model; False where that link leads out of the run (no round accepted)."""
    target = (folder.root / "model").resolve()
    if not target.is_dir() or not target.is_relative_to(folder.root.resolve()):
        return False
    rounds = [metrics for index in folder.rounds() if (metrics := folder.metrics(index))]
    card = embedder_card(recipe, folder.manifest() or {}, rounds)
    with atomic_write(target / "README.md") as handle:
        handle.write(repair_text(card)[0].encode("utf-8"))
    return True


def embedder_card(
    recipe: EmbeddingRecipe, manifest: Mapping[str, Any], rounds: Sequence[Mapping[str, Any]]
) -> str:
    """Markdown with the hub's front matter. What looks like a key, token or password reads `[hidden]`; there are no
    clock values."""
    resolved, facts = redact(recipe.resolved()), redact(dict(manifest))
    base = resolved["model"]["path"]
    front = [
        "---",
        "library_name: sentence-transformers",
        "pipeline_tag: sentence-similarity",
        "license: unknown",
        *base_model(base),
        "tags: [synthloop, sentence-transformers, feature-extraction]",
        "---",
    ]
    bag = recipe.train.token_bag is not None and recipe.train.method != "none"
    opened = "from sentence_transformers import SentenceTransformer", 'SentenceTransformer("PATH")'
    if bag:
        opened = "from trainers import open_encoder", 'open_encoder("PATH").model'
    told = f"{TOKEN_BAG} The scores below are the whole model's.\n\n" if bag else ""
    use = (
        f"{opened[0]}\n\nmodel = {opened[1]}\n"
        'queries, documents = model.encode_query(["..."]), model.encode_document(["..."])\n'
        "print(model.similarity(queries, documents))"
    )
    parts = [
        "\n".join(front),
        f"# {recipe.name}",
        f"Tuned from `{base}` on pairs of a query and a document that answers it.",
        f"## Use\n\n```python\n{use}\n```\n\n{told}{_instructions(recipe)}",
        "## Scores\n\nIn percent, with 95 % bootstrap intervals over queries (sentence pairs for `spearman`).\n\n"
        f"```\n{summary_text(rounds, recipe.gate.metric, unit='queries')}\n```",
        f"## Rounds\n\nEach trains from {STARTS[recipe.train.start_from]}.\n\n" + _rounds_table(rounds),
        "## Lineage\n\n" + _lineage(resolved, facts),
        f"## Recipe\n\n```json\n{json.dumps(resolved, indent=2, default=str)}\n```",
        "The licence follows from the base model's and the pairs'; neither is known here.",
    ]
    return "\n\n".join(parts) + "\n"


def _instructions(recipe: EmbeddingRecipe) -> str:
    told = [f"- {name}: `{d.instruction}`" for name, d in recipe.domains.items() if d.instruction]
    if not told:
        return "Queries of pairs without an instruction are encoded as they stand."
    template = json.dumps(recipe.train.query_template)
    return f"Queries with an instruction are encoded as {template}. By domain:\n\n" + "\n".join(told)


def _rounds_table(rounds: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        "| round | pairs | negatives mined | steps | loss, first to last | gate | model |",
        "|" + "---|" * 7,
    ]
    for index, metrics in enumerate(rounds):
        training = metrics["training"]
        mined = sum(each["counts"]["mined"] for each in metrics["mining"].values())
        loss = "{first:.4f} to {last:.4f}".format(**training["loss"]) if training["loss"] else "-"
        verdict = {True: "accepted", False: "rejected", None: "-"}[metrics["accepted"]]
        lines.append(
            f"| {index} | {training['rows']['trained']:,} | {mined:,} | {training['steps']:,} | {loss} | {verdict} | "
            f"`{metrics['model_hash']}` |"
        )
    return "\n".join(lines)


def _lineage(recipe: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    lines = [
        f"- base model: `{recipe['model']['path']}`, hash `{manifest.get('model', {}).get('hash', 'unknown')}`"
    ]
    for name, hashes in manifest.get("data", {}).items():
        section = recipe["domains"].get(name, {})
        verifier = (section.get("verifier") or {}).get("name", "none")
        generator = (section.get("generator") or {}).get("name", "none: given pairs")
        lines.append(
            f"- domain {name}: generator {generator}, verifier {verifier}, pairs or their sources "
            f"`{hashes['train']}`, held-out set `{hashes['held_out']}`"
        )
    lines.append(f"- rng_seed {recipe['rng_seed']}")
    versions = ", ".join(f"{name} {version}" for name, version in manifest.get("packages", {}).items())
    return "\n".join([*lines, f"- packages: {versions or 'unknown'}"])
