"""Examples on disk: an Arrow IPC file that is written in batches and read through the page cache."""

from __future__ import annotations

import bisect
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, overload

import pyarrow as pa

from tanzim.core.errors import DataError
from tanzim.core.records import Example, Json

SCHEMA = pa.schema(
    [("kind", pa.string()), ("json", pa.string()), ("source", pa.string()), ("row", pa.int64())]
)
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_BATCH_ROWS = 4096
_BATCH_BYTES = 16 << 20


def to_text(example: Example) -> str:
    """Return an example as one line of JSON, without its source and row (which have their own columns).

    Raises:
        ValueError: the example holds a NaN, which JSON has no word for.

    """
    value = example.to_json()
    del value["provenance"]
    if example.provenance.derived:
        value["derived"] = example.provenance.derived
    return _encode(value)


def from_text(text: str, source: str, row: int) -> Example:
    """Make the example from what `to_text` returned."""
    value: Json = json.loads(text)
    provenance = {"source": source, "row": row, "derived": value.pop("derived", "")}
    return Example.from_json({**value, "provenance": provenance})


def examples_of(batch: Any) -> Iterator[tuple[Example, str]]:  # noqa: ANN401 - a pyarrow.RecordBatch
    """Yield the examples of a record batch of a store, each with the text it is stored as."""
    for _, text, source, row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
        yield from_text(text, source, row), text


class ExampleWriter:
    """Writes rows of a store in batches; the file appears under its name when all is written."""

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        self._path, self._durable = path, durable
        self._temporary = path.with_name(f".{path.name}.part")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = pa.OSFile(str(self._temporary), "wb")
        self._writer = pa.ipc.new_file(self._file, SCHEMA)
        self._columns: tuple[list[str], list[str], list[str], list[int]] = ([], [], [], [])
        self._batches: list[Any] = []
        self._rows = self._bytes = 0
        self.count = 0

    def add(self, kind: str, text: str, source: str, row: int) -> None:
        """Append one example, given as `to_text` returns it."""
        for column, value in zip(self._columns, (kind, text, source, row), strict=True):
            column.append(value)  # type: ignore[attr-defined]
        self._counted(1, 4 * len(text))

    def add_batch(self, batch: Any) -> None:  # noqa: ANN401 - a pyarrow.RecordBatch
        """Append the rows of a record batch of a store."""
        self._gather()
        self._batches.append(batch)
        self._counted(batch.num_rows, batch.nbytes)

    def _counted(self, rows: int, size: int) -> None:
        self.count += rows
        self._rows += rows
        self._bytes += size
        if self._rows >= _BATCH_ROWS or self._bytes >= _BATCH_BYTES:
            self._flush()

    def _gather(self) -> None:
        if self._columns[0]:
            self._batches.append(pa.record_batch([*self._columns], schema=SCHEMA))
            self._columns = ([], [], [], [])

    def _flush(self) -> None:
        self._gather()
        if self._rows:
            together = pa.Table.from_batches(self._batches, SCHEMA).combine_chunks()
            for batch in together.to_batches():
                self._writer.write_batch(batch)
        self._batches = []
        self._rows = self._bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._flush()
            self._writer.close()
        finally:
            self._file.close()
        if error is None:
            if self._durable:
                with self._temporary.open("rb") as file:
                    os.fsync(file.fileno())
            self._temporary.replace(self._path)
        else:
            self._temporary.unlink(missing_ok=True)


def write_examples(path: Path, examples: Iterable[Example]) -> int:
    """Write examples to an Arrow IPC file, streaming; return how many.

    Args:
        path: the file; it appears whole or not at all.
        examples: any number of examples, held in memory a batch at a time.

    """
    with ExampleWriter(path) as writer:
        for example in examples:
            writer.add(example.kind, to_text(example), example.provenance.source, example.provenance.row)
    return writer.count


def read_batches(path: Path) -> Iterator[Any]:
    """Yield the record batches of a store one after another, without mapping the file into memory."""
    with pa.OSFile(str(path), "rb") as file:
        reader = pa.ipc.open_file(file)
        for index in range(reader.num_record_batches):
            yield reader.get_batch(index)


class ExampleStore(Sequence[Example]):
    """The examples of one split, read from disk when asked for.

    Args:
        path: an Arrow IPC file that `write_examples` or ``prepare`` wrote.

    Raises:
        DataError: the file is missing or not such a file.

    """

    def __init__(self, path: Path) -> None:
        try:
            self._map = pa.memory_map(str(path))
            reader = pa.ipc.open_file(self._map)
            if not reader.schema.equals(SCHEMA):
                raise DataError("this is not a file of examples", where=str(path))
            self._batches = [reader.get_batch(index) for index in range(reader.num_record_batches)]
        except (OSError, pa.ArrowException) as error:
            raise _unreadable(path, error) from None
        self._path = path
        self._sound: set[int] = set()
        self._ends: list[int] = []
        for batch in self._batches:
            self._ends.append((self._ends[-1] if self._ends else 0) + batch.num_rows)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        """Read one example, or a list of them."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(index)
        number = bisect.bisect_right(self._ends, place)
        batch = self._batches[number]
        at = place - (self._ends[number] - batch.num_rows)
        try:
            if number not in self._sound:  # Arrow believes a damaged file, and reads beyond its end
                batch.validate(full=True)
                self._sound.add(number)
            _, text, source, row = (batch.column(i)[at].as_py() for i in range(4))
            return from_text(text, source, row)
        except (pa.ArrowException, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise _unreadable(self._path, error) from None


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(
        f"the file of examples cannot be read ({error})", where=str(path), fix="prepare the data again"
    )
