"""From characters to tokens: the turns of a rendered text, and the loss weight of each token."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from tanzim.core.records import Message, Provenance, Rendered, Segment


@dataclass(frozen=True, slots=True)
class Turn:
    """Characters ``[start, end)`` of one turn's part, with its loss weight."""

    start: int
    end: int
    role: str
    weight: float


def turns_of(
    full: str, messages: Sequence[Message], spans: Mapping[int, tuple[int, int, float]], ends: re.Pattern[str]
) -> list[Turn]:
    """Divide a rendered text among its turns.

    Trained parts are exact. The rest is divided for people to read: a turn reaches to the end of
    its content and of the marker behind it; what a template wrote on its own goes to its neighbour.

    Args:
        full: the rendered conversation.
        messages: its turns.
        spans: start, end and weight of each trained turn, by its index.
        ends: matches end-of-turn tokens.

    """
    turns: list[Turn] = []
    position = 0
    for index, message in enumerate(messages):
        if index in spans:
            start, end, weight = spans[index]
            turns += [Turn(position, start, "assistant", 0.0), Turn(start, end, "assistant", weight)]
            position = end
            continue
        limit = next((spans[later][0] for later in sorted(spans) if later > index), len(full))
        content = message.content.strip()
        at = full.find(content, position, limit) if content else -1
        if at < 0:
            continue
        if index == 0 and message.role != "system":
            default = max((match.end() for match in ends.finditer(full, 0, at)), default=0)
            turns.append(Turn(0, default, "system", 0.0))
            position = default
        after = at + len(content)
        following = messages[index + 1].content.strip() if index + 1 < len(messages) else ""
        next_at = full.find(following, after, limit) if following and index + 1 not in spans else limit
        marker = ends.search(full, after, next_at if next_at >= 0 else limit)
        end = marker.end() if marker else after
        turns.append(Turn(position, end, message.role, 0.0))
        position = end
    turns.append(Turn(position, len(full), turns[-1].role if turns else "text", 0.0))
    return [turn for turn in turns if turn.end > turn.start]


def rendered_tokens(
    ids: Sequence[int],
    offsets: Sequence[tuple[int, int]],
    turns: Sequence[Turn],
    special: AbstractSet[int],
    provenance: Provenance,
) -> Rendered:
    """Carry the turns of a text over to its tokens.

    Args:
        ids: token ids, length T.
        offsets: the characters each token covers, length T.
        turns: the turns, covering the text without gaps.
        special: ids that are never part of an answer's first word.
        provenance: where the example came from.

    """
    starts = [start for start, _ in offsets]
    stops = [stop for _, stop in offsets]
    weights = [0.0] * len(ids)
    segments: list[Segment] = []
    position = 0
    for index, turn in enumerate(turns):
        is_last = index == len(turns) - 1
        if is_last:
            end = len(ids)
        elif turn.weight:  # its end-of-turn token may have swallowed white space behind it
            end = bisect_left(starts, turn.end, lo=position)
        else:
            end = bisect_right(stops, turn.end, lo=position)
            if end < len(ids) and starts[end] < turn.end and ids[end] in special:
                end += 1
        if end > position:
            segments.append(Segment(position, end, turn.role, bool(turn.weight)))
            weights[position:end] = [turn.weight] * (end - position)
            position = end
    weights[:1] = [0.0] * len(weights[:1])  # nothing stands before the first token to predict it from
    return Rendered(tuple(ids), tuple(weights), tuple(segments), provenance)
