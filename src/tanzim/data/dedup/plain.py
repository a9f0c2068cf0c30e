"""Near duplicates of any texts, without the chain: columns of text in, who stands for whom out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tanzim.core.records import Progress, no_progress
from tanzim.data.dedup.columns import Table, pack_texts, write_columns
from tanzim.data.dedup.members import Parents
from tanzim.data.dedup.near import Search, columns_of, threaded
from tanzim.data.similarity import MinHasher


@dataclass(frozen=True, slots=True)
class _Part:
    path: Path
    rows: int
    origin: int = 0


def near_duplicates(
    batches: Iterable[Sequence[str] | Any],
    folder: Path,
    *,
    threshold: float = 0.8,
    verify: Literal["jaccard", "signature"] = "jaccard",
    seed: int = 0,
    progress: Progress = no_progress,
) -> Parents:
    """Find texts that are nearly the same (see `tanzim.data.dedup.fuzzy`), on all cores.

    Args:
        batches: texts in portions of some thousand: lists of strings, or Arrow arrays of them.
        folder: an empty one, for some 300 bytes a text and, with ``verify: jaccard``, the texts.
        threshold: Jaccard similarity of character 5-grams from which two are nearly the same.
        verify: what confirms a pair: the 5-grams, or the signatures' estimate.
        seed: chooses the hash functions.
        progress: told the texts, then the parts, done.

    Returns:
        The number of the first text of each one's group, counted from 0: its own, if it is the first, [N].

    Raises:
        MissingExtra: numba is not installed.

    """
    hasher, exact = MinHasher(seed), verify == "jaccard"

    def survey(number: int, texts: Any) -> tuple[int, _Part]:  # noqa: ANN401
        data, starts = _bytes_of(texts)
        path = folder / f"part-{number:05d}"
        write_columns(path, columns_of(data, starts, hasher, threshold, verify=exact))
        return number, _Part(path, len(starts) - 1)

    parts: dict[int, _Part] = {}
    done = 0
    for number, part in threaded(survey, enumerate(batches)):
        parts[number] = part
        done += part.rows
        progress(done, None, "looking")
    table = Table([parts[number] for number in sorted(parts)])
    parents = np.arange(len(table), dtype=np.uint32)
    if len(table):
        Search(table, parents, threshold, verify=exact).run(progress)
    return parents


def _bytes_of(texts: Any) -> tuple[Any, Any]:  # noqa: ANN401 - strings or an Arrow array
    """Return texts as UTF-8 bytes, and where each begins."""
    if not hasattr(texts, "buffers"):
        return pack_texts(texts)
    import pyarrow as pa

    plain = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    large = plain.fill_null("").cast(pa.large_string())
    _, offsets, data = large.buffers()
    starts = np.frombuffer(offsets, np.int64)[large.offset : large.offset + len(large) + 1]
    return np.frombuffer(data if data is not None else b"", np.uint8), starts
