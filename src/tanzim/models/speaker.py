"""What every way to turn conversations into tokens offers, whatever the shape of the model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from tanzim.core.records import Example, Json, Message, Rendered


class Speaker(Protocol):
    """Conversation → tokens: a chat template for causal models, source and target for encoder-decoders."""

    stop_ids: tuple[int, ...]

    @property
    def template(self) -> Json:
        """What a manifest must say for others to render alike."""
        ...

    def render(self, example: Example) -> Rendered:
        """Turn one example into tokens."""
        ...

    def render_many(self, examples: Iterable[Example]) -> list[Rendered]:
        """Turn examples into tokens, tokenised together."""
        ...

    def prompt(self, messages: Sequence[Message], tools: Sequence[Json] = ()) -> list[int]:
        """Return the ids of a conversation up to where the model is to answer."""
        ...
