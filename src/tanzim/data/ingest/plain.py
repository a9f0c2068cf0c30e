"""Rows of plain text: a document per line or per file."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from tanzim.data.ingest.encoding import Content, TooLong, lines
from tanzim.data.ingest.json_rows import too_long, undecodable
from tanzim.data.ingest.remote import AnyFile
from tanzim.data.ingest.rows import Rejected, Row

_LONG = 1000  # characters: a line this long is more than a paragraph
_MANY = 50  # lines from which a list of sentences is likelier than one text
_ENDS = '.!?؟…»")]:؛;'


def one_per_line(content: Content, size: int, limit: int, unit: str) -> tuple[bool, str]:
    """Decide whether each line is a document; return that and why.

    Args:
        content: the file.
        size: bytes of the file on disk.
        limit: the most bytes that are read into memory as one document.
        unit: line or file, as the config has it, or auto.

    """
    if unit != "auto":
        return unit == "line", f"each {unit} is one text, as data.documents says"
    if size > limit:
        return True, f"each line is one text, as the file is above data.max_line_mb ({limit / 1e6:g} MB)"
    text = content.head.decode(content.codec, errors="replace")
    rows = text.splitlines()[:1000]
    full = [row for row in rows if row.strip()]
    if not full or len(full) < 0.98 * len(rows):
        return False, "the file is one text, as blank lines part its paragraphs"
    typical = statistics.median(len(row) for row in full)
    ended = sum(row.rstrip()[-1] in _ENDS for row in full) / len(full)
    if typical >= _LONG:
        return True, f"each line is one text, as lines are long (median {typical:.0f} characters)"
    if ended >= 0.8 and len(full) >= _MANY:
        return True, f"each line is one text, as {ended:.0%} of the lines end a sentence"
    return False, "the file is one text, as its lines are parts of it (data.documents: line parts them)"


def read_lines(content: Content, source: str, limit: int) -> Iterator[Row | Rejected]:
    """Yield a row per line that is not blank; the row number is the line number."""
    for number, line in enumerate(lines(content.chunks, limit), 1):
        if isinstance(line, TooLong):
            yield too_long(source, number, line, limit)
        elif line.strip():
            try:
                yield Row(source, number, {"text": line.decode(content.codec)})
            except UnicodeDecodeError as error:
                yield undecodable(source, number, line, error)


def read_whole(content: Content, source: str, path: AnyFile, limit: int) -> Iterator[Row | Rejected]:
    """Yield the file as one row, its line ends as line feeds."""
    parts: list[bytes] = []
    size = 0
    for chunk in content.chunks:
        size += len(chunk)
        if size > limit:  # only a gzip file gets here: others are measured before
            yield too_long(source, 1, TooLong(size, parts[0] if parts else chunk), limit)
            return
        parts.append(chunk)
    data = b"".join(parts)
    try:
        text = data.decode(content.codec).replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        yield undecodable(source, 1, data, error)
        return
    yield Row(source, 1, {"text": text.strip("\n")})
