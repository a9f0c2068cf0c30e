"""Parts of a conversation that a template has no place for, written into turns it does know.

A template that ignores tools, or refuses a system turn, would lose them without a word. What is
folded is named in the run's manifest.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from tanzim.core.records import Json, Message
from tanzim.models.learn import Learnt

TOOLS = (
    "You can call these functions:\n<tools>\n{tools}\n</tools>\n"
    'To call one, write <tool_call>{{"name": ..., "arguments": {{...}}}}</tool_call>.'
)


def fold(
    messages: Sequence[Message], tools: Sequence[Json], learnt: Learnt
) -> tuple[list[Message], list[Json]]:
    """Return the conversation in parts that the template knows; turns keep their number from the end.

    Args:
        messages: the turns.
        tools: function definitions.
        learnt: what the template does.

    Returns:
        Messages and tools to render; there may be one leading system turn more or less.

    """
    turns = [_fold_turn(message, learnt.folds) for message in messages]
    left = list(tools)
    if left and "tools" in learnt.folds:
        text = TOOLS.format(tools="\n".join(json.dumps(tool, ensure_ascii=False) for tool in left))
        left = []
        if turns and turns[0].role == "system":
            turns[0] = replace(turns[0], content=_joined(turns[0].content, text))
        else:
            turns.insert(0, Message("system", _joined(learnt.default_system or "", text)))
    if "system" in learnt.folds and len(turns) > 1 and turns[0].role == "system" and turns[1].role == "user":
        turns[:2] = [replace(turns[1], content=_joined(turns[0].content, turns[1].content))]
    return turns, left


def _fold_turn(message: Message, folds: frozenset[str]) -> Message:
    content = message.content
    if message.tool_calls and "tool_calls" in folds:
        calls = [{"name": call.name, "arguments": dict(call.arguments)} for call in message.tool_calls]
        texts = [f"<tool_call>{json.dumps(call, ensure_ascii=False)}</tool_call>" for call in calls]
        content = "\n".join(([content] if content else []) + texts)
        message = replace(message, tool_calls=())
    if message.thinking is not None and "thinking" in folds:
        content = f"<think>\n{message.thinking}\n</think>\n\n{content}"
        message = replace(message, thinking=None)
    if message.role == "tool" and "tool" in folds:
        content = f"<tool_response>\n{content}\n</tool_response>"
        return Message("user", content)
    return replace(message, content=content)


def _joined(first: str, second: str) -> str:
    return f"{first}\n\n{second}" if first else second
