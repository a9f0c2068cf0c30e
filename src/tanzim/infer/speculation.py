"""How many drafted tokens a pass shall hold: those that pay.

The model computes drafted tokens beside the sequence's last one; what it would have chosen anyway is kept
(Leviathan et al., arXiv:2211.17192). A pass that reads all weights for a few tokens takes little more for
a few others, one of many tokens takes as much for each: from what this machine needs follows which of them
are worth their time.

Legend: N tokens of a pass.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tanzim.infer.kernels import PAGE
from tanzim.infer.lean import LeanModel, filled, moved
from tanzim.infer.paged_cache import Pass, pages_of
from tanzim.infer.weights import Weights

GAIN = 1.1  # tokens per second that drafts must add at least: those without one wait for those of others
SHORTEST = 1e-9  # seconds that no token takes less than
ROWS = 128  # beyond so many decoding tokens there are no drafts: the logits of all lie in memory at once
ADAPTED = 1.5  # what a token costs with an adapter beside the base, over one without (docs/performance.md)
SEVERAL, LONG = 16, 512  # tokens and cached tokens of the passes that are measured
TRIES, PATIENCE = 5, 1.0  # of each; and seconds after which there are no more


@dataclass(frozen=True, slots=True)
class Cost:
    """What a pass takes, in seconds.

    Args:
        fixed: whatever it holds.
        token: each of its tokens.
        cached: each cached token that one of its tokens looks at.

    """

    fixed: float
    token: float
    cached: float

    def of(self, cached: int, adapted: bool) -> float:
        """Return what one decoding token takes that looks at ``cached`` tokens."""
        return self.token * (ADAPTED if adapted else 1.0) + self.cached * cached


def measure(lean: LeanModel, weights: Weights) -> Cost:
    """Return what passes of the base take on this machine."""
    shapes = (1, 1), (SEVERAL, 1), (SEVERAL, LONG)
    pages = -(-LONG // PAGE)
    cache = lean.cache(pages * PAGE)
    passes = [moved(_decoding(tokens, length), lean.device) for tokens, length in shapes]
    weights.plan(())
    for step in passes:
        lean(step, cache)
    # A process's own time is without what others compute meanwhile; and without the work of a GPU.
    clock = time.process_time if lean.device.type == "cpu" else time.perf_counter
    best = [float("inf")] * len(passes)
    began = clock()
    for number in range(TRIES):
        if number and clock() - began > PATIENCE:
            break
        for place, step in enumerate(passes):
            start = clock()
            lean(step, cache)[0, 0].item()  # waits for the device
            best[place] = min(best[place], clock() - start)
    one, several, long = best
    token = max(several - one, 0.0) / (SEVERAL - 1)
    cached = max(long - several, 0.0) / (SEVERAL * (LONG - 1))
    return Cost(max(one - token, 0.0), token, cached)


def _decoding(tokens: int, length: int) -> Pass:
    """Return a pass of single tokens that look at ``length`` cached ones each."""
    pages = range(-(-length // PAGE))
    return Pass(
        torch.zeros(tokens, dtype=torch.int64),
        torch.full((tokens,), length - 1),
        torch.full((tokens,), pages[-1]),
        pages_of([pages] * tokens),
        torch.full((tokens,), length),
        (),
        torch.arange(tokens),
    )


class Budget:
    """One pass: how many tokens it brings, how long it takes, and what drafts would change.

    Args:
        cost: of a pass.
        prices: for each sequence that gets a token, what each of its tokens takes (s).
        others: tokens that the pass holds besides, pieces of prompts.

    """

    def __init__(self, cost: Cost, prices: Sequence[float], others: int) -> None:
        self._prices = [max(price, SHORTEST) for price in prices]
        self._tokens = float(len(prices))
        self._seconds = cost.fixed + cost.token * others + sum(self._prices)
        self._count, self._filling = len(prices) + others, cost.token

    def least(self, place: int) -> float:
        """Return a chance of coming up to which a sequence's drafted token does not pay."""
        return self._prices[place] * self._tokens / self._seconds / 2  # among those that fill up a pass

    def share_out(self, chances: Sequence[Sequence[float]]) -> list[int]:
        """Return how much of each sequence's draft brings the most tokens per second, if it is worth it.

        Args:
            chances: of each drafted token, that it comes and all before it.

        """
        offers = [
            (chance / price, chance, place)
            for place, (own, price) in enumerate(zip(chances, self._prices, strict=True))
            for chance in own
        ]
        offers.sort(reverse=True)
        del offers[max(0, ROWS - len(self._prices)) :]
        tokens, seconds, count = self._tokens, self._seconds, self._count
        best, taken = GAIN * tokens / self._filled(seconds, count), 0
        for number, (_, chance, place) in enumerate(offers, 1):
            tokens, seconds, count = tokens + chance, seconds + self._prices[place], count + 1
            rate = tokens / self._filled(seconds, count)
            if rate > best:
                best, taken = rate, number
        counts = [0] * len(self._prices)
        for _, _, place in offers[:taken]:
            counts[place] += 1
        return counts

    def _filled(self, seconds: float, count: int) -> float:
        """Return what a pass of so many tokens takes with those that fill it up."""
        return seconds + self._filling * (filled(count) - count)
