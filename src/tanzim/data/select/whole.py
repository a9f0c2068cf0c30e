"""What the step knows of all examples: a little of each in memory, the rest shard by shard in files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tanzim.core.optional import need
from tanzim.core.powers import Embed
from tanzim.core.records import Example
from tanzim.data.balance import surrogate
from tanzim.data.balance.classes import NONE, class_of, sort_names
from tanzim.data.select.ngrams import Words, hash_words
from tanzim.data.similarity import digest, normalise, parts
from tanzim.data.step import Survey

Codes = npt.NDArray[np.int64]
_AT_ONCE = 256  # texts that are embedded at a time


def words_of(example: Example, *, whole: bool) -> str:
    """Return the text whose words are judged: all of an example, or what the model is to say of it."""
    prompt, answer = parts(example)
    return f"{prompt}\n{answer}" if whole else answer or prompt


def write_survey(examples: Sequence[Example], path: Path, *, target: bool, embedded: bool) -> None:
    """Write of each example of a shard its label, a hash of its text, its words, and its features."""
    known: dict[str, int] = {}
    labels = [class_of(one) for one in examples]
    codes = [NONE if label is None else known.setdefault(label, len(known)) for label in labels]
    texts = [words_of(one, whole=target) for one in examples]
    words = hash_words(texts)
    more: dict[str, npt.NDArray[Any]] = {}
    if embedded:
        more = {"texts": _bytes(texts)}
    elif known:
        counts = surrogate.hashed_words(texts)
        more = {"indptr": counts.indptr, "indices": counts.indices, "data": counts.data}
    seen = np.array([digest(normalise(text)) for text in texts], np.uint64)
    more |= {"codes": np.array(codes, np.int64), "names": _bytes(list(known)), "digests": seen}
    with path.open("wb") as file:
        np.savez(file, words=words.words, ends=words.ends, **more)  # type: ignore[arg-type]


class Whole:
    """All examples of a data set: labels and hashes of texts in memory (16 bytes each), the rest in files.

    Args:
        surveys: what `write_survey` wrote.
        embed: turns texts into vectors; None: their words are counted.
        folder: where vectors are kept.

    """

    def __init__(self, surveys: Sequence[Survey], embed: Embed | None, folder: Path) -> None:
        self._surveys, self._embed, self._folder = surveys, embed, folder
        known: dict[str, int] = {}
        codes, digests = [np.empty(0, np.int64)], [np.empty(0, np.uint64)]
        for survey in surveys:
            with np.load(survey.path) as part:
                names = [known.setdefault(name, len(known)) for name in _strings(part["names"])]
                codes.append(np.array([*names, NONE])[part["codes"]])
                digests.append(part["digests"])
        self.codes, self.names = sort_names(np.concatenate(codes), list(known))
        self.digests = np.concatenate(digests)

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def labelled(self) -> bool:
        """Whether every example has a label, and there are two to tell apart."""
        return len(self.names) > 1 and bool((self.codes != NONE).all())

    def starts(self) -> Iterator[tuple[int, Survey]]:
        """Yield the number of each shard's first example, and the shard."""
        start = 0
        for survey in self._surveys:
            yield start, survey
            start += survey.rows

    def words(self) -> Iterator[tuple[int, Words]]:
        """Yield the number of each shard's first example, and the words of its examples."""
        for start, survey in self.starts():
            with np.load(survey.path) as part:
                yield start, Words(part["words"], part["ends"])

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
                texts = _strings(part["texts"])
            batches = [embed(texts[i : i + _AT_ONCE]) for i in range(0, len(texts), _AT_ONCE)]
            np.save(kept, np.concatenate(batches))
        vectors: npt.NDArray[np.float32] = np.load(kept, mmap_mode="r")
        return vectors


def weigher(raw_NF: Any) -> Callable[[Any], Any]:  # noqa: ANN401 - a SciPy or numpy matrix
    """Return what turns counts of words (TF-IDF, as in these) or vectors into features with a constant 1."""
    sparse = need("scipy.sparse", surrogate.EXTRA)
    if not sparse.issparse(raw_NF):
        return lambda some: np.hstack([some, np.ones((len(some), 1), some.dtype)])
    places = surrogate.common_places(raw_NF)
    text = need("sklearn.feature_extraction.text", surrogate.EXTRA)
    weighting = text.TfidfTransformer(sublinear_tf=True).fit(raw_NF[:, places])

    def weigh(some: Any) -> Any:  # noqa: ANN401 - a SciPy CSR matrix
        one = sparse.csr_matrix(np.ones((some.shape[0], 1), np.float32))
        return sparse.hstack([weighting.transform(some[:, places]), one], format="csr")

    return weigh


def _bytes(texts: Sequence[str]) -> npt.NDArray[np.uint8]:
    return np.frombuffer(json.dumps(texts).encode(), np.uint8)


def _strings(value: npt.NDArray[np.uint8]) -> list[str]:
    texts: list[str] = json.loads(value.tobytes())
    return texts
