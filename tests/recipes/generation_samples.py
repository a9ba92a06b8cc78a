"""Small `generate` recipes for tests, asked of the stub server."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from recipe_samples import write_rows
from stub_server import Answer, Stub

import recipes
from recipes.settings import load_any
from synth.records.errors import WorkError
from synth.store import Stage, read_parts

SEEDS = [
    {"instruction": "List three animals that live in cold water.", "is_classification": False},
    {
        "instruction": "Say whether the given sentence is a question or a statement.",
        "is_classification": True,
    },
    {"instruction": "Explain to a child why the sky turns red in the evening.", "is_classification": False},
    {"instruction": "Sort these fruits by how sweet they taste, sweetest first.", "is_classification": False},
    {"instruction": "Decide if the review is positive, negative or neutral.", "is_classification": True},
    {
        "instruction": "Write a short apology to a neighbour about last night's noise.",
        "is_classification": False,
    },
    {"instruction": "Convert the recipe below so that it serves two people.", "is_classification": False},
    {"instruction": "Name the capital of the country in which the novel is set.", "is_classification": False},
]

CAUSE = {
    "malformed": "not_json",
    "truncated": "length",
    "wrong_schema": "wrong_schema",
    "refusal": "refused",
    "empty": "empty",
}
"""Faults of the stub server in a reply: what each is called where the reply is read."""


def tree(
    stub_url: str, generator: str, rows: list[dict[str, Any]] | None, folder: Path, **changes: Any
) -> dict[str, Any]:
    """A recipe of one domain `it` with the rows written beside; dotted keys changed: `**{"parse.attempts": 1}`."""
    domain: dict[str, Any] = {"generator": {"name": generator, "options": {}}}
    if rows is not None:
        domain["train"] = str(write_rows(folder / "rows.jsonl", rows))
    made: dict[str, Any] = {
        "name": "small",
        "kind": "generate",
        "model": "served",
        "engine": {
            "name": "openai",
            "options": {"base_url": stub_url, "backoff_s": 0.001, "backoff_max_s": 0.002},
        },
        "domains": {"it": domain},
        "curate": {"decontaminate": None},
    }
    for path, value in changes.items():
        here = made
        *above, last = path.split(".")
        for part in above:
            here = here.setdefault(part, {})
        here[last] = copy.deepcopy(value)
    return made


def options(**values: Any) -> dict[str, Any]:
    """Generator options as a change of the tree."""
    return {f"domains.it.generator.options.{name}": value for name, value in values.items()}


def run(made: dict[str, Any], out: Path) -> dict[str, Any]:
    """Run the recipe; the metrics of its only round."""
    return recipes.run(load_any(made), out=out).rounds[0]


def dataset(out: Path, kept: bool = True) -> list[dict[str, Any]]:
    """Rows of the run's dataset: the kept ones, or all."""
    rows = read_parts(out / "round-00" / "dataset")
    return [row for row in rows if row["decision"] == "kept" or not kept]


def requests(out: Path, step: str | None = None) -> list[dict[str, Any]]:
    """Every request of the run (of one step) that is on disk, with its raw reply."""
    from synth.records import schemas

    places = sorted((out / "round-00" / "steps" / "it").glob(f"*-{step or '*'}"))
    rows = [row for place in places for row in Stage(place, schemas.written).each()]
    return [row for row in rows if "prompt" in row]


def lost(metrics: dict[str, Any]) -> dict[str, int]:
    """{STEP:CAUSE: how often} of everything that was lost."""
    return {reason: entry["count"] for reason, entry in metrics["funnel"]["reasons"]["it"].items()}


def rows_of(out: Path) -> list[dict[str, Any]]:
    """Kept rows with what stands in `meta` beside their columns."""
    return [{**row, **json.loads(row["meta"])} for row in dataset(out)]


def stage_rows(out: Path, step: str) -> list[dict[str, Any]]:
    """Rows of a step without a model."""
    (place,) = (out / "round-00" / "steps" / "it").glob(f"*-{step}")
    return list(read_parts(place))


def parts(out: Path) -> dict[str, bytes]:
    """Every file of the run whose content must not depend on how it was reached."""
    files = sorted((out / "round-00").rglob("*"))
    return {
        str(p.relative_to(out)): p.read_bytes() for p in files if p.is_file() and p.name != "metrics.json"
    }


def check_that_stopped_runs_go_on(
    make: Callable[[Stub], dict[str, Any]], answer: Answer, folder: Path, shares: Iterable[float]
) -> None:
    """Runs whose server goes away after these shares of the answers, and comes back, become the undisturbed one."""
    rates = {"malformed": 0.1, "empty": 0.1}
    with Stub(rates, answer=answer) as stub:
        made = make(stub)
        made["engine"]["options"]["retries"] = 0
        run(made, folder / "undisturbed")
        answers = stub.served.total()
    for share in shares:
        out = folder / f"run-{share}"
        with Stub(rates, answer=answer) as stub:
            made["engine"]["options"]["base_url"] = stub.url
            stub.down_after = int(share * answers)
            with pytest.raises(WorkError, match="requests were not answered"):
                run(made, out)
            stub.down_after = None
            run(made, out)
        assert parts(out) == parts(folder / "undisturbed")


def chat_tokenizer(folder: Path) -> Path:
    """A model folder of which only the tokenizer is there: byte level, adds <s>, ChatML with <s> before it."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: place for place, token in enumerate(["<s>", "</s>", *alphabet])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = (
        "<s>{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text("{}")
    return folder


__all__ = [
    "CAUSE", "SEEDS", "Stub", "chat_tokenizer", "check_that_stopped_runs_go_on", "dataset", "lost", "options", "parts",
    "requests", "rows_of", "run", "stage_rows", "tree",
]  # fmt: skip
