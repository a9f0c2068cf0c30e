"""A learning-rate range test: a few steps whose rate grows exponentially, and the rate they speak for.

Smith 2015 (arXiv:1506.01186). Two steps never have the same documents, whose difficulty would hide what
the rate does; so each step's loss is divided by the loss that the untouched model has on the same
documents. The suggestion is the rate at which this share falls fastest per factor of the rate, as long
as that is well below the rate at which it begins to rise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from tanzim.adapters.method import Method
from tanzim.core.errors import TrainError
from tanzim.core.seeds import derive
from tanzim.train.balanced import make_sampler
from tanzim.train.batches import Sampler
from tanzim.train.checkpoint import State
from tanzim.train.config import TrainConfig
from tanzim.train.log import MetricsLog
from tanzim.train.objectives.choose import make_objective
from tanzim.train.objectives.distillation import Teacher
from tanzim.train.optimizers import make_optimizer
from tanzim.train.step import Stepper, seed_everything
from tanzim.train.tokens import Document, TokenStore
from tanzim.train.training import Training

LOWEST, HIGHEST = 1e-6, 1.0
FEWEST_STEPS = 10
SMOOTH = 5  # points of a mean: the noise of neighbouring steps is not a slope
RISEN = 0.1  # above the lowest share: the rate is too high
LEARNT = 0.01  # below 1: less is noise
MARGIN = 4.0  # between the suggested rate and the one at which the loss rises


@dataclass(frozen=True, slots=True)
class RangeTest:
    """What a sweep showed.

    Args:
        rates: learning rate of each step.
        shares: loss of each step's documents as a share of the untouched model's.
        suggested: the rate to train with; None if the sweep speaks for none.
        highest: the rate from which on the loss rises; None if it never does.
        reason: why, in a sentence.

    """

    rates: tuple[float, ...]
    shares: tuple[float, ...]
    suggested: float | None
    highest: float | None
    reason: str


def sweep(
    method: Method,
    tokens: TokenStore,
    config: TrainConfig,
    *,
    seed: int,
    steps: int,
    autocast: torch.dtype | None = None,
    teacher: Teacher | None = None,
    on_step: Callable[[int, float, float], None] = lambda step, rate, share: None,
) -> RangeTest:
    """Train ``method`` for ``steps`` steps at rates from 1e-6 to 1, and suggest one. Nothing is written.

    Args:
        method: the model, prepared by its method; it is of no use afterwards.
        tokens: the documents to learn from.
        config: the ``train`` section; its optimiser, step size and clipping are used, its rate is not.
        seed: the run's.
        steps: at least 10.
        autocast: precision of the products where it differs from the weights'.
        teacher: the model to learn from, for the objectives that have one.
        on_step: told of each step: its number, its rate, its share.

    Raises:
        TrainError: too few steps, or a gradient is not finite at a rate that is still low.

    """
    if steps < FEWEST_STEPS:
        raise TrainError(f"{steps} steps are too few for a range test", fix=f"take {FEWEST_STEPS} or more")
    seed_everything(derive(seed, "train"))
    objective = make_objective(method.model, config.objective, autocast=autocast, teacher=teacher)
    objective.choose(tokens)
    scaler = torch.amp.GradScaler(objective.device.type, enabled=autocast == torch.float16)
    classes = tokens.classes if config.balanced_batches else None
    sampler = make_sampler(tokens.lengths, config, seed=seed, layout=objective.layout, classes=classes)
    state = State(tokens_per_pass=config.tokens_per_pass)
    rates = np.geomspace(LOWEST, HIGHEST, steps).tolist()
    with TemporaryDirectory() as folder:
        log = MetricsLog(Path(folder) / "metrics.jsonl", 0, [], lambda line: None)
        optimizer = make_optimizer(method.parameters, config)
        training = Training(config, objective, method, optimizer, scaler, sampler, state, log)
        stepper = Stepper(training)
        batches = [[tokens[index] for index in step] for step in _take(sampler, steps)]
        method.model.train()
        before = [stepper.mean_loss(batch, _lengths(batch)) for batch in batches]
        shares: list[float] = []
        for rate, batch, base in zip(rates, batches, before, strict=True):
            try:
                method.before_step(state.step, steps)
                loss, _ = stepper.update(batch, rate)
            except TrainError:
                if len(shares) < FEWEST_STEPS:
                    raise
                break  # not finite: the sweep has gone beyond every usable rate
            state.step += 1
            shares.append(loss / max(base, 1e-9))
            on_step(state.step, rate, shares[-1])
            if len(shares) > FEWEST_STEPS and min(shares[-3:]) > 2 * min(shares):
                break
    return suggest(rates[: len(shares)], shares)


def suggest(rates: Sequence[float], shares: Sequence[float]) -> RangeTest:
    """Read a rate off a sweep.

    Args:
        rates: rising.
        shares: the loss at each, as a share of the untouched model's.

    """
    smooth = np.convolve(np.pad(shares, SMOOTH // 2, mode="edge"), np.full(SMOOTH, 1 / SMOOTH), mode="valid")
    lowest = int(smooth.argmin())
    risen = np.flatnonzero(smooth[lowest:] > smooth[lowest] + RISEN)
    highest = rates[lowest + int(risen[0])] if len(risen) else None

    def result(suggested: float | None, reason: str) -> RangeTest:
        return RangeTest(tuple(rates), tuple(shares), suggested, highest, reason)

    if smooth[lowest] > 1 - LEARNT:
        return result(
            None,
            f"the loss fell by less than {LEARNT:.0%} at every rate up to {rates[-1]:.1e}: take more steps, "
            "or look at the data and at what is trained",
        )
    slope = np.gradient(smooth, np.log10(rates))
    steepest = rates[int(slope[: lowest + 1].argmin())]
    what = f"the loss falls fastest at {steepest:.1e}"
    if highest is None:
        return result(_round(steepest), f"{what} and rises at no rate up to {rates[-1]:.1e}")
    if steepest > highest / MARGIN:
        return result(
            _round(highest / MARGIN),
            f"{what}, but rises from {highest:.1e} on: a quarter of that keeps a margin",
        )
    return result(_round(steepest), f"{what} and rises from {highest:.1e} on")


def _take(sampler: Sampler, count: int) -> Iterator[list[int]]:
    epoch = 0
    while count > 0:
        taken = sampler.steps(epoch)[:count]
        yield from taken
        count -= len(taken)
        epoch += 1


def _lengths(documents: Sequence[Document]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array([len(document.ids) for document in documents])


def _round(rate: float) -> float:
    """Return ``rate`` with one digit."""
    digit = 10.0 ** math.floor(math.log10(rate))
    return float(f"{round(rate / digit) * digit:.0e}")
