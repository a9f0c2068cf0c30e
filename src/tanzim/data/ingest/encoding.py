"""Bytes of a file as text: gzip by its first bytes, byte order marks, encodings named not guessed."""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NoReturn

from tanzim.core.errors import ConfigError, DataError
from tanzim.data.ingest.guess import detect_encoding
from tanzim.data.ingest.remote import AnyFile, RemoteFile

CHUNK = 1 << 20
GZIP = b"\x1f\x8b"
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16: its mark starts with the same two bytes
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_FOREIGN = (
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive (or an Excel or Word file)"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
    (b"BZh", "compressed with bzip2"),
    (b"\xfd7zXZ", "compressed with xz"),
    (b"ARROW1", "an Arrow file"),
    (b"SQLite format 3", "an SQLite database"),
    (b"\xd0\xcf\x11\xe0", "an old Word or Excel file, or a new one protected by a password"),
)
_CONTROLS = bytes(set(range(32)) - {9, 10, 12, 13, 27})


@dataclass(frozen=True, slots=True)
class Content:
    """A file's content: what it is encoded in, its beginning, and all of it in chunks.

    Args:
        codec: an encoding in which ASCII bytes mean ASCII (UTF-16 and UTF-32 are turned into UTF-8).
        encoding: the encoding of the file itself.
        head: the first megabyte, without its byte order mark.
        chunks: the whole content, the head included.
        detected: whether the encoding was told from the bytes alone (``data.encoding: detect``).

    """

    codec: str
    encoding: str
    head: bytes
    chunks: Iterator[bytes]
    detected: bool = False


@dataclass(frozen=True, slots=True)
class TooLong:
    """A line that was passed over because it is longer than the limit."""

    size: int
    start: bytes


def is_gzip(path: AnyFile) -> bool:
    """Tell whether a file is gzipped, whatever its name."""
    with path.open("rb") as stream:
        return stream.read(2) == GZIP


def text_size(path: AnyFile) -> int:
    """Return the bytes of a file once unzipped (of a local gzip file what its trailer says, modulo 4 GB)."""
    size = path.stat().st_size
    if isinstance(path, RemoteFile) or not is_gzip(path):
        return size
    with path.open("rb") as stream:
        stream.seek(max(0, size - 4))
        return int.from_bytes(stream.read(4), "little")


def read_bytes(path: AnyFile) -> Iterator[bytes]:
    """Yield a file's bytes in chunks, unzipped if it is gzip.

    Raises:
        DataError: the file cannot be read, or the gzip data is damaged or ends early.

    """
    try:
        with path.open("rb") as raw:
            stream = gzip.GzipFile(fileobj=raw) if raw.peek(2)[:2] == GZIP else raw
            while chunk := stream.read(CHUNK):
                yield chunk
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"the gzip data is damaged or ends early ({error})", where=str(path), fix="fetch the file again"
        ) from None
    except OSError as error:
        raise DataError(
            f"the file cannot be read ({error.strerror or error})",
            where=str(path),
            fix="check its name and permissions",
        ) from None


def open_content(path: AnyFile, encoding: str = "auto") -> Content:
    """Open a text file in the encoding that its mark, ``encoding`` or its bytes say.

    Args:
        path: the file.
        encoding: its name; "auto" takes UTF-8 and refuses others by name, "detect" takes others as well
            where they are sure.

    Raises:
        ConfigError: there is no encoding of that name.
        DataError: the file is empty, binary, or in an encoding that has to be named.

    """
    chunks = read_bytes(path)
    head = next(chunks, b"")
    mark, marked = next(((m, name) for m, name in _MARKS if head.startswith(m)), (b"", None))
    if not head[len(mark) :].strip():
        raise DataError("the file is empty", where=str(path), fix="remove it, or fetch it again")
    detected = False
    if encoding not in ("auto", "detect"):
        try:
            named = codecs.lookup(encoding).name
        except LookupError:
            raise ConfigError(f"there is no encoding '{encoding}'", where="data.encoding") from None
        wide = {"utf-16": "utf-16-le", "utf-32": "utf-32-le", "utf-8-sig": "utf-8"}
        codec = marked or wide.get(named, named)
    else:
        codec = marked or _codec_of(head, path, encoding == "detect")
        detected = not marked and codec != "utf-8"
    head = head[len(mark) :]
    if codec.startswith(("utf-16", "utf-32")):
        text = _recode(head, chunks, codec, path)
        first = next(text, b"")
        return Content("utf-8", codec, first, _chain(first, text), detected)
    return Content(codec, codec, head, _chain(head, chunks), detected)


