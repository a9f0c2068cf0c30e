"""LoRA-FA: A stays as it was drawn, and B's gradient is turned into the one that fits full tuning best.

y = x·(W + s·B·A)ᵀ with A frozen; with only B trained, a layer keeps x·Aᵀ (R values a token) for the
backward pass instead of x. The gradient g of B becomes g · (A·Aᵀ)⁻¹ / s², the B-update whose product
with A is nearest to the full gradient's (Zhang et al. 2023, arXiv:2308.03303; the projection is that of
peft's ``LoraFAOptimizer``). Prefer it where activations fill the memory.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from tanzim.adapters.config import LoraFaConfig
from tanzim.adapters.lora import attach as attach_lora
from tanzim.adapters.method import Method

DAMPING = 1e-8  # peft's, against a singular A·Aᵀ


class LoraFa(Method):
    """LoRA whose A is frozen; see the file's beginning."""

    def __init__(self, model: nn.Module, *, base_hash: str, base_name: str) -> None:
        layers: list[Any] = [module for module in model.modules() if isinstance(module, LoraLayer)]
        for layer in layers:
            layer.lora_A["default"].weight.requires_grad_(False)
        super().__init__(model, base_hash=base_hash, base_name=base_name)
        self._projections = [(layer.lora_B["default"].weight, _projection(layer)) for layer in layers]

    @torch.no_grad()
    def before_update(self, step: int, total: int) -> None:
        """Project the gradients of B."""
        for b_OR, projection_RR in self._projections:
            if b_OR.grad is not None:
                b_OR.grad = b_OR.grad @ projection_RR


def attach(
    model: PreTrainedModel, config: LoraFaConfig, *, seed: int, base_hash: str, base_name: str
) -> Method:
    """Add a LoRA adapter to ``model`` and freeze its A; see `tanzim.adapters.lora.attach`.

    Raises:
        ModelError: a named layer does not exist, or cannot be adapted.

    """
    return LoraFa(attach_lora(model, config, seed=seed), base_hash=base_hash, base_name=base_name)


@torch.no_grad()
def _projection(layer: Any) -> Tensor:  # noqa: ANN401 - untyped package
    """Return (A·Aᵀ)⁻¹ / s² [R, R]; A never changes, so once is enough."""
    a_RI = layer.lora_A["default"].weight
    gram_RR = a_RI @ a_RI.T + DAMPING * torch.eye(a_RI.shape[0], dtype=a_RI.dtype, device=a_RI.device)
    inverse_RR: Tensor = torch.linalg.pinv(gram_RR)
    scale: float = layer.scaling["default"]
    return inverse_RR / scale**2
