"""``serve.middleware``: what prompts and answers pass, one after another."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tanzim.core.config import Section


class RedactPiiConfig(Section):
    """Hide personal data in prompts and answers (see the step ``pii`` of data preparation)."""

    type: Literal["redact_pii"] = "redact_pii"
    prompts: bool = True
    """Hide it from the model."""
    answers: bool = True
    """Hide what the model says of it; streams then run some 120 characters behind."""
    mask: str = Field("[{entity}]", min_length=1)
    """What stands in its place; {entity} is the name of the entity."""
    allow: list[str] = Field(default_factory=list)
    """Texts that are nobody's, such as the address of your own help desk; they stay."""


class FakeConfig(Section):
    """Replace a word, and refuse another: to try out what passes through here."""

    type: Literal["fake"] = "fake"
    find: str = Field(min_length=1)
    """The word that is replaced, in prompts and answers."""
    write: str = ""
    """What stands in its place."""
    refuse: str | None = None
    """A word that no prompt and no answer may hold."""


MiddlewareConfig = Annotated[RedactPiiConfig | FakeConfig, Field(discriminator="type")]
