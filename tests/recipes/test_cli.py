"""`synth` as scripts see it: verbs, exit codes, what goes to stdout and stderr, no traceback ever."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from recipe_samples import TREE, tree, with_data

import recipes
from recipes import cli
from recipes.values import to_yaml
from synth.records.errors import InputError, WorkError
from synth.records.jsonl import read_jsonl

ENVIRONMENT = {**os.environ, "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}


def synth(capsys: pytest.CaptureFixture[str], *words: Any) -> tuple[int, str, str]:
    capsys.readouterr()
    code = cli.main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def recipe_file(folder: Path, **changes: Any) -> Path:
    """A recipe that only verifies and curates replayed completions."""
    values = {"train.method": "none", "rounds": 1, "sampling.n": 2, **changes}
    path = folder / "recipe.yaml"
    path.write_text(to_yaml(with_data(folder, **values)))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    assert cli.main(["run", str(recipe_file(folder)), "--out", str(folder / "run")]) == 0
    return folder / "run"


# ---- Without work ------------------------------------------------------------------------------------------------


def test_help_names_every_verb_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from recipes.cli import main; code = main(['--help']);"
        "heavy = {'torch', 'transformers', 'datasets', 'vllm', 'pyarrow', 'matplotlib', 'rich', 'sympy', 'pydantic',"
        "'numpy', 'yaml'} & set(sys.modules); print(sorted(heavy)); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    for verb in (
        "validate",
        "preview",
        "run",
        "status",
        "inspect",
        "verify",
        "audit-verifier",
        "train",
        "evaluate",
        "export",
        "index",
        "search",
        "doctor",
        "clean",
    ):
        assert f"\n    {verb} " in done.stdout or f"\n    {verb}\n" in done.stdout


def test_without_a_verb_the_help_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = synth(capsys)
    assert (code, "usage: synth" in out) == (0, True)
    assert synth(capsys, "--version")[1].startswith("synthloop ")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["rnu"], "did you mean 'run'"),
        (["run"], "RECIPE"),
        (["run", "gsm8k-rset"], "did you mean 'gsm8k-rest'"),
        (["run", "gsm8k-rest", "--sett", "a=1"], "did you mean '--set'"),
        (["run", "gsm8k-rest", "--set", "trian.lr=1"], "did you mean 'train'"),
        (["run", "nowhere/x.yaml"], "cannot be read"),
        (["status", "nowhere"], "no such folder"),
        (["inspect", "nowhere"], "no such folder"),
        (["clean", "nowhere"], "no such folder"),
        (["export", "nowhere", "--format", "jsonl", "--layout", "messages", "--out", "x"], "no such folder"),
        (["export", "nowhere", "--format", "csv", "--layout", "messages", "--out", "x"], "jsonl"),
        (["verify", "mth", "--input", "a", "--output", "b"], "did you mean 'math'"),
        (["verify", "math", "--input", "nowhere.jsonl", "--output", "b"], "cannot be read"),
        (["preview", "gsm8k-rest", "-n", "x"], "-n"),
    ],
)
def test_wrong_input_exits_2_with_at_most_three_lines(
    words: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = synth(capsys, *words)
    assert code == 2
    assert out == ""
    lines = [line for line in err.splitlines() if not line.startswith("verify ")]
    assert 1 <= len(lines) <= 3
    assert lines[0].startswith("error: ")
    assert hint in err
    assert "Traceback" not in err


def test_validate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = synth(capsys, "validate", recipe_file(tmp_path))
    assert (code, out, err) == (0, "small: valid\n", "")
    code, out, err = synth(
        capsys, "validate", recipe_file(tmp_path), "--set", "domains.math.train=/no/x.jsonl"
    )
    assert (code, out) == (2, "")
    assert "no such file: /no/x.jsonl" in err


def test_validate_json_is_one_object_whatever_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = synth(capsys, "validate", recipe_file(tmp_path), "--json")
    assert (code, json.loads(out)) == (0, {"ok": True, "recipe": "small", "findings": []})
    code, out, _ = synth(capsys, "validate", recipe_file(tmp_path, rounds=0), "--json")
    found = json.loads(out)
    assert (code, found["ok"], found["findings"][0]["level"]) == (2, False, "error")
    assert "rounds" in found["findings"][0]["where"]
    code, out, _ = synth(capsys, "validate", "nothing", "--json")
    assert (code, json.loads(out)["error"]["where"]) == (2, "RECIPE")


def test_preview(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = synth(capsys, "preview", recipe_file(tmp_path), "-n", 2)
    assert code == 0, err
    assert out.count("=== math: prompt") == 2
    assert out.count("--- verdict: ") == 2


# ---- A run and what reads it -------------------------------------------------------------------------------------


def test_run_leaves_a_finished_run(finished: Path) -> None:
    assert json.loads((finished / "manifest.json").read_text())["status"] == "done"
    assert cli.main(["run", str(finished / "recipe.yaml"), "--out", str(finished)]) == 0  # nothing left to do


def test_a_run_in_a_live_folder_exits_2(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from synth.store import RunLock

    lock = RunLock(finished)
    try:
        for verb in (["run", finished / "recipe.yaml", "--out", finished], ["clean", finished]):
            code, _, err = synth(capsys, *verb)
            assert code == 2
            assert "a run is live there" in err
    finally:
        lock.release()


def test_status_and_inspect(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = synth(capsys, "status", finished, "--json")
    found = json.loads(out)
    assert (code, found["status"], found["rounds"][0]["funnel"]["math"]["asked"]) == (0, "done", 12)
    assert "done, 1 rounds closed" in synth(capsys, "status", finished)[1]
    code, out, _ = synth(capsys, "inspect", finished, "--json")
    domain = json.loads(out)["domains"]["math"]
    assert (code, domain["samples"], domain["kept"]) == (0, 12, 6)
    name = domain["reasons"]["kept"]["examples"][0]["sample_id"]
    code, out, _ = synth(capsys, "inspect", finished, name, "--json")
    assert (code, json.loads(out)["decision"], json.loads(out)["trained_in"]) == (0, "kept", [])
    assert "--- verdict math: pass" in synth(capsys, "inspect", finished, name)[1]
    assert synth(capsys, "inspect", finished, "zzz")[0] == 2


@pytest.mark.parametrize("form", ["jsonl", "parquet", "datasets"])
def test_export(form: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "set"
    code, text, err = synth(
        capsys, "export", finished, "--format", form, "--layout", "messages", "--out", out
    )
    assert code == 0, err
    assert text.startswith("6 rows: ")
    card = (out / "README.md").read_text()
    assert "builtin:tiny" in card
    if form == "jsonl":
        rows = list(read_jsonl(out / "train.jsonl"))
        assert len(rows) == 6
        assert rows[0]["messages"][1]["role"] == "assistant"


def test_clean_removes_what_need_not_stay(
    tmp_path: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    run = tmp_path / "run"
    shutil.copytree(finished, run, symlinks=True)
    model = run / "round-00" / "model"
    model.mkdir()
    (model / "weights").write_bytes(b"x" * 1000)
    metrics = json.loads((run / "round-00" / "metrics.json").read_text())
    (run / "round-00" / "metrics.json").write_text(json.dumps({**metrics, "accepted": False}))
    assert "would remove" in synth(capsys, "clean", run, "--dry-run")[1]
    assert model.exists()
    assert synth(capsys, "clean", run, "--keep", "all")[1] == "freed 0 bytes\n"
    code, out, _ = synth(capsys, "clean", run)
    assert (code, model.exists()) == (0, False)
    assert out.splitlines() == [f"removed {model}: 1,000 bytes", "freed 1,000 bytes"]


# ---- Exit codes and errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (InputError("here", "this", "do that"), 2, "error: here: this\n  do that\n"),
        (WorkError("there", "broke", "retry"), 1, "error: there: broke\n  retry\n"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (SystemExit(143), 143, "terminated"),
        (ZeroDivisionError("oh\nno"), 1, "error: ZeroDivisionError: oh (details: "),
    ],
)
def test_exit_codes(
    error: BaseException,
    code: int,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(args: Any) -> int:
        raise error

    monkeypatch.setattr("recipes.cli.status.run", fail)
    got, out, err = synth(capsys, "status", "x")
    assert (got, out) == (code, "")
    assert err.startswith(text)
    assert "Traceback" not in err


def test_the_traceback_of_a_crash_is_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(args: Any) -> int:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("recipes.cli.status.run", fail)
    (tmp_path / "log.txt").write_text("before\n")
    _, _, err = synth(capsys, "status", tmp_path)
    assert err == f"error: ZeroDivisionError: oh (details: {tmp_path}/log.txt)\n"
    log = (tmp_path / "log.txt").read_text()
    assert log.startswith("before\nTraceback")
    _, _, err = synth(capsys, "status", "elsewhere")
    kept = Path(err.rpartition("details: ")[2].strip().rstrip(")"))
    assert "ZeroDivisionError" in kept.read_text()
    kept.unlink()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_end_a_run_resumably(number: signal.Signals, code: int, tmp_path: Path) -> None:
    hurry = tmp_path / "hurry"  # while it is not there, judging takes longer than any signal needs to arrive
    (tmp_path / "slow.py").write_text(
        f"import os, time\ndef judge(row):\n    os.path.exists({str(hurry)!r}) or time.sleep(0.5)\n    return True\n"
    )
    path = recipe_file(
        tmp_path, **{"domains.math.verifier": f"{tmp_path}/slow.py:judge", "workers": 1, "sampling.n": 16}
    )
    words = [sys.executable, "-m", "recipes.cli", "run", str(path), "--out", str(tmp_path / "run")]
    with subprocess.Popen(
        words,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        # What runs in a shell's background inherits that Ctrl-C means nothing.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    ) as process:
        journal = tmp_path / "run" / "round-00" / "verdicts" / "journal.jsonl"
        deadline = time.monotonic() + 120
        while not journal.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "the same command goes on" in err
    assert "Traceback" not in err
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["status"] == "stopped"
    hurry.touch()
    done = subprocess.run(words, capture_output=True, text=True, env=ENVIRONMENT, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["status"] == "done"


def test_a_closed_pipe_is_no_error(finished: Path) -> None:
    command = f"{sys.executable} -m recipes.cli inspect {finished} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_from_python(tmp_path: Path) -> None:
    result = recipes.run(recipe_file(tmp_path), out=tmp_path / "run", set=["sampling.n=1"])
    assert (result.status, result.folder) == ("done", tmp_path / "run")
    assert result.rounds[0]["funnel"]["math"]["asked"] == 6
    assert recipes.load_recipe(tree()).name == TREE["name"]
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        _ = recipes.nope
