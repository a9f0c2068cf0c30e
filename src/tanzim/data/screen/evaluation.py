"""Evaluation sets that training data is compared with: read once in each process, known by their content."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from tanzim.core.errors import DataError
from tanzim.core.records import Example, Json
from tanzim.data.config import DataConfig
from tanzim.data.ingest.read import ingest
from tanzim.data.ingest.rows import Rejected, excerpt
from tanzim.data.ingest.sources import find
from tanzim.data.texts import words_of


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The items of an evaluation set.

    Args:
        items: in the order of reading.
        rejected: rows that could not be used.

    """

    items: tuple[Example, ...]
    rejected: int

    def named(self, number: int) -> Json:
        """Return what a report calls an item."""
        item = self.items[number]
        return {"item": str(item.provenance), "content": excerpt(words_of(item))}


def fingerprints(against: str | list[str]) -> list[str]:
    """Return what changes with the content of each file of an evaluation set; the name of a hub dataset.

    Raises:
        DataError: there is no such file.

    """
    return [source.fingerprint or source.name for source in find(against).sources]


def read_evaluation(against: str | list[str]) -> Evaluation:
    """Read an evaluation set, in any format that training data may have.

    Raises:
        DataError: it cannot be read, or holds no example.

    """
    return read_known(*known(against))


def known(against: str | list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the paths of an evaluation set and the fingerprints of its files: what it is known by."""
    return tuple([against] if isinstance(against, str) else against), tuple(fingerprints(against))


@lru_cache(maxsize=4)
def read_known(against: tuple[str, ...], fingerprints: tuple[str, ...]) -> Evaluation:
    """Read an evaluation set (see `known`); a changed file is read again."""
    del fingerprints
    config = DataConfig(path=list(against))
    items: list[Example] = []
    rejected = 0
    for source in find(config.path).sources:
        for one in ingest(source, config).items():
            if isinstance(one, Rejected):
                rejected += 1
            else:
                items.append(one)
    if not items:
        raise DataError(
            f"the evaluation set holds no example ({rejected} rows cannot be used)",
            where=", ".join(against),
            fix="tanzim inspect says what the file is read as",
        )
    return Evaluation(tuple(items), rejected)


def turns_of(example: Example) -> list[tuple[str, str]]:
    """Return the texts of an example, each with its part: prompt or answer. System prompts are left out."""
    if example.kind in ("text", "labelled", "tagged"):
        return [("prompt", example.text)]
    turns = [
        ("answer" if turn.role == "assistant" else "prompt", turn.content)
        for turn in example.messages
        if turn.role != "system"
    ]
    turns += [("answer", turn.content) for turn in (*example.chosen, *example.rejected)]
    return [(part, text) for part, text in turns if text.strip()]
