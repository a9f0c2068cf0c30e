"""The one interface through which texts pass; a guard is a class with these two methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from tanzim.core.records import Message
from tanzim.serve.access.roles import Caller


class Refused(Exception):
    """A prompt or an answer may not pass.

    Args:
        reason: what the client is told.

    """


class Passing(Protocol):
    """One answer on its way out, in pieces of any size; whole answers are one piece."""

    def push(self, text: str) -> str:
        """Take a piece; return what may leave now.

        Raises:
            Refused: the answer ends here.

        """

    def finish(self) -> str:
        """Return what was held back, at the answer's end.

        Raises:
            Refused: the rest may not leave.

        """


class Middleware(Protocol):
    """Sees every prompt before generation, and every answer before delivery."""

    def prompt(self, messages: Sequence[Message], caller: Caller) -> Sequence[Message]:
        """Return the conversation as the model shall see it.

        Raises:
            Refused: it shall not see it.

        """

    def answer(self, messages: Sequence[Message], caller: Caller) -> Passing | None:
        """Return what the answer to this conversation passes; None if it need not."""


class Chain:
    """Several, one after another: prompts pass from the first to the last, answers back.

    Args:
        links: in the order of the config.

    """

    def __init__(self, links: Sequence[Middleware]) -> None:
        self._links = tuple(links)

    def prompt(self, messages: Sequence[Message], caller: Caller) -> Sequence[Message]:
        """Pass a conversation through all."""
        for link in self._links:
            messages = link.prompt(messages, caller)
        return messages

    def answer(self, messages: Sequence[Message], caller: Caller) -> Passing | None:
        """Return what an answer passes, the last link first; None if there is nothing to pass."""
        found = [link.answer(messages, caller) for link in reversed(self._links)]
        passings = [one for one in found if one is not None]
        return _Several(passings) if passings else None


class _Several:
    def __init__(self, passings: Sequence[Passing]) -> None:
        self._passings = passings

    def push(self, text: str) -> str:
        for one in self._passings:
            text = one.push(text) if text else ""
        return text

    def finish(self) -> str:
        text = ""
        for one in self._passings:
            text = (one.push(text) if text else "") + one.finish()
        return text


def with_content(message: Message, content: str) -> Message:
    """Return a turn that says something else."""
    return message if content == message.content else replace(message, content=content)
