"""Examples with labels: what a small classifier learns from each.

Memory: features of at most ``surrogate_rows`` examples, two matrices [F, C] for each fold and one for each
round (F ≤ 50,001), and some 60 bytes for each example.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
from tanzim.data.select.learners import OUTSIDE, STRENGTH, Learner, Sample, learn, score, unseen_shares
from tanzim.data.select.rounds import irreducible, place, take_rounds
from tanzim.data.select.whole import Whole, weigher

Codes = npt.NDArray[np.int64]
Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

DRAWS = 5  # random choices that the report takes the mean of
_LEAST_FOLDS = 3  # one to hold out, two to learn from
_LEAST_OF_CLASS = 5  # a class of so few is not doubted, as by label_noise


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


@dataclass(frozen=True, slots=True)
class Desk:
    """All examples, and those of them that surrogates are fitted to.

    Args:
        whole: all N.
        sample: some of them.
        weigh: turns counts or vectors into features as the sample's.
        folds: the fold of each example; −1 of those that are not in the sample, [N].

    """

    whole: Whole
    sample: Sample
    weigh: Callable[[Any], Any]
    folds: Codes

    def parts(self, *, outside: bool = False) -> Iterator[tuple[Codes, Any, Codes]]:
        """Yield numbers, features and labels shard by shard: of all, or of what is not in the sample."""
        for start, survey in self.whole.starts():
            here = np.arange(start, start + survey.rows)
            here = here[self.folds[here] == OUTSIDE] if outside else here
            if len(here):
                yield here, self.weigh(self.whole.part(survey, here - start)), self.whole.codes[here]


def judge_labelled(
    whole: Whole, config: SelectConfig, count: int, seed: int, progress: Progress, folder: Path
) -> Judged:
    """Score all examples, and weigh the choice of ``count`` of them; large tables lie in ``folder``.

    Raises:
        DataError: there are too few different texts.

    """
    rng = np.random.default_rng(seed)
    desk = _open(whole, config, rng)
    sample = desk.sample
    progress(0, None, "weighing the choice on held-out examples")
    worth = weigh_choice(sample, config, count / max(len(whole), 1), seed)
    course = watch(
        sample.x_NF,
        sample.labels,
        sample.classes,
        epochs=config.epochs,
        seed=seed,
        rows_N=sample.rows,
        count=len(whole),
        others=lambda: desk.parts(outside=True),
        progress=progress,
    )
    progress(0, None, "scoring all examples")
    learners = learn(sample.x_NF, sample.labels, sample.folds, sample.classes, config.by)
    scores = rng.random(len(whole))
    shape = (len(whole), sample.classes)
    shares_NC = np.lib.format.open_memmap(folder / "unseen.npy", "w+", np.float32, shape)
    for here, x_NF, labels in desk.parts():
        shares_NC[here] = unseen_shares(learners, x_NF, desk.folds[here])
        if config.by in ("influence", "effort"):
            scores[here] = score(learners, x_NF, labels, desk.folds[here])
        elif config.by == "reducible":
            scores[here] = irreducible(shares_NC[here], labels, sample.shares())
    doubtful = find_wrong(whole.codes, shares_NC, min_per_class=_LEAST_OF_CLASS).wrong
    if config.by != "reducible":
        return Judged(scores, scores, doubtful, course, worth)
    order, scores = _by_rounds(desk, config, scores, _last(doubtful, config), count)
    return Judged(order, scores, doubtful, course, worth)


def _open(whole: Whole, config: SelectConfig, rng: np.random.Generator) -> Desk:
    """Draw what surrogates are fitted to, and its folds."""
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
    inside = np.full(len(whole), OUTSIDE)
    inside[rows] = folds
    return Desk(whole, Sample(rows, weigh(raw), whole.codes[rows], folds, len(whole.names)), weigh, inside)


def _by_rounds(
    desk: Desk, config: SelectConfig, irreducible_N: Array, last_N: Mask, count: int
) -> tuple[Array, Array]:
    """Choose from the sample round by round, and say when the other examples would have been taken.

    Returns:
        When each is chosen, the higher the sooner, and its reducible loss then, [N].

    """
    sample, codes = desk.sample, desk.whole.codes
    drawn_C = np.bincount(sample.labels) / np.bincount(codes)
    quotas_C = np.ceil(allot(codes, count, last_N, config.classes) * drawn_C).astype(np.int64)
    known, last = irreducible_N[sample.rows], last_N[sample.rows]
    taken = take_rounds(sample.x_NF, sample.labels, known, quotas_C, last, STRENGTH)
    order, gains = np.zeros(len(codes)), np.zeros(len(codes))
    order[sample.rows], gains[sample.rows] = taken.order_N, taken.gains_N
    for here, x_NF, labels in desk.parts(outside=True):
        order[here], gains[here] = place(taken.rounds, x_NF, labels, irreducible_N[here])
    return order, gains


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
