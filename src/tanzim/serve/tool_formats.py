"""The ways in which families of models write calls, and which of them a model follows.

=======  ===================================================================================
hermes   ``<tool_call>{"name": …, "arguments": {…}}</tool_call>``, as Qwen has it, too, and as models whose
         template knows no tools are told to write (`tanzim.models.fold`)
llama    ``{"name": …, "parameters": {…}}`` is the whole answer, perhaps after ``<|python_tag|>``; several
         stand with semicolons between them (Llama 3.1 and after)
mistral  ``[TOOL_CALLS] [{"name": …, "arguments": {…}}]``, or ``[TOOL_CALLS]name[ARGS]{…}`` where ``[ARGS]``
         is a special token
=======  ===================================================================================
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from tanzim.core.errors import ModelError, RenderError
from tanzim.core.records import Json, Message
from tanzim.infer.text import overlap, special_tokens
from tanzim.models.learn import CALL, CALLED, QUESTION, RETURNED, TOOL
from tanzim.serve.tool_calls import Amount, Read, ToolFormat

Name = Literal["hermes", "llama", "mistral"]
Prompt = Callable[[Sequence[Message], Sequence[Json]], list[int]]
OPEN, CLOSE = "<tool_call>", "</tool_call>"
TOOL_CALLS, CALL_ID, ARGS = "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"
PYTHON_TAG = "<|python_tag|>"
_MISTRAL_ID = 9  # characters of a call's id, for its templates take no others
# A whole string, a bracket outside of strings, or the quote of a string that has no end yet.
_JSON_PART = re.compile(r'"(?:[^"\\]++|\\.)*+"|[\[\]{}"]', re.DOTALL)


class _Marks:
    """What stands around calls: special tokens, or plain text where the tokenizer has none of that name.

    Args:
        special: the tokenizer's special tokens.
        texts: the marks.

    """

    def __init__(self, special: Mapping[str, int], *texts: str) -> None:
        self._ids = {text: special[text] for text in texts if text in special}
        self.shown = tuple(self._ids.values())

    def __contains__(self, text: str) -> bool:
        return text in self._ids

    def rule(self, text: str) -> str:
        """Return a mark as grammars have it."""
        return f"<[{self._ids[text]}]>" if text in self else json.dumps(text)

    def after_text(self, text: str, rest: str) -> list[str]:
        """Return the rules of any text; where it has the mark, it ends with it and ``rest``."""
        written = re.escape(text)
        if text in self:  # no expression matches a special token
            return [
                f"start: TEXT ({self.rule(text)} {rest})?",
                f"TEXT: /(?s:.*)/ & ~/(?s:.*){written}(?s:.*)/",
            ]
        return [f"start: begun {rest} | rest", f"begun[lazy]: /(?s:.*){written}/", "rest: /(?s:.*)/"]


class Hermes:
    """``<tool_call>{"name": …, "arguments": {…}}</tool_call>``.

    Args:
        special: the tokenizer's special tokens: their texts and ids.

    """

    name = "hermes"

    def __init__(self, special: Mapping[str, int]) -> None:
        self._marks = _Marks(special, OPEN, CLOSE)
        self.shown = self._marks.shown

    def begins(self, text: str, *, first: bool) -> int:
        """Return where ``<tool_call>`` is, or its beginning at the end."""
        return _place(text, OPEN)

    def read(self, text: str, *, ended: bool) -> Read | None:
        """Read one call."""
        end = text.find(CLOSE)
        if end < 0:
            return None
        calls = _calls([_parsed(text[len(OPEN) : end])], "arguments", _id)
        return (calls, end + len(CLOSE)) if calls else ([], len(OPEN))

    def rules(self, names: Sequence[str], amount: Amount) -> list[str]:
        """Return the rules of an answer with so many calls."""
        call = f"{self._marks.rule(OPEN)} body"
        start = {
            "one": [f"start: {call}"],
            "some": [f"start: call (/\\n?/ call)*\ncall: {call}"],
            "at most one": self._marks.after_text(OPEN, "body"),
        }[amount]
        body = rf"body: /\n?/ any /\n?/ {self._marks.rule(CLOSE)}"
        return [*start, body, *_objects(names, "arguments")]


class Mistral:
    """``[TOOL_CALLS]`` and a list, or names and arguments with ``[ARGS]`` between; either is read.

    Args:
        special: the tokenizer's special tokens: their texts and ids.

    """

    name = "mistral"
    _HEAD = re.compile(
        rf'\s*(?P<name>[^\[\]{{}}"\s]+)(?:{re.escape(CALL_ID)}[^\[\]{{}}"\s]*)?{re.escape(ARGS)}\s*(?={{)'
    )
    _PART_OF_HEAD = re.compile(rf'\s*[^{{}}"\s]*(?:{re.escape(ARGS)}\s*)?')

    def __init__(self, special: Mapping[str, int]) -> None:
        self._marks = _Marks(special, TOOL_CALLS, CALL_ID, ARGS)
        self.shown = self._marks.shown

    def begins(self, text: str, *, first: bool) -> int:
        """Return where ``[TOOL_CALLS]`` is, or its beginning at the end."""
        return _place(text, TOOL_CALLS)

    def read(self, text: str, *, ended: bool) -> Read | None:
        """Read a list, or one call with ``[ARGS]``."""
        if not text.startswith(TOOL_CALLS):
            return None
        rest = text[len(TOOL_CALLS) :]
        inner = rest.lstrip()
        head = None if inner[:1] in ("[", "{") else self._HEAD.match(rest)
        if inner[:1] not in ("[", "{") and head is None:
            return None if self._PART_OF_HEAD.fullmatch(rest) else ([], len(TOOL_CALLS))
        start = len(rest) - len(inner) if head is None else head.end()
        end = _value_end(rest, start)
        if end is None:
            return None
        value = _parsed(rest[start:end])
        if head is not None:
            value = {"name": head["name"], "arguments": value}
        calls = _calls(value if isinstance(value, list) else [value], "arguments", _mistral_id)
        return (calls, len(TOOL_CALLS) + end) if calls else ([], len(TOOL_CALLS))

    def rules(self, names: Sequence[str], amount: Amount) -> list[str]:
        """Return the rules of an answer with so many calls."""
        mark = self._marks.rule(TOOL_CALLS)
        if ARGS in self._marks:
            start = {
                "one": [f"start: {mark} any"],
                "some": [f"start: ({mark} any)+"],
                "at most one": self._marks.after_text(TOOL_CALLS, "any"),
            }[amount]
            args = self._marks.rule(ARGS)
            begun = [f"{json.dumps(name, ensure_ascii=False)} {args}" for name in names]
            return [*start, *_any(names), *(f"call_{i}: {one} arguments_{i}" for i, one in enumerate(begun))]
        start = {
            "one": [f"start: {mark} list", 'list: / ?/ "[" any "]"'],
            "some": [f"start: {mark} list", 'list: / ?/ "[" any (", " any)* "]"'],
            "at most one": [*self._marks.after_text(TOOL_CALLS, "list"), 'list: / ?/ "[" any "]"'],
        }[amount]
        return [*start, *_objects(names, "arguments")]


class Llama:
    """``{"name": …, "parameters": {…}}`` as the whole answer; with anything beside it, it is text.

    Args:
        special: the tokenizer's special tokens: their texts and ids.

    """

    name = "llama"
    _BEFORE = re.compile(rf"\s*(?:{re.escape(PYTHON_TAG)}\s*)?")
    _BETWEEN = re.compile(r"[\s;]*")

    def __init__(self, special: Mapping[str, int]) -> None:
        self._marks = _Marks(special, PYTHON_TAG)
        self.shown = self._marks.shown

    def begins(self, text: str, *, first: bool) -> int:
        """Return the beginning of the answer, and no other place."""
        return 0 if first else len(text)

    def read(self, text: str, *, ended: bool) -> Read | None:
        """Read the whole answer."""
        if PYTHON_TAG.startswith(text.strip()):  # nothing yet, or a part of the mark
            return None
        before = self._BEFORE.match(text)
        at = before.end() if before else 0
        calls: list[Json] = []
        while at < len(text):
            if text[at] != "{":
                return [], len(text)
            end = _value_end(text, at)
            if end is None:
                return None
            value = _parsed(text[at:end])
            if not isinstance(value, dict) or not {"parameters", "arguments"} & set(value):
                return [], len(text)
            made = _calls([value], "parameters" if "parameters" in value else "arguments", _id)
            if not made:
                return [], len(text)
            calls += made
            between = self._BETWEEN.match(text, end)
            at = between.end() if between else end
        return (calls, len(text)) if ended else None

    def rules(self, names: Sequence[str], amount: Amount) -> list[str]:
        """Return the rules of an answer with so many calls; a text does not begin with a brace."""
        first = f"{self._marks.rule(PYTHON_TAG)}? any" if PYTHON_TAG in self._marks else "any"
        text = rf"TEXT: /(?s:.*)/ & ~/\s*({re.escape(PYTHON_TAG)}\s*)?\{{(?s:.*)/"
        start = {
            "one": [f"start: {first}"],
            "some": [f"start: {first} (/; ?/ any)*"],
            "at most one": [f"start: {first} | TEXT", text],
        }[amount]
        return [*start, *_objects(names, "parameters")]


FORMATS: dict[str, Callable[[Mapping[str, int]], ToolFormat]] = {
    "hermes": Hermes,
    "llama": Llama,
    "mistral": Mistral,
}


def open_format(name: str, tokenizer: Any, prompt: Prompt) -> ToolFormat:  # noqa: ANN401
    """Return a format for a model.

    Args:
        name: one of ``FORMATS``, or auto.
        tokenizer: the model's.
        prompt: makes its prompts of turns and tools.

    """
    if name == "auto":
        name, _ = guess_format(tokenizer, prompt)
    return FORMATS[name](special_tokens(tokenizer))


def guess_format(tokenizer: Any, prompt: Prompt) -> tuple[Name, str]:  # noqa: ANN401
    """Return the format in which a model's own prompts hold earlier calls, and why it is taken."""
    turns = [QUESTION, CALL, Message("tool", RETURNED, tool_call_id=CALL.tool_calls[0].id, name=CALLED)]
    try:
        ids = prompt(turns, [TOOL])
    except (RenderError, ModelError):
        return "hermes", "the model's prompts have no place for calls"
    text = str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
    if OPEN in text:
        return "hermes", f"the model's prompts have {OPEN}"
    if TOOL_CALLS in text:
        return "mistral", f"the model's prompts have {TOOL_CALLS}"
    if PYTHON_TAG in text or re.search(rf'"name":\s*"{CALLED}",\s*"parameters":', text):
        return "llama", 'the model\'s prompts have calls with "parameters"'
    return "hermes", "the model's prompts have calls in no format that is known"


