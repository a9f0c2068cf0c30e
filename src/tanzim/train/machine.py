"""What this machine has: cores, memory within its limits, disk, devices, and measured arithmetic."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from tanzim.models.kernels import matmul

PRODUCT = (1024, 1024, 2048)  # of the measured matrix product: tokens, inputs, outputs
PRODUCTS = 4
# cgroup version 2, then 1: limit and use, in bytes.
CGROUP_FILES = (
    ("memory.max", "memory.current"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes"),
)


@dataclass(frozen=True, slots=True)
class Machine:
    """What a run can use.

    Args:
        device: where the model goes, with its name.
        cores: processor cores this process may use.
        memory: bytes still free for this process, on the device.
        held: bytes this process holds already (Python, torch; on a GPU, what torch has reserved).
        disk: bytes free where the runs lie.
        flops: floating-point operations per second of a matrix product, measured in the run's precision.

    """

    device: str
    cores: int
    memory: int
    held: int
    disk: int
    flops: float


def probe(folder: Path, *, device: torch.device, dtype: torch.dtype) -> Machine:
    """Measure this machine in about half a second.

    Args:
        folder: where runs are written; it need not exist yet.
        device: where the model is to go.
        dtype: precision of the matrix products.

    """
    there = next(path for path in [folder.absolute(), *folder.absolute().parents] if path.exists())
    if device.type == "cuda":
        memory, _ = torch.cuda.mem_get_info(device)
        held, name = torch.cuda.memory_reserved(device), torch.cuda.get_device_name(device)
    else:
        memory, held, name = free_memory(), psutil.Process().memory_info().rss, device.type
    return Machine(
        device=name,
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory=memory,
        held=held,
        disk=shutil.disk_usage(there).free,
        flops=measure_flops(device, dtype),
    )


def free_memory() -> int:
    """Return the bytes of main memory still free for this process, within its control group's limit."""
    free = int(psutil.virtual_memory().available)
    for limit, used in _cgroup_memory():
        free = min(free, max(0, limit - used))
    return free


def _cgroup_memory(
    root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> list[tuple[int, int]]:
    """Return (limit, use) of every control group of memory that this process is in."""
    found = []
    entries = membership.read_text().splitlines() if membership.is_file() else []
    for entry in entries:
        _, controllers, path = entry.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        for base in (root / controllers, root / "unified"):
            # A container sees its own group at the root, whatever path it is told.
            for folder in (base / path.lstrip("/"), base):
                for limit_name, used_name in CGROUP_FILES:
                    limit, used = folder / limit_name, folder / used_name
                    if limit.is_file() and used.is_file() and limit.read_text().strip() != "max":
                        found.append((int(limit.read_text()), int(used.read_text())))
    return found


def measure_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Return the floating-point operations per second of a matrix product, the best of a few."""
    matmul.register()  # as the training's products are computed
    rows, inputs, outputs = PRODUCT
    if device.type == "cuda":
        rows, inputs, outputs = 4 * rows, 4 * inputs, 4 * outputs
    left_RI = torch.randn(rows, inputs, device=device, dtype=torch.float32).to(dtype)
    right_IO = torch.randn(inputs, outputs, device=device, dtype=torch.float32).to(dtype)
    best = float("inf")
    for _ in range(PRODUCTS + 1):
        _wait(device)
        start = time.perf_counter()
        torch.mm(left_RI, right_IO)
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return 2 * rows * inputs * outputs / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
