"""Tool calls as they are read out of an answer's pieces."""

from __future__ import annotations

import json
from typing import Any

from tanzim.serve.tool_calls import ToolCalls, ToolFormat


def read_calls(format: ToolFormat, pieces: list[str]) -> list[Any]:
    """Return texts as they are, neighbours joined, and calls as (name, arguments)."""
    calls = ToolCalls(format)
    told = [found for piece in pieces for found in calls.push(piece)] + calls.finish()
    read: list[Any] = []
    for one in told:
        if isinstance(one, dict):
            read.append((one["function"]["name"], json.loads(one["function"]["arguments"])))
        elif read and isinstance(read[-1], str):
            read[-1] += one
        else:
            read.append(one)
    assert calls.count == sum(isinstance(one, tuple) for one in read)
    return read
