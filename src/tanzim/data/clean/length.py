"""Examples of a length that can be of use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tanzim.core.records import Example
from tanzim.data.clean.config import LengthConfig
from tanzim.data.split.spill import characters
from tanzim.data.step import Outcome, Removed, Step


class Length(Step[LengthConfig]):
    """Keep what is neither shorter nor longer than it should be."""

    def apply(self, examples: Iterable[Example]) -> Iterator[Outcome]:
        """Yield each example, or its removal."""
        most = self.config.max_characters
        for example in examples:
            size = characters(example)
            if size < self.config.min_characters:
                yield Removed(example, "too short", f"{size} characters")
            elif most is not None and size > most:
                yield Removed(example, "too long", f"{size} characters")
            else:
                yield example
