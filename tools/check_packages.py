#!/usr/bin/env python3
"""Find installed packages that cannot be loaded beside the torch that is here, and remove them.

`transformers` and `vllm` import torchvision, torchaudio and friends whenever they are installed. A build for
another torch (the CUDA wheel beside a CPU torch is the common case) raises from inside that import, so one
broken companion that nothing needs takes the whole program down. For each companion that is installed:

1. import it in a process of its own (a broken library can crash, not just raise);
2. if that fails while torch itself loads, uninstall it and say so.

When torch does not load nothing is removed: then torch is the fault, not its companions.
Standard library only, so that it runs in any environment: `python tools/check_packages.py [--dry-run] [DIST ...]`.
Exit 0: nothing broken is left; 1: torch does not load, or a package could not be removed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import subprocess
import sys

# Distribution -> module. Optional companions only: every importer of them works without them.
COMPANIONS = {
    "torchvision": "torchvision",
    "torchaudio": "torchaudio",
    "torchcodec": "torchcodec",
    "torchao": "torchao",
    "xformers": "xformers",
    "flash-attn": "flash_attn",
    "bitsandbytes": "bitsandbytes",
}
IMPORT_LIMIT_S = 300  # a hang guard: the first import on a cold disk can take a minute


def installed(distribution: str) -> str | None:
    """The installed version of `distribution`, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def import_error(module: str) -> str | None:
    """Why `module` cannot be imported in a fresh process (the last line it printed), or None if it can."""
    command = [sys.executable, "-c", f"import {module}"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=IMPORT_LIMIT_S
        )
    except subprocess.TimeoutExpired:
        return f"the import did not end within {IMPORT_LIMIT_S} s"
    if done.returncode == 0:
        return None
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return lines[-1] if lines else f"the import ended with status {done.returncode}"


def uninstall(distribution: str) -> str | None:
    """Remove `distribution` from this environment; returns pip's complaint, or None."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "uninstall",
        "-q",
        "-y",
        distribution,
    ]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    return (
        None if done.returncode == 0 else (done.stderr.strip() or f"pip ended with status {done.returncode}")
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Remove installed packages that cannot load beside this torch."
    )
    parser.add_argument("distributions", nargs="*", metavar="DIST", help=f"default: {' '.join(COMPANIONS)}")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    options = parser.parse_args(argv)

    present = [name for name in (options.distributions or COMPANIONS) if installed(name)]
    broken = {
        name: why for name in present if (why := import_error(COMPANIONS.get(name, name.replace("-", "_"))))
    }
    if not broken:
        return 0
    if installed("torch") and (why := import_error("torch")):
        print(f"torch {installed('torch')} does not load: {why}", file=sys.stderr)
        return 1
    left = 0
    for name, why in broken.items():
        label = f"{name} {installed(name)}"
        if options.dry_run:
            print(f"would remove {label}: it does not load here ({why[:120]})")
        elif complaint := uninstall(name):
            print(f"could not remove {label}, which does not load: {complaint}", file=sys.stderr)
            left += 1
        else:
            print(f"removed {label}: it does not load here ({why[:120]})")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
