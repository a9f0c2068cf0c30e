"""What a request can be at fault for, found when it is computed."""

from __future__ import annotations

from tanzim.core.errors import ModelError


class TooLongError(ModelError):
    """The prompt, what its adapter puts before it, and the answer have no room together."""


class GrammarError(ModelError):
    """The answer's grammar grew too large to follow, or leads nowhere."""
