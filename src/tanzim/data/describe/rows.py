"""Examples as the rows that other tools, and `tanzim` itself, read."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tanzim.core.files import new_file
from tanzim.core.records import Example, Json, Message

_COLUMNS = ("group", "time", "licence")  # what `data.columns` reads back


def to_row(example: Example) -> Json:
    """Return an example as a row in a usual layout, which reads back as the same example.

    Conversations become OpenAI's ``messages`` (and ``tools``), pairs ``prompt``, ``chosen`` and ``rejected``,
    the rest ``text`` and ``label``, ``words`` and ``tags``. Group, time and licence are columns of their own;
    what else is known of it stands under ``about``, where it came from under ``provenance``.
    """
    if example.kind == "messages":
        row: Json = {"messages": [_turn(turn) for turn in example.messages]}
    elif example.kind == "pair":
        row = {
            "prompt": [_turn(turn) for turn in example.messages],
            "chosen": [_turn(turn) for turn in example.chosen],
            "rejected": [_turn(turn) for turn in example.rejected],
        }
    elif example.kind == "tagged":
        row = {"words": list(example.words), "tags": list(example.tags)}
    elif example.kind == "labelled":
        row = {"text": example.text, "label": example.label}
    else:
        row = {"text": example.text}
    if example.tools:
        row["tools"] = list(example.tools)
    row |= {key: example.about[key] for key in _COLUMNS if key in example.about}
    if about := {key: value for key, value in example.about.items() if key not in _COLUMNS}:
        row["about"] = about
    return {**row, "provenance": str(example.provenance)}


def _turn(turn: Message) -> Json:
    row: Json = {"role": turn.role, "content": turn.content}
    if turn.thinking is not None:
        row["reasoning_content"] = turn.thinking
    if turn.tool_calls:
        row["tool_calls"] = [
            {
                "type": "function",
                **({"id": call.id} if call.id else {}),
                "function": {
                    "name": call.name,
                    "arguments": json.dumps(dict(call.arguments), ensure_ascii=False),
                },
            }
            for call in turn.tool_calls
        ]
    for key in ("tool_call_id", "name", "weight"):
        if (value := getattr(turn, key)) is not None:
            row[key] = value
    return row


def write_rows(path: Path, examples: Iterable[Example]) -> int:
    """Write examples as JSON Lines, whole or not at all; return how many."""
    count = 0
    with new_file(path) as stream:
        for example in examples:
            stream.write((json.dumps(to_row(example), ensure_ascii=False) + "\n").encode())
            count += 1
    return count
