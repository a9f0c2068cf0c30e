"""Prepare a model for training by the method its config names: a dictionary, no registry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tanzim.adapters import (
    adalora,
    bitfit,
    bottleneck,
    dora,
    dylora,
    full,
    hft,
    lora,
    lora_fa,
    qlora,
    routed,
    soft_prompts,
    spiel,
    vectors,
)
from tanzim.adapters.config import MethodConfig
from tanzim.adapters.method import Method

Attach = Callable[..., Method]

METHODS: dict[str, Attach] = {
    "lora": lora.attach_method,
    "rslora": lora.attach_method,
    "routed": routed.attach,
    "dora": dora.attach,
    "qlora": qlora.attach,
    "adalora": adalora.attach,
    "lora_fa": lora_fa.attach,
    "vera": vectors.attach_vera,
    "ia3": vectors.attach_ia3,
    "prefix": soft_prompts.attach,
    "prompt": soft_prompts.attach,
    "p_tuning": soft_prompts.attach,
    "dylora": dylora.attach,
    "bottleneck": bottleneck.attach,
    "bitfit": bitfit.attach,
    "hft": hft.attach,
    "spiel": spiel.attach,
    "full": full.attach,
}


def attach(model: Any, config: MethodConfig, *, seed: int, base_hash: str, base_name: str) -> Method:  # noqa: ANN401
    """Prepare ``model`` for training.

    Args:
        model: a transformers model, on its device, in the precision its frozen weights keep.
        config: the ``train.method`` section.
        seed: the run's seed.
        base_hash: SHA-256 of the base model's weights.
        base_name: the base model's id.

    Raises:
        ModelError: the method does not fit the model.

    """
    return METHODS[config.type](model, config, seed=seed, base_hash=base_hash, base_name=base_name)
