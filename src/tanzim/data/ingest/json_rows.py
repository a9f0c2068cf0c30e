"""Rows of JSON Lines and of JSON files, decoded piece by piece."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import Any

from tanzim.core.errors import DataError
from tanzim.core.records import Json
from tanzim.data.ingest.encoding import Content, TooLong, lines
from tanzim.data.ingest.remote import AnyFile
from tanzim.data.ingest.rows import Rejected, Row, excerpt

# Lists of objects that are part of one row, not the rows themselves.
_ROW_LISTS = {
    "messages", "conversations", "conversation", "dialog", "dialogue", "chat", "turns", "tools", "functions",
    "chosen", "rejected", "chosen_messages", "rejected_messages", "preferred_output", "non_preferred_output",
    "prompt", "completion", "history", "choices", "qas",
}  # fmt: skip


class Decoder:
    """A JSON decoder that notices a key standing twice in one object (the last would win silently)."""

    def __init__(self) -> None:
        self.duplicate: str | None = None
        self._json = json.JSONDecoder(object_pairs_hook=self._object)

    def _object(self, pairs: list[tuple[str, Any]]) -> Json:
        value = dict(pairs)
        if len(value) != len(pairs):
            seen: set[str] = set()
            self.duplicate = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        return value

    def decode(self, text: str, start: int) -> tuple[Any, int]:
        """Decode the value at ``start``; return it and where it ends."""
        self.duplicate = None
        return self._json.raw_decode(text, start)

    def row(self, source: str, number: int, value: Any) -> Row | Rejected:  # noqa: ANN401 - any JSON value
        """Make a row of the value decoded last."""
        if not isinstance(value, dict):
            kind = type(value).__name__
            return Rejected(source, number, "the row is not an object", f"it is a {kind}", excerpt(value))
        if self.duplicate is not None:
            detail = f"'{self.duplicate}'"
            return Rejected(source, number, "a key stands twice in the row", detail, excerpt(value))
        return Row(source, number, value)


def is_lines(name: str, head: bytes, codec: str) -> bool:
    """Tell JSON Lines from one JSON document by the first lines."""
    text = head.decode(codec, errors="replace").lstrip()
    if text.startswith("["):
        return False
    first, newline, rest = text.partition("\n")
    named = name.lower().removesuffix(".gz").endswith((".jsonl", ".ndjson"))
    more = rest.lstrip().startswith("{")
    try:
        _, end = json.JSONDecoder().raw_decode(first)
    except (ValueError, RecursionError):
        return named and (not newline or more)
    return not first[end:].strip() and (named or more)


def read_json_lines(content: Content, source: str, limit: int) -> Iterator[Row | Rejected]:
    """Yield a row per line; the row number is the line number, blank lines are no rows."""
    decoder = Decoder()
    for number, line in enumerate(lines(content.chunks, limit), 1):
        if isinstance(line, TooLong):
            yield too_long(source, number, line, limit)
            continue
        if not line.strip():
            continue
        try:
            text = line.decode(content.codec).strip()
            value, end = decoder.decode(text, 0)
        except UnicodeDecodeError as error:
            yield undecodable(source, number, line, error)
        except json.JSONDecodeError as error:
            detail = f"{error.msg} at character {error.pos + 1}"
            yield Rejected(source, number, "the line is not valid JSON", detail, excerpt(text))
        except RecursionError:
            yield Rejected(source, number, "the JSON is nested too deeply", "", excerpt(text))
        except ValueError as error:  # a number with more digits than Python converts
            yield Rejected(source, number, "the line is not valid JSON", str(error), excerpt(text))
        else:
            if text[end:].strip():
                detail = f"more text after the object, at character {end + 1}"
                yield Rejected(source, number, "the line is not valid JSON", detail, excerpt(text))
            else:
                yield decoder.row(source, number, value)


def too_long(source: str, number: int, line: TooLong, limit: int) -> Rejected:
    """Reject a line that was not read into memory."""
    detail = f"{line.size / 1e6:.1f} MB, data.max_line_mb is {limit / 1e6:g}"
    return Rejected(
        source, number, "the line is too long", detail, excerpt(line.start.decode(errors="replace"))
    )


def undecodable(source: str, number: int, line: bytes, error: UnicodeDecodeError) -> Rejected:
    """Reject a line that is not in the file's encoding."""
    byte = f"byte 0x{line[error.start]:02X} at {error.start + 1}"
    return Rejected(source, number, f"the line is not {error.encoding} text", byte, excerpt(repr(line[:200])))


