"""Long documents cut at the ends of sentences."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import replace

from tanzim.core.records import Example
from tanzim.data.clean.config import SentencesConfig
from tanzim.data.clean.linguistic import language_of, sentences
from tanzim.data.step import Outcome, Step


def packed(text: str, max_characters: int, language: str = "en") -> list[str]:
    """Return the parts of a text, each as many whole sentences as go into ``max_characters``.

    The parts joined are the text, but for the white space between two of them. A sentence that is longer
    is cut between words; a word that is longer, within.

    Args:
        text: any text.
        max_characters: of a part.
        language: ISO 639-1 code, for the ends of sentences.

    """
    if len(text) <= max_characters:
        return [text]
    ends, at = [], 0
    for sentence in sentences(text, language):
        at = text.index(sentence, at) + len(sentence)
        ends.append(at)
    parts, start = [], 0
    while len(text) - start > max_characters:
        while start < len(text) and text[start].isspace():
            start += 1
        limit = start + max_characters
        last = bisect_right(ends, limit) - 1
        end = ends[last] if last >= 0 else 0
        if end <= start:  # no sentence ends within
            space = max(text.rfind(" ", start, limit + 1), text.rfind("\n", start, limit + 1))
            end = space if space > start else limit
        parts.append(text[start:end].rstrip())
        start = end
    parts.append(text[start:].strip())
    return [part for part in parts if part]


class Sentences(Step[SentencesConfig]):
    """Cut long documents into parts; what is no plain text stays whole."""

    def apply(self, examples: Iterable[Example]) -> Iterator[Outcome]:
        """Yield each example, or its parts: the first in its place, the others new."""
        for example in examples:
            if example.kind != "text" or len(example.text) <= self.config.max_characters:
                yield example
                continue
            language = language_of(example, self.config.language)
            # Parts of one document stay on one side of a split.
            about = {"group": str(example.provenance), **example.about}
            parts = packed(example.text, self.config.max_characters, language)
            for number, part in enumerate(parts or [example.text], 1):  # of white space alone nothing is left
                origin = example.provenance
                if number > 1:
                    derived = f"{origin.derived}, part {number}".lstrip(", ")
                    origin = replace(origin, derived=derived)
                yield replace(example, text=part, provenance=origin, about=about)
