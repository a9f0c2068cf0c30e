"""Every random choice is derived from one seed and a name, so that it can be repeated on its own."""

from __future__ import annotations

import hashlib


def derive(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed for the choice called ``names`` under ``seed``, by SHA-256."""
    text = "/".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
