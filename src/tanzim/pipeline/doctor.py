"""``tanzim doctor``: what this machine can do, and the exact command that mends what it cannot."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from tanzim.core.files import cache_folder

Level = Literal["ok", "note", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One probe's outcome.

    Args:
        level: ok, note (works, could be better) or problem (a stage cannot run).
        fix: the exact command or change that mends it.
    """

    name: str
    level: Level
    text: str
    fix: str = ""


def doctor(runs_dir: str | Path = "runs") -> list[Finding]:
    """Probe Python, packages, devices, kernels, memory, disk and privacy settings; change nothing.

    Args:
        runs_dir: where runs are to be written (its disk is measured).
    """
    probes: list[Callable[[], list[Finding]]] = [
        _python,
        _packages,
        _torch,
        _memory,
        lambda: _disk(Path(runs_dir)),
        _network,
    ]
    return [finding for probe in probes for finding in probe()]


def _python() -> list[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    inside = sys.prefix != sys.base_prefix
    where = "in a virtual environment" if inside else "not in a virtual environment"
    fix = "" if inside else "python3 -m venv .venv && . .venv/bin/activate"
    return [Finding("Python", "ok" if inside else "note", f"{version}, {where}", fix)]


_STAGES = {
    "data": ("pyarrow", "numpy"),
    "train": ("torch", "transformers", "peft", "safetensors", "gguf", "psutil"),
    "eval": ("sklearn", "sacrebleu", "rouge_score"),
    "serve": ("fastapi", "uvicorn"),
}


def _packages() -> list[Finding]:
    findings = []
    for extra, modules in _STAGES.items():
        missing = [module for module in modules if importlib.util.find_spec(module) is None]
        text = f"missing: {', '.join(missing)}" if missing else "complete"
        level: Level = "problem" if missing else "ok"
        findings.append(
            Finding(f"extra '{extra}'", level, text, f'pip install "tanzim[{extra}]"' if missing else "")
        )
    return findings


def _torch() -> list[Finding]:
    if importlib.util.find_spec("torch") is None:
        return []
    import torch

    build = (torch.version.cuda and f"CUDA {torch.version.cuda}") or "CPU build"
    findings = [Finding("PyTorch", "ok", f"{torch.__version__}, {build}, {torch.get_num_threads()} threads")]
    if not torch.cuda.is_available():
        findings.append(_no_cuda(has_cuda_build=torch.version.cuda is not None))
        capability = torch.backends.cpu.get_cpu_capability()
        findings.append(Finding("kernels", "ok", f"CPU {capability}; attention per document through SDPA"))
        return findings
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
        text = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, {bf16}"
        findings.append(Finding(f"CUDA device {index}", "ok", text))
    flash = importlib.util.find_spec("flash_attn") is not None
    text = "FlashAttention installed" if flash else "variable-length attention of PyTorch"
    findings.append(Finding("kernels", "ok", text))
    return findings


def _no_cuda(*, has_cuda_build: bool) -> Finding:
    if shutil.which("nvidia-smi") is None:
        return Finding("CUDA", "note", "no NVIDIA driver found: training runs on the CPU")
    driver = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    if driver.returncode != 0:
        return Finding(
            "CUDA", "problem", "the NVIDIA driver does not answer", "reboot, or reinstall the driver"
        )
    if not has_cuda_build:
        fix = "pip install --force-reinstall torch"
        return Finding("CUDA", "problem", "an NVIDIA GPU is here, but PyTorch is a CPU build", fix)
    return Finding("CUDA", "problem", "PyTorch cannot use the GPU", "upgrade the NVIDIA driver")


def _memory() -> list[Finding]:
    if importlib.util.find_spec("psutil") is None:
        return []
    import psutil

    memory = psutil.virtual_memory()
    free, total = memory.available / 2**30, memory.total / 2**30
    text = f"{free:.1f} of {total:.1f} GiB free, {os.cpu_count()} cores"
    if free < 4:
        return [
            Finding("memory", "problem", text, "close other programs: the embedded model needs about 4 GiB")
        ]
    return [Finding("memory", "ok", text)]


def _disk(runs: Path) -> list[Finding]:
    findings = []
    for name, folder in (("disk for runs", runs), ("disk for models", cache_folder())):
        there = next(p for p in [folder.absolute(), *folder.absolute().parents] if p.exists())
        free = shutil.disk_usage(there).free / 2**30
        writable = os.access(there, os.W_OK)
        key = "runs_dir=/other/disk" if folder is runs else "TANZIM_CACHE=/other/disk"
        if not writable:
            findings.append(Finding(name, "problem", f"{there} is not writable", key))
        else:
            findings.append(
                Finding(
                    name, "ok" if free > 5 else "problem", f"{free:.1f} GiB free", "" if free > 5 else key
                )
            )
    return findings


def _network() -> list[Finding]:
    offline = os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")
    text = (
        "HF_HUB_OFFLINE is set: nothing is downloaded"
        if offline
        else "no telemetry; only named models are downloaded"
    )
    findings = [Finding("privacy", "ok", text)]
    for package in ("trl", "vllm", "unsloth"):
        try:
            version = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
        fix = "give it an environment of its own: its pins may move torch and transformers"
        findings.append(Finding(package, "note", f"{version} shares this environment", fix))
    return findings
