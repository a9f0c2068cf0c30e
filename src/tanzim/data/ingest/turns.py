"""Turns of a conversation, in any of the field's spellings, as messages."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from tanzim.core.records import Json, Message, Role, ToolCall
from tanzim.data.ingest.names import CALL_ROLES, ROLES, normal
from tanzim.data.ingest.rows import BadRow, excerpt

_WEIGHTS = ("weight", "loss_weight", "loss", "train")
_THINKING = ("reasoning_content", "thinking", "reasoning")


def text_of(value: Any, what: str) -> str:  # noqa: ANN401 - any cell
    """Return a cell that has to be text, as it is but for line ends.

    Raises:
        BadRow: it is something else, or holds a NUL.

    """
    if not isinstance(value, str):
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if isinstance(value, float) and math.isfinite(value):
            return str(int(value)) if value.is_integer() else str(value)
        kind = "NaN" if isinstance(value, float) else type(value).__name__
        raise BadRow(f"'{what}' is not text", f"it is {kind}: {excerpt(value)}"[:120])
    if "\0" in value:
        raise BadRow("the text holds a NUL character", f"in '{what}'")
    return value.replace("\r\n", "\n") if "\r" in value else value


def json_of(value: Any, what: str) -> Any:  # noqa: ANN401 - any JSON value
    """Return a cell that is JSON, or JSON written as text.

    Raises:
        BadRow: the text is not valid JSON.

    """
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise BadRow(f"'{what}' is not valid JSON", str(error)[:120]) from None


def tools_of(value: Any) -> tuple[Json, ...]:  # noqa: ANN401 - any cell
    """Return function definitions in OpenAI's shape, from a list or the same as JSON text.

    Raises:
        BadRow: they are not a list of functions with names.

    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return ()
    tools = json_of(value, "tools")
    if isinstance(tools, dict):
        tools = [tools]
    if not isinstance(tools, list):
        raise BadRow("'tools' is not a list of functions", excerpt(value))
    return tuple(_tool(tool) for tool in tools)


