"""The ``train.objective`` key: what is learnt. Each type's file has its formula and its paper."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Tag

from tanzim.core.config import Section


class LanguageModelConfig(Section):
    """The next token, by cross-entropy: raw text, conversations, labelled texts as question and answer."""

    type: Literal["language_model"] = "language_model"


class ClassificationConfig(Section):
    """One label for a whole text, by a new head on the base."""

    type: Literal["classification"] = "classification"


class TokenClassificationConfig(Section):
    """One label for each word of a text, by a new head on the base."""

    type: Literal["token_classification"] = "token_classification"


def _type(value: Any) -> Any:  # noqa: ANN401 - whatever stands in the file
    """Take ``language_model`` where no type is given."""
    return value.get("type", "language_model") if isinstance(value, dict) else getattr(value, "type", None)


ObjectiveConfig = Annotated[
    Annotated[LanguageModelConfig, Tag("language_model")]
    | Annotated[ClassificationConfig, Tag("classification")]
    | Annotated[TokenClassificationConfig, Tag("token_classification")],
    Discriminator(_type),
]
