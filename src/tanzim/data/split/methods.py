"""Ways to divide, as pure functions on arrays: which examples are held out (guide 3.1.4).

Examples with the same key (kin: one group, one prompt, near duplicates) form a unit, which no way parts.

Legend: N examples; U units; S held-out sets; K folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.int64]
REST = 0  # what is held out in no set; sets are counted from 1


@dataclass(frozen=True, slots=True)
class Units:
    """What is drawn as a whole.

    Args:
        of: the unit of each example, numbered by first appearance, [N].
        sizes: examples of each unit, [U].

    """

    of: Indices
    sizes: Indices

    @classmethod
    def by(cls, keys: Words) -> Units:
        """Make a unit of all examples with the same key.

        Args:
            keys: of each example, [N].

        """
        _, first, unit = np.unique(keys, return_index=True, return_inverse=True)
        number = np.empty(len(first), np.int64)
        number[np.argsort(first)] = np.arange(len(first))
        of = number[unit]
        return cls(of, np.bincount(of, minlength=len(first)))

    def classes(self, labels: Indices) -> Indices:
        """Return the class of most of a unit's examples (of as many, the first by number), [U].

        Args:
            labels: the class of each example, numbers of any kind, [N].

        """
        known, number = np.unique(labels, return_inverse=True)
        pairs, counts = np.unique(self.of * len(known) + number, return_counts=True)
        unit, found = pairs // len(known), pairs % len(known)
        order = np.lexsort((found, -counts, unit))
        first = np.unique(unit[order], return_index=True)[1]
        return np.asarray(found[order][first], np.int64)


def quotas(counts: Indices, wanted: int) -> Indices:
    """Share out so many among classes in proportion, in whole numbers, by the largest remainders, [C].

    Args:
        counts: examples of each class.
        wanted: the sum of what is shared out.

    """
    exact = counts * wanted / max(1, counts.sum())
    low = np.floor(exact).astype(np.int64)
    left = wanted - int(low.sum())
    low[np.argsort(-(exact - low), kind="stable")[:left]] += 1
    return np.asarray(low)


def stratified(units: Units, labels: Indices, wanted: Sequence[int], seed: int) -> Indices:
    """Draw held-out sets in which each class has the share that it has in all, [N] of set numbers.

    Args:
        units: what is not parted.
        labels: class of each example; all the same for a plain random draw, [N].
        wanted: examples of each set; where units are large, a set may hold somewhat fewer.
        seed: decides.

    """
    rng = np.random.default_rng(seed)
    classes = units.classes(labels)
    totals = np.bincount(classes, weights=units.sizes).astype(np.int64)
    sets = np.full(len(units.sizes), REST)
    for number, count in enumerate(wanted, 1):
        for code, quota in enumerate(quotas(totals, count)):
            free = rng.permutation(np.flatnonzero((classes == code) & (sets == REST)))
            sets[fitting(free, units.sizes, int(quota))] = number
        if count and not (sets == number).any() and (sets == REST).sum() > 1:
            free = np.flatnonzero(sets == REST)
            sets[free[np.argmin(units.sizes[free])]] = number
    return np.asarray(sets[units.of])


def fitting(order: Indices, sizes: Indices, quota: int) -> Indices:
    """Take units in order until the next one does not fit, then later ones that do.

    Args:
        order: units, in the order in which they are tried.
        sizes: examples of each unit, [U].
        quota: most examples.

    """
    totals = np.cumsum(sizes[order])
    count = int(np.searchsorted(totals, quota, "right"))
    taken, left = [order[:count]], quota - (int(totals[count - 1]) if count else 0)
    rest = order[count:]
    while left and len(rest):
        fits = np.flatnonzero(sizes[rest] <= left)
        if not len(fits):
            break
        one, rest = rest[fits[:1]], rest[fits[0] + 1 :]
        taken.append(one)
        left -= int(sizes[one[0]])
    return np.concatenate(taken)


def folds(units: Units, labels: Indices, count: int, seed: int) -> Indices:
    """Deal all examples to K folds, each class evenly, [N] of fold numbers from 1.

    Without units of several examples, folds and the classes in them differ by one example at most.

    Args:
        units: what is not parted.
        labels: class of each example, [N].
        count: K.
        seed: decides.

    """
    rng = np.random.default_rng(seed)
    classes = units.classes(labels)
    dealt = np.empty(len(units.sizes), np.int64)
    turn = 0  # the fold that is next to have one more
    for code in range(int(classes.max()) + 1 if len(classes) else 0):
        members = rng.permutation(np.flatnonzero(classes == code))
        sizes = units.sizes[members]
        total = int(sizes.sum())
        ends = np.cumsum([total // count + (fold < total % count) for fold in range(count)])
        middle = np.cumsum(sizes) - sizes + (sizes - 1) // 2
        dealt[members] = (np.searchsorted(ends, middle, "right") + turn) % count
        turn = (turn + total) % count
    return np.asarray(dealt[units.of] + 1)


def leave_one_out(units: Units, fold: int) -> Indices:
    """Hold out one unit, [N] of 1 (held out) and `REST`.

    Args:
        units: with near duplicates and kin apart, each example is one.
        fold: which unit, counted from 1 in the order of appearance; there are U.

    Raises:
        ValueError: there is no such unit.

    """
    if not 1 <= fold <= len(units.sizes):
        raise ValueError(f"there is no fold {fold}: there are {len(units.sizes)}")
    return np.asarray(units.of == fold - 1, np.int64)


def latest(units: Units, times: npt.NDArray[np.float64], wanted: Sequence[int], seed: int) -> Indices:
    """Hold out the latest examples: the last in the first set, those before them in the next, [N].

    A unit stands where its latest example does: nothing that is trained on is later than the examples at
    which the held-out sets begin; a held-out set may hold older kin of its own examples.

    Args:
        units: what is not parted.
        times: in seconds, [N].
        wanted: examples of each set, at least.
        seed: decides among units of the same time.

    """
    last = np.full(len(units.sizes), -np.inf)
    np.maximum.at(last, units.of, times)
    chance = np.random.default_rng(seed).random(len(last))
    order = np.lexsort((chance, -last))
    totals = np.cumsum(units.sizes[order])
    sets = np.full(len(last), REST)
    done = 0
    for number, count in enumerate(wanted, 1):
        if not count or done >= len(order):
            continue
        before = int(totals[done - 1]) if done else 0
        end = min(len(order), int(np.searchsorted(totals, before + count)) + 1)
        sets[order[done:end]] = number
        done = end
    return np.asarray(sets[units.of])
