"""The data sheet as a page: what is open stands out, and each text has its own direction."""

from __future__ import annotations

import re

from tanzim.core.page import Child, note, page, prose, section, tag
from tanzim.data.describe.datasheet import Groups, still_open

_ITEM = re.compile(r"(?:-|\d+\.) ")


def datasheet_page(title: str, description: str | None, groups: Groups) -> str:
    """Return the page.

    Args:
        title: of the data.
        description: what it is, as its owner says.
        groups: questions and answers (see `tanzim.data.describe.datasheet.questions`).

    """
    head: list[Child] = [tag("h1", tag("bdi", title))]
    if description:
        head.append(prose(description))
    parts: list[Child] = [tag("header", head)]
    if said := still_open(groups):
        parts.append(note(_inline(said.removeprefix("⚠ ")), kind="bad"))
    for name, asked in groups:
        answers = [tag("article", tag("h3", question), _answer(answer)) for question, answer in asked]
        parts.append(section(name, re.sub(r"\W+", "-", name.lower()), *answers))
    return page(f"Data sheet: {title}", *parts)


def _answer(answer: str) -> list[Child]:
    """Return an answer's lines: paragraphs and entries of lists; what is open is set apart."""
    parts: list[Child] = []
    items: list[Child] = []
    for line in [*answer.splitlines(), ""]:
        if match := _ITEM.match(line):
            items.append(tag("li", _inline(line[match.end() :]), dir="auto"))
            continue
        if items:
            parts.append(tag("ol" if _ITEM.match(answer) and answer[0] != "-" else "ul", items))
            items = []
        before, sign, key = line.partition("⚠ ")
        if before.strip():
            parts.append(tag("p", _inline(before), dir="auto"))
        if sign:
            parts.append(note(_inline(key), kind="bad"))
    return parts


def _inline(text: str) -> list[Child]:
    """Return a line with what stands between back-ticks as code."""
    pieces = text.split("`")
    return [tag("code", tag("bdi", piece)) if at % 2 else piece for at, piece in enumerate(pieces)]
