"""How the answers of models are read: lines that begin with a name, JSON, one line, yes or no."""

from __future__ import annotations

import json
import re
from itertools import zip_longest

from tanzim.core.records import Json

FIELDS = {"conversation": ("question", "answer"), "labelled": ("text",), "text": ("text",)}
"""What a draft of a shape consists of."""
_NAMES = {
    "question": r"questions?|پرسش|سؤال|سوال",
    "answer": r"answers?|پاسخ|جواب",
    "text": r"texts?|متن",
}
# "Question:", "**Answer 1:**", "پرسش:" at the head of a line.
_HEAD = re.compile(
    r"^[ \t>*#_-]*(?:"
    + "|".join(f"(?P<{field}>{names})" for field, names in _NAMES.items())
    + r")[ \t]*\d*[ \t]*[*_]*[:：][ \t*_]*",
    re.IGNORECASE | re.MULTILINE,
)
_YES = re.compile(r"\W*(yes|true|بله|آری)\b", re.IGNORECASE)
_NO = re.compile(r"\W*(no|false|خیر|نه)\b", re.IGNORECASE)
_AROUND = " \t\r\n\"'“”«»*_`"


def read_draft(shape: str, answer: str) -> Json | None:
    """Return the draft in an answer, none of its fields empty: named lines, or a JSON object with these keys.

    A field goes on to the next name; where a name stands twice, the first one counts.

    Args:
        shape: conversation, labelled or text.
        answer: what a model said.

    """
    fields = FIELDS[shape]
    return _whole(_from_json(fields, answer), fields) or _whole(_from_lines(answer), fields)


def _whole(value: Json, fields: tuple[str, ...]) -> Json | None:
    found = {name: value.get(name) for name in fields}
    if not all(isinstance(text, str) and text.strip(" …\n") for text in found.values()):
        return None
    return {name: str(text).strip() for name, text in found.items()}


def _from_json(fields: tuple[str, ...], answer: str) -> Json:
    decoder = json.JSONDecoder()
    at = answer.find("{")
    while at >= 0:
        try:
            value, _ = decoder.raw_decode(answer, at)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict) and _whole(value, fields):
            return value
        at = answer.find("{", at + 1)
    return {}


def _from_lines(answer: str) -> Json:
    found: Json = {}
    heads = list(_HEAD.finditer(answer))
    for head, after in zip_longest(heads, heads[1:]):
        text = answer[head.end() : after.start() if after else len(answer)]
        found.setdefault(str(head.lastgroup), text.strip(_AROUND))
    return found


def read_line(answer: str) -> str:
    """Return the first line that says something, without a name before it and marks around it."""
    lines = (_HEAD.sub("", line, count=1).strip(_AROUND) for line in answer.splitlines())
    return next((line for line in lines if line), "")


def read_verdict(answer: str) -> bool | None:
    """Return what a verifier said: yes, no, or None where it said neither."""
    if _YES.match(answer):
        return True
    return False if _NO.match(answer) else None
