"""The ``train.adapter`` key: what changes in the weights."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from tanzim.core.config import Section


class LoraConfig(Section):
    """Low-rank adaptation, W + (alpha / rank) · B·A (Hu et al. 2021, arXiv:2106.09685)."""

    type: Literal["lora"] = "lora"
    rank: int = Field(16, ge=1)
    """Rank r of B·A."""
    alpha: float = Field(32.0, gt=0, lt=math.inf)
    """Scale: the product is multiplied by alpha / rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapter's input; 0 allows the one-product form, which is faster."""
    target_modules: str | list[str] = "all-linear"
    """Which linear layers are adapted: all-linear, or names (suffixes) such as [q_proj, v_proj]."""


class FullConfig(Section):
    """Every weight is trained."""

    type: Literal["full"] = "full"


def _type(value: Any) -> Any:  # noqa: ANN401 - whatever stands in the file
    """Take ``lora`` where no type is given, so that ``train.adapter.rank=8`` works on its own."""
    return value.get("type", "lora") if isinstance(value, dict) else getattr(value, "type", None)


AdapterConfig = Annotated[
    Annotated[LoraConfig, Tag("lora")] | Annotated[FullConfig, Tag("full")], Discriminator(_type)
]
