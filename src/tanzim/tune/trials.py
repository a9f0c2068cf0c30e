"""The trials of a search, and the log they are kept in: every step of theirs is a line before it counts."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tanzim.core.errors import RunError
from tanzim.core.files import write_text
from tanzim.core.records import Json
from tanzim.core.run import append_line, read_lines

State = Literal["running", "complete", "pruned", "failed"]


@dataclass(slots=True)
class Trial:
    """One setting, tried.

    Args:
        number: from 1, in the order they were begun.
        params: key → value.
        state: running (or interrupted), complete, pruned or failed.
        value: what came of it, if complete.
        reports: step → value on the way.
        prune_at: the step whose report ends it.
        reason: why it failed.
        seconds: wall time from its (last) beginning to its end.

    """

    number: int
    params: Json
    state: State = "running"
    value: float | None = None
    reports: dict[int, float] = field(default_factory=dict)
    prune_at: int | None = None
    reason: str = ""
    seconds: float = 0.0

    def apply(self, line: Json) -> None:
        """Take in one line of the log that is about this trial."""
        if line["kind"] == "report":
            self.reports[line["step"]] = line["value"]
            if line["prune"]:
                self.prune_at = line["step"]
        elif line["kind"] == "tell":
            self.state, self.value = line["state"], line["value"]
            self.reason, self.seconds = line["reason"], line["seconds"]
        elif line["kind"] == "again":
            self.state, self.reason = "running", ""


class TrialLog:
    """The log of one search: ``search.jsonl``.

    Its first line says what the search is; then come lines of kind ask, report, tell and again. Until the
    first trial is asked for there is no file, and the search can still become another one.

    Args:
        path: the file.
        about: what must not change when a search goes on (plain JSON).

    Raises:
        RunError: the search in the file is another one; the message names what differs.

    """

    def __init__(self, path: Path, about: Json) -> None:
        self.path = path
        self.lines: list[Json] = []
        if path.is_file():
            _cut_unfinished(path)
            self.lines = list(read_lines(path))
        if not self.lines:
            self.lines = [{"kind": "search", "about": about}]
            return
        before = self.lines[0]["about"]
        changed = [
            f"{key} was {before.get(key)!r} and is {about.get(key)!r}"
            for key in sorted(before.keys() | about.keys())
            if before.get(key) != about.get(key)
        ]
        if changed:
            raise RunError(
                "this search began differently: " + "; ".join(changed),
                where=str(path),
                fix="put it back to go on, or take another name (or --overwrite) for a new search",
            )

    def write(self, line: Json) -> None:
        """Append one line; it is on its way to the disk when this returns."""
        if len(self.lines) == 1:
            write_text(self.path, json.dumps(self.lines[0], ensure_ascii=False) + "\n")
        append_line(self.path, line)
        self.lines.append(line)


def _cut_unfinished(path: Path) -> None:
    """Remove a last line that a kill has cut off, so that the next one does not join it."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)


def read_trials(lines: Iterable[Json]) -> list[Trial]:
    """Return the trials that the lines of a log tell of, in the order they were begun."""
    trials: dict[int, Trial] = {}
    for line in lines:
        if line["kind"] == "ask":
            trials[line["trial"]] = Trial(line["trial"], line["params"])
        elif line["kind"] != "search":
            trials[line["trial"]].apply(line)
    return list(trials.values())
