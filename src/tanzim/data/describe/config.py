"""What nobody but the maker of the data can know; it goes into the data sheet and the metadata."""

from __future__ import annotations

from pydantic import Field

from tanzim.core.config import Section


class CardConfig(Section):
    """Answers for the data sheet; what is not said stands there as an open question."""

    title: str | None = None
    """The data's name; unset takes the run's."""
    description: str | None = None
    """What it is, in a few sentences."""
    purpose: str | None = None
    """For what task it was made, and which gap it fills."""
    creators: list[str] = Field(default_factory=list)
    """Who made it: persons or organisations."""
    funding: str | None = None
    """Who paid for it."""
    licence: str | None = None
    """Under which licence it may be used: an SPDX name or a URL."""
    version: str = "1.0.0"
    """Its version (semantic versioning)."""
    url: str | None = None
    """Where it is to be found."""
    contact: str | None = None
    """Whom to ask."""
    citation: str | None = None
    """How to cite it."""
    keywords: list[str] = Field(default_factory=list)
    """Words to find it by."""
    collection: str | None = None
    """How, when and by whom the instances were collected, and how those people were paid."""
    consent: str | None = None
    """Whether people in the data know and agree, and how they can revoke it."""
    review: str | None = None
    """Whether an ethical review or an impact analysis was made."""
    sensitive: str | None = None
    """What in it may be confidential, offensive, or tell of health, faith, origin or politics."""
    uses: str | None = None
    """For what else it could be used, and for what it should not."""
    maintenance: str | None = None
    """Who keeps it, how often it is updated, and how errors are reported."""
