"""What steps that learn labels know of all examples: labels and hashes in memory, features in files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tanzim.core.optional import need
from tanzim.core.powers import Embed
from tanzim.data.balance import surrogate
from tanzim.data.balance.classes import NONE, Codes, sort_names
from tanzim.data.similarity import digest, normalise
from tanzim.data.step import Survey

_AT_ONCE = 256  # texts that are embedded at a time
_ALWAYS = 20  # examples of a class that are drawn, if there are so many


def write_labelled(
    path: Path,
    labels: Sequence[str | None],
    texts: Sequence[str],
    *,
    embedded: bool,
    **more: npt.NDArray[Any],
) -> None:
    """Write what `Labelled` reads of a shard.

    Args:
        path: the file.
        labels: of each example its label, or None.
        texts: of each example what surrogates see.
        embedded: texts are written to be embedded; else their words are counted, if one has a label.
        more: whatever else the step writes.

    """
    known: dict[str, int] = {}
    codes = [NONE if label is None else known.setdefault(label, len(known)) for label in labels]
    if embedded:
        more["texts"] = as_bytes(texts)
    elif known:
        counts = surrogate.hashed_words(texts)
        more |= {"indptr": counts.indptr, "indices": counts.indices, "data": counts.data}
    more["digests"] = np.array([digest(normalise(text)) for text in texts], np.uint64)
    with path.open("wb") as file:
        np.savez(file, codes=np.array(codes, np.int64), names=as_bytes(list(known)), **more)  # type: ignore[arg-type]


class Labelled:
    """All examples of a data set: labels and hashes of texts in memory (16 bytes each), the rest in files.

    Args:
        surveys: what `write_labelled` wrote.
        embed: turns texts into vectors; None: their words are counted.
        folder: where vectors are kept, so that each text is embedded once.

    """

    def __init__(self, surveys: Sequence[Survey], embed: Embed | None, folder: Path) -> None:
        self._surveys, self._embed, self._folder = surveys, embed, folder
        known: dict[str, int] = {}
        codes, digests = [np.empty(0, np.int64)], [np.empty(0, np.uint64)]
        for survey in surveys:
            with np.load(survey.path) as part:
                names = [known.setdefault(name, len(known)) for name in as_strings(part["names"])]
                codes.append(np.array([*names, NONE])[part["codes"]])
                digests.append(part["digests"])
        self.codes, self.names = sort_names(np.concatenate(codes), list(known))
        self.digests = np.concatenate(digests)

    def __len__(self) -> int:
        return len(self.codes)

    def starts(self) -> Iterator[tuple[int, Survey]]:
        """Yield the number of each shard's first example, and the shard."""
        start = 0
        for survey in self._surveys:
            yield start, survey
            start += survey.rows

    def raw(self, rows: Codes) -> Any:  # noqa: ANN401 - a SciPy or numpy matrix
        """Return word counts or vectors of some examples, in order."""
        found = []
        for start, survey in self.starts():
            here = rows[(rows >= start) & (rows < start + survey.rows)] - start
            if len(here):
                found.append(self.part(survey, here))
        if self._embed is not None:
            return np.concatenate(found)
        return need("scipy.sparse", surrogate.EXTRA).vstack(found, format="csr")

    def part(self, survey: Survey, rows: Codes) -> Any:  # noqa: ANN401 - a SciPy or numpy matrix
        """Return word counts or vectors of some examples of a shard."""
        if self._embed is not None:
            return self._vectors(survey, self._embed)[rows]
        sparse = need("scipy.sparse", surrogate.EXTRA)
        with np.load(survey.path) as part:
            counts = (part["data"], part["indices"], part["indptr"])
            return sparse.csr_matrix(counts, shape=(survey.rows, surrogate.PLACES))[rows]

    def _vectors(self, survey: Survey, embed: Embed) -> npt.NDArray[np.float32]:
        kept = self._folder / f"{survey.path.name}.npy"
        if not kept.is_file():
            with np.load(survey.path) as part:
                texts = as_strings(part["texts"])
            batches = [embed(texts[i : i + _AT_ONCE]) for i in range(0, len(texts), _AT_ONCE)]
            np.save(kept, np.concatenate(batches))
        vectors: npt.NDArray[np.float32] = np.load(kept, mmap_mode="r")
        return vectors

    def drawn(self, rows: Codes, most: int, rng: np.random.Generator) -> Codes:
        """Draw so many of some rows, in order; beyond that, some of every class that is rare."""
        if len(rows) <= most:
            return rows
        drawn = rng.permutation(rows)
        rare = [drawn[self.codes[drawn] == code][:_ALWAYS] for code in range(len(self.names))]
        return np.unique(np.concatenate([drawn[:most], *rare]))


def draw_folds(
    codes: Codes, digests: npt.NDArray[np.uint64], folds: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Draw a fold for each example, every class spread evenly, equal texts together, [N]."""
    _, first, text = np.unique(digests, return_index=True, return_inverse=True)
    fold = np.empty(len(first), np.int64)
    owners = codes[first]
    for code in np.unique(owners):
        members = rng.permutation(np.flatnonzero(owners == code))
        fold[members] = (np.arange(len(members)) + rng.integers(folds)) % folds
    return fold[text]


def as_bytes(texts: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Return texts as an array that a file of arrays may hold."""
    return np.frombuffer(json.dumps(texts).encode(), np.uint8)


def as_strings(value: npt.NDArray[np.uint8]) -> list[str]:
    """Return the texts that `as_bytes` made an array of."""
    texts: list[str] = json.loads(value.tobytes())
    return texts
