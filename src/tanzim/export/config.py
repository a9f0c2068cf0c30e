"""The ``export`` section of ``tanzim.yaml``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tanzim.core.config import Section


class ExportConfig(Section):
    """How an export is proven to equal what was trained."""

    prompts: int = Field(8, ge=1)
    """How many test prompts are compared, by logits and by greedy text."""
    new_tokens: int = Field(32, ge=1)
    """Length of the greedy text compared, in tokens."""
    tolerance: float = Field(2e-3, gt=0)
    """Largest accepted difference of log-probabilities."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of merged weights; auto keeps the base's, or float32 where that rounds too much away."""
