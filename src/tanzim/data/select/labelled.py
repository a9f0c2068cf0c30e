"""Examples with labels: what a small classifier learns from each.

Memory: features of at most ``surrogate_rows`` examples, two matrices [F, C] for each fold (F ≤ 50,001), and
some 40 bytes for each example.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tanzim.core.errors import DataError
from tanzim.core.records import Json, Progress, no_progress
from tanzim.data.balance.labelled import draw_folds
from tanzim.data.select import convex
from tanzim.data.select.choose import choose, macro_f1
from tanzim.data.select.config import SelectConfig
from tanzim.data.select.dynamics import Course, watch
from tanzim.data.select.whole import Whole, weigher

Codes = npt.NDArray[np.int64]
Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

STRENGTH = 2.0  # λ = 1 / (STRENGTH · N), as for the surrogate of label_noise
DRAWS = 5  # random choices that the report takes the mean of
_LEAST_FOLDS = 3  # one to hold out, two to learn from
_OUTSIDE = -1  # the fold of an example that no surrogate learnt from


@dataclass(frozen=True, slots=True)
class Learner:
    """A surrogate that learnt from all folds but one.

    Args:
        fold: the one it did not see.
        weights_FC: what it learnt.
        direction_FC: what influence is taken along; None where effort is asked for.

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
            asked = np.flatnonzero((folds_N == one.fold) | (folds_N == _OUTSIDE))
            found = convex.effort(x_NF[asked], labels_N[asked], one.weights_FC)
        else:
            asked = np.flatnonzero(folds_N != one.fold)
            found = convex.influence(x_NF[asked], labels_N[asked], one.weights_FC, one.direction_FC)
        totals[asked] += found
        counts[asked] += 1
    return totals / np.maximum(counts, 1)


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


def judge_labelled(
    whole: Whole, config: SelectConfig, count: int, seed: int, progress: Progress
) -> tuple[Array, Course, Json]:
    """Score all examples.

    Returns:
        The scores, [N]; how each was learnt; and what the choice of ``count`` is worth on held-out examples.

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
    scores = rng.random(len(whole))
    if config.by in ("influence", "effort"):
        learners = learn(sample.x_NF, sample.labels, folds, sample.classes, config.by)
        for here, x_NF, labels in parts(all_rows=True):
            scores[here] = score(learners, x_NF, labels, inside[here])
    return scores, course, worth


def weigh_choice(sample: Sample, config: SelectConfig, share: float, seed: int) -> Json:
    """Say what surrogates learn from the chosen share, from as many drawn by chance, and from all.

    The first fold is set aside: nothing of the choice has seen it.
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
    if config.by in ("influence", "effort"):
        learners = learn(rest.x_NF, rest.labels, rest.folds, rest.classes, config.by)
        scores = score(learners, rest.x_NF, rest.labels, rest.folds)
        last = _doubtful(rest, config, seed)
        found["chosen"] = worth(choose(rest.labels, scores, count, last)) | {"examples": count}
    if config.by != "full":
        drawn = [worth(choose(rest.labels, rng.random(len(rest.rows)), count)) for _ in range(DRAWS)]
        found["random"] = {key: float(np.mean([one[key] for one in drawn])) for key in drawn[0]}
        found["random"] |= {"examples": count, "draws": DRAWS}
    found["all"] = worth(np.ones(len(rest.rows), bool)) | {"examples": len(rest.rows)}
    return {name: _rounded(value) if isinstance(value, dict) else value for name, value in found.items()}


def _doubtful(rest: Sample, config: SelectConfig, seed: int) -> Mask | None:
    if config.doubtful == "as_others":
        return None
    course = watch(
        rest.x_NF, rest.labels, rest.classes, epochs=config.epochs, seed=seed, progress=no_progress
    )
    return np.asarray(course.area < 0)


def _rounded(value: dict[str, float]) -> dict[str, float]:
    return {key: round(one, 4) if isinstance(one, float) else one for key, one in value.items()}
