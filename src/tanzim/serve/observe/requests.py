"""The log of requests: one line of JSON for each answer, a file for each day, deleted after some days."""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path

from tanzim.core.records import Json
from tanzim.core.run import append_line
from tanzim.serve.config import RequestLogConfig
from tanzim.serve.observe.afterwards import Afterwards
from tanzim.serve.observe.texts import keeper

_LINE = 1 << 10  # bytes of a line besides its texts

_log = logging.getLogger("tanzim.serve")


class RequestLog:
    """Writes what was asked and answered, as far as the config lets it.

    Lines are redacted and written in the thread of ``afterwards``, in their order. One that finds no room in
    its queue, or none on the disk, is lost and counted; the log says so once, and again when it can write.

    Args:
        config: how much is kept, and how long.
        folder: of the server.
        afterwards: does the work.
        lost: told of each line that could not be kept.
        clock: seconds since 1970.

    """

    def __init__(
        self,
        config: RequestLogConfig,
        folder: Path,
        afterwards: Afterwards,
        lost: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config, self._folder = config, folder / "requests"
        self._afterwards, self._told_lost, self._clock = afterwards, lost, clock
        self._swept: date | None = None
        self._lost = 0  # lines since the last that was written
        self._keep = keeper(config.texts)
        afterwards.regular.append(self._sweep)

    def add(self, line: Json, prompt: str, answer: str) -> None:
        """Have a line written, if it is drawn; ``prompt`` and ``answer`` only where texts are kept."""
        if not self._config.sample or secrets.randbelow(1 << 20) >= self._config.sample * (1 << 20):
            return
        texts = {} if self._keep is None else {"prompt": prompt, "answer": answer}
        line = {"time": round(self._clock(), 3), **line}
        size = _LINE + 4 * sum(map(len, texts.values()))
        if not self._afterwards.put(partial(self._write, line, texts), size):
            self._lose("answers come faster than they can be written")

    def _write(self, line: Json, texts: dict[str, str]) -> None:
        if self._keep is not None:
            line = line | {name: self._keep(text) for name, text in texts.items()}
        today = datetime.fromtimestamp(line["time"], UTC).date()
        try:
            append_line(self._folder / f"{today}.jsonl", line)
        except OSError as error:
            self._lose(str(error.strerror or error))
            return
        if self._lost:
            _log.warning("the request log is written again; %d lines are lost", self._lost)
            self._lost = 0
        if self._swept != today:
            self._sweep()

    def _lose(self, why: str) -> None:
        self._lost += 1
        self._told_lost()
        if self._lost == 1:
            _log.error("the request log in %s cannot be written: %s; lines are lost", self._folder, why)

    def _sweep(self) -> None:
        """Delete the files of days that are over for long enough."""
        self._swept = today = datetime.fromtimestamp(self._clock(), UTC).date()
        oldest = today - timedelta(days=self._config.days)
        for path in self._folder.glob("????-??-??.jsonl"):
            if path.stem < str(oldest):
                path.unlink(missing_ok=True)


def said(messages: list[Json]) -> str:
    """Return a conversation as the log keeps it."""
    return json.dumps(messages, ensure_ascii=False)
