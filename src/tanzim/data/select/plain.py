"""Examples of any kind: how surprising their words are, and how much nearer to a target than to the rest.

Nearness is the cross-entropy difference of Moore and Lewis 2010, "Intelligent Selection of Language Model
Training Data" (ACL 2010), of words alone and with the target's model smoothed by that of all.

Memory: four models of 24 MiB, the target, one shard, and some 30 bytes for each example.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tanzim.core.records import Json, Progress
from tanzim.data.select.choose import choose
from tanzim.data.select.config import SelectConfig
from tanzim.data.select.ngrams import PairModel, Words
from tanzim.data.select.whole import Whole

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

DRAWS = 3  # random choices that the report takes the mean of
_HELD = 5  # one text in so many is held out where there is no target
# Bits of a text's hash: the same text always stands on the same side.
_HALF, _PART = np.uint64(1), np.uint64(8)


def judge_plain(
    whole: Whole, target: Words | None, config: SelectConfig, count: int, seed: int, progress: Progress
) -> tuple[Array, Json]:
    """Score all examples.

    Returns:
        The scores, [N]: nats per word by which the target model is less surprised than that of all (or,
        without a target, the surprise of a model of other examples); and what the choice of ``count`` is
        worth on held-out texts.

    """
    everything = np.ones(len(whole), bool)
    progress(0, None, "weighing the choice on held-out texts")
    share = count / max(len(whole), 1)
    worth = _weigh_choice(whole, target, config, share, seed)
    if config.by in ("random", "full"):
        return np.random.default_rng(seed).random(len(whole)), worth
    progress(0, None, "reading the words")
    return _scores(whole, everything, target), worth


def _scores(whole: Whole, among: Mask, target: Words | None) -> Array:
    return surprise(whole, among) if target is None else nearness(whole, among, target)


def surprise(whole: Whole, among: Mask) -> Array:
    """Return the nats per word of each example under a model of those ``among`` them in the other half."""
    half = (whole.digests & _HALF).astype(np.int64)
    models = [_model(whole, among & (half == side)) for side in (0, 1)]
    scores = np.zeros(len(whole))
    for start, words in whole.words():
        here = slice(start, start + len(words.ends) - 1)
        sides = [models[1].nats(words), models[0].nats(words)]  # of a half, the other half's model
        scores[here] = np.where(half[here] == 0, *sides)
    return scores


def nearness(whole: Whole, among: Mask, target: Words) -> Array:
    """Return how much likelier each example's words are in the target than in those ``among`` all, [N]."""
    everything, near = _model(whole, among), PairModel()
    for model in (everything, near):
        model.add(target)
    scores = np.zeros(len(whole))
    for start, words in whole.words():
        scores[start : start + len(words.ends) - 1] = near.likelier(words, everything)
    return scores


def _model(whole: Whole, mask: Mask) -> PairModel:
    model = PairModel()
    for start, words in whole.words():
        model.add(words.picked(mask[start : start + len(words.ends) - 1]))
    return model


def _weigh_choice(whole: Whole, target: Words | None, config: SelectConfig, share: float, seed: int) -> Json:
    """Say how well a model of the chosen share foretells held-out words, beside chance and all.

    Held out are half of the target or, without one, a fifth of the texts.
    """
    rng = np.random.default_rng(seed)
    near, rest = None, np.ones(len(whole), bool)
    if target is None:
        held = (whole.digests >> _PART) % np.uint64(_HELD) == 0
        rest = ~held
        loss = _loss_on_rows(whole, held)
    else:
        odd = np.arange(len(target.ends) - 1) % 2 == 1
        near, judged = target.picked(~odd), target.picked(odd)
        loss = _loss_on(judged)
        if not odd.any():
            return {"not weighed": "a target of one example cannot be parted"}
    numbers = np.flatnonzero(rest)
    if not len(numbers) or (len(numbers) == len(whole) and target is None):
        return {"not weighed": "too few examples to hold some out"}
    count = max(round(share * len(numbers)), 1)

    def worth(scores: Array | None) -> Json:
        kept = rest.copy()
        if scores is not None:
            kept[numbers] = choose(np.zeros(len(numbers), np.int64), scores[numbers], count)
        model = _model(whole, kept)
        return {"examples": int(kept.sum()), "words": model.seen, "nats per word": round(loss(model), 4)}

    found: Json = {"examples to choose from": len(numbers)}
    if config.by in ("influence", "effort"):
        found["chosen"] = worth(_scores(whole, rest, near))
    if config.by != "full":
        drawn = [worth(rng.random(len(whole))) for _ in range(DRAWS)]
        found["random"] = {key: round(float(np.mean([one[key] for one in drawn])), 4) for key in drawn[0]}
    found["all"] = worth(None)
    return found


def _loss_on(words: Words) -> Callable[[PairModel], float]:
    lengths = words.lengths()
    return lambda model: float((model.nats(words) * lengths).sum() / max(lengths.sum(), 1))


def _loss_on_rows(whole: Whole, held: Mask) -> Callable[[PairModel], float]:
    def loss(model: PairModel) -> float:
        nats, count = 0.0, 0
        for start, words in whole.words():
            some = words.picked(held[start : start + len(words.ends) - 1])
            nats += float((model.nats(some) * some.lengths()).sum())
            count += len(some.words)
        return nats / max(count, 1)

    return loss
