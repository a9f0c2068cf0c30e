"""DoRA: the magnitude and the direction of each weight column are learnt apart.

W' = m · (W + s·B·A) / ‖W + s·B·A‖, where the norm is of each output's weights and m starts as ‖W‖
(Liu et al. 2024, arXiv:2402.09353); the norm is held constant in the backward pass (their section 4.3).
Prefer it to LoRA at low ranks, where it comes closer to full fine-tuning, at the price of a slower step;
merged, it costs nothing. peft's modules compute it.
"""

from __future__ import annotations

from transformers import PreTrainedModel

from tanzim.adapters.config import DoraConfig
from tanzim.adapters.lora import attach as attach_lora
from tanzim.adapters.method import Method


def attach(
    model: PreTrainedModel, config: DoraConfig, *, seed: int, base_hash: str, base_name: str
) -> Method:
    """Add a DoRA adapter to ``model``; see `tanzim.adapters.lora.attach`.

    Raises:
        ModelError: a named layer does not exist, or cannot be adapted.

    """
    return Method(attach_lora(model, config, seed=seed), base_hash=base_hash, base_name=base_name)
