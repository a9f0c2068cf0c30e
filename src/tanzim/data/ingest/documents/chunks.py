"""Documents cut into examples: by section or paragraph, and within one at the end of a sentence."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tanzim.core.records import Json
from tanzim.data.ingest.documents.blocks import Block, Fault
from tanzim.data.ingest.documents.config import ChunksConfig

# A sentence ends in one of these (Latin, Persian and Arabic, Urdu, Chinese), with what closes it.
_END = re.compile(r"""(?<![.!?؟…۔。！？])[.!?؟…۔。！？]++["'»”’)\]]*+(?=\s)|[。！？](?=\S)""")
# A full stop after these is none: one letter (initials, ه.ش.), and the usual shortenings.
_SHORT = re.compile(
    r"(?:^|[\s(\"'«.])(?:[^\W\d_]|Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|vs|etc|cf|al|Fig|fig|No|no|Vol|pp|ca|approx|Inc|Ltd)\.$"
)


@dataclass(frozen=True, slots=True)
class Piece:
    """One example of a document.

    Args:
        text: what it says, headings as in Markdown.
        about: where it stands: page (or pages, first and last), section (headings above it, joined by
            " > "), part (of a section that was cut, counted from 1).

    """

    text: str
    about: Json = field(default_factory=dict)


def sentence_ends(text: str) -> list[int]:
    """Return the places after the sentences of a text, the last one's included."""
    ends = [
        match.end()
        for match in _END.finditer(text)
        if not (match[0] == "." and _SHORT.search(text, max(0, match.end() - 12), match.end()))
    ]
    return ends if ends and ends[-1] == len(text) else [*ends, len(text)]


def cut(text: str, most: int) -> list[str]:
    """Cut a text into pieces of at most ``most`` characters.

    Between paragraphs (blank lines) where that will do, else between lines of verse or lists, else after
    a sentence, else between words, and inside a word only where the word alone is longer.
    Nothing but white space is lost.
    """
    if len(text) <= most:
        return [text] if text.strip() else []
    for joint in ("\n\n", "\n"):
        if joint in text:
            return _pack([part for part in text.split(joint) if part.strip()], joint, most)
    ends = sentence_ends(text)
    if len(ends) > 1:
        starts = [0, *ends[:-1]]
        sentences = (text[a:b].strip() for a, b in zip(starts, ends, strict=True))
        return _pack([one for one in sentences if one], " ", most)
    words = text.split()
    if len(words) == 1:
        return [words[0][start : start + most] for start in range(0, len(words[0]), most)]
    return _pack(words, " ", most)


def _pack(parts: list[str], joint: str, most: int) -> list[str]:
    """Join parts again while they fit; one that is too long is cut on its own, and starts anew."""
    packed: list[str] = []
    now: list[str] = []
    size = 0
    for part in parts:
        if now and size + len(joint) + len(part) > most:
            packed.append(joint.join(now))
            now, size = [], 0
        if len(part) > most:
            packed += cut(part, most)
        else:
            size += len(part) + (len(joint) if now else 0)
            now.append(part)
    if now:
        packed.append(joint.join(now))
    return packed


def _shown(block: Block) -> str:
    return f"{'#' * block.level} {block.text}" if block.level else block.text


class _Outline:
    """The headings above the place that is being read."""

    def __init__(self) -> None:
        self._above: list[tuple[int, str]] = []

    def enter(self, heading: Block) -> None:
        self._above = [one for one in self._above if one[0] < heading.level]
        self._above.append((heading.level, heading.text.strip("*_` ")))

    @property
    def path(self) -> str:
        return " > ".join(title for _, title in self._above)


def _about(blocks: list[Block], section: str) -> Json:
    about: Json = {}
    pages = [block.page for block in blocks if block.page is not None]
    if pages:
        about |= {"page": pages[0]} if pages[0] == pages[-1] else {"pages": [pages[0], pages[-1]]}
    if section:
        about["section"] = section
    return about


def pieces(blocks: Iterable[Block | Fault], config: ChunksConfig) -> Iterator[Piece | Fault]:
    """Cut a document into examples; faults pass through.

    Args:
        blocks: its headings and paragraphs.
        config: what one example is.

    """
    outline = _Outline()
    held: list[Block] = []
    section = ""
    for block in blocks:
        if isinstance(block, Fault):
            yield block
            continue
        if held and _ends(held, block, config):
            yield from _finish(held, section, config)
            held = []
        if block.level:
            outline.enter(block)
        if not held or all(one.level for one in held):  # a heading above a heading goes with it
            section = outline.path
        held.append(block)
    if held:
        yield from _finish(held, section, config)


def _ends(held: list[Block], block: Block, config: ChunksConfig) -> bool:
    """Tell whether a block begins another example than those before it."""
    if config.by == "document":
        return False
    if config.by == "paragraph":
        assert config.max_characters is not None
        size = sum(len(_shown(one)) + 2 for one in held)
        alone = all(one.level for one in held)  # a heading is not parted from what it stands above
        full = size + len(_shown(block)) > config.max_characters
        return (full and not alone) or (bool(block.level) and size > config.max_characters // 2)
    if block.page is not None:
        return block.page != held[-1].page
    return bool(block.level) and not all(one.level for one in held)


def _finish(held: list[Block], section: str, config: ChunksConfig) -> Iterator[Piece]:
    text = "\n\n".join(_shown(block) for block in held)
    about = _about(held, section if config.by != "document" else "")
    parts = cut(text, config.max_characters) if config.max_characters else [text]
    for number, part in enumerate(parts, 1):
        yield Piece(part, {**about, "part": number} if len(parts) > 1 else about)
