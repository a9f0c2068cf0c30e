"""Every line of a run's metrics: to ``metrics.jsonl``, to the trackers, and to whoever watches."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from tanzim.core.errors import TrainError
from tanzim.core.records import Json
from tanzim.core.run import append_line
from tanzim.train.trackers import Tracker

OnLine = Callable[[Json], None]


class MetricsLog:
    """The metrics of one run, in the order they happened.

    Args:
        path: ``metrics.jsonl``; cut back to ``size`` bytes, the state a checkpoint knows.
        size: how many bytes of it stand.
        trackers: where numbers go besides.
        on_line: called with every line.

    """

    def __init__(self, path: Path, size: int, trackers: Sequence[Tracker], on_line: OnLine) -> None:
        self.path = path
        self.trackers = trackers
        self.on_line = on_line
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as stream:
            stream.truncate(size)

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return os.path.getsize(self.path)

    def write(self, line: Json) -> None:
        """Write one line: its ``kind`` is train, eval, gradients or event.

        Raises:
            TrainError: the disk is full.

        """
        try:
            append_line(self.path, line)
        except OSError as error:
            raise TrainError(
                f"the metrics cannot be written: {error.strerror}",
                where=str(self.path),
                fix="free disk space and run again; it resumes from the last checkpoint",
            ) from error
        if line["kind"] != "event":
            for tracker in self.trackers:
                tracker.log(line)
        self.on_line(line)

    def event(self, step: int, message: str, *, warning: str | None = None) -> None:
        """Write what a reader of the run should know, in words; ``warning`` is its kind, if it is one."""
        line: Json = {"step": step, "kind": "event", "message": message}
        self.write(line if warning is None else line | {"warning": warning})

    def lines(self) -> list[Json]:
        """Read back every line so far."""
        return [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]

    def close(self) -> None:
        """Let every tracker finish."""
        for tracker in self.trackers:
            tracker.close()


class Unheard(MetricsLog):
    """The metrics of a rank whose lines another one writes."""

    def __init__(self) -> None:
        self.trackers = ()

    @property
    def size(self) -> int:
        """Bytes written: none."""
        return 0

    def write(self, line: Json) -> None:
        """Write nothing."""

    def lines(self) -> list[Json]:
        """Return nothing: the first rank has them."""
        return []
