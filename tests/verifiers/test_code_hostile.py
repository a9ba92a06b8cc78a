"""Programs that attack the sandbox or cheat their tests, from the shared collection, in both tiers."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from verifiers.code import CodeVerifier
from verifiers.sandbox import probe


@pytest.mark.parametrize("tier", ["T1", "T2"])
def test_hostile_programs_get_an_allowed_verdict(tier: str, shared_data: Callable[[str], Path]) -> None:
    if probe()["tier"] is None or (probe()["tier"] == "T2" and tier == "T1"):
        pytest.skip(f"no {tier} here")
    lines = shared_data("sandbox/hostile_programs.jsonl").read_text(encoding="utf-8").splitlines()
    programs = [json.loads(line) for line in lines]
    markers = [Path("/tmp/escape"), Path("/tmp/daemon_was_here"), Path("/usr/x")]
    assert not any(marker.exists() for marker in markers)
    with socket.create_server(("127.0.0.1", 0)) as server, CodeVerifier(tier=tier) as code:
        server.settimeout(0.05)
        port = str(server.getsockname()[1])
        rows = [
            {
                "completion": p["completion"].replace("%PORT%", port),
                "tests": {**p["tests"], "time_limit": _limit(p["id"])},
            }
            for p in programs
        ]
        verdicts = list(code.verify_batch(rows, workers=2))
        with pytest.raises(TimeoutError):
            server.accept()
    wrong = {
        p["id"]: (v.reason, p["expect_reason"], v.details)
        for p, v in zip(programs, verdicts, strict=True)
        if not p["debatable"] and v.reason not in p["expect_reason"]
    }
    assert wrong == {}
    assert len(verdicts) == 52
    assert not any("FOUND" in v.details.get("stdout", "") for v in verdicts)
    assert not any(marker.exists() for marker in markers)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def _limit(name: str) -> float:
    """Programs that hang end sooner; those that need their time get it, on a busy machine too."""
    return 1.0 if name in ("thread_left", "mem_children", "bigint", "loop", "sleep", "stop_self") else 20.0
