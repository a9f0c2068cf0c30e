"""Change a text in pieces as one would change it whole: an end of it is held back until it is certain."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tanzim.data.screen.found import Found, replace

Find = Callable[[str], Sequence[Found]]
_CONTEXT = 80  # characters that have left already and are looked at again, for what they say of the next ones


class Held:
    """Replaces what is found in a stream of text.

    Args:
        find: returns the places in a text, in order and without overlaps.
        by: told a place and what stands there, returns what shall stand there.
        longest: characters of the longest thing that is found.

    """

    def __init__(self, find: Find, by: Callable[[Found, str], str], longest: int) -> None:
        self._find, self._by, self._longest = find, by, longest
        self._before = self._waiting = ""

    def push(self, text: str) -> str:
        """Take a piece; return what is certain."""
        self._waiting += text
        if len(self._waiting) <= 2 * self._longest:
            return ""
        cut = self._waiting.rfind(" ", 0, len(self._waiting) - self._longest) + 1
        return self._release(cut or len(self._waiting) - self._longest)

    def finish(self) -> str:
        """Return the rest."""
        return self._release(len(self._waiting))

    def _release(self, cut: int) -> str:
        """Let out the first ``cut`` characters, or fewer if something stands across the cut."""
        seen, known = self._before + self._waiting, len(self._before)
        found = [one for one in self._find(seen) if one.start >= known]
        across = [one.start for one in found if one.start < known + cut < one.end]
        end = min([known + cut, *across])
        inside = [Found(f.start - known, f.end - known, f.entity, f.score) for f in found if f.end <= end]
        released = replace(self._waiting[: end - known], inside, self._by)
        self._before, self._waiting = seen[:end][-_CONTEXT:], seen[end:]
        return released
