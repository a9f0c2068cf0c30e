"""Check digits: the Iranian national id, bank cards (Luhn), IBAN (modulo 97); and digits of all scripts."""

from __future__ import annotations

_ZEROS = "0۰٠０"  # ASCII, Persian, Arabic, full width
# To one form, character by character, so that positions stay.
DIGITS = str.maketrans({chr(ord(zero) + digit): str(digit) for zero in _ZEROS for digit in range(10)})
MARKS = str.maketrans(
    dict.fromkeys("\u00a0\u2007\u202f\u200e\u200f\u200b\ufeff", " ") | dict.fromkeys("‐‑‒–—−", "-")
)


def digits_of(text: str) -> str:
    """Return the digits of a text, in ASCII."""
    return "".join(c for c in text.translate(DIGITS) if c in "0123456789")


def like_digits(digits: str, pattern: str) -> str:
    """Write ``digits`` in the places and scripts of the digits of ``pattern``, which has as many."""
    left = iter(digits)
    return "".join(
        chr(ord(c) - int(c.translate(DIGITS)) + int(next(left))) if c.translate(DIGITS) in "0123456789" else c
        for c in pattern
    )


def luhn(digits: str) -> bool:
    """Say whether a number passes the Luhn check (ISO/IEC 7812-1, annex B)."""
    doubled = [int(d) * (1 + place % 2) for place, d in enumerate(reversed(digits))]
    return bool(digits) and sum(d - 9 * (d > 9) for d in doubled) % 10 == 0


def luhn_digit(digits: str) -> str:
    """Return the digit that makes ``digits`` pass the Luhn check."""
    return next(d for d in "0123456789" if luhn(digits + d))


def iban(text: str) -> bool:
    """Say whether an IBAN (without spaces) passes its check (ISO 13616: modulo 97 is 1)."""
    if not (text.isascii() and text.isalnum() and len(text) > 4 and text[2:4].isdigit()):
        return False
    return 2 <= int(text[2:4]) <= 98 and _mod97(text[4:] + text[:4]) == 1


def iban_check(country: str, rest: str) -> str:
    """Return the two check digits of an IBAN."""
    return f"{98 - _mod97(rest + country + '00'):02d}"


def _mod97(text: str) -> int:
    return int("".join(str(int(c, 36)) for c in text)) % 97


def national_id(digits: str) -> bool:
    """Say whether ten digits are an Iranian national id by its check digit (weights 10 to 2, modulo 11)."""
    return (
        len(digits) == 10
        and len(set(digits)) > 1
        and digits[3:9] != "000000"
        and digits[9] == national_id_digit(digits[:9])
    )


def national_id_digit(digits: str) -> str:
    """Return the check digit of the first nine digits of an Iranian national id."""
    rest = sum(int(d) * weight for d, weight in zip(digits, range(10, 1, -1), strict=True)) % 11
    return str(rest if rest < 2 else 11 - rest)
