"""Documents read where they can do no harm: in a process with bounded memory and time.

Parsers of PDF, Office and HTML meet bytes that were made to hang or exhaust them. In a process of their
own they can be stopped, and a crash of one is one rejected document. The process is kept for the next.
"""

from __future__ import annotations

import atexit
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tanzim.core.errors import ConfigError, DataError, MissingExtra
from tanzim.data.ingest.documents.blocks import Block, Cells, Fault, Part
from tanzim.data.ingest.documents.parts import NAMES, Kind, Options

MEGABYTES = 2048  # of address space for a parser, beside six times the document
_AHEAD = 256  # parts that may wait to be taken


class _Worker:
    """A process that reads documents, one at a time."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tanzim.data.ingest.documents.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        )
        self.pid = os.getpid()
        self._lines: queue.Queue[bytes] = queue.Queue(_AHEAD)
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(b"")

    def ask(self, request: dict[str, Any], seconds: float) -> Iterator[list[Any]]:
        """Yield the lines of the answer; the time that the caller takes for each does not count.

        Raises:
            TimeoutError: the answer takes longer than ``seconds``.
            EOFError: the process died.

        """
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        except OSError as error:
            raise EOFError from error
        left = seconds
        while True:
            start = time.monotonic()
            try:
                line = self._lines.get(timeout=max(0.0, left))
            except queue.Empty:
                raise TimeoutError from None
            left -= time.monotonic() - start
            if not line:
                raise EOFError
            answer: list[Any] = json.loads(line)
            yield answer
            if answer[0] not in ("block", "fault", "cells"):
                return

    def stop(self) -> int:
        """End the process; return its exit status."""
        if self.pid != os.getpid():  # a fork's copy: the process is not its child
            return 0
        self.process.kill()
        status = self.process.wait()
        while self._lines.get():  # let the listener go; it says at last that there is no more
            pass
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        return status


_idle: list[_Worker] = []


def _take() -> _Worker:
    while _idle:
        worker = _idle.pop()
        if worker.pid == os.getpid() and worker.process.poll() is None:
            return worker
    return _Worker()


@atexit.register
def stop_idle() -> None:
    """End the processes that wait for the next document."""
    while _idle:
        _idle.pop().stop()


def contained(path: Path, kind: Kind, options: Options, seconds: float) -> Iterator[Part]:
    """Yield what `read_parts` yields, from a process that is stopped if it takes too much.

    Args:
        path: the document.
        kind: what it is.
        options: how it is read.
        seconds: the most time that reading it may take.

    Raises:
        DataError: it cannot be read, or not within the time and memory.
        MissingExtra: the package that reads it is not installed.

    """
    megabytes = MEGABYTES + 6 * (path.stat().st_size >> 20)
    request = {
        "path": str(path), "kind": kind, "options": asdict(options),
        "megabytes": megabytes, "seconds": int(seconds),
    }  # fmt: skip
    worker = _take()
    whole = False
    try:
        for answer in worker.ask(request, seconds):
            if answer[0] == "block":
                yield Block(*answer[1:])
            elif answer[0] == "fault":
                yield Fault(*answer[1:])
            elif answer[0] == "cells":
                yield Cells(*answer[1:])
            else:
                whole = True
                _conclude(answer)
    except TimeoutError:
        raise DataError(
            f"the {NAMES[kind]} takes more than {seconds:g} s to read",
            fix="leave it out, or raise data.max_document_seconds",
        ) from None
    except EOFError:
        raise DataError(
            f"reading the {NAMES[kind]} was stopped: it takes more than {megabytes} MB of memory, or makes "
            "its parser crash",
            fix="leave it out",
        ) from None
    finally:
        if whole and not _idle:
            _idle.append(worker)
        else:
            worker.stop()


def _conclude(answer: list[Any]) -> None:
    """Raise what a last line says is wrong."""
    if answer[0] == "missing":
        raise MissingExtra(answer[1], fix=answer[2])
    if answer[0] == "config":
        raise ConfigError(answer[1], where=answer[2])
    if answer[0] == "wrong":
        raise DataError(answer[1], fix=answer[2])
