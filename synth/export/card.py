"""The dataset card (README.md): what is in it, where each row came from, what was left out. Never a secret."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from synth.generators import NAMES

HIDDEN = "[hidden]"
_SECRET_NAME = re.compile(
    r"(^|[_\-.])(api_?key|apikey|secret|passw(or)?d|authorization|credentials?|private_?key"
    r"|(access|auth|api|hf|bearer|wandb)_?token)$|^token$",
    re.IGNORECASE,
)
_SECRET_VALUE = re.compile(
    r"\b(sk|pk|rk)-[A-Za-z0-9_\-]{16,}|\bhf_[A-Za-z0-9]{16,}|\bgh[pousr]_[A-Za-z0-9]{16,}|\bAKIA[0-9A-Z]{16}\b"
    r"|(?<=[Bb]earer )\S{8,}|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
)
FUNNEL_STAGES = ("asked", "generated", "parsed", "passed", "unique", "clean", "kept")
MARK = "<!-- written by synthloop export -->"
CARRIED = {
    "sample_id": "id of the sample: problem, model, template, sampling settings and seed",
    "source": "how the row came to be",
    "problem_id": "id of the problem",
    "domain": "the recipe's domain",
    "round": "round of self-training that sampled it",
    "reward": "the verifier's reward",
    "meta": "JSON text of what else is known of the row (a generated problem's reference or tests, say)",
}


def redact(value: Any) -> Any:
    """A copy of nested values in which what looks like a key, token or password reads `[hidden]`."""
    if isinstance(value, Mapping):
        return {k: HIDDEN if _is_secret(str(k), v) else redact(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact(item) for item in value]
    return _SECRET_VALUE.sub(HIDDEN, value) if isinstance(value, str) else value


def _is_secret(name: str, value: Any) -> bool:
    """Counts may be called token something; only texts (or what holds them) are secrets."""
    plain = value is None or isinstance(value, (bool, int, float)) or value == ""
    return not plain and bool(_SECRET_NAME.search(name.replace("-", "_")))


def dataset_card(
    rows: Sequence[Mapping[str, Any]],
    *,
    layout: str,
    data_format: str,
    data_file: str | None,
    columns: Mapping[str, str],
    left_out: Mapping[str, int],
    repaired: int,
    info: Mapping[str, Any],
) -> str:
    """Markdown with the hub's front matter.

    rows: what was exported. columns: the layout's own columns described. left_out: input rows that are not in it,
    per reason. repaired: rows with text that UTF-8 could not hold. info: `name, funnel` and lineage (recipe, model,
    model_hash, verifiers, ...); unknown keys are lineage too.
    """
    clean = redact(dict(info))
    name = str(clean.pop("name", None) or clean.get("recipe") or "synthloop dataset")
    funnel = clean.pop("funnel", None)
    lineage = {"licence": "unknown", **clean}
    present = {**columns, **{key: text for key, text in CARRIED.items() if any(key in row for row in rows)}}
    parts = [
        _front_matter(data_file),
        MARK,
        f"# {_line(name)}",
        f"{len(rows):,} rows in the layout `{layout}`, stored as {data_format}. {_origin(rows)}; rejected ones "
        "are not in here unless a column says so.",
        "## Columns\n\n" + _table(("column", "meaning"), [(f"`{k}`", v) for k, v in present.items()]),
        "## Rows\n\n" + _table(("domain", "round", "rows"), _counts(rows)),
        _funnel_table(funnel),
        "## Left out\n\n"
        + _table(("reason", "rows"), sorted(left_out.items(), key=lambda kv: (-kv[1], kv[0])))
        if left_out
        else "",
        f"{repaired:,} rows held text that UTF-8 cannot store; the characters became U+FFFD."
        if repaired
        else "",
        "## Lineage\n\n" + _table(("what", "value"), [(k, _value(v)) for k, v in lineage.items()]),
        "The licence depends on the model and on the problems; neither is known here.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _origin(rows: Sequence[Mapping[str, Any]]) -> str:
    if all(row.get("source") == "supervised" for row in rows):
        return "Rows were given, not sampled, and no verifier judged them"
    generators = {row.get("source") for row in rows} & set(NAMES)
    if generators == {"mined_pairs"}:
        return "Rows were taken from a corpus as they are; no model wrote them"
    if generators:
        return "A model wrote them, asked by the generator that `source` names"
    if rows and all("query" in row for row in rows):
        return "Pairs were given, or came from a corpus or a model; each was judged by its domain's verifier, if any"
    return "Completions were sampled from a model and judged by execution or rule"


def _front_matter(data_file: str | None) -> str:
    lines = ["---", "license: unknown", "tags:", "- synthetic", "- synthloop"]
    if data_file is not None:
        lines += [
            "configs:",
            "- config_name: default",
            "  data_files:",
            "  - split: train",
            f"    path: {data_file}",
        ]
    return "\n".join([*lines, "---"])


def _counts(rows: Sequence[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    counts = Counter((str(row.get("domain", "all")), str(row.get("round", "-"))) for row in rows)
    return [(domain, number, count) for (domain, number), count in sorted(counts.items())]


def _funnel_table(funnel: Mapping[str, Any] | None) -> str:
    domains = [(name, counts) for name, counts in (funnel or {}).items() if name != "reasons"]
    if not domains:
        return ""
    rows = [(name, *(f"{counts.get(stage, 0):,}" for stage in FUNNEL_STAGES)) for name, counts in domains]
    return "## Funnel\n\n" + _table(("domain", *FUNNEL_STAGES), rows)


def _table(head: tuple[str, ...], rows: Sequence[tuple[Any, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(_line(cell) for cell in line) + " |" for line in lines)


def _line(value: Any) -> str:
    """One table cell: no line ends, no bars, nothing that is not printable."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(value))
    return text.replace("|", "\\|")


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
