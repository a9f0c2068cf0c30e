"""Where in a rendered conversation each assistant turn's generated part stands.

No marker in the template is needed: a turn begins where its generation prompt ends, and ends with
the first end-of-turn token after its last own character. Both are found by comparing renderings
(*template diffing*): of the conversation with the prompt that asks for the turn, and of the
conversation with itself, the turn's words replaced by others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tanzim.core.errors import RenderError
from tanzim.core.records import Json, Message, ToolCall
from tanzim.models.template import ChatTemplate

# Two stand-ins with no first and no last letter in common: whatever stood there before, a rendering
# with one of them differs from it at its first letter, and with one of them at its last.
STAND_INS = ("AbA", "CdC")


@dataclass(frozen=True, slots=True)
class Markers:
    """What a template writes around turns, learnt once per tokenizer.

    Args:
        ends: matches the tokens that end an assistant turn.
        between: whether a turn that is not the last one is ended as well.
        prompt: the generation prompt alone, as far as it does not depend on the thinking mode.
        thinking: how many of its last characters do depend on it.

    """

    ends: re.Pattern[str]
    between: bool
    prompt: str
    thinking: int


@dataclass(frozen=True, slots=True)
class Span:
    """Characters ``[start, end)`` of a turn's generated part; ``end`` is None if nothing ends it."""

    start: int
    end: int | None


def common_prefix(a: str, b: str) -> int:
    """Return how many first characters two texts share."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def common_suffix(a: str, b: str) -> int:
    """Return how many last characters two texts share."""
    return common_prefix(a[::-1], b[::-1])


def vary(message: Message, words: str) -> Message:
    """Return a turn with the same parts and other words in each of them."""
    calls = tuple(ToolCall(words, {words: words}, call.id) for call in message.tool_calls)
    says_nothing = not (message.content or message.thinking or calls)
    return replace(
        message,
        content=words if message.content or says_nothing else "",
        thinking=words if message.thinking else message.thinking,
        tool_calls=calls,
    )


def own_words(
    template: ChatTemplate,
    full: str,
    messages: Sequence[Message],
    tools: Sequence[Json],
    index: int,
    *,
    prompt: bool = False,
) -> tuple[int, int] | None:
    """Return the characters of ``full`` between the first and last word of one turn's own.

    Args:
        template: the chat template.
        full: ``messages`` rendered.
        messages: the conversation.
        tools: its function definitions.
        index: which turn.
        prompt: whether ``full`` ends with a generation prompt.

    Returns:
        ``[first, last)``, or None if the template leaves this turn out.

    """
    others = [
        template.text(
            [*messages[:index], vary(messages[index], words), *messages[index + 1 :]], tools, prompt=prompt
        )
        for words in STAND_INS
    ]
    if all(other == full for other in others):
        return None
    first = min(common_prefix(full, other) for other in others)
    last = len(full) - min(common_suffix(full, other) for other in others)
    return first, max(first, last)


def find_span(
    template: ChatTemplate,
    markers: Markers,
    full: str,
    messages: Sequence[Message],
    tools: Sequence[Json],
    index: int,
) -> Span:
    """Find the generated part of the assistant turn ``messages[index]`` in ``full``.

    Args:
        template: the chat template.
        markers: what it writes around turns.
        full: ``messages`` rendered.
        messages: the conversation.
        tools: its function definitions.
        index: which turn.

    Raises:
        RenderError: the template leaves this turn out, or refuses a part of the conversation.

    """
    prompt = _prompt(template, messages, tools, index)
    is_last = index == len(messages) - 1
    if prompt is not None and full.startswith(prompt) and not _holds_end(messages[index], markers):
        # Nothing but the template writes an end-of-turn token here, so the first one is the turn's.
        return Span(len(prompt), _end(full, len(prompt), markers, is_last))
    words = own_words(template, full, messages, tools, index)
    if words is None:
        raise RenderError(f"the chat template leaves out turn {index + 1} ({messages[index].role})")
    first, last = words
    if prompt is not None and full.startswith(prompt) and len(prompt) <= first:
        start = len(prompt)
    else:
        start = _start_by_neighbour(template, markers, full, messages, tools, index, prompt, first)
    return Span(start, _end(full, last, markers, is_last))


def _prompt(
    template: ChatTemplate, messages: Sequence[Message], tools: Sequence[Json], index: int
) -> str | None:
    if index == 0:
        return None
    try:
        return template.text(messages[:index], tools, prompt=True)
    except RenderError:  # half a conversation may be against the template's rules
        return None


def _end(full: str, after: int, markers: Markers, is_last: bool) -> int | None:
    if not (is_last or markers.between):
        return None
    match = markers.ends.search(full, after)
    return match.end() if match else None


def _holds_end(message: Message, markers: Markers) -> bool:
    calls = json.dumps([[call.name, dict(call.arguments)] for call in message.tool_calls], ensure_ascii=False)
    return any(markers.ends.search(text) for text in (message.content, message.thinking or "", calls))


def _start_by_neighbour(
    template: ChatTemplate,
    markers: Markers,
    full: str,
    messages: Sequence[Message],
    tools: Sequence[Json],
    index: int,
    prompt: str | None,
    first: int,
) -> int:
    """Find where a turn starts when what stands before it is not its prompt, letter by letter.

    So it is where a template writes earlier turns differently once later ones follow (thinking left
    out, tools moved to the last question). What follows the words of the turn before is the same in
    the prompt and in the whole, as far as the generation prompt goes.
    """
    for before in range(index - 1, -1, -1):
        if prompt is None:
            break
        here = own_words(template, full, messages, tools, before)
        there = own_words(template, prompt, messages[:index], tools, before, prompt=True)
        if here is None or there is None:
            continue
        tail = prompt[there[1] :]
        if full.startswith(tail, here[1]) and here[1] + len(tail) <= first:
            return here[1] + len(tail)
        shared = tail[: len(tail) - markers.thinking]
        return here[1] + common_prefix(shared, full[here[1] : first])
    for length in range(len(markers.prompt), 0, -1):
        at = full.rfind(markers.prompt[:length], 0, first)
        if at >= 0:
            return at + length
    return first
