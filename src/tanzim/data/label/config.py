"""Steps that give texts a label."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from tanzim.core.config import Section


class RuleConfig(Section):
    """A labelling function: says one label where a keyword or a pattern is found, else nothing."""

    label: str = Field(min_length=1)
    """The label it says."""
    name: str | None = None
    """What reports call it; unset takes the label and its number."""
    keywords: list[str] = Field(default_factory=list)
    """Words or phrases, found as whole words; case, and half-space or space, ي or ی make no difference."""
    patterns: list[str] = Field(default_factory=list)
    """Regular expressions (Python), sought in the text as it stands; case makes no difference."""

    @field_validator("keywords")
    @classmethod
    def _say_something(cls, value: list[str]) -> list[str]:
        if not all(re.search(r"\w", word) for word in value):
            raise ValueError("a keyword without a letter or digit is never found as a word; use a pattern")
        return value

    @field_validator("patterns")
    @classmethod
    def _compile(cls, value: list[str]) -> list[str]:
        for pattern in value:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"'{pattern}' is no regular expression: {error}") from None
        return value

    @model_validator(mode="after")
    def _finds_something(self) -> RuleConfig:
        if not self.keywords and not self.patterns:
            raise ValueError("name keywords or patterns that it looks for")
        return self


class WeakLabelsConfig(Section):
    """Label texts by rules that may be wrong, weighed by how they agree (Ratner et al. 2016)."""

    type: Literal["weak_labels"] = "weak_labels"
    functions: list[RuleConfig] = Field(min_length=1)
    """The rules: each says one label or nothing; a label may have several, and there must be two labels."""
    combine: Literal["model", "majority"] = "model"
    """model learns from all texts how far each rule is to be trusted; majority counts heads."""
    shares: dict[str, float] = Field(default_factory=dict)
    """How common each label is among texts that a rule speaks of, such as {spam: 0.2, ham: 0.8}; empty
    estimates it."""
    min_confidence: float = Field(0.5, ge=0, le=1)
    """A text whose likeliest label has a smaller probability gets none."""
    abstain: Literal["keep", "remove"] = "keep"
    """What becomes of texts that get no label: kept without one, or taken out."""

    @model_validator(mode="after")
    def _labels_fit(self) -> WeakLabelsConfig:
        labels = {rule.label for rule in self.functions}
        if len(labels) < 2:
            raise ValueError(f"all functions say '{labels.pop()}': there must be two labels to choose from")
        if self.shares and set(self.shares) != labels:
            raise ValueError(f"shares names {sorted(self.shares)}, functions say {sorted(labels)}")
        if self.shares and (abs(sum(self.shares.values()) - 1) > 0.01 or min(self.shares.values()) <= 0):
            raise ValueError(f"shares sum to {sum(self.shares.values()):.3f}: each above 0, together 1")
        names = [rule.name for rule in self.functions if rule.name is not None]
        if len(names) != len(set(names)):
            raise ValueError(f"two functions have the same name: {sorted(names)}")
        return self
