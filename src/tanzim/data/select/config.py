"""The step that keeps the part of the training data that is worth training on."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from tanzim.core.config import Section


class SelectConfig(Section):
    """Keep part of the training examples, those that a small surrogate learns most from.

    The report weighs the choice beside chance and beside all on held-out examples: whether it pays.
    """

    type: Literal["select"] = "select"
    by: Literal["reducible", "influence", "effort", "random", "full"] = "reducible"
    """What the surrogate does not know yet but could; how much the held-out loss would rise without it; how
    far the surrogate is off; chance; all of it.

    Reducible loss (Mindermann et al. 2022) needs labels. Influence (Koh and Liang 2017) needs labels, or else
    a target to be near to (Moore and Lewis 2010). Effort is the norm of the loss gradient (Paul et al. 2021)
    and needs half of the examples or more: of few, the hardest teach less than any; without labels it is the
    surprise of the words.
    """
    classes: Literal["root", "share"] = "root"
    """Each class of labels gets by the root of its size, so that rare ones are not lost, or by its size."""
    share: float | None = Field(None, gt=0, le=1)
    """Share of the training examples that is kept; this or count."""
    count: int | None = Field(None, ge=1)
    """How many training examples are kept; this or share."""
    target: str | list[str] | None = None
    """Examples of what the model is for (a path as data.path): influence is then how much nearer to them a
    text is than to all others."""
    doubtful: Literal["last", "as_others"] = "last"
    """Labels that confident learning holds for wrong (as the step label_noise does) are taken last, or as all
    others: better where labels are hard rather than wrong and many are doubted."""
    embedding: str | None = None
    """An embedding model to see labelled texts by; unset: their words (TF-IDF)."""
    folds: int = Field(5, ge=3, le=20)
    """Each surrogate learns from all folds but one; the one is what its loss is taken on."""
    epochs: int = Field(10, ge=2)
    """How often the surrogate goes through labelled examples when its learning of each is watched."""
    surrogate_rows: int = Field(20_000, ge=100)
    """Most labelled examples that surrogates are fitted to: what bounds their memory."""

    @model_validator(mode="after")
    def _says_how_many(self) -> SelectConfig:
        given = (self.share is not None) + (self.count is not None)
        if self.by == "full" and given:
            raise ValueError("by: full keeps all; leave share and count out")
        if self.by != "full" and given != 1:
            raise ValueError("say how much is kept: either share (such as 0.2) or count")
        return self

    @model_validator(mode="after")
    def _target_is_used(self) -> SelectConfig:
        if self.target is not None and self.by != "influence":
            raise ValueError(f"by: {self.by} looks at no target; use by: influence, or leave it out")
        if self.target is not None and not self.target:
            raise ValueError("no target is named")
        if self.target is not None and self.embedding is not None:
            raise ValueError("nearness to a target is told by words; leave embedding out")
        return self
