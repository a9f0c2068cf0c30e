"""The ``evaluate`` section of ``tanzim.yaml``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tanzim.core.config import Section

Metric = Literal[
    "exact_match", "accuracy", "macro_f1", "json_valid", "json_fields", "number", "rouge_l", "chrf"
]


class EvaluateConfig(Section):
    """What is measured on the test set, for the base and the tuned model alike."""

    metrics: list[Metric] | Literal["auto"] = "auto"
    """auto looks at the answers: labels, JSON objects, a final number, or free text."""
    max_items: int = Field(200, ge=1)
    """Most test items that are generated for (a seeded sample); the loss is over all of them."""
    max_new_tokens: int = Field(256, ge=1)
    """Longest answer, in tokens."""
    batch_size: int = Field(16, ge=1)
    """Items generated together."""
    base: bool = True
    """Measure the base model on the same items, too."""
    others: dict[str, str] = Field(default_factory=dict)
    """Other systems to score beside ours: name → JSONL of `answer` per test row, in order or by `row`."""
    resamples: int = Field(1000, ge=100)
    """Bootstrap resamples behind each confidence interval (95 %)."""
