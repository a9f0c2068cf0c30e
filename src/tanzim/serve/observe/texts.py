"""How much of people's texts is kept: nothing, all, or all but personal data."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Literal

Texts = Literal["none", "redacted", "whole"]
Keep = Callable[[str], str]


def keeper(texts: Texts) -> Keep | None:
    """Return what a text goes through before it is kept; None if none is kept.

    Raises:
        MissingExtra: a package of the extra ``screen`` is not installed.

    """
    if texts == "none":
        return None
    return _redacted() if texts == "redacted" else _as_it_is


def _as_it_is(text: str) -> str:
    return text


@cache  # the log and the traces share the recognisers
def _redacted() -> Keep:
    from tanzim.data.screen.config import PiiConfig
    from tanzim.data.screen.pii import Screen

    screen = Screen(PiiConfig())
    screen.find(["warm up"])  # loads the recognisers now, not at the first answer

    def redacted(text: str) -> str:
        (found,) = screen.find([text])
        return screen.hide(text, found)

    return redacted
