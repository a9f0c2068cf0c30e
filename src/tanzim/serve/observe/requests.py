"""The log of requests: one line of JSON for each answer, a file for each day, deleted after some days."""

from __future__ import annotations

import json
import secrets
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from tanzim.core.records import Json
from tanzim.core.run import append_line
from tanzim.serve.config import RequestLogConfig


class RequestLog:
    """Writes what was asked and answered, as far as the config lets it.

    Args:
        config: how much is kept, and how long.
        folder: of the server.

    """

    def __init__(self, config: RequestLogConfig, folder: Path) -> None:
        self._config, self._folder = config, folder / "requests"
        self._swept: date | None = None
        self._screen: Any = None
        if config.texts == "redacted":
            from tanzim.data.screen.config import PiiConfig
            from tanzim.data.screen.pii import Screen

            self._screen = Screen(PiiConfig())
            self._screen.find(["warm up"])  # loads the recognisers now, not at the first answer

    def add(self, line: Json, prompt: str, answer: str) -> None:
        """Write a line, if it is drawn; ``prompt`` and ``answer`` only where texts are kept."""
        if not self._config.sample or secrets.randbelow(1 << 20) >= self._config.sample * (1 << 20):
            return
        today = datetime.now(UTC).date()
        if self._config.texts != "none":
            line = line | {"prompt": self._kept(prompt), "answer": self._kept(answer)}
        append_line(self._folder / f"{today}.jsonl", {"time": round(time.time(), 3), **line})
        if self._swept != today:
            self._sweep(today)

    def _kept(self, text: str) -> str:
        if self._screen is None:
            return text
        (found,) = self._screen.find([text])
        hidden: str = self._screen.hide(text, found)
        return hidden

    def _sweep(self, today: date) -> None:
        """Delete the files of days that are over for long enough."""
        self._swept = today
        oldest = today - timedelta(days=self._config.days)
        for path in self._folder.glob("????-??-??.jsonl"):
            if path.stem < str(oldest):
                path.unlink()


def said(messages: list[Json]) -> str:
    """Return a conversation as the log keeps it."""
    return json.dumps(messages, ensure_ascii=False)