class _Cursor:
    """A place in a JSON text of which only a window is in memory."""

    def __init__(self, content: Content, path: AnyFile, limit: int) -> None:
        self._pieces = self._decoded(content, path)
        self._path, self._limit = path, limit
        self._text, self._at, self._ended = "", 0, False
        self._decoder = Decoder()

    @staticmethod
    def _decoded(content: Content, path: AnyFile) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder(content.codec)()
        try:
            for chunk in content.chunks:
                yield decoder.decode(chunk)
            yield decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            raise DataError(
                f"the file is not {content.codec} throughout ({error.reason})",
                where=str(path),
                fix="save it as UTF-8, or name its encoding in data.encoding",
            ) from None

    def _more(self) -> bool:
        """At least double the window, so that a long value is tried a few times only."""
        self._text = self._text[self._at :]
        self._at = 0
        wanted = max(1, 2 * len(self._text))
        pieces = [self._text]
        size = len(self._text)
        while size < wanted and not self._ended:
            piece = next(self._pieces, None)
            if piece is None:
                self._ended = True
            else:
                pieces.append(piece)
                size += len(piece)
        grown = size > len(self._text)
        self._text = "".join(pieces)
        return grown

    def peek(self) -> str:
        """Return the next character that is not white space ("" at the end)."""
        while True:
            rest = len(self._text)
            while self._at < rest and self._text[self._at] in " \t\r\n":
                self._at += 1
            if self._at < rest:
                return self._text[self._at]
            if not self._more():
                return ""

    def take(self, expected: str, row: int) -> str:
        """Pass the next character, which must be one of ``expected``."""
        found = self.peek()
        if not found or found not in expected:
            raise self.broken(
                f"expected {' or '.join(expected)}, found {found or 'the end of the file'}", row
            )
        self._at += 1
        return found

    def broken(self, what: str, row: int) -> DataError:
        """Say that the document cannot be read on: what follows a fault in JSON has no meaning."""
        cut = "the JSON ends early" if not self.peek() else "the JSON is not valid"
        return DataError(
            f"{cut} in row {row}: {what}",
            where=f"{self._path}, row {row}",
            fix="fetch or write the file again",
        )

    def value(self, row: int) -> Any:  # noqa: ANN401 - any JSON value
        """Pass and return the next value."""
        self.peek()
        while True:
            try:
                value, end = self._decoder.decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if len(self._text) - self._at > self._limit:
                    raise DataError(
                        f"row {row} is above data.max_line_mb ({self._limit / 1e6:g} MB) or not valid JSON",
                        where=f"{self._path}, row {row}",
                        fix="raise data.max_line_mb, or write the rows as JSON Lines",
                    ) from None
                if self._more():
                    continue
                self._at = len(self._text) if error.msg.startswith("Unterminated") else error.pos
                raise self.broken(error.msg, row) from None
            except RecursionError:
                raise self.broken("it is nested too deeply", row) from None
            except ValueError as error:
                raise self.broken(str(error), row) from None
            if end == len(self._text) and self._more():  # a number may go on in the next piece
                continue
            self._at = end
            return value

    def row(self, source: str, number: int, value: Any) -> Row | Rejected:  # noqa: ANN401 - any JSON value
        """Make a row of the value passed last."""
        return self._decoder.row(source, number, value)


def read_json(content: Content, source: str, path: AnyFile, limit: int) -> Iterator[Row | Rejected]:
    """Yield the rows of a JSON document: an array, an object with one list of rows, or objects in turn.

    Articles of the SQuAD format (paragraphs with questions) become one row per question.

    Raises:
        DataError: the document is not valid JSON to its end, or holds several lists of rows.

    """
    cursor = _Cursor(content, path, limit)
    number = 0
    while (first := cursor.peek()) and first in "[{":
        rows = _array(cursor, number) if first == "[" else _object(cursor, number, path)
        for value in rows:
            for part in _questions(value):
                number += 1
                yield cursor.row(source, number, part)
    if cursor.peek():
        raise cursor.broken(f"expected an array or an object, found {cursor.peek()!r}", number + 1)


def _array(cursor: _Cursor, number: int) -> Iterator[Any]:
    cursor.take("[", number + 1)
    if cursor.peek() == "]":
        cursor.take("]", number + 1)
        return
    while True:
        number += 1
        yield cursor.value(number)
        if cursor.take(",]", number + 1) == "]":
            return


def _object(cursor: _Cursor, number: int, path: AnyFile) -> Iterator[Any]:
    """Yield the elements of the one list of objects in an object, or the object itself."""
    fields: Json = {}
    rows_key: str | None = None
    cursor.take("{", number + 1)
    while cursor.peek() != "}":
        key = cursor.value(number + 1)
        if not isinstance(key, str):
            raise cursor.broken("a key is not a string", number + 1)
        cursor.take(":", number + 1)
        if cursor.peek() == "[" and key.lower() not in _ROW_LISTS:
            elements = _array(cursor, number)
            first = next(elements, None)
            if not isinstance(first, dict):
                fields[key] = [*([] if first is None else [first]), *elements]
            elif rows_key is not None:
                raise DataError(
                    f"the object holds several lists of rows: '{rows_key}' and '{key}'",
                    where=str(path),
                    fix="write each list to a file of its own",
                )
            else:
                rows_key = key
                yield first
                yield from elements
        elif key in fields:
            raise cursor.broken(f"the key '{key}' stands twice", number + 1)
        else:
            fields[key] = cursor.value(number + 1)
        if cursor.peek() != "}":
            cursor.take(",", number + 1)
    cursor.take("}", number + 1)
    if rows_key is None:
        yield fields


def _questions(value: Any) -> Iterator[Any]:  # noqa: ANN401 - any JSON value
    """Turn an article of the SQuAD format into one row per question; anything else stays."""
    if not isinstance(value, dict):
        yield value
        return
    paragraphs = [value] if "qas" in value and "context" in value else value.get("paragraphs")
    if not isinstance(paragraphs, list) or not any(isinstance(p, dict) and "qas" in p for p in paragraphs):
        yield value
        return
    for paragraph in paragraphs:
        questions = paragraph.get("qas") if isinstance(paragraph, dict) else None
        if not isinstance(questions, list):
            yield paragraph
            continue
        for question in questions:
            title = {"title": value["title"]} if "title" in value else {}
            context = {"context": paragraph.get("context")}
            yield {**title, **context, **question} if isinstance(question, dict) else question
