"""Headings and paragraphs of Markdown (CommonMark's block structure, as far as headings need it)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tanzim.data.ingest.documents.blocks import Block

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
_ATX = re.compile(r" {0,3}(#{1,6})(?![^ \t])")
_SETEXT = re.compile(r" {0,3}(=+|-+)[ \t]*")
_BREAK = re.compile(r" {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}")  # a line drawn between paragraphs
_INDENTED = re.compile(r"\t| {4}| {1,3}\t")
# What an underline makes no heading of.
_NO_PARAGRAPH = re.compile(r" {0,3}(?:(?:[-*+]|\d{1,9}[.)])(?![^ \t])|[>|])")


def read_markdown(text: str) -> Iterator[Block]:
    """Yield headings and paragraphs; fenced code stays one block, front matter stands first as it is.

    Follows CommonMark 0.31 for ATX and Setext headings and fenced code.
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    held: list[str] = []
    fence = ""
    start = _front_matter(lines)
    if start:
        yield Block("\n".join(lines[:start]))
    for line in lines[start:]:
        if fence:
            held.append(line)
            closing = line.strip()
            shut = len(closing) >= len(fence) and set(closing) == {fence[0]}
            if shut and not _INDENTED.match(line):
                yield Block("\n".join(held))
                held, fence = [], ""
            continue
        opened = _FENCE.fullmatch(line)
        if opened and not (opened[1][0] == "`" and "`" in opened[2]):
            yield from _paragraph(held)
            held, fence = [line], opened[1]
            continue
        heading, above = _heading(line, held)
        if heading is not None:
            yield from _paragraph(above)
            held = []
            if heading.text:
                yield heading
        elif _BREAK.fullmatch(line):
            yield from _paragraph(held)
            yield Block(line.strip())
            held = []
        elif line.strip():
            if held and _INDENTED.match(held[0]) and not _INDENTED.match(line):  # code ends
                yield from _paragraph(held)
                held = []
            held.append(line.rstrip())
        else:
            yield from _paragraph(held)
            held = []
    yield from [Block("\n".join(held))] if fence else _paragraph(held)


def _front_matter(lines: list[str]) -> int:
    """Return the lines of YAML front matter at the start of a document, or 0."""
    if lines[0].rstrip() != "---":
        return 0
    for number, line in enumerate(lines[1:200], 2):
        if line.rstrip() in ("---", "..."):
            return number
        if not line.strip():
            return 0
    return 0


def _heading(line: str, held: list[str]) -> tuple[Block | None, list[str]]:
    """Return the heading that a line is (ATX) or makes of the lines above (Setext), and the lines left."""
    atx = _ATX.match(line)
    if atx:
        text = line[atx.end() :].strip(" \t")
        bare = text.rstrip("#")  # a closing sequence, if white space parts it from the text
        return Block(bare.rstrip(" \t") if not bare or bare[-1] in " \t" else text, len(atx[1])), held
    under = _SETEXT.fullmatch(line)
    if under and held and not (_NO_PARAGRAPH.match(held[0]) or _INDENTED.match(held[0])):
        return Block(" ".join(part.strip() for part in held), 1 if under[1][0] == "=" else 2), []
    return None, held


def _paragraph(held: list[str]) -> Iterator[Block]:
    if held:
        yield Block("\n".join(held))