def _tool(tool: Any) -> Json:  # noqa: ANN401 - any JSON value
    tool = json_of(tool, "tools")
    function = tool.get("function", tool) if isinstance(tool, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise BadRow("a tool has no function name", excerpt(tool))
    return {"type": "function", "function": function} if function is tool else tool


def _call(value: Any) -> ToolCall:  # noqa: ANN401 - any JSON value
    """Make a tool call of ``{name, arguments}`` or of OpenAI's ``{id, function: {…}}``."""
    inner = value.get("function", value) if isinstance(value, dict) else None
    if not isinstance(inner, dict) or not isinstance(inner.get("name"), str) or not inner["name"]:
        raise BadRow("a tool call has no function name", excerpt(value))
    arguments = inner.get("arguments", inner.get("parameters"))
    arguments = {} if arguments in (None, "") else json_of(arguments, "tool call arguments")
    if not isinstance(arguments, dict):
        raise BadRow("the arguments of a tool call are not an object", excerpt(arguments))
    identity = value.get("id")
    return ToolCall(inner["name"], arguments, identity if isinstance(identity, str) else None)


def _calls(value: Any) -> tuple[ToolCall, ...]:  # noqa: ANN401 - any JSON value
    calls = json_of(value, "tool call")
    return tuple(_call(call) for call in (calls if isinstance(calls, list) else [calls]))


def _content(value: Any) -> tuple[str, str | None, tuple[ToolCall, ...]]:  # noqa: ANN401 - any JSON value
    """Return text, reasoning and tool calls of a ``content`` field, typed parts joined."""
    if value is None:
        return "", None, ()
    if not isinstance(value, list):
        return text_of(value, "content"), None, ()
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[ToolCall] = []
    for part in value:
        if not isinstance(part, dict):
            texts.append(text_of(part, "content"))
            continue
        kind = part.get("type")
        held = part.get("text", part.get("value"))
        if kind in ("text", "input_text", "output_text"):
            texts.append(text_of(held, "content"))
        elif kind in ("reasoning", "thinking"):
            thoughts.append(text_of(held if held is not None else part.get("thinking"), "content"))
        elif kind == "tool_call":
            calls += _calls(held)
        else:
            raise BadRow("media in a conversation is not supported yet", f"a part of type '{kind}'")
    return "".join(texts), "\n".join(thoughts) or None, tuple(calls)


def _weight(turn: Json) -> float | None:
    name = next((name for name in _WEIGHTS if turn.get(name) is not None), None)
    if name is None:
        return None
    value = turn[name]
    if not isinstance(value, int | float) or value not in (0, 1):  # True and False are 1 and 0
        raise BadRow(f"the {name} of a turn is neither 0 nor 1", excerpt(value))
    return float(value)


def _optional(turn: Json, key: str) -> str | None:
    value = turn.get(key)
    return value if isinstance(value, str) and value else None


def message(turn: Any) -> Message:  # noqa: ANN401 - any JSON value
    """Make a message of one turn (``role``/``content`` or ``from``/``value``).

    Raises:
        BadRow: the turn has no known role, no text, media, or a malformed tool call.

    """
    if not isinstance(turn, dict):
        raise BadRow("a turn is not an object", excerpt(turn))
    said = turn.get("role", turn.get("from"))
    name = normal(said) if isinstance(said, str) else ""
    role: Role | None = ROLES.get(name)
    if role is None:
        raise BadRow("a turn has an unknown role", excerpt(said))
    if not {"content", "value", "tool_calls", "function_call"} & turn.keys():
        raise BadRow("a turn has no content", f"role '{said}', keys {sorted(map(str, turn))}")
    raw = turn.get("content", turn.get("value"))
    if name in CALL_ROLES:
        parts = raw if isinstance(raw, list) else None
        typed = parts is not None and all(isinstance(part, dict) and "type" in part for part in parts)
        text, thinking, calls = _content(raw) if typed else ("", None, ())
        calls = calls or _calls(text if typed else raw)
        text = ""
    else:
        text, thinking, calls = _content(raw)
    if turn.get("tool_calls"):
        calls += _calls(turn["tool_calls"])
    if turn.get("function_call"):  # OpenAI's older spelling
        calls += _calls(turn["function_call"])
    if calls and role != "assistant":
        raise BadRow("a turn that is not the assistant's calls a tool", f"role '{said}'")
    thinking = next((t for key in _THINKING if (t := _optional(turn, key))), thinking)
    return Message(
        role,
        text,
        thinking=thinking,
        tool_calls=calls,
        tool_call_id=_optional(turn, "tool_call_id"),
        name=_optional(turn, "name"),
        weight=_weight(turn),
    )


def messages(turns: Any, what: str) -> tuple[Message, ...]:  # noqa: ANN401 - any cell
    """Make messages of a cell that is a list of turns, or the same as JSON text.

    Raises:
        BadRow: it is not a list of turns.

    """
    turns = json_of(turns, what)
    if isinstance(turns, dict):
        turns = [turns]
    if not isinstance(turns, list):
        raise BadRow(f"'{what}' is not a list of turns", f"it is {type(turns).__name__}")
    if not turns:
        raise BadRow("the conversation is empty", f"'{what}'")
    return tuple(message(turn) for turn in turns)


def check(conversation: Sequence[Message]) -> None:
    """Refuse a conversation that nothing can be learned from.

    Raises:
        BadRow: a turn is blank, or the last turn is not the assistant's.

    """
    for turn in conversation:
        if turn.role == "assistant" and not turn.content.strip() and not turn.tool_calls:
            raise BadRow("an answer is blank")
        if turn.role == "user" and not turn.content.strip():
            raise BadRow("a user's turn is blank")
    if not conversation:
        raise BadRow("the conversation is empty")
    if conversation[-1].role != "assistant":
        raise BadRow(
            "the conversation does not end with the assistant", f"it ends with '{conversation[-1].role}'"
        )
