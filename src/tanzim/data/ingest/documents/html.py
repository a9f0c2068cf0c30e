"""Headings and paragraphs of a web page that was saved: its main text, or all that it shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tanzim.core.errors import DataError
from tanzim.core.optional import need
from tanzim.data.ingest.documents.blocks import Block, tidy

_UNSEEN = {"script", "style", "template", "noscript", "svg", "math", "title", "iframe", "object", "select"}
_BLOCKS = {
    "address", "article", "aside", "blockquote", "body", "dd", "details", "div", "dl", "dt", "fieldset",
    "figcaption", "figure", "footer", "form", "header", "hr", "html", "li", "list", "main", "nav", "ol", "p",
    "quote", "section", "summary", "ul",
}  # fmt: skip
_WHITE = re.compile(r"\s+")
# Signs that cannot be seen but are part of the text (half-space, joiner, direction marks): the extractor
# takes them out, so that letters that stand in no other text here take their places meanwhile.
_HIDDEN = "\u200c\u200d\u200e\u200f"
_LETTERS = "ꔀꔁꔂꔃꔄꔅꔆꔇꔈꔉꔊꔋ"


def read_html(text: str, main: bool) -> Iterator[Block]:
    """Yield headings and paragraphs of a page in reading order.

    Args:
        text: the page.
        main: whether navigation, advertisements and the like are left out (by trafilatura); a page in
            which no main text is found yields all that it shows.

    Raises:
        DataError: it shows no text.

    """
    blocks = (_main(text) if main else []) or _all(text)
    if not blocks:
        raise DataError("the page shows no text", fix="leave it out")
    yield from blocks


def _all(text: str) -> list[Block]:
    need("lxml", "documents")
    from lxml import etree

    parser = etree.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True, no_network=True)
    try:
        root = etree.fromstring(text.encode("utf-8", "replace"), parser)
    except etree.XMLSyntaxError:  # nothing in it
        return []
    return _Page(root).blocks if root is not None else []


def _main(text: str) -> list[Block]:
    trafilatura = need("trafilatura", "documents")
    free = [letter for letter in _LETTERS if letter not in text][: len(_HIDDEN)]
    away = {ord(sign): letter for sign, letter in zip(_HIDDEN, free, strict=False)}
    # fast: without the fallbacks to other extractors, which on short pages take what stands around the text.
    found = trafilatura.bare_extraction(
        text.translate(away), include_comments=False, include_formatting=False, fast=True
    )
    if found is None or found.body is None:
        return []
    back = {ord(letter): chr(sign) for sign, letter in away.items()}
    return [Block(one.text.translate(back), one.level) for one in _Page(found.body).blocks]


class _Page:
    """The blocks of a tree of elements: of HTML, or of what the extractor makes of it."""

    def __init__(self, root: Any) -> None:  # noqa: ANN401 - an lxml element
        self.blocks: list[Block] = []
        self._text: list[str] = []
        self._mark, self._listed = "", False
        self._visit(root)
        self._flush()

    def _flush(self, level: int = 0) -> None:
        text = tidy("".join(self._text))
        self._text = []
        if not text:
            return
        if level:
            self.blocks.append(Block(text.replace("\n", " ").rstrip("¶ "), level))  # ¶ links to itself
        elif self._mark and self._listed and not self.blocks[-1].level:
            self.blocks[-1] = Block(f"{self.blocks[-1].text}\n{self._mark}{text}")
        else:
            self.blocks.append(Block(self._mark + text))
        self._listed = bool(self._mark)
        self._mark = ""

    def _visit(self, element: Any) -> None:  # noqa: ANN401 - an lxml element
        tag = element.tag if isinstance(element.tag, str) else ""
        level = _level(element, tag)
        if level:
            self._flush()
            self._inside(element)
            self._flush(level)
        elif tag in ("br", "lb"):
            self._text.append("\n")
        elif tag == "table":
            self._table(element)
        elif tag == "pre" or (tag == "code" and "\n" in "".join(element.itertext()).strip()):
            self._flush()
            self._listed = False
            code = "".join(element.itertext()).strip("\n")
            if code.strip():
                self.blocks.append(Block(f"```\n{code}\n```"))
        elif tag in ("li", "item"):
            self._flush()
            self._mark = "- "
            self._inside(element)
            self._flush()
            self._mark = ""
        elif tag in _BLOCKS:
            self._flush()
            self._inside(element)
            self._flush()
        elif tag and tag not in _UNSEEN:
            self._inside(element)

    def _inside(self, element: Any) -> None:  # noqa: ANN401 - an lxml element
        self._text.append(_WHITE.sub(" ", element.text or ""))
        for child in element:
            self._visit(child)
            self._text.append(_WHITE.sub(" ", child.tail or ""))

    def _table(self, table: Any) -> None:  # noqa: ANN401 - an lxml element
        """Take a table row by row; one that only lays the page out (a table within it) as its blocks."""
        self._flush()
        self._listed = False
        if any(inner is not table for inner in table.iter("table")):
            self._inside(table)
            self._flush()
            return
        rows = []
        for row in table.iter("tr", "row"):
            cells = [
                _WHITE.sub(" ", " ".join(cell.itertext())).strip() for cell in row.iter("td", "th", "cell")
            ]
            if any(cells):
                rows.append(" | ".join(cells))
        if rows:
            self.blocks.append(Block("\n".join(rows)))


def _level(element: Any, tag: str) -> int:  # noqa: ANN401 - an lxml element
    """Return the level of a heading: h1 to h6, or the extractor's head with its rend; else 0."""
    name = (element.get("rend") or "h2") if tag == "head" and element.getparent() is not None else tag
    named = len(name) == 2 and name[0] == "h" and name[1] in "123456"
    return int(name[1]) if named else 0
