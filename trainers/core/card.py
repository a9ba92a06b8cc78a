"""The model card (README.md) of a trained model. No clock values: equal trainings write equal cards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

TOKEN_BAG = (
    "`open_encoder` of `trainers` (`pip install 'synthloop[embedding]'`) opens the whole model. `SentenceTransformer` "
    "passes over the folder `token_bag` and opens the transformer alone, whose vectors are the whole ones' leading "
    "dimensions; a copy that it saves is the transformer alone, too, once `token_bag` is taken out of its config.json."
)
"""What the card of an embedding model says if it has a token bag."""


def model_card(
    *,
    name: str,
    base: str,
    hub_name: str | None,
    method: str,
    steps: int,
    facts: Mapping[str, Any],
    options: Mapping[str, Any],
    lineage: Mapping[str, Any] | None,
) -> str:
    """Markdown with the hub's front matter: start model, data, options, and where everything came from.

    `base` describes the start model; `hub_name` is its name on the hub if that is where it came from.
    """
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        *([f"base_model: {json.dumps(hub_name)}"] if hub_name else []),
        "tags: [synthloop, " + method + "]",
        "---",
        "",
        f"# {name}",
        "",
        *training_sections(base, method, steps, facts, options, lineage),
    ]
    return "\n".join(lines) + "\n"


def training_sections(
    base: str,
    method: str,
    steps: int,
    facts: Mapping[str, Any],
    options: Mapping[str, Any],
    lineage: Mapping[str, Any] | None,
) -> list[str]:
    """Lines of a card that tell where a model came from and how it was trained."""
    lines = [
        f"Fine-tuned from `{base}` with synthloop, method `{method}`, {steps} optimizer steps.",
        "",
        "## Training",
        "",
        "| fact | value |",
        "|---|---|",
        *(f"| {key} | {_cell(value)} |" for key, value in facts.items()),
        "",
        "## Options",
        "",
        "```json",
        json.dumps(options, indent=2),
        "```",
    ]
    if lineage:
        lines += [
            "",
            "## Lineage",
            "",
            "```json",
            json.dumps(lineage, indent=2, sort_keys=True, default=str),
            "```",
        ]
    return lines


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
