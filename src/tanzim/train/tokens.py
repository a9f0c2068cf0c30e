"""Tokenised examples on disk: written in a stream, read through a memory map (Apache Arrow IPC)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tanzim.core.errors import RunError
from tanzim.core.files import new_file, sha256
from tanzim.core.records import Provenance, Rendered

SCHEMA = pa.schema(
    [
        ("ids", pa.list_(pa.int32())),
        ("weights", pa.list_(pa.float32())),
        ("targets", pa.list_(pa.list_(pa.int32()))),
        ("source", pa.string()),
        ("row", pa.int64()),
    ]
)
ROWS_PER_BATCH = 4096


class Document(NamedTuple):
    """One tokenised example.

    Args:
        ids: token ids, int32 [T].
        weights: loss weight of each token as a target, float32 [T].
        provenance: where the example came from.
        targets: what is to be predicted, where that is not the document's own next tokens: as the
            objective has it (a label; a label per token; the ids of another text), each int32.

    """

    ids: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]
    provenance: Provenance
    targets: tuple[npt.NDArray[np.int32], ...] = ()

    @property
    def loss_weights(self) -> npt.NDArray[np.float32]:
        """The weights that count; a first token is nobody's target where the next token is predicted."""
        return self.weights if self.targets else self.weights[1:]

    @property
    def weight(self) -> float:
        """What the document adds to the number that a step's loss is divided by."""
        return float(self.loss_weights.sum(dtype=np.float64))


def write_tokens(path: Path, rendered: Iterable[Rendered]) -> int:
    """Write ``rendered`` to the Arrow file ``path``, whole or not at all, a batch of rows at a time.

    Returns:
        How many documents were written.

    """
    count, rows = 0, iter(rendered)
    with new_file(path) as stream, pa.ipc.new_file(stream, SCHEMA) as writer:
        while batch := list(islice(rows, ROWS_PER_BATCH)):
            writer.write_batch(_record_batch(batch))
            count += len(batch)
    return count


def _record_batch(rows: list[Rendered]) -> Any:  # noqa: ANN401 - pyarrow is untyped
    return pa.record_batch(
        [
            pa.array([row.ids for row in rows], SCHEMA.field("ids").type),
            pa.array([row.weights for row in rows], SCHEMA.field("weights").type),
            pa.array([row.targets for row in rows], SCHEMA.field("targets").type),
            pa.array([row.provenance.source for row in rows], pa.string()),
            pa.array([row.provenance.row for row in rows], pa.int64()),
        ],
        schema=SCHEMA,
    )


class TokenStore(Sequence[Document]):
    """The documents of one Arrow file, read through a memory map.

    Args:
        path: a file that `write_tokens` made.

    Raises:
        RunError: the file is missing or of another shape.

    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with pa.memory_map(str(path)) as source:
                reader = pa.ipc.open_file(source)
                if reader.schema != SCHEMA:
                    raise RunError("this file holds no tokens", where=str(path))
                self._batches = [reader.get_batch(index) for index in range(reader.num_record_batches)]
        except FileNotFoundError:
            raise RunError("the tokenised split is missing", where=str(path)) from None
        except pa.ArrowInvalid as error:
            raise RunError(f"the tokenised split cannot be read: {error}", where=str(path)) from None
        self._starts = np.cumsum([0, *(batch.num_rows for batch in self._batches)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @overload
    def __getitem__(self, index: int) -> Document: ...
    @overload
    def __getitem__(self, index: slice) -> list[Document]: ...
    def __getitem__(self, index: int | slice) -> Document | list[Document]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"document {index} of {len(self)}")
        index %= len(self)
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        row = index - int(self._starts[number])
        ids, weights, targets, source, source_row = self._batches[number].columns
        start, end = ids.offsets[row].as_py(), ids.offsets[row + 1].as_py()
        lists = range(targets.offsets[row].as_py(), targets.offsets[row + 1].as_py())
        return Document(
            ids.values.to_numpy()[start:end],
            weights.values.to_numpy()[start:end],
            Provenance(source[row].as_py(), source_row[row].as_py()),
            tuple(_span(targets.values, index) for index in lists),
        )

    def __iter__(self) -> Iterator[Document]:
        return (self[index] for index in range(len(self)))

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens in each document, int64 [N]."""
        parts = [np.diff(batch.column(0).offsets.to_numpy()) for batch in self._batches]
        return np.concatenate([np.zeros(0, np.int64), *parts]).astype(np.int64)

    @cached_property
    def trained(self) -> npt.NDArray[np.int64]:
        """Trained tokens in each document, int64 [N]; as `Document.loss_weights` counts them."""
        parts = []
        for batch in self._batches:
            weights = batch.column(1)
            offsets = weights.offsets.to_numpy()
            trained = weights.values.to_numpy() != 0
            own = np.diff(batch.column(2).offsets.to_numpy()) == 0
            trained[offsets[:-1][own & (np.diff(offsets) > 0)]] = False
            parts.append(np.diff(np.concatenate([[0], np.cumsum(trained)])[offsets]))
        return np.concatenate([np.zeros(0, np.int64), *parts]).astype(np.int64)

    @cached_property
    def classes(self) -> npt.NDArray[np.int64]:
        """The one label of each document, int64 [N]."""
        return np.array([document.targets[0][0] for document in self], np.int64)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the file, by which a resumed run knows its data."""
        return sha256(self.path)


def _span(lists: Any, index: int) -> npt.NDArray[np.int32]:  # noqa: ANN401 - pyarrow is untyped
    """Return the list number ``index`` without copying it."""
    values: npt.NDArray[np.int32] = lists.values.to_numpy()
    return values[lists.offsets[index].as_py() : lists.offsets[index + 1].as_py()]
