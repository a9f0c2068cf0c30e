"""Steps that take repeated examples out."""

from __future__ import annotations

from typing import Literal

from tanzim.core.config import Section


class DedupExactConfig(Section):
    """Take out examples whose normalised text is the same (its SHA-1 or the like; the first layer)."""

    type: Literal["dedup_exact"] = "dedup_exact"
    by: Literal["example", "prompt"] = "example"
    """What is compared: all of an example, or what is asked in it."""
