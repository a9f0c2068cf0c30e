"""What one token stands for: its text and its bytes, even where it is a part of a character."""

from __future__ import annotations

import re
from typing import Any

from tanzim.infer.text import REPLACEMENT

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Pieces:
    """Looks up single tokens of a tokenizer.

    Args:
        tokenizer: a transformers tokenizer.

    """

    def __init__(self, tokenizer: Any) -> None:  # noqa: ANN401 - any tokenizer
        self._tokenizer = tokenizer
        self._letters = _byte_letters()

    def text(self, token: int) -> str:
        """Return the token's text; bytes that are no whole character show as U+FFFD."""
        # Twice, for some decoders strip the space before the first word.
        return self._decode([token, token])[len(self._decode([token])) :]

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    def bytes(self, token: int) -> list[int] | None:
        """Return the token's UTF-8 bytes; None where the tokenizer does not tell."""
        text = self.text(token)
        if REPLACEMENT not in text:
            return list(text.encode())
        piece: str = self._tokenizer.convert_ids_to_tokens(token)
        if byte := _BYTE.fullmatch(piece):
            return [int(byte.group(1), 16)]
        if all(letter in self._letters for letter in piece):
            return [self._letters[letter] for letter in piece]
        return None


def _byte_letters() -> dict[str, int]:
    """Return the bytes that the letters of byte-level BPE stand for (GPT-2's table).

    Printable Latin-1 bytes stand for themselves; the others are numbered from U+0100 in order.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
