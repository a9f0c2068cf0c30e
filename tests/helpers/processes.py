"""Processes of this machine, as /proc shows them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def wait_until(true: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)


def group_of_vllm(folder: Path) -> int:
    """Return the group of processes in which a server with this folder has started vLLM."""
    return int(json.loads((folder / "vllm" / "group.json").read_text())["group"])


def members(number: int) -> dict[int, str]:
    """Return the processes of a group, each with its command."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) == number and fields[0] != "Z":
                found[int(path.name)] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found
