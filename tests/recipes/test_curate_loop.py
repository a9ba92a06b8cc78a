"""Curation inside a run: evaluation sets and earlier exports named by path, and selection."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from recipe_samples import ROWS, with_data, write_rows

from recipes import cli
from recipes.values import to_yaml


def run(folder: Path, rounds: int = 1, template: str = "", **curate: Any) -> int:
    """A run that judges and curates replayed completions: the second of the two of each problem is right."""
    values = {"train.method": "none", "rounds": rounds, "sampling.n": 2, "curate": curate,
              "domains.math.prompt.template": template + "{prompt}"}  # fmt: skip
    recipe = folder / "recipe.yaml"
    recipe.write_text(to_yaml(with_data(folder, **values)))
    rendered = folder / "completions.jsonl"
    rendered.write_text(rendered.read_text().replace('"prompt": "', f'"prompt": "{template}'))
    return cli.main(["run", str(recipe), "--out", str(folder / "run")])


def decisions(folder: Path) -> dict[str, str | None]:
    """{prompt: why its passed sample was dropped, None if kept}."""
    found = {}
    for part in (folder / "run/round-00/dataset").glob("part-*.parquet"):
        for row in pq.read_table(part).to_pylist():
            if not str(row["decision_reason"]).startswith("failed"):
                found[row["prompt"]] = row["decision_reason"]
    return found


def test_against_may_name_files_besides_the_held_out_problems(tmp_path: Path) -> None:
    write_rows(tmp_path / "other.jsonl", [{"question": ROWS[2]["question"]}, {"question": "none of ours"}])
    # A path that is not here is looked for beside the recipe.
    assert run(tmp_path, decontaminate={"against": ["held_out", "other.jsonl"]}) == 0
    found = decisions(tmp_path)
    contaminated = [prompt for prompt, reason in found.items() if reason == "contaminated"]
    assert len(found) == 6
    assert len(contaminated) == 1
    assert "2 + 1" in contaminated[0]


def test_an_unreadable_file_stops_the_run_before_it_samples(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, decontaminate={"against": ["held_out", "./nowhere.jsonl"]}) == 2
    assert "no such file: ./nowhere.jsonl" in capsys.readouterr().err
    assert not (tmp_path / "run/round-00").exists()


def test_earlier_exports_count_as_seen(tmp_path: Path) -> None:
    seen = {"prompt": ROWS[3]["question"], "completion": "So it is #### 4", "sample_id": "old"}
    write_rows(tmp_path / "earlier.jsonl", [seen])
    assert run(tmp_path, dedup={"against": ["earlier.jsonl"]}) == 0
    found = decisions(tmp_path)
    assert [prompt for prompt, reason in found.items() if reason == "duplicate"] == [
        prompt for prompt in found if "3 + 1" in prompt
    ]


def test_an_earlier_run_beside_the_recipe_counts_as_seen(tmp_path: Path) -> None:
    assert run(tmp_path, template="Think! ") == 0
    (tmp_path / "run").rename(tmp_path / "first")
    # Its dataset holds prompts as they were rendered.
    assert run(tmp_path, dedup={"against": ["first"]}) == 0
    assert set(decisions(tmp_path).values()) == {"duplicate"}


def test_a_round_is_selected_from(tmp_path: Path) -> None:
    assert run(tmp_path, select={"size": 2, "method": "random"}) == 0
    found = decisions(tmp_path)
    assert sorted(found.values(), key=str) == [None, None, *["not_selected"] * 4]
    metrics = json.loads((tmp_path / "run/round-00/metrics.json").read_text())
    assert (metrics["funnel"]["math"]["clean"], metrics["funnel"]["math"]["kept"]) == (6, 2)


def test_each_round_has_a_report_against_the_one_before(tmp_path: Path) -> None:
    assert run(tmp_path, rounds=2, cap_per_problem=1) == 0
    for index in (0, 1):
        folder = tmp_path / f"run/round-0{index}"
        facts = json.loads((folder / "curation.report.json").read_text())
        metrics = json.loads((folder / "metrics.json").read_text())
        assert facts["funnel"]["read"] == 12
        assert facts["funnel"]["kept"] == metrics["funnel"]["math"]["kept"] == 6
        assert facts["reasons"]["failed:not_equal"]["count"] == 6
        assert set(facts["diversity"]) == {"given", "kept", "compared"} - (
            {"compared"} if index == 0 else set()
        )
        words = facts["diversity"]["kept"]["words"]["median"]
        assert words == 5  # of the completions alone: "So it is #### 4"
        assert "## Length and diversity" in (folder / "curation.report.md").read_text()


@pytest.mark.parametrize(
    ("curate", "said"),
    [
        ({"decontaminate": {"against": ["held_out", "./nowhere.jsonl"]}}, "no such file: ./nowhere.jsonl"),
        ({"decontaminate": {"against": ["held_out", "empty.jsonl"]}}, "is empty"),
        ({"dedup": {"against": ["./nowhere.jsonl"]}}, "curate.dedup.against.0: no such file"),
        ({"dedup": {"against": ["chats.jsonl"]}}, "have text in none of prompt, completion"),
        ({"dedup": {"method": "semantic"}}, "curate.embed: missing"),
        ({"embed": "./nowhere"}, "curate.embed: no such folder"),
        ({"select": {"quotas": {"source": {"web": 0.5}}}}, "select.size"),
        ({"select": {"sise": 5}}, "did you mean 'size'"),
        ({"text": "completon"}, "curate.text: 'completon', a column that no row will have"),
        ({"select": {"quotas": {"domian": {"math": 2}}}}, "did you mean 'domain'"),
        ({"select": {"mix": {"web": 1}}}, "curate.select.source: 'source', a column"),
        ({"select": {"quality": "details.value"}}, "curate.select.quality"),
    ],
)
def test_validate_and_run_refuse_what_curation_cannot_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], curate: dict[str, Any], said: str
) -> None:
    write_rows(tmp_path / "empty.jsonl", [])
    write_rows(tmp_path / "chats.jsonl", [{"messages": [{"role": "user", "content": "a"}]}])
    assert run(tmp_path, **curate) == 2
    assert said in capsys.readouterr().err
    assert cli.main(["validate", str(tmp_path / "recipe.yaml")]) == 2
    out, err = capsys.readouterr()
    assert said in out + err
