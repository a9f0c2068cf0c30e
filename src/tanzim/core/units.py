"""Numbers as people read them: counts, bytes, seconds."""

from __future__ import annotations

import math


def number(value: float, digits: int = 4) -> str:
    """Return ``value`` with at most ``digits`` significant digits (integers whole), thousands grouped."""
    if not math.isfinite(value):
        return {math.inf: "∞", -math.inf: "−∞"}.get(value, "not a number")
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}".replace("-", "−")
    size = math.floor(math.log10(abs(value)))
    if size < -5 or size >= 15:
        return f"{value:.{digits - 1}e}".replace("-", "−")
    text = f"{value:,.{max(0, digits - 1 - size)}f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return text.replace("-", "−")


def count(value: float, unit: str) -> str:
    """Return a number of things: ``1 row``, ``2 rows``."""
    return f"{number(value)} {unit}{'' if value == 1 else 's'}"


def size(amount: float) -> str:
    """Return a number of bytes in the unit that suits it, powers of 1,000 (B, kB, MB, GB, TB)."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(amount) < 999.5:
            return f"{number(amount, 3)} {unit}"
        amount /= 1000
    return f"{number(amount, 3)} TB"


def duration(seconds: float) -> str:
    """Return a time span in the two units that suit it."""
    if not math.isfinite(seconds):
        return "unknown"
    if seconds < 9.95:
        return f"{number(seconds, 2)} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
