"""From tokens to text, while the tokens are still coming."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# What a decoder writes for bytes that are no UTF-8 character, or not yet one.
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
LONGEST_PARTIAL = 4  # bytes of the longest UTF-8 character; a longer run of replacements is broken text


class Detokeniser:
    """Text of a growing list of tokens; a character appears when all its bytes are there.

    The concatenation of everything returned equals the decoding of all tokens at once, except that
    half a character at the very end is left out.

    Args:
        tokenizer: a transformers tokenizer.
        shown: special tokens that are part of the text; the others are left out.

    """

    def __init__(self, tokenizer: Any, shown: Sequence[int] = ()) -> None:  # noqa: ANN401 - any with decode
        self._tokenizer = tokenizer
        self._hidden = set(special_tokens(tokenizer).values()) - set(shown) if shown else None
        # Tokens decoded together with the next one, since a token's text may depend on its
        # neighbours (word-start spaces, byte pieces); `_shown` is what of them has been returned.
        self._context: list[int] = []
        self._shown = ""
        self._new: list[int] = []

    def push(self, token: int) -> str:
        """Add a token; return the text that has become certain."""
        self._new.append(token)
        text = self._decode(self._context + self._new)
        stable = text.rstrip(REPLACEMENT)
        if len(stable) < len(text) <= len(stable) + LONGEST_PARTIAL:
            return ""
        if not text.startswith(self._shown) or len(text) <= len(self._shown):
            return ""
        added = text[len(self._shown) :]
        self._context, self._new = self._new, []
        self._shown = self._decode(self._context)
        return added

    def finish(self) -> str:
        """Return what was held back, without half a character at its end."""
        if not self._new:
            return ""
        text = self._decode(self._context + self._new)
        self._new = []
        return text[len(self._shown) :].rstrip(REPLACEMENT)

    def _decode(self, ids: list[int]) -> str:
        if self._hidden is not None:
            ids = [token for token in ids if token not in self._hidden]
        skip = self._hidden is None
        text: str = self._tokenizer.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
        return text


def special_tokens(tokenizer: Any) -> dict[str, int]:  # noqa: ANN401 - any transformers tokenizer
    """Return the texts and ids of a tokenizer's special tokens."""
    found = {token.content: id_ for id_, token in tokenizer.added_tokens_decoder.items() if token.special}
    return found | dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))


class StopFinder:
    """Releases text up to the first stop string, and never a part of one.

    Args:
        stops: the stop strings.

    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._held = ""
        self.found = False

    def push(self, text: str) -> str:
        """Add text; return what can no longer be part of a stop string."""
        self._held += text
        places = [place for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if places:
            self.found = True
            end = min(places)
        else:
            end = len(self._held) - max((overlap(self._held, stop) for stop in self._stops), default=0)
        released, self._held = self._held[:end], self._held[end:]
        return released

    def finish(self) -> str:
        """Return what was held back: the text ended before it became a stop string."""
        released, self._held = ("" if self.found else self._held), ""
        return released


def overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of ``text`` that begins ``stop``."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
