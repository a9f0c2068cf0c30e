"""A middleware to try the seam with: it replaces one word and refuses another."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tanzim.core.records import Message
from tanzim.data.screen.found import Found
from tanzim.serve.access.roles import Caller
from tanzim.serve.middleware.config import FakeConfig
from tanzim.serve.middleware.held import Held
from tanzim.serve.middleware.seam import Passing, Refused, with_content


class Fake:
    """Replaces ``find`` by ``write``; refuses what holds ``refuse``."""

    def __init__(self, config: FakeConfig) -> None:
        self._config = config

    def prompt(self, messages: Sequence[Message], caller: Caller) -> Sequence[Message]:
        """Return the conversation with the word replaced."""
        for message in messages:
            self._check(message.content)
        find, write = self._config.find, self._config.write
        return [with_content(message, message.content.replace(find, write)) for message in messages]

    def answer(self, messages: Sequence[Message], caller: Caller) -> Passing | None:
        """Return what replaces the word in an answer."""
        longest = max(len(self._config.find), len(self._config.refuse or ""))
        return Held(self._find, lambda one, text: self._config.write, longest)

    def _find(self, text: str) -> list[Found]:
        self._check(text)
        return [
            Found(*found.span(), "word", 1.0) for found in re.finditer(re.escape(self._config.find), text)
        ]

    def _check(self, text: str) -> None:
        if self._config.refuse and self._config.refuse in text:
            raise Refused("the text holds a word that may not pass")
