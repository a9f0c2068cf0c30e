"""A moving average of the trained weights, which is what is evaluated and saved.

a ← d·a + (1−d)·θ after every step, from the first step's weights on (Polyak and Juditsky 1992; Izmailov
et al. 2018, arXiv:1803.05407). It smooths the noise of single steps like a falling learning rate does;
prefer it with a constant rate, small batches, or where single checkpoints differ much. A decay d averages
over about 1 / (1−d) steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """The average of ``parameters``, kept in their precision, at least float32.

    Args:
        parameters: what is trained, by name.
        decay: d.

    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.parameters = parameters
        self.decay = decay
        self.average: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are now."""
        if not self.average:
            self.average = {name: _wide(parameter) for name, parameter in self.parameters.items()}
            return
        for name, parameter in self.parameters.items():
            self.average[name].lerp_(parameter.to(self.average[name].dtype), 1 - self.decay)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Let the parameters hold the average inside the block."""
        own = {name: parameter.data for name, parameter in self.parameters.items()}
        self.put()
        try:
            yield
        finally:
            for name, parameter in self.parameters.items():
                parameter.data = own[name]

    def put(self) -> None:
        """Let the parameters hold the average from now on."""
        for name, parameter in self.parameters.items():
            if name in self.average:
                parameter.data = self.average[name].to(parameter.dtype, copy=True)


def _wide(parameter: nn.Parameter) -> Tensor:
    return parameter.detach().to(torch.promote_types(parameter.dtype, torch.float32), copy=True)
