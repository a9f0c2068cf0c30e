"""A disk that becomes full."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk_at(disk: Path) -> Iterator[Path]:
    """Yield a file system of its own, of 4 MB; the test is skipped where none can be mounted."""
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    try:
        made = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    if made.returncode != 0:
        pytest.skip(f"no file system of its own can be mounted: {made.stderr.strip()}")
    yield disk
    # Lazily: token files may still be mapped.
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(disk: Path, leave: int) -> None:
    """Take all but ``leave`` bytes of the disk."""
    statistics = os.statvfs(disk)
    free = statistics.f_bavail * statistics.f_frsize
    (disk / "ballast").write_bytes(b"x" * (free - leave))
