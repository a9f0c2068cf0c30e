"""The records that pass from room to room.

`Example` → `Rendered` → batches → `EvalReport`. They hold values, not behaviour, and turn into
plain JSON and back without loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]
Kind = Literal["messages", "text", "labelled", "tagged", "pair"]
Json = dict[str, Any]

# Progress of long work: (done, total or None, short note).
Progress = Callable[[int, int | None, str], None]


def no_progress(done: int, total: int | None, note: str) -> None:
    """Show nothing: the default of every long function's ``progress`` argument."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a function by the assistant (OpenAI chat format)."""

    name: str
    arguments: Mapping[str, Any]
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation (OpenAI chat format).

    Args:
        weight: loss weight of this turn, 0 or 1 (OpenAI's ``weight``); None leaves it to the policy.
        thinking: the reasoning part of an assistant turn, for templates that know one.

    """

    role: Role
    content: str = ""
    thinking: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    weight: float | None = None


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a record came from: source file and its row (counted from 1).

    Args:
        derived: how it was made out of that row, such as "augment_words 2"; empty for the row itself.

    """

    source: str
    row: int
    derived: str = ""

    def __str__(self) -> str:
        return f"{self.source}, row {self.row}{f' ({self.derived})' if self.derived else ''}"


@dataclass(frozen=True, slots=True)
class Example:
    """One example of training or test data: a conversation, a text, one with labels, or a pair.

    ``kind`` says which fields hold: ``messages`` (messages, tools) · ``text`` (text) ·
    ``labelled`` (text, label) · ``tagged`` (words and a tag for each; text = the words with spaces
    between them) · ``pair`` (messages = the prompt, chosen, rejected; tools).

    ``about`` is what is known of it and never shown to a model: ``language``, ``licence``, ``url``,
    ``group`` (examples of one group stay in one split), ``time``, and what steps of stage 1 found.
    """

    kind: Kind
    provenance: Provenance
    messages: tuple[Message, ...] = ()
    tools: tuple[Json, ...] = ()
    text: str = ""
    label: str = ""
    words: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    chosen: tuple[Message, ...] = ()
    rejected: tuple[Message, ...] = ()
    about: Json = field(default_factory=dict)

    @property
    def turns(self) -> tuple[Message, ...]:
        """All its turns: of a pair, those of both answers after the prompt's."""
        return (*self.messages, *self.chosen, *self.rejected)

    def to_json(self) -> Json:
        """Return the record as plain JSON values, empty fields left out."""
        # Written out: `dataclasses.asdict` copies every value, and this runs for each row of every step.
        origin = self.provenance
        value: Json = {
            "kind": self.kind,
            "provenance": {"source": origin.source, "row": origin.row, "derived": origin.derived},
        }
        for key in ("messages", "tools", "text", "label", "words", "tags", "chosen", "rejected", "about"):
            if found := getattr(self, key):
                turns = key in ("messages", "chosen", "rejected")
                value[key] = tuple(map(_message_json, found)) if turns else found
        return value

    @classmethod
    def from_json(cls, value: Json) -> Example:
        """Make the record from what `to_json` returned."""
        return cls(
            kind=value["kind"],
            provenance=Provenance(**value["provenance"]),
            messages=_messages(value, "messages"),
            tools=tuple(value.get("tools", ())),
            text=value.get("text", ""),
            label=value.get("label", ""),
            words=tuple(value.get("words", ())),
            tags=tuple(value.get("tags", ())),
            chosen=_messages(value, "chosen"),
            rejected=_messages(value, "rejected"),
            about=value.get("about", {}),
        )


def _message_json(message: Message) -> Json:
    calls = tuple(
        {"name": call.name, "arguments": call.arguments, "id": call.id} for call in message.tool_calls
    )
    return {
        "role": message.role,
        "content": message.content,
        "thinking": message.thinking,
        "tool_calls": calls,
        "tool_call_id": message.tool_call_id,
        "name": message.name,
        "weight": message.weight,
    }


def _messages(value: Json, key: str) -> tuple[Message, ...]:
    return tuple(message_from_json(message) for message in value.get(key, ()))


def message_from_json(value: Json) -> Message:
    """Make a `Message` from plain JSON values (the inverse of ``dataclasses.asdict``)."""
    calls = tuple(ToolCall(**call) for call in value.get("tool_calls") or ())
    return Message(**{**value, "tool_calls": calls})


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of tokens ``[start, end)`` of one conversation turn, and whether it is trained."""

    start: int
    end: int
    role: str
    trained: bool


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as tokens.

    Args:
        ids: token ids, length T.
        weights: loss weight of each token *as a target*, length T (0 = ignored).
        segments: the turns, in order, covering all T tokens.
        provenance: where the example came from.
        targets: what is to be predicted, where that is not the next token (see ``train.objective``).

    """

    ids: tuple[int, ...]
    weights: tuple[float, ...]
    segments: tuple[Segment, ...]
    provenance: Provenance
    targets: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Score:
    """One number for one (prompt, completion): its value, and what else there is to say."""

    value: float
    details: Mapping[str, Any] = field(default_factory=dict)
