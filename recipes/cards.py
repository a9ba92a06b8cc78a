"""The card of a run's final model: what it is, how it scores, and which rounds, data and models it came from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from recipes.report import base_details, summary_text
from recipes.validation import on_this_machine
from synth.export import redact
from synth.records.jsonl import atomic_write, repair_text
from synth.store import RunFolder


def model_card(
    recipe: Mapping[str, Any],
    manifest: Mapping[str, Any],
    rounds: Sequence[Mapping[str, Any]],
    base_details: Mapping[str, Any] | None = None,
) -> str:
    """Markdown with the hub's front matter.

    recipe: the resolved recipe as plain values. manifest: DIR/manifest.json. rounds: metrics of the closed rounds
    in order; base_details: of the base's evaluation. What looks like a key, token or password reads `[hidden]`; there
    are no clock values.
    """
    recipe, manifest = redact(dict(recipe)), redact(dict(manifest))
    base = str(recipe.get("model", {}).get("path", "unknown"))
    given = recipe.get("kind") == "sft"
    name, metric = str(recipe.get("name", "model")), recipe.get("gate", {}).get("metric", "pass@1")
    front = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        "license: unknown",
        *base_model(base),
        f"tags: [synthloop, {'sft' if given else 'self-training'}]",
        "---",
    ]
    parts = [
        "\n".join(front),
        f"# {name}",
        f"Trained from `{base}` on "
        + (
            "rows that the recipe gave."
            if given
            else "completions it sampled itself and that verifiers passed."
        ),
        "## Scores\n\nPercent of held-out problems, with 95 % bootstrap intervals over problems.\n\n"
        f"```\n{summary_text(rounds, metric, base_details)}\n```",
        "## Rounds\n\n" + _rounds_table(rounds),
        "## Lineage\n\n" + _lineage(base, recipe, manifest),
        f"## Recipe\n\n```json\n{json.dumps(recipe, indent=2, default=str)}\n```",
        "The licence follows from the base model's and the problems'; neither is known here.",
    ]
    return "\n\n".join(parts) + "\n"


def base_model(path: str) -> list[str]:
    """The front matter's line that names the base on the hub; none for a folder, of which a reader has nothing."""
    return [] if on_this_machine(path) else [f"base_model: {json.dumps(path)}"]


def write_model_card(folder: RunFolder, recipe: Mapping[str, Any]) -> bool:
    """Write the card as README.md of DIR/model; False where that link leads out of the run (no round accepted)."""
    target = (folder.root / "model").resolve()
    if not target.is_dir() or not target.is_relative_to(folder.root.resolve()):
        return False
    rounds = [metrics for index in folder.rounds() if (metrics := folder.metrics(index))]
    card = model_card(recipe, folder.manifest() or {}, rounds, base_details(folder))
    text = repair_text(card)[0]
    with atomic_write(target / "README.md") as handle:
        handle.write(text.encode("utf-8"))
    return True


def _rounds_table(rounds: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        "| round | asked | passed | kept | trained rows | gate | model |",
        "|---|---|---|---|---|---|---|",
    ]
    for index, metrics in enumerate(rounds):
        counts = [c for name, c in metrics.get("funnel", {}).items() if name != "reasons"]
        total = [sum(c.get(stage, 0) for c in counts) for stage in ("asked", "passed", "kept")]
        verdict = {True: "accepted", False: "rejected", None: "-"}[metrics.get("accepted")]
        trained = metrics.get("training", {}).get("rows", "-")
        cells = [index, *(f"{n:,}" for n in total), trained, verdict, f"`{metrics.get('model_hash', '-')}`"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def _lineage(base: Any, recipe: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    lines = [f"- base model: `{base}`, hash `{manifest.get('model', {}).get('hash', 'unknown')}`"]
    lines += [
        f"- domain {name}: verifier `{section.get('verifier', {}).get('name', '?')}`, train problems "
        f"`{hashes.get('train', '?')}`, held-out problems `{hashes.get('held_out', '?')}`"
        for name, section in recipe.get("domains", {}).items()
        for hashes in [manifest.get("data", {}).get(name, {})]
    ]
    lines.append(f"- engine: {manifest.get('engine', 'unknown')}, rng_seed {recipe.get('rng_seed', '?')}")
    versions = ", ".join(f"{name} {version}" for name, version in manifest.get("packages", {}).items())
    return "\n".join([*lines, f"- packages: {versions or 'unknown'}"])
