"""Tool calls in what a model writes: ``<tool_call>{"name": …, "arguments": {…}}</tool_call>``.

It is how Hermes' and Qwen's templates have it, and what models whose template knows no tools are told to
write (`tanzim.models.fold`). What only looks like a call stays text.
"""

from __future__ import annotations

import json
import secrets

from tanzim.core.records import Json
from tanzim.infer.text import overlap

OPEN, CLOSE = "<tool_call>", "</tool_call>"


class ToolCalls:
    """Takes an answer in pieces of any size, and tells its text from its calls.

    White space around calls belongs to neither. However the answer is cut, the same comes out.

    Attributes:
        count: calls so far.

    """

    def __init__(self) -> None:
        self.count = 0
        self._waiting = ""
        self._after_call = False

    def push(self, text: str) -> list[str | Json]:
        """Take a piece; return the texts and calls that are certain, in their order."""
        self._waiting += text
        found: list[str | Json] = []
        while (start := self._waiting.find(OPEN)) >= 0:
            end = self._waiting.find(CLOSE, start)
            if end < 0:
                break
            call = _call(self._waiting[start + len(OPEN) : end])
            if call is None:  # the next one may begin inside
                self._say(found, self._waiting[: start + len(OPEN)])
                self._waiting = self._waiting[start + len(OPEN) :]
                continue
            self._say(found, self._waiting[:start].rstrip())
            found.append(call)
            self.count += 1
            self._waiting, self._after_call = self._waiting[end + len(CLOSE) :], True
        if start < 0:
            start = len(self._waiting) - overlap(self._waiting, OPEN)
        certain = self._waiting[:start].rstrip()
        self._waiting = self._waiting[len(certain) :]
        self._say(found, certain)
        return found

    def finish(self) -> list[str | Json]:
        """Return what was held back: the answer ends here."""
        found: list[str | Json] = []
        self._say(found, self._waiting)
        self._waiting = ""
        return found

    def _say(self, found: list[str | Json], text: str) -> None:
        if self._after_call:
            text = text.lstrip()
        if text:
            found.append(text)
            self._after_call = False


def _call(text: str) -> Json | None:
    """Return the call as OpenAI's API has it; None if it is none."""
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return None
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", {})
    if not isinstance(arguments, dict):
        return None
    function = {"name": value["name"], "arguments": json.dumps(arguments, ensure_ascii=False)}
    try:
        "".join(function.values()).encode()
    except UnicodeEncodeError:  # an escape such as \ud800 alone, which cannot be sent
        return None
    return {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}
