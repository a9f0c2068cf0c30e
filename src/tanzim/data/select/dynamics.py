"""How a surrogate comes to learn each example: what is forgotten again, what is never believed.

Toneva et al. 2019, "An Empirical Study of Example Forgetting" (arXiv:1812.05159); Pleiss et al. 2020,
"Identifying Mislabeled Data using the Area Under the Margin Ranking" (arXiv:2001.10528).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tanzim.core.records import Progress, no_progress
from tanzim.data.select.convex import softmax

Codes = npt.NDArray[np.int64]
# Numbers of some examples, their features and labels.
Parts = Callable[[], Iterable[tuple[Codes, Any, Codes]]]
_BATCH = 32  # examples of an update


@dataclass(frozen=True, slots=True)
class Course:
    """What was seen of each of N examples while the surrogate learnt.

    Args:
        area: mean over the epochs of the label's logit minus the largest other one, [N]; below 0 the other
            examples speak against the label.
        forgotten: how often it was right once and wrong the next time, [N].
        learnt: whether it was ever right, [N].

    """

    area: npt.NDArray[np.float32]
    forgotten: npt.NDArray[np.int16]
    learnt: npt.NDArray[np.bool_]


def margins(logits_NC: npt.NDArray[Any], labels_N: Codes) -> npt.NDArray[np.float64]:
    """Return the label's logit minus the largest of the others, [N]."""
    rows = np.arange(len(labels_N))
    own = logits_NC[rows, labels_N]
    others = np.array(logits_NC, np.float64)
    others[rows, labels_N] = -np.inf
    return np.asarray(own - others.max(1))


class _Notes:
    """What is noted of each of so many examples, 8 bytes each."""

    def __init__(self, count: int, epochs: int) -> None:
        self._epochs = epochs
        self._area = np.zeros(count, np.float32)
        self._forgotten = np.zeros(count, np.int16)
        self._right, self._learnt = np.zeros(count, bool), np.zeros(count, bool)

    def add(self, rows: Codes, margin: npt.NDArray[np.float64]) -> None:
        now = margin > 0
        self._area[rows] += (margin / self._epochs).astype(np.float32)
        self._forgotten[rows] += self._right[rows] & ~now
        self._right[rows] = now
        self._learnt[rows] |= now

    def course(self) -> Course:
        return Course(self._area, self._forgotten, self._learnt)


def _none() -> Iterable[tuple[Codes, Any, Codes]]:
    return ()


def watch(  # noqa: PLR0913 - each of them says another thing
    x_NF: Any,  # noqa: ANN401 - a SciPy CSR or numpy matrix
    labels_N: Codes,
    classes: int,
    *,
    epochs: int,
    seed: int,
    rows_N: Codes | None = None,
    count: int | None = None,
    others: Parts = _none,
    rate: float = 2.0,
    progress: Progress = no_progress,
) -> Course:
    """Train a softmax regression by mini-batches; note each example's margin just before it is learnt from.

    Args:
        x_NF: features of length about 1.
        labels_N: their classes.
        classes: C.
        epochs: how often all are gone through.
        seed: of the order.
        rows_N: numbers of these examples among all; 0 … N − 1 if not given.
        count: examples in all; N if not given.
        others: yields examples that are not learnt from; their margins are noted after each epoch.
        rate: learning rate.
        progress: told after each epoch.

    """
    rng = np.random.default_rng(seed)
    weights_FC = np.zeros((x_NF.shape[1], classes))
    rows_N = np.arange(len(labels_N)) if rows_N is None else rows_N
    notes = _Notes(len(labels_N) if count is None else count, epochs)
    for epoch in range(epochs):
        order = rng.permutation(len(labels_N))
        for start in range(0, len(order), _BATCH):
            here = order[start : start + _BATCH]
            x_BF, labels = x_NF[here], labels_N[here]
            logits_BC = np.asarray(x_BF @ weights_FC)
            notes.add(rows_N[here], margins(logits_BC, labels))
            off_BC = softmax(logits_BC)
            off_BC[np.arange(len(labels)), labels] -= 1
            weights_FC -= rate / len(labels) * (x_BF.T @ off_BC)
        for rows, part, labels in others():
            notes.add(rows, margins(np.asarray(part @ weights_FC), labels))
        progress(epoch + 1, epochs, "watching what is learnt")
    return notes.course()
