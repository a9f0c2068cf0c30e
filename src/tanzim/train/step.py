"""One optimiser step and one evaluation: passes, gradients, clipping, and what is logged of them."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from tanzim.core.errors import TrainError
from tanzim.train.batches import Batch, Sampler, collate
from tanzim.train.checkpoint import Parameters, State
from tanzim.train.config import TrainConfig
from tanzim.train.log import MetricsLog
from tanzim.train.memory import is_out_of_memory, smaller_pass
from tanzim.train.objective import Objective, evaluating
from tanzim.train.schedule import learning_rate
from tanzim.train.tokens import Document, TokenStore

NAMED_DOCUMENTS = 8  # documents that an error message names


def seed_everything(seed: int) -> None:
    """Seed the random states of Python, NumPy and torch (dropout draws from the last)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def make_optimizer(parameters: Parameters, config: TrainConfig) -> torch.optim.AdamW:
    """Make AdamW (Loshchilov and Hutter, arXiv:1711.05101) with decay on matrices only."""
    matrices = [parameter for parameter in parameters.values() if parameter.ndim >= 2]
    vectors = [parameter for parameter in parameters.values() if parameter.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        eps=config.epsilon,
        # One kernel over a parameter's weight, gradient and moments reads each of them once.
        fused=True,
    )


class Stepper:
    """Makes steps and evaluations, and keeps ``state`` and ``log`` up to date.

    Args:
        config: the ``train`` section.
        objective: the loss.
        parameters: what is trained, by name.
        optimizer: over the same parameters.
        scaler: loss scaling, enabled for float16.
        sampler: how documents become passes.
        state: where the run stands.
        log: where lines go.

    """

    def __init__(
        self,
        config: TrainConfig,
        objective: Objective,
        parameters: Parameters,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        sampler: Sampler,
        state: State,
        log: MetricsLog,
    ) -> None:
        self.config = config
        self.objective = objective
        self.parameters = parameters
        self.optimizer = optimizer
        self.scaler = scaler
        self.sampler = sampler
        self.state = state
        self.log = log
        self.total = sampler.total_steps(config.epochs, config.max_steps)
        self._current: Batch | None = None

    def step(self, documents: Sequence[Document], steps_in_epoch: int) -> None:
        """Make one optimiser step on ``documents`` and log it.

        Raises:
            TrainError: the loss or the gradient is not finite, or memory ran out on one document.

        """
        state, start = self.state, time.monotonic()
        loss = self._retrying(lambda: self._gradients(documents))
        rate = learning_rate(state.step, self.config, self.total)
        norm = self._update(rate, documents)
        seconds = time.monotonic() - start
        tokens = sum(len(document.ids) for document in documents)
        trained = sum(int(np.count_nonzero(document.weights[1:])) for document in documents)
        state.step += 1
        state.step_in_epoch += 1
        state.loss = loss
        state.tokens += tokens
        state.trained_tokens += trained
        state.step_seconds += seconds
        self.log.write(
            {
                "step": state.step,
                "steps": self.total,
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

    def _gradients(self, documents: Sequence[Document]) -> float:
        """Sum the gradients of all passes; a token counts by its share of the whole step's weight."""
        self.optimizer.zero_grad(set_to_none=True)
        weight = sum(float(document.weights[1:].sum(dtype=np.float64)) for document in documents)
        total = 0.0
        for part in self._passes(documents):
            self._current = collate(part)
            loss = self.objective.loss_sum(self._current, scale=1 / weight)
            value = loss.item()
            if not math.isfinite(value):
                raise _not_finite("loss", value, self.state.step + 1, part)
            scaled: Tensor = self.scaler.scale(loss)
            torch.autograd.backward(scaled)
            total += value
        return total

    def _passes(self, documents: Sequence[Document]) -> list[list[Document]]:
        lengths = np.array([len(document.ids) for document in documents])
        passes = self.sampler.passes(lengths, self.state.tokens_per_pass)
        return [[documents[index] for index in part] for part in passes]

    def _update(self, rate: float, documents: Sequence[Document]) -> float | None:
        """Clip, check, and let the optimiser step; return the norm (None where float16 overflowed)."""
        self.scaler.unscale_(self.optimizer)
        norm = float(nn.utils.clip_grad_norm_(self.parameters.values(), self.config.max_grad_norm))
        finite = math.isfinite(norm)
        before = self.scaler.get_scale()
        if not finite and (not self.scaler.is_enabled() or before <= 1):
            raise _not_finite("gradient norm", norm, self.state.step + 1, documents)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if not finite:
            scale = self.scaler.get_scale()
            self.log.event(
                self.state.step + 1, f"float16 overflow: step skipped, loss scale {before:g} → {scale:g}"
            )
        return norm if finite else None

    def evaluate(self, tokens: TokenStore) -> bool:
        """Log the loss over the trained tokens of ``tokens``; return whether it is the best so far.

        Raises:
            TrainError: the loss is not finite.

        """
        state, start = self.state, time.monotonic()
        with torch.no_grad(), evaluating(self.objective.model):
            loss = self._retrying(lambda: self._mean_loss(tokens))
        improved = state.best_loss is None or loss < state.best_loss
        if improved:
            state.best_loss, state.best_step, state.evaluations_since_best = loss, state.step, 0
        else:
            state.evaluations_since_best += 1
        seconds = time.monotonic() - start
        self.log.write(
            {
                "step": state.step,
                "steps": self.total,
                "epoch": state.epoch + state.step_in_epoch / len(self.sampler.steps(state.epoch)),
                "kind": "eval",
                "loss": loss,
                "perplexity": math.exp(min(loss, 700.0)),
                "tokens": int(tokens.lengths.sum()),
                "trained_tokens": int(tokens.trained.sum()),
                "seconds": seconds,
                "best": improved,
            }
        )
        return improved

    def _mean_loss(self, tokens: TokenStore) -> float:
        total = weight = 0.0
        for part in self.sampler.passes(tokens.lengths, self.state.tokens_per_pass):
            documents = [tokens[index] for index in part]
            self._current = collate(documents)
            loss = self.objective.loss_sum(self._current).item()
            if not math.isfinite(loss):
                raise _not_finite("validation loss", loss, self.state.step, documents)
            total += loss
            weight += float(self._current.weights_T.double().sum())
        return total / weight

    def _retrying(self, work: Callable[[], float]) -> float:
        """Do ``work``, again with smaller passes as often as memory runs out."""
        while True:
            try:
                return work()
            except RuntimeError as error:
                if isinstance(error, TrainError) or not is_out_of_memory(error):
                    raise
            # Outside the handler, whose traceback would keep the failed pass's tensors alive.
            self.optimizer.zero_grad(set_to_none=True)
            before = self.state.tokens_per_pass
            self.state.tokens_per_pass = smaller_pass(self._current, before)
            self.log.event(
                self.state.step + 1,
                f"out of memory: tokens_per_pass {before} → {self.state.tokens_per_pass}, "
                f"tokens_per_step stays {self.config.tokens_per_step}",
            )


def _not_finite(what: str, value: float, step: int, documents: Sequence[Document]) -> TrainError:
    named = [str(document.provenance) for document in documents[:NAMED_DOCUMENTS]]
    more = len(documents) - len(named)
    where = "; ".join(named) + (f"; and {more} more" if more else "")
    return TrainError(
        f"the {what} became {value} in step {step}, before the optimiser changed anything",
        where=where,
        fix="look at these documents; lower train.learning_rate, or use model.dtype=float32",
    )
