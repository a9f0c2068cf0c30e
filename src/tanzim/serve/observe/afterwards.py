"""What follows an answer and nobody waits for: done in a thread of its own, one thing after another."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

MOST = 64 << 20  # bytes of texts that may wait
PAUSE = 3600.0  # seconds without work after which the regular work is done

_log = logging.getLogger("tanzim.serve")


class Afterwards:
    """A thread with a bounded queue.

    Args:
        most: bytes that the work in the queue may hold.
        pause: seconds without work after which what is in ``regular`` is done, as it is at the start.

    Attributes:
        regular: what is to be done now and then.

    """

    def __init__(self, most: int = MOST, pause: float = PAUSE) -> None:
        self._most, self._pause = most, pause
        self.regular: list[Callable[[], None]] = []
        self._held = 0
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[tuple[Callable[[], None], int] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="tanzim-afterwards", daemon=True)

    def start(self) -> None:
        """Start the thread; what was put before waits until then."""
        self._thread.start()

    def stop(self) -> None:
        """Do all that waits, and end the thread."""
        self._queue.put(None)
        self._thread.join()

    def put(self, work: Callable[[], None], size: int) -> bool:
        """Queue ``work``; False if there is no room for it, and it will not be done.

        Args:
            work: what is to be done.
            size: bytes of memory that it holds.

        """
        with self._lock:
            if self._held and self._held + size > self._most:
                return False
            self._held += size
        self._queue.put((work, size))
        return True

    def _run(self) -> None:
        self._do(self._now_and_then)
        while True:
            try:
                item = self._queue.get(timeout=self._pause)
            except queue.Empty:
                self._do(self._now_and_then)
                continue
            if item is None:
                return
            work, size = item
            self._do(work)
            with self._lock:
                self._held -= size

    def _now_and_then(self) -> None:
        for work in self.regular:
            work()

    def _do(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:  # noqa: BLE001 - one failure must not end what all others wait for
            _log.exception("what follows an answer failed")
