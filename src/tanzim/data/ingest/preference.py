"""Preference rows, in the field's spellings, as a prompt with a chosen and a rejected answer."""

from __future__ import annotations

import re
from typing import Any

from tanzim.core.records import Json, Message
from tanzim.data.ingest.detect import Detection, as_turns
from tanzim.data.ingest.rows import BadRow, excerpt
from tanzim.data.ingest.turns import check, json_of, messages, text_of, tools_of

Turns = tuple[Message, ...]
_HH_TURN = re.compile(r"\n\n(Human|Assistant): ?")


def _hh(text: str, what: str) -> Turns:
    """Read a conversation written as one text with "Human:" and "Assistant:" (Bai et al., 2022)."""
    before, *rest = _HH_TURN.split("\n\n" + text.lstrip())
    if before.strip() or len(rest) < 2:
        raise BadRow(
            "the text is not a conversation of Human and Assistant", f"'{what}': {excerpt(text)}"[:120]
        )
    said = zip(rest[::2], rest[1::2], strict=True)
    return tuple(Message("user" if who == "Human" else "assistant", words.strip("\n")) for who, words in said)


def _side(value: Any, what: str) -> Turns:  # noqa: ANN401 - any cell
    """Return one side of a pair: an answer, or a whole conversation that ends with it."""
    if as_turns(value) is not None or isinstance(value, dict):
        return messages(value, what)
    text = text_of(value, what)
    if re.match(r"\s*Human:", text):
        return _hh(text, what)
    if not text.strip():
        raise BadRow("an answer is blank", f"'{what}'")
    return (Message("assistant", text),)


def _common(one: Turns, two: Turns) -> int:
    """Count the turns with which two conversations start alike, the last of either left out."""
    most = min(len(one), len(two)) - 1
    return next((i for i in range(most) if _said(one[i]) != _said(two[i])), most)


def _said(turn: Message) -> tuple[object, ...]:
    return turn.role, turn.content, turn.tool_calls


def _verdict(value: Any, what: str) -> int:  # noqa: ANN401 - any cell
    """Return which of two answers is better, 0 or 1."""
    known = {"0": 0, "1": 1, "a": 0, "b": 1, "model_a": 0, "model_b": 1, "response_1": 0, "response_2": 1}
    text = text_of(value, what).strip().lower()
    if text in ("2", "tie", "both"):
        raise BadRow("the pair is a tie: neither answer is preferred", f"'{what}' is {value}")
    if text not in known:
        raise BadRow("the verdict on a pair is not 0, 1 or a tie", f"'{what}' is {excerpt(value)}")
    return known[text]


def pair(row: Json, detection: Detection) -> tuple[Turns, Turns, Turns, tuple[Json, ...]]:
    """Return prompt, chosen and rejected turns, and tools, of a preference row.

    Raises:
        BadRow: a part is missing or malformed, or the two answers are the same.

    """
    columns = detection.columns
    chosen_name, rejected_name = columns["chosen"], columns["rejected"]
    chosen, rejected = _side(row.get(chosen_name), chosen_name), _side(row.get(rejected_name), rejected_name)
    if "label" in columns and _verdict(row.get(columns["label"]), columns["label"]) == 1:
        chosen, rejected = rejected, chosen
    tools = tools_of(row.get(columns["tools"])) if "tools" in columns else ()
    prompt: Turns = ()
    if "messages" in columns:
        prompt = messages(row.get(columns["messages"]), columns["messages"])
    elif "prompt" in columns:
        asked = row.get(columns["prompt"])
        if isinstance(asked, dict):  # OpenAI: {"input": {"messages": […], "tools": […]}}
            prompt, tools = messages(asked.get("messages"), "messages"), tools or tools_of(asked.get("tools"))
        elif as_turns(asked) is not None:
            prompt = messages(json_of(asked, "prompt"), "prompt")
        else:
            prompt = (Message("user", text_of(asked, columns["prompt"])),)
    if len(chosen) > 1 or len(rejected) > 1:
        shared = _common(chosen, rejected)
        start = chosen[:shared]
        if any(turn.role == "user" for turn in start):  # whole conversations: they hold the prompt
            prompt = start
        else:
            prompt += start
        chosen, rejected = chosen[shared:], rejected[shared:]
    if not any(turn.role == "user" for turn in prompt):
        raise BadRow("the pair has no prompt")
    check([*prompt, *chosen])
    check([*prompt, *rejected])
    if [*map(_said, chosen)] == [*map(_said, rejected)]:
        raise BadRow("the chosen and the rejected answer are the same")
    return prompt, chosen, rejected, tools
