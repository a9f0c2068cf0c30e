"""The texts of an example that a step may change, and the example with others in their place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from tanzim.core.records import Example, Message, ToolCall


def texts_of(example: Example) -> list[str]:
    """Return what `with_texts` would change: turns, their thinking, texts in tool calls.

    Names and ids of tools, definitions of tools, labels and tags are none of it. The words of a tagged
    example are returned as one text.
    """
    return [text for text in _walk(example) if text]


def with_texts(example: Example, change: Callable[[str], str]) -> Example:
    """Return the example with each of its texts changed; a tagged one stays (its words have tags)."""
    if example.kind == "tagged":
        return example
    new = replace(
        example,
        text=change(example.text) if example.text else "",
        messages=_turns(example.messages, change),
        chosen=_turns(example.chosen, change),
        rejected=_turns(example.rejected, change),
    )
    return example if new == example else new


def _turns(turns: tuple[Message, ...], change: Callable[[str], str]) -> tuple[Message, ...]:
    return tuple(
        replace(
            turn,
            content=change(turn.content) if turn.content else turn.content,
            thinking=change(turn.thinking) if turn.thinking else turn.thinking,
            tool_calls=tuple(_call(call, change) for call in turn.tool_calls),
        )
        for turn in turns
    )


def _call(call: ToolCall, change: Callable[[str], str]) -> ToolCall:
    return replace(call, arguments=_values(dict(call.arguments), change))


def _values(value: Any, change: Callable[[str], str]) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, str):
        return change(value) if value else value
    if isinstance(value, dict):
        return {key: _values(one, change) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_values(one, change) for one in value]
    return value


def _walk(example: Example) -> Iterator[str]:
    yield example.text
    for turn in example.turns:
        yield turn.content
        yield turn.thinking or ""
        for call in turn.tool_calls:
            seen: list[str] = []
            _call(call, lambda text, seen=seen: (seen.append(text), text)[1])  # type: ignore[misc]
            yield from seen
