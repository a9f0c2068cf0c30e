"""Compiled loops on as many threads as torch computes with."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from tanzim.core.optional import need

# Numbers read below which handing a part to another thread costs more than it saves.
WORTH_SHARING = 1 << 18


class Job:
    """A compiled loop that torch's own team of threads divides among itself (GNU OpenMP), in 2 µs.

    Args:
        loop: ``loop(numbers, part, parts)`` for numba: it does one of equal parts of the work that the
            numbers describe, addresses among them (`viewer` reads those).

    """

    def __init__(self, loop: Callable[[Any, int, int], None]) -> None:
        numba: Any = need("numba", "serve")
        inner, types = numba.njit(loop), numba.types
        part, parts = (
            types.ExternalFunction(f"omp_get_{name}", types.int32()) for name in ("thread_num", "num_threads")
        )

        def start(numbers: Any) -> None:  # noqa: ANN401 - a pointer
            inner(numba.carray(numbers, (16,)), part(), parts())

        self._start = numba.cfunc(types.void(types.CPointer(types.int64)))(start)
        self._run = ctypes.CDLL(None).GOMP_parallel
        self._run.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        self._run.restype = None

    def __call__(self, numbers: np.ndarray[Any, Any], most: int) -> None:
        """Do it.

        Args:
            numbers: 16 of int64.
            most: threads that there is work for.

        """
        threads = min(torch.get_num_threads(), most)
        self._run(self._start.address, numbers.ctypes.data, threads, 0)


@cache
def has_team() -> bool:
    """Tell whether torch's threads are GNU OpenMP's, or of a library that answers to its name."""
    return sys.platform == "linux" and hasattr(ctypes.CDLL(None), "GOMP_parallel")


@cache
def viewer() -> Any:  # noqa: ANN401 - compiled
    """Return ``view(address, shape, dtype)`` for compiled loops: the array that lies there."""
    numba: Any = need("numba", "serve")
    from numba.core import cgutils, types
    from numba.extending import intrinsic

    @intrinsic
    def cast(typing: Any, address: Any) -> Any:  # noqa: ANN401
        def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:  # noqa: ANN401
            return builder.inttoptr(given[0], cgutils.voidptr_t)

        return types.voidptr(address), generate

    pointer: Any = cast

    def view(address: int, shape: tuple[int, ...], dtype: Any) -> Any:  # noqa: ANN401
        return numba.carray(pointer(address), shape, dtype)

    return numba.njit(view)


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