def _chain(head: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield head
    yield from rest


def _recode(head: bytes, rest: Iterator[bytes], codec: str, path: AnyFile) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(codec)()
    try:
        for chunk in _chain(head, rest):
            yield decoder.decode(chunk).encode()
        decoder.decode(b"", final=True)
    except UnicodeError as error:
        raise DataError(
            f"the text is not {codec}: {error}", where=str(path), fix="save the file as UTF-8"
        ) from None


def _codec_of(head: bytes, path: AnyFile, detect: bool) -> str:
    """Take UTF-8, and if asked what is surely something else; name what else it looks like, and refuse."""
    for magic, name in _FOREIGN:
        if head.startswith(magic):
            raise DataError(
                f"this is {name}, not a text or table file",
                where=str(path),
                fix="give JSONL, JSON, CSV, TSV, Parquet or plain text, as it is or gzipped",
            )
    sample = head[: 1 << 16]
    controls = len(sample) - len(sample.translate(None, _CONTROLS))
    if controls > 0.05 * len(sample):
        codec = _without_mark(sample)
        if detect and codec:
            return codec
        _refuse_binary(codec, path)
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        lines = [line for line in head.split(b"\n") if not line.isascii()]
        bad = sum(not _is_utf8(line) for line in lines)
        if bad * 2 < len(lines):  # mostly UTF-8: the odd line is rejected on its own
            return "utf-8"
        found = detect_encoding(head) if detect else None
        if found:
            return found
        likely, name = guess_encoding(head)
        raise DataError(
            f"this is not UTF-8; it looks like {likely} ({name})",
            where=str(path),
            fix=f"set data.encoding: {likely} (or save the file as UTF-8)",
        ) from None
    return "utf-8"


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _without_mark(sample: bytes) -> str | None:
    """Return utf-16-le or utf-16-be if the bytes are text in one of them."""
    for codec in ("utf-16-le", "utf-16-be"):
        text = sample[: len(sample) // 2 * 2].decode(codec, errors="replace")
        plain = sum(c.isprintable() or c in "\t\r\n\u200c\u200d" for c in text)
        common = sum(
            c < "\u0700" or c in "\u200c\u200d" for c in text
        )  # Latin, Greek, Cyrillic, Hebrew, Arabic
        if plain > 0.95 * len(text) and common > 0.9 * len(text):
            return codec
    return None


def _refuse_binary(codec: str | None, path: AnyFile) -> NoReturn:
    if codec:
        raise DataError(
            f"this looks like {codec} without its byte order mark",
            where=str(path),
            fix=f"set data.encoding: {codec} (or save the file as UTF-8)",
        )
    raise DataError(
        "this is binary, not text",
        where=str(path),
        fix="give JSONL, JSON, CSV, TSV, Parquet or plain text, as it is or gzipped",
    )


def guess_encoding(sample: bytes) -> tuple[str, str]:
    """Name the encoding that bytes which are not UTF-8 are most likely in, for an error message.

    Non-Latin scripts stand in runs of high bytes, Western accents alone; alef (0xC7 in cp1256) is
    the commonest letter of Persian and Arabic, and a rare capital in Cyrillic cp1251.
    """
    high = [byte for byte in sample if byte >= 0x80]
    runs = sum(a >= 0x80 and b >= 0x80 for a, b in pairwise(sample))
    if not high or runs < 0.5 * len(high):
        return "cp1252", "Western European Windows"
    if high.count(0xC7) >= 0.05 * len(high):
        return "cp1256", "Persian or Arabic Windows"
    if sum(byte >= 0xC0 for byte in high) > 0.9 * len(high):
        return "cp1251", "Cyrillic Windows"
    return "gb18030", "Chinese"


def lines(chunks: Iterable[bytes], limit: int) -> Iterator[bytes | TooLong]:
    """Split chunks at line feeds only, without the line ends; pass over lines above ``limit`` bytes.

    Unicode's other line separators are content (they stand inside JSON strings).
    """
    parts: list[bytes] = []
    size = 0
    for chunk in chunks:
        pieces = chunk.split(b"\n")
        for piece in pieces[:-1]:
            yield _line(parts, piece, size + len(piece), limit)
            parts, size = [], 0
        size += len(pieces[-1])
        if size <= limit or not parts:
            parts.append(pieces[-1])
        else:
            del parts[1:]  # the beginning is enough to name the line
    if size:
        yield _line(parts, b"", size, limit)


def _line(parts: list[bytes], last: bytes, size: int, limit: int) -> bytes | TooLong:
    if size > limit:
        return TooLong(size, (parts[0] if parts else last)[:1000])
    line = b"".join([*parts, last]) if parts else last
    return line.removesuffix(b"\r")
