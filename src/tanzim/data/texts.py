"""The texts of an example: how a step reads and rewrites them, whatever its kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tanzim.core.records import Example, Message


def rewrite(example: Example, change: Callable[[str], str]) -> Example:
    """Return the example with every text changed; the same object where nothing was.

    What users, assistants and the system say is text, and so is what an assistant thinks. Left alone are
    tool calls, tool results and tool definitions (a program reads them) and tagged words (each has its tag).

    Args:
        example: any example.
        change: text → text.

    """
    if example.kind == "tagged":
        return example
    messages = tuple(_turn(turn, change) for turn in example.messages)
    chosen = tuple(_turn(turn, change) for turn in example.chosen)
    rejected = tuple(_turn(turn, change) for turn in example.rejected)
    text = change(example.text) if example.text else ""
    before = (example.messages, example.chosen, example.rejected, example.text)
    if before == (messages, chosen, rejected, text):
        return example
    return replace(example, messages=messages, chosen=chosen, rejected=rejected, text=text)


def _turn(turn: Message, change: Callable[[str], str]) -> Message:
    if turn.role == "tool":
        return turn
    content = change(turn.content) if turn.content else turn.content
    thinking = change(turn.thinking) if turn.thinking else turn.thinking
    if (content, thinking) == (turn.content, turn.thinking):
        return turn
    return replace(turn, content=content, thinking=thinking)


def blank(example: Example) -> bool:
    """Return whether an example that had words has none left to learn from.

    A conversation needs a user's turn and an answer (or a tool call); a pair an answer on each side.
    """
    if example.kind in ("text", "labelled", "tagged"):
        return not example.text.strip()
    asked = any(turn.content.strip() for turn in example.messages if turn.role in ("user", "tool"))
    if example.kind == "pair":
        return not (asked and _says(example.chosen) and _says(example.rejected))
    return not (asked and _says(example.messages))


def _says(turns: tuple[Message, ...]) -> bool:
    return any(
        turn.content.strip() or turn.thinking or turn.tool_calls for turn in turns if turn.role == "assistant"
    )


def learned(example: Example) -> list[str]:
    """Return the texts that a model learns to say: a document, an assistant's turns, the preferred answer.

    A text with labels is read, not said: it has none.
    """
    if example.kind == "text":
        return [example.text]
    turns = example.chosen if example.kind == "pair" else example.messages
    return [turn.content for turn in turns if turn.role == "assistant" and turn.content]


def parts(example: Example) -> list[str]:
    """Return what people and assistants say in an example, one text for each turn.

    System prompts and tool results are left out: they are the same for many examples, or a program's.
    Of a pair the preferred answer counts.
    """
    turns = [*example.messages, *example.chosen]
    said = (turn.content for turn in turns if turn.role in ("user", "assistant"))
    return [part for part in (example.text, *said) if part]


def read(example: Example) -> str:
    """Return what people and assistants say in an example, the parts one below the other."""
    return "\n".join(parts(example))


def words_of(example: Example) -> str:
    """Return all that an example says, its parts one below the other."""
    return "\n".join(part for part in (example.text, *(turn.content for turn in example.turns)) if part)
