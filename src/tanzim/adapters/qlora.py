"""QLoRA: LoRA on a base that is kept in 4 bits.

y = x·(D(W₄) + s·B·A)ᵀ, where D turns blocks of 64 four-bit numbers (NormalFloat, the quantiles of a
normal distribution) and their scale back into numbers each time they are needed, and the scales are
themselves kept in 8 bits (Dettmers et al. 2023, arXiv:2305.14314). Prefer it where the base does not
fit otherwise: its weights take an eighth of float32's memory, steps are slower, and the base is a
little worse. The adapter belongs to the base in that form: it is evaluated, served and proven on it.
bitsandbytes and peft's modules compute it, on CUDA and on the CPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from tanzim.adapters.config import QloraConfig
from tanzim.adapters.lora import attach as attach_lora
from tanzim.adapters.method import Method
from tanzim.adapters.store import save_adapter
from tanzim.core.errors import ModelError


class Qlora(Method):
    """LoRA on a base in 4 bits; what is saved says so."""

    def __init__(self, model: Any, config: QloraConfig, *, base_hash: str, base_name: str) -> None:  # noqa: ANN401
        super().__init__(model, base_hash=base_hash, base_name=base_name)
        self._settings = config.model_dump(mode="json", include={"type", "quant_type", "double_quant"})

    def save(self, folder: Path) -> None:
        """Write the adapter, and the form of the base it was trained on."""
        model: Any = self.model
        save_adapter(model, folder, base_hash=self.base_hash, base_name=self.base_name, method=self._settings)


def attach(
    model: PreTrainedModel, config: QloraConfig, *, seed: int, base_hash: str, base_name: str
) -> Method:
    """Add a LoRA adapter to a model in 4 bits; see `tanzim.adapters.lora.attach`.

    Raises:
        ModelError: the model is not in 4 bits, or a named layer does not exist or cannot be adapted.

    """
    if not getattr(model, "is_loaded_in_4bit", False):
        raise ModelError(
            "qlora needs a base that was loaded in 4 bits",
            where="train.method.type",
            fix="load it with load_model(quantised=…), or use train.method.type=lora",
        )
    return Qlora(attach_lora(model, config, seed=seed), config, base_hash=base_hash, base_name=base_name)
