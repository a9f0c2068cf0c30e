"""Adapters of peft taken off the model again, to lie on it only while they are used.

peft puts adapters of one kind side by side on a model, but not of several; taken off, any number of any
kinds share one base.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import PreTrainedModel

from tanzim.adapters.effective import merged_linear
from tanzim.adapters.own import Change, module_change
from tanzim.adapters.soft_prompts import virtual_tokens
from tanzim.adapters.store import load_adapter

NAME = "default"  # under which peft knows an adapter that is taken off


@dataclass(frozen=True, slots=True)
class LiftedAdapter:
    """An adapter of peft, apart from its model.

    Args:
        layers: what stands in the place of the base's layers, by path.
        prompt: for prefix, prompt and p-tuning the PEFT model that holds the learnt vectors.

    """

    layers: dict[str, nn.Module]
    prompt: peft.PeftModel | None

    def changes(self, model: Any) -> list[Change]:  # noqa: ANN401 - any transformers model
        """Return what the adapter changes in ``model``: merged layers where that is exact, else peft's."""
        return [
            module_change(model, path, layer if (merged := _merged(layer)) is None else merged)
            for path, layer in self.layers.items()
        ]


def lift_adapter(model: PreTrainedModel, folder: Path, *, base_hash: str) -> LiftedAdapter:
    """Load the adapter in ``folder`` and take it off ``model``, which is left as it was.

    Args:
        model: the base model, no adapter on it.
        folder: an adapter in PEFT's layout.
        base_hash: SHA-256 of the weights ``model`` was loaded from.

    Raises:
        ModelError: this is no adapter, it is damaged, or it does not fit the model.
        WrongBaseError: it was made for other base weights, or does not say for which.

    """
    # peft leaves its settings on the base; those of an adapter that stays belong there.
    kept = model.__dict__.pop("peft_config", None)
    try:
        adapted = load_adapter(model, folder, name=NAME, base_hash=base_hash)
        prompt = adapted.eval() if virtual_tokens(adapted) else None
    finally:
        layers: dict[str, Any] = {
            path: part for path, part in model.named_modules() if isinstance(part, BaseTunerLayer)
        }
        for path, layer in layers.items():
            module_change(model, path, layer.get_base_layer()).swap()
        model.__dict__.pop("peft_config", None)
        if kept is not None:
            model.__dict__["peft_config"] = kept
    return LiftedAdapter({path: layer.eval() for path, layer in layers.items()}, prompt)


def _merged(layer: Any) -> nn.Linear | None:  # noqa: ANN401 - untyped package
    return merged_linear(layer, NAME)
