"""Personal data hidden on its way in and out."""

from __future__ import annotations

from collections.abc import Sequence

from tanzim.core.records import Message
from tanzim.data.screen.config import PiiConfig
from tanzim.data.screen.pii import Screen
from tanzim.serve.access.roles import Caller
from tanzim.serve.middleware.config import RedactPiiConfig
from tanzim.serve.middleware.held import Held
from tanzim.serve.middleware.seam import Passing, with_content

_LONGEST = 120  # characters of an address, a name or a number


class RedactPii:
    """Hides names, numbers and addresses of people (see `tanzim.data.screen.pii`).

    Args:
        config: what is hidden from whom.

    Raises:
        MissingExtra: a package of the extra ``screen`` is not installed.

    """

    def __init__(self, config: RedactPiiConfig) -> None:
        self._config = config
        self._screen = Screen(PiiConfig(mask=config.mask, allow=config.allow))
        self._screen.find(["warm up"])  # loads the recognisers now, not at the first request

    def prompt(self, messages: Sequence[Message], caller: Caller) -> Sequence[Message]:
        """Return the conversation without personal data."""
        if not self._config.prompts:
            return messages
        found = self._screen.find([message.content for message in messages])
        return [
            with_content(message, self._screen.hide(message.content, some))
            for message, some in zip(messages, found, strict=True)
        ]

    def answer(self, messages: Sequence[Message], caller: Caller) -> Passing | None:
        """Return what hides personal data in an answer."""
        if not self._config.answers:
            return None
        return Held(
            lambda text: self._screen.find([text])[0],
            lambda one, text: self._screen.hide(text, [type(one)(0, len(text), one.entity, one.score)]),
            _LONGEST,
        )
