"""Which rank of a job this process is, as torchrun and Ray Train say it in the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process stands in a job.

    Args:
        rank: its number among all, from 0.
        world: how many there are.
        local_rank: its number on its machine, which is also the number of its GPU.

    """

    rank: int
    world: int
    local_rank: int


def place() -> Place | None:
    """Return this process's place, or None if nobody launched it as a rank."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    if not all(os.environ.get(name, "").isdigit() for name in names):
        return None
    return Place(*(int(os.environ[name]) for name in names))
