"""Names of things, which nobody can guess."""

from __future__ import annotations

import secrets


def new_id(kind: str) -> str:
    """Return a fresh id such as ``file-…``: 120 random bits."""
    return f"{kind}-{secrets.token_hex(15)}"
