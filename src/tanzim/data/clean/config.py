"""Steps that clean."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tanzim.core.config import Section


class LengthConfig(Section):
    """Take out examples that are too short or too long."""

    type: Literal["length"] = "length"
    min_characters: int = Field(1, ge=0)
    """Fewest characters of all that an example says."""
    max_characters: int | None = Field(None, ge=1)
    """Most characters; unset for no limit."""
