"""The ``train.objective`` key: what is learnt. Each type's file has its formula and its paper."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from tanzim.core.config import Section


class LanguageModelConfig(Section):
    """The next token, by cross-entropy: raw text, conversations, labelled texts as question and answer."""

    type: Literal["language_model"] = "language_model"
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of each target spread over the vocabulary while training, such as 0.1; evaluation has none."""


class CrossEntropyConfig(Section):
    """−log p of the right label; the usual choice."""

    type: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of each target spread over all labels, such as 0.1, where labels are noisy."""


class FocalConfig(Section):
    """−(1 − p)^gamma·log p: easy examples count less (Lin et al. 2017, arXiv:1708.02002)."""

    type: Literal["focal"] = "focal"
    gamma: float = Field(2.0, ge=0, lt=math.inf)
    """How much less; 0 is the cross-entropy."""


class CostConfig(Section):
    """The expected cost of the guess, where mistakes are not equally bad (Elkan 2001)."""

    type: Literal["cost"] = "cost"
    costs: dict[str, dict[str, Annotated[float, Field(ge=0, lt=math.inf)]]] = Field(min_length=1)
    """{right label: {said label: cost}}; what is not named costs 1, and nothing where it is right."""


def _loss_type(value: Any) -> Any:  # noqa: ANN401 - whatever stands in the file
    """Take ``cross_entropy`` where no type is given."""
    return value.get("type", "cross_entropy") if isinstance(value, dict) else getattr(value, "type", None)


LossConfig = Annotated[
    Annotated[CrossEntropyConfig, Tag("cross_entropy")]
    | Annotated[FocalConfig, Tag("focal")]
    | Annotated[CostConfig, Tag("cost")],
    Discriminator(_loss_type),
]


class _Labels(Section):
    """What objectives of labels share."""

    loss: LossConfig = CrossEntropyConfig()
    """How a wrong label is counted."""
    class_weights: Literal["balanced"] | dict[str, Annotated[float, Field(ge=0, lt=math.inf)]] | None = None
    """balanced: classes count by their inverse frequency; or a weight by label (1 where none is named)."""


class ClassificationConfig(_Labels):
    """One label for a whole text, by a new head on the base."""

    type: Literal["classification"] = "classification"


class TokenClassificationConfig(_Labels):
    """One label for each word of a text, by a new head on the base."""

    type: Literal["token_classification"] = "token_classification"


class Seq2SeqConfig(Section):
    """The target of an encoder-decoder model, from its source (Raffel et al. 2020, arXiv:1910.10683)."""

    type: Literal["seq2seq"] = "seq2seq"


class ContrastiveConfig(Section):
    """Embeddings: matching texts near each other (van den Oord et al. 2018, arXiv:1807.03748)."""

    type: Literal["contrastive"] = "contrastive"
    pooling: Literal["mean", "last", "cls"] = "mean"
    """One vector of a text: the mean of its tokens, its last (causal models), or its first."""
    normalize: bool = True
    """Give every vector the length 1, so that nearness is the cosine."""
    temperature: float = Field(0.05, gt=0, le=10)
    """Differences in nearness are divided by it; lower looks more at the nearest negatives."""
    symmetric: bool = False
    """Look for the anchor of each match, too, and take the mean of both losses."""


class DistillationConfig(Section):
    """The next token, with a teacher's distribution beside it (Hinton et al. 2015, arXiv:1503.02531)."""

    type: Literal["distillation"] = "distillation"
    teacher: str = Field(min_length=1)
    """The model to learn from, as in model.name; it must have the same vocabulary."""
    teacher_revision: str | None = None
    """Branch, tag or commit of a hub id."""
    alpha: float = Field(0.5, gt=0, le=1)
    """Weight of the divergence from the teacher; the cross-entropy's is 1 - alpha."""
    temperature: float = Field(1.0, gt=0, le=100)
    """Both distributions are taken at this temperature; above 1 small probabilities count more."""
    divergence: Literal["forward", "reverse"] = "forward"
    """forward: cover all the teacher holds possible; reverse: keep to what it holds likely."""


class SequenceDistillationConfig(Section):
    """The next token of a teacher's answers to the same questions (Kim and Rush 2016, arXiv:1606.07947)."""

    type: Literal["sequence_distillation"] = "sequence_distillation"
    teacher: str = Field(min_length=1)
    """The model to learn from, as in model.name; any vocabulary will do."""
    teacher_revision: str | None = None
    """Branch, tag or commit of a hub id."""
    answer_temperature: float = Field(0.0, ge=0, le=100)
    """0 takes the teacher's likeliest token each time, more samples."""
    answer_top_p: float = Field(1.0, gt=0, le=1)
    """Sample from the likeliest tokens that hold this share of the probability."""
    answer_tokens: int = Field(512, ge=1)
    """Longest answer of the teacher; one that is cut off there is left out, and counted."""
    answers_at_once: int = Field(16, ge=1)
    """Answers generated together."""


def _type(value: Any) -> Any:  # noqa: ANN401 - whatever stands in the file
    """Take ``language_model`` where no type is given."""
    return value.get("type", "language_model") if isinstance(value, dict) else getattr(value, "type", None)


ObjectiveConfig = Annotated[
    Annotated[LanguageModelConfig, Tag("language_model")]
    | Annotated[ClassificationConfig, Tag("classification")]
    | Annotated[TokenClassificationConfig, Tag("token_classification")]
    | Annotated[Seq2SeqConfig, Tag("seq2seq")]
    | Annotated[ContrastiveConfig, Tag("contrastive")]
    | Annotated[DistillationConfig, Tag("distillation")]
    | Annotated[SequenceDistillationConfig, Tag("sequence_distillation")],
    Discriminator(_type),
]
