"""The ordinary step: sum the gradients of all passes, clip, let the optimiser step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tanzim.core.records import Json
from tanzim.train.gradients import layer_norms, noise, square_norm
from tanzim.train.objectives.base import Joint
from tanzim.train.tokens import Document
from tanzim.train.training import Training, not_finite


class Backprop:
    """A step by back-propagation.

    Args:
        training: the run.

    """

    def __init__(self, training: Training) -> None:
        self.training = training
        self._first: tuple[float, float] | None = None  # squared norm and weight of the first pass

    def __call__(self, documents: Sequence[Document], rate: float) -> tuple[float, float | None]:
        """Make a step; the norm is None where float16 overflowed and the step was skipped.

        Raises:
            TrainError: the loss or the gradient is not finite, or memory ran out on one document.

        """
        run = self.training
        with run.ranks.drawing(run.seed, run.state.step):
            loss = run.retrying(lambda: self._gradients(documents))
        run.ranks.sum_gradients(run.method.parameters)
        return run.ranks.sum(loss)[0], self._update(rate, documents)

    def _gradients(self, documents: Sequence[Document]) -> float:
        """Sum the gradients of all passes; a token counts by its share of the whole step's weight."""
        run = self.training
        run.optimizer.zero_grad(set_to_none=True)
        weight = run.weight(documents)
        total = 0.0
        self._first = None
        passes = run.passes(documents)
        joint = isinstance(run.objective, Joint)
        if isinstance(run.objective, Joint):
            run.objective.prepare(passes)
        for part in passes:
            loss = run.objective.loss_sum(run.batch(part), scale=1 / weight)
            value = loss.item()
            if not math.isfinite(value):
                raise not_finite("loss", value, run.state.step + 1, part)
            scaled: Tensor = run.scaler.scale(loss)
            torch.autograd.backward(scaled)
            total += value
            share = run.weight(part) / weight
            if part is passes[0] and share < 1 and run.watches() and not joint:
                square = square_norm(run.method.parameters.values()) / (run.scaler.get_scale() * share) ** 2
                self._first = (square, share * weight)
        penalty = run.method.penalty()
        if penalty is not None and run.ranks.first:  # once in the sum over the ranks
            torch.autograd.backward(run.scaler.scale(penalty))
        return total

    def _update(self, rate: float, documents: Sequence[Document]) -> float | None:
        """Clip, check, and let the optimiser step; return the norm (None where float16 overflowed)."""
        run = self.training
        step, scaler = run.state.step, run.scaler
        scaler.unscale_(run.optimizer)
        layers = layer_norms(run.method.parameters) if run.watches() else None
        norm = run.ranks.clip(run.method.parameters, run.config.max_grad_norm)
        finite = math.isfinite(norm)
        before = scaler.get_scale()
        if not finite and (not scaler.is_enabled() or before <= 1):
            raise not_finite("gradient norm", norm, step + 1, documents)
        if layers is not None and finite:
            self._log_gradients(layers, norm, run.weight(documents))
        for group in run.optimizer.param_groups:
            group["lr"] = rate
        run.method.before_update(step, run.total)
        scaler.step(run.optimizer)
        scaler.update()
        run.method.after_step(step, run.total)
        run.optimizer.zero_grad(set_to_none=True)
        if not finite:
            run.log.event(
                step + 1, f"float16 overflow: step skipped, loss scale {before:g} → {scaler.get_scale():g}"
            )
        return norm if finite else None

    def _log_gradients(self, layers: dict[str, float], norm: float, weight: float) -> None:
        """Log the norm of each layer's gradient, and the noise where the step had several passes."""
        run = self.training
        line: Json = {"step": run.state.step + 1, "kind": "gradients", "layers": layers}
        estimate = None if self._first is None else noise(*self._first, norm**2, weight)
        line["gradient_signal"] = None if estimate is None else estimate.signal
        line["noise_trace"] = None if estimate is None else estimate.trace
        run.record(line)
