"""Headings and paragraphs of a Word document (Office Open XML, ECMA-376 part 1, 17).

The XML is read as it stands, not through python-docx, whose paragraphs leave out inserted text under
revision marks, content controls and text boxes.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from tanzim.core.errors import DataError
from tanzim.data.ingest.documents.archive import open_archive
from tanzim.data.ingest.documents.blocks import Block, tidy

_HEADING = re.compile(r"heading (\d)", re.IGNORECASE)
# Text that is gone (deleted, or moved away), and the second copy of a drawing kept for old readers.
_GONE = {
    "del",
    "moveFrom",
    "Fallback",
    "instrText",
    "delText",
    "pPr",
    "rPr",
    "sectPr",
    "tblPr",
    "trPr",
    "tcPr",
}
_NOTES = ("word/footnotes.xml", "word/endnotes.xml")


def read_word(path: Path, limit: int) -> Iterator[Block]:
    """Yield headings and paragraphs of a ``.docx`` file in reading order, tables row by row, notes last.

    Args:
        path: the file.
        limit: the most bytes that it may have once unpacked.

    Raises:
        DataError: it is damaged, protected, too large once unpacked, or made to do harm.

    """
    with open_archive(path, limit) as archive:
        main = _main_part(archive)
        levels = _levels(archive)
        body = next((one for one in _parse(archive, main) if _name(one) == "body"), None)
        if body is None:
            raise DataError("the Word document has no body", fix="fetch or save the file again")
        yield from _blocks(body, levels)
        for part in _NOTES:
            if part in archive.namelist():
                for note in _parse(archive, part):
                    if not any(key.endswith("}type") for key in note.attrib):  # not a separator line
                        yield from _blocks(note, levels)


def _main_part(archive: zipfile.ZipFile) -> str:
    names = [name for name in archive.namelist() if re.fullmatch(r"word/document\d*\.xml", name)]
    if not names:
        raise DataError("this is no Word document: it has no word/document.xml", fix="save it as .docx")
    return names[0]


def _parse(archive: zipfile.ZipFile, name: str) -> ElementTree.Element:
    with archive.open(name) as part:
        return ElementTree.parse(part).getroot()


def _name(element: ElementTree.Element) -> str:
    """Return the name of an element without its namespace (there are two: transitional and strict)."""
    return element.tag.rpartition("}")[2]


def _child(element: ElementTree.Element, *names: str) -> ElementTree.Element | None:
    found: ElementTree.Element | None = element
    for name in names:
        found = next((one for one in found if _name(one) == name), None) if found is not None else None
    return found


def _value(element: ElementTree.Element | None, name: str = "val") -> str | None:
    if element is None:
        return None
    return next((value for key, value in element.attrib.items() if key.rpartition("}")[2] == name), None)


def _levels(archive: zipfile.ZipFile) -> dict[str, int]:
    """Return the heading level of each paragraph style that has one, inherited levels included."""
    if "word/styles.xml" not in archive.namelist():
        return {}
    levels: dict[str, int] = {}
    based: dict[str, str] = {}
    for style in _parse(archive, "word/styles.xml"):
        identity = _value(style, "styleId")
        if _name(style) != "style" or identity is None:
            continue
        name = (_value(_child(style, "name")) or "").strip()
        outline = _value(_child(style, "pPr", "outlineLvl"))
        match = _HEADING.fullmatch(name)
        if name.lower() == "title":
            levels[identity] = 1
        elif match:
            levels[identity] = int(match[1])
        elif outline is not None and outline.isdigit() and int(outline) < 9:
            levels[identity] = int(outline) + 1
        elif parent := _value(_child(style, "basedOn")):
            based[identity] = parent
    for identity, parent in based.items():
        seen, at = {identity}, parent
        while at in based and at not in seen:
            seen.add(at)
            at = based[at]
        if at in levels:
            levels[identity] = levels[at]
    return levels


def _blocks(element: ElementTree.Element, levels: dict[str, int]) -> Iterator[Block]:
    for child in element:
        name = _name(child)
        if name == "p":
            yield from _paragraph(child, levels)
        elif name == "tbl":
            rows = [_row(row) for row in child if _name(row) == "tr"]
            text = "\n".join(row for row in rows if row.strip(" |"))
            if text:
                yield Block(text)
        elif name not in _GONE:  # content controls and the like
            yield from _blocks(child, levels)


def _row(row: ElementTree.Element) -> str:
    texts = (" ".join(block.text for block in _blocks(cell, {})).replace("\n", " ") for cell in _cells(row))
    return " | ".join(texts)


def _cells(row: ElementTree.Element) -> Iterator[ElementTree.Element]:
    for child in row:
        if _name(child) == "tc":
            yield child
        elif _name(child) in ("sdt", "sdtContent"):
            yield from _cells(child)


def _paragraph(paragraph: ElementTree.Element, levels: dict[str, int]) -> Iterator[Block]:
    boxes: list[ElementTree.Element] = []
    text = tidy("".join(_text(paragraph, boxes)))
    style = _value(_child(paragraph, "pPr", "pStyle"))
    own = _value(_child(paragraph, "pPr", "outlineLvl"))
    level = int(own) + 1 if own is not None and own.isdigit() and int(own) < 9 else levels.get(style or "", 0)
    if text:
        listed = not level and _child(paragraph, "pPr", "numPr") is not None
        yield Block(f"- {text}" if listed else text.replace("\n", " ") if level else text, min(level, 6))
    for box in boxes:
        yield from _blocks(box, levels)


def _text(element: ElementTree.Element, boxes: list[ElementTree.Element]) -> Iterator[str]:
    """Yield the text of a paragraph; text boxes are put aside, to follow it."""
    for child in element:
        name = _name(child)
        if name == "t":
            yield child.text or ""
        elif name in ("tab", "ptab"):
            yield "\t"
        elif name in ("br", "cr"):
            yield "\n"
        elif name == "noBreakHyphen":
            yield "-"
        elif name == "txbxContent":
            boxes.append(child)
        elif name not in _GONE:
            yield from _text(child, boxes)
