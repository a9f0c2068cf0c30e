"""Tool calls in what a model writes, told from its text while it is still coming.

How they are written is a `ToolFormat`'s to know (`tanzim.serve.tool_formats`). What only looks like a call
stays text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from tanzim.core.records import Json

Amount = Literal["one", "some", "at most one"]  # of calls that an answer must hold
Read = tuple[list[Json], int]


class ToolFormat(Protocol):
    """How a family of models writes calls.

    What is read of a text must hang on the text alone, and not change as more of it comes.
    """

    name: str
    """As ``serve.tool_format`` has it."""
    shown: tuple[int, ...]
    """Special tokens that are part of it, and so must be in the text of an answer."""

    def begins(self, text: str, *, first: bool) -> int:
        """Return where calls may begin, or a part of what begins them; the text's length if nowhere.

        Args:
            text: not yet told.
            first: whether it is the beginning of the answer.

        """

    def read(self, text: str, *, ended: bool) -> Read | None:
        """Read the calls at a text's beginning.

        Args:
            text: from where calls may begin.
            ended: whether nothing comes after it.

        Returns:
            The calls and how many characters they take; no calls, and how many characters are text for
            certain; or None as long as more must come to tell.

        """

    def rules(self, names: Sequence[str], amount: Amount) -> list[str]:
        """Return the rules of an answer with so many calls, as llguidance's Lark has them.

        Args:
            names: of the functions; the arguments of the first are the rule ``arguments_0``, and so on.
            amount: how many calls; with "at most one", any text besides.

        """


class ToolCalls:
    """Takes an answer in pieces of any size, and tells its text from its calls.

    White space around calls belongs to neither. However the answer is cut, the same comes out.

    Args:
        format: how the model writes calls.

    Attributes:
        count: calls so far.

    """

    def __init__(self, format: ToolFormat) -> None:
        self.count = 0
        self._format = format
        self._waiting = ""
        self._first = True
        self._after_call = False

    def push(self, text: str) -> list[str | Json]:
        """Take a piece; return the texts and calls that are certain, in their order."""
        self._waiting += text
        return self._certain(ended=False)

    def finish(self) -> list[str | Json]:
        """Return what was held back: the answer ends here."""
        return self._certain(ended=True)

    def _certain(self, *, ended: bool) -> list[str | Json]:
        found: list[str | Json] = []
        while True:
            start = self._format.begins(self._waiting, first=self._first)
            read = self._format.read(self._waiting[start:], ended=ended)
            if read is None:
                break
            calls, length = read
            if calls:
                self._say(found, self._waiting[:start].rstrip())
                found += calls
                self.count += len(calls)
                self._after_call = True
            else:  # the next one may begin inside
                self._say(found, self._waiting[: start + length])
            self._waiting, self._first = self._waiting[start + length :], False
        certain = self._waiting if ended else self._waiting[:start].rstrip()
        self._waiting = self._waiting[len(certain) :]
        self._say(found, certain)
        return found

    def _say(self, found: list[str | Json], text: str) -> None:
        if self._after_call:
            text = text.lstrip()
        if text:
            found.append(text)
            self._after_call = False
