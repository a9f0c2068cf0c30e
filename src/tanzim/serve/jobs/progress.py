"""What a job's process writes as it goes, read once and turned into events."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

from tanzim.core.records import Json

_MOST = 1 << 20  # bytes taken at a time


def new_lines(path: Path, start: int) -> tuple[list[Json], int]:
    """Return the events that stand in a file after byte ``start``, and the byte after the last of them.

    A line that is not whole yet is left for the next time.

    Args:
        path: of ``events.jsonl``; it need not be there yet.
        start: bytes read before.

    """
    if not path.is_file():
        return [], start
    with path.open("rb") as stream:
        stream.seek(start)
        block = stream.read(_MOST)
        whole = block[: block.rfind(b"\n") + 1]
        if whole:
            os.fsync(stream.fileno())  # what is told must still stand there after a power cut
    return [_event(json.loads(line)) for line in whole.splitlines()], start + len(whole)


def _event(line: Json) -> Json:
    made = {"created_at": int(line["time"])}
    if line["kind"] == "train":
        message = f"Step {line['step']}/{line['steps']}: training loss={line['loss']:.4f}"
        data = {"step": line["step"], "total_steps": line["steps"], "train_loss": line["loss"]}
        return made | {"message": message, "type": "metrics", "data": data}
    if line["kind"] == "eval":
        message = f"Step {line['step']}: validation loss={line['loss']:.4f}"
        data = {"step": line["step"], "valid_loss": line["loss"]}
        return made | {"message": message, "type": "metrics", "data": data}
    return made | {"message": line["message"]}


def estimate(lines: Sequence[Json]) -> int | None:
    """Return when a job will be done, in seconds since 1970, from its last two steps; None if unknown."""
    steps = [line for line in lines if "total_steps" in (line.get("data") or {})]
    if len(steps) < 2:
        return None
    first, last = steps[0], steps[-1]
    done = last["data"]["step"] - first["data"]["step"]
    pace = (last["created_at"] - first["created_at"]) / max(done, 1)
    return int(time.time() + pace * (last["data"]["total_steps"] - last["data"]["step"]))
