"""How long work tells what it does: silent by itself; the command line and the studio show it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tanzim.core.records import Json, Progress, no_progress


class Reporter:
    """Takes what a pipeline has to say and keeps its automatic choices; shows nothing.

    Subclasses override `say`, `line` and `task` to show it somewhere.
    """

    def __init__(self) -> None:
        self.choices: list[Json] = []

    def say(self, text: str) -> None:
        """Tell one fact worth a line."""

    def choose(self, key: str, value: object, why: str) -> None:
        """Tell an automatic choice: the config key that overrides it, the value taken, and why."""
        self.choices.append({"key": key, "value": str(value), "why": why})
        self.say(f"{key}: {value} ({why})")

    def line(self, line: Json) -> None:
        """Tell a line of ``metrics.jsonl`` as it is written."""

    @contextmanager
    def task(self, title: str) -> Iterator[Progress]:
        """Yield the callback that shows the progress of the long work called ``title``."""
        yield no_progress
