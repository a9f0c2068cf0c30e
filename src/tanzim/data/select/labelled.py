"""Examples with labels: what a small classifier learns from each.

Memory: features of at most ``surrogate_rows`` examples, two matrices [F, C] for each fold (F ≤ 50,001), and
some 40 bytes for each example.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tanzim.core.errors import DataError
from tanzim.core.records import Json, Progress
from tanzim.data.balance.labelled import draw_folds
from tanzim.data.balance.noise import find_wrong
from tanzim.data.select import convex
from tanzim.data.select.choose import Classes, allot, choose, macro_f1
from tanzim.data.select.config import SelectConfig
from tanzim.data.select.dynamics import Course, watch
from tanzim.data.select.rounds import irreducible, place, take_rounds
from tanzim.data.select.whole import Whole, weigher

Codes = npt.NDArray[np.int64]
Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

STRENGTH = 2.0  # λ = 1 / (STRENGTH · N), as for the surrogate of label_noise
DRAWS = 5  # random choices that the report takes the mean of
_LEAST_FOLDS = 3  # one to hold out, two to learn from
_LEAST_OF_CLASS = 5  # a class of so few is not doubted, as by label_noise
_OUTSIDE = -1  # the fold of an example that no surrogate learnt from


@dataclass(frozen=True, slots=True)
class Learner:
    """A surrogate that learnt from all folds but one.

    Args:
        fold: the one it did not see.
        weights_FC: what it learnt.
        direction_FC: what influence is taken along; None where it is not asked for.

    """

    fold: int
    weights_FC: Array
    direction_FC: Array | None


def learn(x_NF: Any, labels_N: Codes, folds_N: Codes, classes: int, by: str) -> list[Learner]:  # noqa: ANN401
    """Fit a surrogate without each of the folds."""
    learners = []
    for fold in np.unique(folds_N):
        seen, held = np.flatnonzero(folds_N != fold), np.flatnonzero(folds_N == fold)
        x, labels, penalty = x_NF[seen], labels_N[seen], 1 / (STRENGTH * len(seen))
        weights = convex.fit(x, labels, classes, penalty)
        along = None
        if by == "influence":
            along = convex.direction(x, weights, penalty, x_NF[held], labels_N[held])
        learners.append(Learner(int(fold), weights, along))
    return learners


def score(learners: Sequence[Learner], x_NF: Any, labels_N: Codes, folds_N: Codes) -> Array:  # noqa: ANN401
    """Return the influence (or effort) of each example, [N].

    Influence is the mean over the surrogates that learnt from the example, each on its own held-out fold;
    effort is what it would cost the surrogate that did not. An example of no fold (−1) asks them all.
    """
    totals, counts = np.zeros(len(labels_N)), np.zeros(len(labels_N))
    for one in learners:
        if one.direction_FC is None:
            asked = _unseen(one, folds_N)
            found = convex.effort(x_NF[asked], labels_N[asked], one.weights_FC)
        else:
            asked = np.flatnonzero(folds_N != one.fold)
            found = convex.influence(x_NF[asked], labels_N[asked], one.weights_FC, one.direction_FC)
        totals[asked] += found
        counts[asked] += 1
    return totals / np.maximum(counts, 1)


def unseen_shares(learners: Sequence[Learner], x_NF: Any, folds_N: Codes) -> Array:  # noqa: ANN401
    """Return what surrogates that did not see an example say of each class, [N, C]."""
    totals_NC = np.zeros((len(folds_N), learners[0].weights_FC.shape[1]))
    counts = np.zeros(len(folds_N))
    for one in learners:
        asked = _unseen(one, folds_N)
        totals_NC[asked] += convex.shares(x_NF[asked], one.weights_FC)
        counts[asked] += 1
    return totals_NC / np.maximum(counts, 1)[:, None]


def _unseen(one: Learner, folds_N: Codes) -> Codes:
    return np.flatnonzero((folds_N == one.fold) | (folds_N == _OUTSIDE))


@dataclass(frozen=True, slots=True)
class Sample:
    """The examples that surrogates are fitted to: their numbers, features, labels, and folds."""

    rows: Codes
    x_NF: Any
    labels: Codes
    folds: Codes
    classes: int

    def picked(self, mask_N: Mask) -> Sample:
        """Return some of them."""
        here = np.flatnonzero(mask_N)
        return Sample(self.rows[here], self.x_NF[here], self.labels[here], self.folds[here], self.classes)

    def shares(self) -> Array:
        """Return how common each class is, [C]."""
        return np.bincount(self.labels, minlength=self.classes) / len(self.labels)


@dataclass(frozen=True, slots=True)
class Judged:
    """What is known of each of N examples.

    Args:
        order: the higher, the sooner it is chosen, [N].
        scores: what people are told of it, [N].
        doubtful: whether its label is probably wrong, [N].
        course: how it was learnt.
        worth: what the choice is worth on held-out examples.

    """

    order: Array
    scores: Array
    doubtful: Mask
    course: Course
    worth: Json


def judge_labelled(
    whole: Whole, config: SelectConfig, count: int, seed: int, progress: Progress, folder: Path
) -> Judged:
    """Score all examples, and weigh the choice of ``count`` of them; large tables lie in ``folder``.

    Raises:
        DataError: there are too few different texts.

    """
    rng = np.random.default_rng(seed)
    rows = whole.drawn(np.arange(len(whole)), config.surrogate_rows, rng)
    raw = whole.raw(rows)
    weigh = weigher(raw)
    folds = draw_folds(whole.codes[rows], whole.digests[rows], config.folds, rng)
    if len(np.unique(folds)) < _LEAST_FOLDS:
        raise DataError(
            f"the {len(rows)} training examples are too few different texts to hold some out",
            where="data.steps: select",
            fix="leave the step out: so few are all worth keeping",
        )
    sample = Sample(rows, weigh(raw), whole.codes[rows], folds, len(whole.names))
    progress(0, None, "weighing the choice on held-out examples")
    worth = weigh_choice(sample, config, count / max(len(whole), 1), seed)

    inside = np.full(len(whole), _OUTSIDE)
    inside[rows] = folds

    def parts(*, all_rows: bool) -> Iterable[tuple[Codes, Any, Codes]]:
        for start, survey in whole.starts():
            here = np.arange(start, start + survey.rows)
            here = here if all_rows else here[inside[here] == _OUTSIDE]
            if len(here):
                yield here, weigh(whole.part(survey, here - start)), whole.codes[here]

    course = watch(
        sample.x_NF,
        sample.labels,
        sample.classes,
        epochs=config.epochs,
        seed=seed,
        rows_N=rows,
        count=len(whole),
        others=lambda: parts(all_rows=False),
        progress=progress,
    )
    learners = learn(sample.x_NF, sample.labels, folds, sample.classes, config.by)
    order, known = rng.random(len(whole)), np.zeros(len(whole))
    shares_NC = np.lib.format.open_memmap(
        folder / "unseen.npy", "w+", np.float32, (len(whole), sample.classes)
    )
    for here, x_NF, labels in parts(all_rows=True):
        shares_NC[here] = unseen_shares(learners, x_NF, inside[here])
        if config.by == "reducible":
            known[here] = irreducible(shares_NC[here], labels, sample.shares())
        elif config.by in ("influence", "effort"):
            order[here] = score(learners, x_NF, labels, inside[here])
    doubtful = find_wrong(whole.codes, shares_NC, min_per_class=_LEAST_OF_CLASS).wrong
    if config.by != "reducible":
        return Judged(order, order, doubtful, course, worth)

    last = _last(doubtful, config)
    quotas_C = allot(whole.codes, count, last, config.classes)
    some_C = np.bincount(sample.labels) / np.bincount(whole.codes)
    taken = take_rounds(
        sample.x_NF,
        sample.labels,
        known[rows],
        np.ceil(quotas_C * some_C).astype(np.int64),
        last[rows],
        STRENGTH,
    )
    for here, x_NF, labels in parts(all_rows=False):
        order[here], known[here] = place(taken.rounds, x_NF, labels, known[here])
    order[rows], known[rows] = taken.order_N, taken.gains_N
    return Judged(order, known, doubtful, course, worth)


def weigh_choice(sample: Sample, config: SelectConfig, share: float, seed: int) -> Json:
    """Say what surrogates learn from the chosen share, from as many drawn by chance, and from all.

    The first fold is set aside: nothing of the choice has seen it. Chance draws each class by its share, and
    once more as many of each as were chosen.
    """
    first = sample.folds.min()
    held, rest = sample.picked(sample.folds == first), sample.picked(sample.folds != first)
    rng = np.random.default_rng(seed)
    count = max(round(share * len(rest.rows)), 1)

    def worth(kept: Mask) -> dict[str, float]:
        some = rest.picked(kept)
        weights = convex.fit(some.x_NF, some.labels, rest.classes, 1 / (STRENGTH * len(some.rows)))
        guesses = convex.shares(held.x_NF, weights).argmax(1)
        return {
            "accuracy": float((guesses == held.labels).mean()),
            "macro_f1": macro_f1(held.labels, guesses, rest.classes),
            "loss": convex.mean_loss(held.x_NF, held.labels, weights),
        }

    found: Json = {"held-out examples": len(held.rows), "examples to choose from": len(rest.rows)}
    if config.by in ("reducible", "influence", "effort"):
        learners = learn(rest.x_NF, rest.labels, rest.folds, rest.classes, config.by)
        order, last = rank(rest, learners, config, count)
        found["chosen"] = worth(choose(rest.labels, order, count, last, config.classes))
    if config.by != "full":
        by_chance: dict[str, Classes] = {"random": "share"}
        if config.classes != "share":
            by_chance["random, classes as chosen"] = config.classes
        for name, classes in by_chance.items():
            drawn = [
                worth(choose(rest.labels, rng.random(len(rest.rows)), count, classes=classes))
                for _ in range(DRAWS)
            ]
            found[name] = {key: float(np.mean([one[key] for one in drawn])) for key in drawn[0]}
            found[name]["draws"] = DRAWS
    found["all"] = worth(np.ones(len(rest.rows), bool)) | {"examples": len(rest.rows)}
    return {
        name: {"examples": count} | _rounded(value) if isinstance(value, dict) else value
        for name, value in found.items()
    }


def rank(sample: Sample, learners: Sequence[Learner], config: SelectConfig, count: int) -> tuple[Array, Mask]:
    """Rank the examples that surrogates were fitted to.

    Args:
        sample: the examples.
        learners: what `learn` made of them, for ``config.by``.
        config: by reducible loss, influence or effort.
        count: how many are to be chosen.

    Returns:
        What they are chosen by, the highest first, [N]; and which are to be taken last, [N].

    """
    shares_NC = unseen_shares(learners, sample.x_NF, sample.folds)
    last = _last(find_wrong(sample.labels, shares_NC, min_per_class=_LEAST_OF_CLASS).wrong, config)
    if config.by != "reducible":
        return score(learners, sample.x_NF, sample.labels, sample.folds), last
    known = irreducible(shares_NC, sample.labels, sample.shares())
    quotas_C = allot(sample.labels, count, last, config.classes)
    return take_rounds(sample.x_NF, sample.labels, known, quotas_C, last, STRENGTH).order_N, last


def _last(doubtful: Mask, config: SelectConfig) -> Mask:
    return doubtful if config.doubtful == "last" else np.zeros_like(doubtful)


def _rounded(value: dict[str, float]) -> dict[str, float]:
    return {key: round(one, 4) if isinstance(one, float) else one for key, one in value.items()}
