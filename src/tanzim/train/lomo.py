"""LOMO: every parameter steps during the backward pass, and its gradient is gone (Lv et al. 2023).

arXiv:2306.09782. θ ← θ − η·(c·g + λ·θ) for each parameter as soon as its g is complete, where c brings
the norm of the whole gradient down to ``train.max_grad_norm``. That norm is known only once all of g has
been there, so there are two backward passes: the first measures, the second steps; the forward pass is
made anew for the second. With ``clip_value`` there is one, and each entry of g is held within ± it.
The result equals plain gradient descent (mini_batch); no more than one parameter's gradient is kept, and
no moments. Prefer it for full fine-tuning where weights and activations fit into memory and gradients do
not; with an adapter it saves nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tanzim.core.errors import TrainError
from tanzim.train.batches import Batch
from tanzim.train.memory import is_out_of_memory
from tanzim.train.tokens import Document
from tanzim.train.training import Training, not_finite

Hook = Callable[[nn.Parameter], None]


class Lomo:
    """A step by a fused backward pass.

    Args:
        training: the run; its optimiser is never asked to step, but holds the groups with their decay.

    Raises:
        TrainError: the run is in float16, whose gradients need a scale, or the model cannot pack.

    """

    def __init__(self, training: Training) -> None:
        self.training = training
        if training.scaler.is_enabled():
            raise TrainError(
                "float16 needs all gradients to find its loss scale, and lomo never has them together",
                where="train.optimizer.type",
                fix="use model.dtype=bfloat16 or float32",
            )
        settings: Any = training.config.optimizer
        self.clip_value: float | None = settings.clip_value

    def __call__(self, documents: Sequence[Document], rate: float) -> tuple[float, float | None]:
        """Make a step; the norm is that of the gradient before clipping.

        Raises:
            TrainError: loss or gradient is not finite, memory ran out, or the step is several passes.

        """
        run = self.training
        if not run.sampler.packing and len(documents) > 1:
            raise TrainError(
                f"step {run.state.step + 1} is {len(documents)} passes, and lomo changes weights in each",
                where="train.optimizer.type",
                fix="this model takes one document a pass: set train.optimizer.type to mini_batch",
            )
        batch = run.batch(documents)
        before = _random_states(run.objective.device)
        try:
            squares: list[float] = []
            if self.clip_value is None:
                self._backward(batch, lambda parameter: squares.append(_square(parameter)))
                norm = math.sqrt(math.fsum(squares))
                if not math.isfinite(norm):
                    raise not_finite("gradient norm", norm, run.state.step + 1, documents)
                # As torch's clip_grad_norm_ has it.
                factor = min(1.0, run.config.max_grad_norm / (norm + 1e-6))
                _set_random_states(before, run.objective.device)  # the same dropout again
                loss = self._backward(batch, self._stepping(rate, factor))
            else:
                loss = self._backward(batch, self._stepping(rate, 1.0, squares))
                norm = math.sqrt(math.fsum(squares))
        except RuntimeError as error:
            if isinstance(error, TrainError) or not is_out_of_memory(error):
                raise
            raise _too_large(batch, run.config.tokens_per_step) from error
        run.method.after_step(run.state.step, run.total)
        return loss, norm

    def _backward(self, batch: Batch, hook: Hook) -> float:
        """Let ``hook`` see every parameter whose gradient is complete, and drop that gradient."""
        run = self.training
        loss = run.objective.loss_sum(batch, scale=1 / run.weight(batch.documents))
        value = loss.item()
        if not math.isfinite(value):
            raise not_finite("loss", value, run.state.step + 1, batch.documents)
        penalty = run.method.penalty()
        with _hooked(run.method.parameters.values(), hook):
            torch.autograd.backward(loss if penalty is None else loss + penalty)
        return value

    def _stepping(self, rate: float, factor: float, squares: list[float] | None = None) -> Hook:
        groups = self.training.optimizer.param_groups
        decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}

        @torch.no_grad()
        def step(parameter: nn.Parameter) -> None:
            assert parameter.grad is not None
            gradient = parameter.grad
            if squares is not None:
                squares.append(_square(parameter))
                if not math.isfinite(squares[-1]):
                    raise _broken(self.training.state.step + 1)
                gradient.clamp_(-self.clip_value, self.clip_value)  # type: ignore[operator]
            gradient.mul_(factor).add_(parameter, alpha=decay[id(parameter)])
            parameter.add_(gradient, alpha=-rate)

        return step


@contextmanager
def _hooked(parameters: Any, hook: Hook) -> Iterator[None]:  # noqa: ANN401 - an iterable view
    def once(parameter: Tensor) -> None:
        assert isinstance(parameter, nn.Parameter)
        hook(parameter)
        parameter.grad = None

    handles = [p.register_post_accumulate_grad_hook(once) for p in parameters if p.requires_grad]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _square(parameter: nn.Parameter) -> float:
    assert parameter.grad is not None
    wide = torch.promote_types(parameter.grad.dtype, torch.float32)
    return float(torch.linalg.vector_norm(parameter.grad, dtype=wide)) ** 2


def _random_states(device: torch.device) -> list[Tensor]:
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def _set_random_states(states: list[Tensor], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)


def _broken(step: int) -> TrainError:
    return TrainError(
        f"a gradient became not finite in step {step}, whose backward pass had changed weights already",
        where="train.optimizer.clip_value",
        fix="leave clip_value unset, so that gradients are looked at first; the last checkpoint stands",
    )


def _too_large(batch: Batch, tokens_per_step: int) -> TrainError:
    return TrainError(
        f"memory ran out on a pass of {batch.tokens} tokens; with lomo a step is one pass and cannot be "
        "divided once weights have changed",
        where="train.tokens_per_step",
        fix=f"set train.tokens_per_step and train.tokens_per_pass to {max(1, tokens_per_step // 2)} and "
        "start again with --overwrite",
    )
