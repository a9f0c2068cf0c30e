"""A fully fine-tuned model beside its base: the weights that training changed, as they are now.

It lets a server that holds one base answer as models whose every weight was trained, one at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from tanzim.adapters.own import Change, fitting, parameter_change
from tanzim.adapters.store import save_own
from tanzim.core.errors import ModelError
from tanzim.core.records import Json


def save_whole(tuned: nn.Module, base: nn.Module, folder: Path, *, base_hash: str, base_name: str) -> None:
    """Write as an adapter what makes ``base`` compute as ``tuned``.

    Args:
        tuned: the model after training.
        base: the model it started from, of the same architecture and precision.
        folder: replaced if it exists.
        base_hash: SHA-256 of the base model's weights.
        base_name: the base model's id.

    Raises:
        ModelError: the two differ in more than the values of their weights.

    """
    before, after = dict(base.named_parameters()), dict(tuned.named_parameters())
    if {name: (x.shape, x.dtype) for name, x in before.items()} != {
        name: (x.shape, x.dtype) for name, x in after.items()
    }:
        raise ModelError("the trained model has other weights than its base", where=str(folder))
    changed = {
        name: value.detach() for name, value in after.items() if not torch.equal(value.detach(), before[name])
    }
    save_own(folder, {"type": "whole"}, changed, base_hash=base_hash, base_name=base_name)


def changes(model: nn.Module, settings: Json, tensors: Mapping[str, Tensor]) -> list[Change]:
    """Return the parameters of ``model`` that training changed, with their values.

    Raises:
        ModelError: a tensor does not fit.

    """
    places = {name: tuple(value.shape) for name, value in model.named_parameters() if name in tensors}
    fitting(places, tensors)
    return [parameter_change(model, name, value) for name, value in tensors.items()]
