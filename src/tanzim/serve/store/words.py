"""Words that every kind of database keeps, and that do nothing to the terminal that shows them."""

from __future__ import annotations

import unicodedata

_KEPT = "\n\t"


def storable(text: str) -> str:
    r"""Return ``text`` with control signs and halves of surrogate pairs as JSON writes them (``\u0000``).

    PostgreSQL's texts hold no NUL, and nothing in UTF-8 holds half a pair.
    """
    return "".join(
        f"\\u{ord(sign):04x}" if unicodedata.category(sign) in ("Cc", "Cs") and sign not in _KEPT else sign
        for sign in text
    )
