"""Compiled loops on as many threads as torch computes with."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import torch

# Numbers read below which handing a part to another thread costs more than it saves.
WORTH_SHARING = 1 << 18


def shared(work: Callable[[int, int], Any], rows: int, size: int) -> None:
    """Do ``work`` on all rows, a share on each of torch's threads if there is enough to do.

    Args:
        work: takes the first row and the one after the last; must not hold the interpreter's lock.
        rows: how many.
        size: numbers that all of it reads.

    """
    threads = min(torch.get_num_threads(), rows)
    if threads < 2 or size < WORTH_SHARING:
        work(0, rows)
        return
    borders = [rows * number // threads for number in range(threads + 1)]
    others = [_helpers(threads - 1).submit(work, first, last) for first, last in pairwise(borders[1:])]
    work(0, borders[1])
    for other in others:
        other.result()


@cache
def _helpers(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="tanzim-kernel")
