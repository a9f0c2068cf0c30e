"""Where the shards of a step are worked on: in this process, in one per core, or on a Ray cluster."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from tanzim.core.errors import DataError

T = TypeVar("T")
R = TypeVar("R")
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_TOLD = 20  # rows between two reports of progress
_LOOK = 0.25  # seconds between two looks at what the workers have told

Tell = Callable[[int], None]
_tell: Tell | None = None  # takes the rows that the work in this process has got through


def told(rows: Iterable[T]) -> Iterator[T]:
    """Pass rows on, and tell whoever gave the work how many (see `Executor.map`)."""
    number = 0
    for number, row in enumerate(rows, 1):
        yield row
        if _tell is not None and number % _TOLD == 0:
            _tell(_TOLD)
    if _tell is not None:
        _tell(number % _TOLD)


@contextmanager
def telling(tell: Tell) -> Iterator[None]:
    """Let ``tell`` have the sum of what is `told` in this process until the block ends."""
    global _tell  # noqa: PLW0603 - a worker process has one, and does one thing at a time
    before, done = _tell, 0

    def more(rows: int) -> None:
        nonlocal done
        done += rows
        tell(done)

    _tell = more
    try:
        yield
    finally:
        _tell = before


def nobody(rows: int) -> None:
    """Take how many rows are done, and tell nobody."""


class Executor(Protocol):
    """Applies a function to tasks; both travel between processes, so they must pickle."""

    def map(
        self, function: Callable[[T], R], tasks: Sequence[T], tell: Tell = nobody
    ) -> Generator[tuple[int, R], None, None]:
        """Yield the number of each task and its result, in the order in which they are done.

        Args:
            function: what is done with each task.
            tasks: the tasks.
            tell: takes the number of rows that all tasks together have got through, time and again.

        """

    def close(self) -> None:
        """Give back what it holds."""


class Local:
    """Processes on this machine.

    Args:
        workers: how many at the most; None takes one for each core.

    """

    def __init__(self, workers: int | None = None) -> None:
        self._workers = workers or cores()

    def map(
        self, function: Callable[[T], R], tasks: Sequence[T], tell: Tell = nobody
    ) -> Generator[tuple[int, R], None, None]:
        """Yield the number of each task and its result, in the order in which they are done.

        Raises:
            DataError: a process was killed.

        """
        workers = min(self._workers, len(tasks))
        if workers < 2:
            with telling(tell):
                yield from ((number, function(task)) for number, task in enumerate(tasks))
            return
        # Forked from a clean server: threads of this process (Arrow, BLAS) must not be copied half-way.
        context = multiprocessing.get_context("forkserver")
        others = set(multiprocessing.active_children())
        rows = context.Value("q", 0)
        pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(rows,))
        waiting: dict[Future[R], int] = {}
        left = iter(enumerate(tasks))
        try:
            while True:
                while len(waiting) < 2 * workers and (task := next(left, None)) is not None:
                    waiting[pool.submit(function, task[1])] = task[0]
                if not waiting:
                    return
                for future in wait(waiting, _LOOK, return_when=FIRST_COMPLETED).done:
                    yield waiting.pop(future), future.result()
                tell(rows.get_obj().value)  # without the lock, which a worker that was killed may hold
        except BrokenProcessPool:
            raise DataError(
                "a worker process was killed, most likely for want of memory",
                fix="set data.workers to a smaller number; what is done is kept, the same command goes on",
            ) from None
        finally:
            if waiting:  # stopped in the middle: a shard may take minutes, and what is half done is not kept
                for process in set(multiprocessing.active_children()) - others:
                    process.terminate()
            pool.shutdown(wait=True, cancel_futures=True)

    def close(self) -> None:
        """Do nothing: the processes end with each `map`."""


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_executor(engine: str, workers: int | None) -> Executor:
    """Return what works on the shards.

    Args:
        engine: local or ray.
        workers: processes at the most; None takes one for each core.

    """
    if engine == "ray":
        from tanzim.data.executor_ray import OnRay

        return OnRay(workers)
    return Local(workers)


def _start(rows: Any = None) -> None:  # noqa: ANN401 - a multiprocessing.Value
    """Let a worker use one core (there is one worker for each), and end with the process that started it.

    Args:
        rows: what all workers add the rows to that they have got through.

    """
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all: the first process ends the others
    threading.Thread(target=_follow, daemon=True).start()
    import pyarrow as pa

    pa.set_cpu_count(1)
    if rows is not None:
        global _tell  # noqa: PLW0603 - see `telling`

        def add(number: int) -> None:
            with rows.get_lock():
                rows.value += number

        _tell = add


def _follow() -> None:
    """Die with the process that gives the work, however it ends: nobody would collect the results."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
