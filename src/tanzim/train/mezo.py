"""MeZO: a step from two forward passes, in the memory of inference (Malladi et al. 2023).

arXiv:2305.17333. With z of standard normal numbers, one for each weight:
  ĝ = (L(θ + ε·z) − L(θ − ε·z)) / 2ε        the slope along z (Spall 1992), with E[ĝ·z] ≈ ∇L
  θ ← θ − η·(ĝ·z + λ·θ)
z is never kept: it is drawn anew, from a seed of the step and the parameter, wherever it is needed.
There is no backward pass, so no gradients and no activations are held. Prefer it where even LOMO does not
fit, or where the goal has no gradient; it needs many more steps (the paper takes thousands) and small rates.

Where the paper moves the weights to and fro, which leaves rounding errors behind, a layer here takes
moved copies of its weights for its own forward pass only, and the weights themselves stay untouched.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tanzim.core.seeds import derive
from tanzim.train.objectives.base import evaluating
from tanzim.train.tokens import Document
from tanzim.train.training import Training, not_finite

Named = dict[str, nn.Parameter]


class Mezo:
    """A step by two forward passes, dropout off.

    Args:
        training: the run; its optimiser is never asked to step, but holds the groups with their decay.

    """

    def __init__(self, training: Training) -> None:
        self.training = training
        settings: Any = training.config.optimizer
        self.epsilon: float = settings.epsilon

    @torch.no_grad()
    def __call__(self, documents: Sequence[Document], rate: float) -> tuple[float, float | None]:
        """Make a step; the loss is the mean of both passes', the norm is |ĝ|, held to max_grad_norm.

        Raises:
            TrainError: a loss is not finite, or memory ran out on one document.

        """
        run = self.training
        step = run.state.step
        parameters = {name: p for name, p in run.method.parameters.items() if p.requires_grad}
        seed = derive(run.sampler.seed, "mezo", step)
        above, below = (self._loss(documents, parameters, seed, self.epsilon * side) for side in (1.0, -1.0))
        slope = (above - below) / (2 * self.epsilon)
        if not math.isfinite(slope):
            raise not_finite("loss", slope, step + 1, documents)
        held = math.copysign(min(abs(slope), run.config.max_grad_norm), slope)
        decay = {id(p): g["weight_decay"] for g in run.optimizer.param_groups for p in g["params"]}
        for name, parameter in parameters.items():
            update = direction(seed, name, parameter).mul_(held).add_(parameter, alpha=decay[id(parameter)])
            parameter.add_(update, alpha=-rate)
        run.method.after_step(step, run.total)
        return (above + below) / 2, abs(slope)

    def _loss(self, documents: Sequence[Document], parameters: Named, seed: int, distance: float) -> float:
        """Return the loss with the weights moved by ``distance`` along the direction of ``seed``."""
        run = self.training
        weight = run.weight(documents)

        def total() -> float:
            with evaluating(run.objective.model), moved(run.method.model, parameters, seed, distance):
                parts = run.passes(documents)
                return sum(float(run.objective.loss_sum(run.batch(p), scale=1 / weight)) for p in parts)

        return run.ranks.sum(run.retrying(total))[0]


def direction(seed: int, name: str, parameter: Tensor) -> Tensor:
    """Return z for one parameter: standard normal, the same whenever it is asked for.

    Args:
        seed: of the step.
        name: the parameter's.
        parameter: z has its shape, type and device.

    """
    generator = torch.Generator(parameter.device).manual_seed(derive(seed, name))
    return torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype, device=parameter.device)


@contextmanager
def moved(model: nn.Module, parameters: Named, seed: int, distance: float) -> Iterator[None]:
    """Let every forward pass inside see θ + distance·z, and leave θ untouched, bit for bit.

    The trained weights of a layer have moved copies while that layer runs; those outside of layers
    (embeddings, the last norm) while the block lasts.

    Args:
        model: what is run.
        parameters: what is moved, by name.
        seed: of z.
        distance: how far.

    """
    names = {id(parameter): name for name, parameter in parameters.items()}
    layers = [(m, _inside(m, names)) for m in _layers(model)]
    in_layers = {id(p) for _, inner in layers for p in inner}
    outside = [p for p in parameters.values() if id(p) not in in_layers]
    with ExitStack() as stack:
        move = partial(_move, names=names, seed=seed, distance=distance)
        stack.enter_context(_swapped(outside, move))
        for layer, inner in layers:
            stack.enter_context(_while_running(layer, inner, move))
        yield


def _layers(model: nn.Module) -> list[nn.Module]:
    """Return the modules of the model's lists of layers; those within other layers are part of them."""
    found: list[nn.Module] = []
    inside: set[int] = set()
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and id(module) not in inside:
            found += module
            inside |= {id(inner) for layer in module for inner in layer.modules()}
    return found


def _inside(module: nn.Module, names: dict[int, str]) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if id(parameter) in names]


def _move(parameter: nn.Parameter, *, names: dict[int, str], seed: int, distance: float) -> Tensor:
    z = direction(seed, names[id(parameter)], parameter)
    return z.mul_(distance).add_(parameter)


@contextmanager
def _swapped(parameters: Sequence[nn.Parameter], move: Any) -> Iterator[None]:  # noqa: ANN401 - a partial
    """Let ``parameters`` hold what ``move`` makes of them; afterwards they hold their own data again."""
    own = [parameter.data for parameter in parameters]
    for parameter in parameters:
        parameter.data = move(parameter)
    try:
        yield
    finally:
        for parameter, data in zip(parameters, own, strict=True):
            parameter.data = data


@contextmanager
def _while_running(layer: nn.Module, parameters: Sequence[nn.Parameter], move: Any) -> Iterator[None]:  # noqa: ANN401
    running = ExitStack()

    def before(*_: object) -> None:
        running.enter_context(_swapped(parameters, move))

    def after(*_: object) -> None:
        running.close()

    handles = [
        layer.register_forward_pre_hook(before, prepend=True),
        layer.register_forward_hook(after, always_call=True),
    ]
    try:
        yield
    finally:
        running.close()
        for handle in handles:
            handle.remove()
