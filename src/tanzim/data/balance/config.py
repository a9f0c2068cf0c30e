"""Steps that even out classes and look for wrong labels (guide 3.1.3)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from tanzim.core.config import Section


class _By(Section):
    """What classes are."""

    by: str = "label"
    """What an example's class is: its label, or what is known about it, such as about.language."""

    @field_validator("by")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value != "label" and not value.removeprefix("about."):
            raise ValueError("name what is known about examples, such as about.language")
        if value != "label" and not value.startswith("about."):
            raise ValueError(f"'{value}' is neither label nor about.…, such as about.language")
        return value


class OversampleConfig(_By):
    """Repeat training examples of rare classes, all equally often."""

    type: Literal["oversample"] = "oversample"
    ratio: float = Field(1.0, gt=0, le=1)
    """Each class is brought up to this share of the largest one."""
    max_copies: int = Field(10, ge=1)
    """No example stands more often than this in the result: very few texts soon are learnt by heart."""


class UndersampleConfig(_By):
    """Take training examples of common classes out, by chance."""

    type: Literal["undersample"] = "undersample"
    ratio: float = Field(1.0, gt=0, le=1)
    """Each class is cut until the smallest one is this share of it."""


class SmoteConfig(Section):
    """Make examples of rare classes between two of their own in embedding space (Chawla et al. 2002)."""

    type: Literal["smote"] = "smote"
    embedding: str = Field(min_length=1)
    """The embedding model that says which texts are near."""
    ratio: float = Field(1.0, gt=0, le=1)
    """Each class is brought up to this share of the largest one."""
    neighbours: int = Field(5, ge=1)
    """How many of the nearest texts of the same class a text may be joined with (the paper's 5)."""
    text: Literal["nearest", "write"] = "nearest"
    """What stands for a point: the nearest text of the class, or one that a language model writes."""
    writer: str | None = None
    """The language model, or the URL of an OpenAI-compatible endpoint, for text: write."""
    max_copies: int = Field(10, ge=1)
    """A class grows by at most so many times its size."""

    @field_validator("writer")
    @classmethod
    def _is_named(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("name the language model that writes")
        return value


class LabelNoiseConfig(Section):
    """Find training examples whose label is probably wrong (confident learning, Northcutt et al. 2021)."""

    type: Literal["label_noise"] = "label_noise"
    action: Literal["remove", "mark"] = "remove"
    """remove takes them out; mark keeps them with about.label_noise: the label that is likelier, and how."""
    embedding: str | None = None
    """An embedding model to see the texts by; unset: their words (TF-IDF)."""
    folds: int = Field(5, ge=2, le=20)
    """Each text is judged by a surrogate that learnt from the other folds."""
    min_per_class: int = Field(5, ge=0)
    """A class with so few examples, or fewer, is left as it is."""
    surrogate_rows: int = Field(20_000, ge=100)
    """Most examples that the surrogate learns from in a fold: what bounds its memory."""
