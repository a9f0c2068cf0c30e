"""One optimiser step and one evaluation, and what is logged of them."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import numpy as np
import numpy.typing as npt
import torch

from tanzim.train.backprop import Backprop
from tanzim.train.lomo import Lomo
from tanzim.train.mezo import Mezo
from tanzim.train.objectives.base import Joint, evaluating
from tanzim.train.ranks import idle
from tanzim.train.schedule import learning_rate
from tanzim.train.tokens import Document, TokenStore
from tanzim.train.training import StepFunction, Training, not_finite


def seed_everything(seed: int) -> None:
    """Seed the random states of Python, NumPy and torch (dropout draws from the last)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


# Optimisers that are another way to make a step; all others follow back-propagation.
UPDATES: dict[str, Callable[[Training], StepFunction]] = {"lomo": Lomo, "mezo": Mezo}
SAMPLE_TOKENS = 2048  # of the documents on which the model before and after training is compared


class Stepper:
    """Makes steps and evaluations, and keeps the run's state and log up to date.

    Args:
        training: the run.

    """

    def __init__(self, training: Training) -> None:
        self.training = training
        self.update: StepFunction = UPDATES.get(training.config.optimizer.type, Backprop)(training)

    @property
    def _per_token(self) -> bool:
        """Whether the loss is the cross-entropy of tokens, whose exponential is the perplexity."""
        return self.training.config.objective.type in ("language_model", "sequence_distillation", "seq2seq")

    def step(self, documents: Sequence[Document], steps_in_epoch: int) -> None:
        """Make one optimiser step on ``documents`` and log it.

        Raises:
            TrainError: the loss or the gradient is not finite, or memory ran out on one document.

        """
        run, state, start = self.training, self.training.state, time.monotonic()
        run.method.before_step(state.step, run.total)
        rate = learning_rate(state.step, run.config, run.total)
        loss, norm = self.update(documents, rate)
        if run.ema is not None and norm is not None:
            run.ema.update()
        seconds = time.monotonic() - start
        tokens = sum(len(document.ids) for document in documents)
        trained = sum(int(np.count_nonzero(document.loss_weights)) for document in documents)
        state.step += 1
        state.step_in_epoch += 1
        state.loss = loss
        state.tokens += tokens
        state.trained_tokens += trained
        state.step_seconds += seconds
        run.record(
            {
                "step": state.step,
                "steps": run.total,
                "epoch": state.epoch + state.step_in_epoch / steps_in_epoch,
                "kind": "train",
                "loss": loss,
                "learning_rate": rate,
                "grad_norm": norm,
                "tokens": tokens,
                "trained_tokens": trained,
                "tokens_per_s": tokens / seconds,
                "seconds": seconds,
            }
        )

    def evaluate(self, tokens: TokenStore) -> bool:
        """Log the loss over the trained tokens of ``tokens``; return whether it is the best so far.

        Raises:
            TrainError: the loss is not finite.

        """
        run, state, start = self.training, self.training.state, time.monotonic()
        with run.ema.swapped() if run.ema is not None else nullcontext():
            loss = self.mean_loss(tokens, tokens.lengths)
        improved = state.best_loss is None or loss < state.best_loss
        if improved:
            state.best_loss, state.best_step, state.evaluations_since_best = loss, state.step, 0
        else:
            state.evaluations_since_best += 1
        seconds = time.monotonic() - start
        run.record(
            {
                "step": state.step,
                "steps": run.total,
                "epoch": state.epoch + state.step_in_epoch / len(run.sampler.steps(state.epoch)),
                "kind": "eval",
                "loss": loss,
                **({"perplexity": math.exp(min(loss, 700.0))} if self._per_token else {}),
                "tokens": int(tokens.lengths.sum()),
                "trained_tokens": int(tokens.trained.sum()),
                "seconds": seconds,
                "best": improved,
            }
        )
        return improved

    def sample_loss(self, tokens: TokenStore) -> float:
        """Return the loss on the first training documents, the same ones before and after training."""
        chosen: list[Document] = []
        for index in (index for step in self.training.sampler.steps(0) for index in step):
            if chosen and sum(len(document.ids) for document in chosen) >= SAMPLE_TOKENS:
                break
            chosen.append(tokens[index])
        return self.mean_loss(chosen, np.array([len(document.ids) for document in chosen]))

    def mean_loss(self, documents: Sequence[Document], lengths: npt.NDArray[np.int64]) -> float:
        """Return the loss over the trained tokens of ``documents``, whose lengths are ``lengths``.

        Raises:
            TrainError: it is not finite.

        """
        run = self.training
        with torch.no_grad(), evaluating(run.objective.model):
            total, weight = run.ranks.sum(*run.retrying(lambda: self._loss(documents, lengths)))
        return total / weight

    def _loss(self, tokens: Sequence[Document], lengths: npt.NDArray[np.int64]) -> tuple[float, float]:
        """Return the loss summed over this rank's share of ``tokens``, and what it weighs."""
        run = self.training
        total = weight = 0.0
        passes = run.shared_passes(lengths)
        if isinstance(run.objective, Joint):
            run.objective.prepare([[tokens[index] for index in part] for part in passes if len(part)])
        for part in passes:
            documents = [tokens[index] for index in part] or [idle(tokens[0])]
            loss = run.objective.loss_sum(run.batch(documents)).item()
            if not math.isfinite(loss):
                raise not_finite("validation loss", loss, run.state.step, documents)
            total += loss
            weight += run.weight(documents)
        return total, weight