def _place(text: str, mark: str) -> int:
    found = text.find(mark)
    return found if found >= 0 else len(text) - overlap(text, mark)


def _value_end(text: str, start: int) -> int | None:
    """Return where the bracket at ``start`` is closed; None if it is not."""
    depth = 0
    for part in _JSON_PART.finditer(text, start):
        if part[0] == '"':
            return None
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(part[0], 0)
        if depth == 0:
            return part.end()
    return None


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return None


def _calls(values: Sequence[object], key: str, make_id: Callable[[], str]) -> list[Json]:
    """Return calls as OpenAI's API has them; none if one of the values is no call."""
    calls = []
    for value in values:
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            return []
        arguments = value.get(key, {})
        if not isinstance(arguments, dict):
            return []
        function = {"name": value["name"], "arguments": json.dumps(arguments, ensure_ascii=False)}
        try:
            "".join(function.values()).encode()
        except UnicodeEncodeError:  # an escape such as \ud800 alone, which cannot be sent
            return []
        calls.append({"id": make_id(), "type": "function", "function": function})
    return calls


def _id() -> str:
    return f"call_{secrets.token_hex(12)}"


def _mistral_id() -> str:
    return secrets.token_hex(_MISTRAL_ID)[:_MISTRAL_ID]


def _any(names: Sequence[str]) -> list[str]:
    return [f"any: {' | '.join(f'call_{index}' for index in range(len(names)))}"]


def _objects(names: Sequence[str], key: str) -> list[str]:
    """Return the rules of calls that are objects with a name and ``key``."""
    rules = _any(names)
    for index, name in enumerate(names):
        begin = f'{{"name": {json.dumps(name, ensure_ascii=False)}, "{key}": '
        rules.append(f'call_{index}: {json.dumps(begin, ensure_ascii=False)} arguments_{index} "}}"')
    return rules
