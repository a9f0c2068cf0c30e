"""What the step knows of all examples: a little of each in memory, the rest shard by shard in files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tanzim.core.optional import need
from tanzim.core.records import Example
from tanzim.data.balance import surrogate
from tanzim.data.balance.classes import NONE, class_of
from tanzim.data.balance.labelled import Labelled, write_labelled
from tanzim.data.select.ngrams import Words, hash_words
from tanzim.data.similarity import parts


def words_of(example: Example, *, whole: bool) -> str:
    """Return the text whose words are judged: all of an example, or what the model is to say of it."""
    prompt, answer = parts(example)
    return f"{prompt}\n{answer}" if whole else answer or prompt


def write_survey(examples: Sequence[Example], path: Path, *, target: bool, embedded: bool) -> None:
    """Write of each example of a shard its label, a hash of its text, its words, and its features."""
    texts = [words_of(one, whole=target) for one in examples]
    words = hash_words(texts)
    labels = [class_of(one) for one in examples]
    write_labelled(path, labels, texts, embedded=embedded, words=words.words, ends=words.ends)


class Whole(Labelled):
    """All examples of a data set, and the words of their texts in files."""

    @property
    def labelled(self) -> bool:
        """Whether every example has a label, and there are two to tell apart."""
        return len(self.names) > 1 and bool((self.codes != NONE).all())

    def words(self) -> Iterator[tuple[int, Words]]:
        """Yield the number of each shard's first example, and the words of its examples."""
        for start, survey in self.starts():
            with np.load(survey.path) as part:
                yield start, Words(part["words"], part["ends"])


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
