"""What every objective is to the training loop: a sum of losses over a batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from tanzim.train.batches import Batch, Layout
from tanzim.train.tokens import Document

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 1e-2}


class Objective(Protocol):
    """A loss over documents, for one model.

    A step divides the sum of its passes' `loss_sum` by the sum of its documents' `Document.weight`, so the
    sum must be additive over documents, whichever pass they go through.
    """

    model: nn.Module
    device: torch.device

    @property
    def layout(self) -> Layout:
        """How the documents of a pass go through the model; asked after `choose`."""
        ...

    def choose(self, documents: Sequence[Document]) -> str:
        """Look at the training documents (as many as needed), settle how to compute, and say it.

        Raises:
            TrainError: the model's own loss is not finite.

        """
        ...

    def loss_sum(self, batch: Batch, *, scale: float = 1.0) -> Tensor:
        """Return scale × Σ weight × loss over the batch, a scalar."""
        ...


@runtime_checkable
class Joint(Protocol):
    """An objective whose documents of a step are looked at together, whichever pass they go through."""

    def prepare(self, passes: Sequence[Sequence[Document]]) -> None:
        """Look at all documents of a step, or of an evaluation, before their passes are computed."""
        ...


def inner_model(model: nn.Module) -> Any:  # noqa: ANN401 - any transformers model
    """Return the transformers model itself, also from within a PEFT model."""
    outer: Any = model
    return outer.get_base_model() if hasattr(outer, "get_base_model") else outer


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch dropout off inside the block."""
    before = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(before)
