"""Arrays in one file, read in part: what a step knows of the examples of a shard.

Nothing stays mapped: what was read of files would otherwise count as memory of the process.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Rows = npt.NDArray[np.int64]
_ALIGNED = 64


def write_columns(path: Path, columns: Mapping[str, Array]) -> None:
    """Write arrays to a file."""
    places: dict[str, Any] = {}
    at = 0
    for name, array in columns.items():
        places[name] = [array.dtype.str, list(array.shape), at]
        at += -(-array.nbytes // _ALIGNED) * _ALIGNED
    head = json.dumps(places).encode()
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for array in columns.values():
            file.write(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
            file.write(bytes(-array.nbytes % _ALIGNED))


def pack_texts(texts: Sequence[str]) -> tuple[npt.NDArray[np.uint8], Rows]:
    """Return texts in UTF-8 one after another, and where each begins and all end, [N + 1]."""
    coded = [text.encode("utf-8", "surrogatepass") for text in texts]
    ends = np.cumsum(np.fromiter(map(len, coded), np.int64, len(coded)))
    return np.frombuffer(b"".join(coded), np.uint8), np.concatenate([np.zeros(1, np.int64), ends])


class Columns:
    """A file that `write_columns` wrote."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            self._places: dict[str, Any] = json.loads(file.read(size))
        self._start = 8 + size

    def read(self, name: str, first: int = 0, stop: int | None = None) -> Array:
        """Read rows [first, stop) of an array into memory."""
        kind, shape, at = self._places[name]
        stop = shape[0] if stop is None else stop
        width = int(np.prod(shape[1:], dtype=np.int64))
        offset = self._start + at + first * width * np.dtype(kind).itemsize
        found = np.fromfile(self._path, kind, (stop - first) * width, offset=offset)
        return found.reshape(stop - first, *shape[1:])

    def map(self, name: str) -> Array:
        """Map an array; it is to be let go of soon."""
        kind, shape, at = self._places[name]
        if not np.prod(shape, dtype=np.int64):
            return np.empty(shape, kind)
        return np.memmap(self._path, kind, "r", self._start + at, tuple(shape))


class _Surveyed(Protocol):
    @property
    def path(self) -> Path: ...
    @property
    def rows(self) -> int: ...
    @property
    def origin(self) -> int: ...


class Table:
    """The columns of all shards, read at any rows.

    Args:
        surveys: files that `write_columns` wrote, in order.

    """

    def __init__(self, surveys: Sequence[_Surveyed]) -> None:
        self.parts = [Columns(survey.path) for survey in surveys]
        self.starts = np.concatenate([[0], np.cumsum([survey.rows for survey in surveys], dtype=np.int64)])
        self._origins = np.array([survey.origin for survey in surveys], np.int64)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def origin(self, rows: Rows) -> Rows:
        """Return the origin of rows, [M]."""
        found: Rows = self._origins[np.searchsorted(self.starts, rows, "right") - 1]
        return found

    def at(self, name: str, rows: Rows) -> Array:
        """Read a column at rows (rising), [M, …]."""
        found = [part.map(name)[mine] for part, mine in self._parted(rows)]
        return np.concatenate(found) if found else np.empty(0)

    def texts(self, name: str, rows: Rows) -> tuple[npt.NDArray[np.uint8], Rows]:
        """Read texts at rows (rising): bytes one after another, and where each begins, [M + 1]."""
        found: list[memoryview] = []
        lengths: list[Array] = [np.zeros(1, np.int64)]
        for part, mine in self._parted(rows):
            places = part.map(f"{name}_places")
            firsts, stops = places[mine], places[mine + 1]
            data = memoryview(part.map(name))
            found += [data[first:stop] for first, stop in zip(firsts.tolist(), stops.tolist(), strict=True)]
            lengths.append(stops - firsts)
        return np.frombuffer(b"".join(found), np.uint8), np.cumsum(np.concatenate(lengths))

    def _parted(self, rows: Rows) -> Any:  # noqa: ANN401 - an iterator of a part and its rows
        cuts = np.searchsorted(rows, self.starts)
        for number in np.flatnonzero(np.diff(cuts)).tolist():
            yield self.parts[number], rows[cuts[number] : cuts[number + 1]] - self.starts[number]
