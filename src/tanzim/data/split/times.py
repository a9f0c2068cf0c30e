"""Times as they stand in data, as seconds: ISO 8601, slashes, Persian digits, Jalali years, Unix time."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, timezone

_DIGITS = str.maketrans("۰۱۲۳۴۵۶۷۸۹٠١٢٣٤٥٦٧٨٩", "01234567890123456789")
_TIME = re.compile(
    r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})"
    r"(?:[T ,]+(\d{1,2}):(\d{2})(?::(\d{2})(?:[.,](\d{1,9}))?)?\s*(Z|UTC|[+-]\d{2}:?\d{2})?)?"
)
_COMPACT = re.compile(r"(\d{4})(\d{2})(\d{2})")
_JALALI = range(1200, 1500)  # years of the Iranian calendar; as Gregorian ones nothing is dated so
_LEAP = frozenset({1, 5, 9, 13, 17, 22, 26, 30})  # remainders by 33 of its leap years, 1178 to 1633
_MILLI = 1e11  # a larger Unix time counts milliseconds: as seconds it would be after the year 5000


def seconds(value: object) -> float:
    """Return a time as seconds since 1970-01-01 UTC; one without a zone is taken as UTC.

    Args:
        value: a date or a time as text or `datetime`, or Unix time as a number or its text.

    Raises:
        ValueError: it is none of these.

    """
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp()
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _unix(float(value))
    if not isinstance(value, str):
        raise ValueError("neither a date nor a number")
    text = value.strip().translate(_DIGITS)
    if match := _COMPACT.fullmatch(text):
        return _day(*map(int, match.groups())).timestamp()
    if re.fullmatch(r"-?\d+(\.\d+)?", text):
        return _unix(float(text))
    match = _TIME.fullmatch(text)
    if not match:
        raise ValueError("not a date such as 2024-03-20, 2024-03-20T18:30:00Z or ۱۴۰۳/۰۱/۰۱")
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    if hour > 23 or minute > 59 or second > 60:
        raise ValueError(f"there is no time {hour}:{minute:02}:{second:02}")
    part = float(f"0.{match[7] or 0}")
    moment = _day(year, month, day).replace(tzinfo=_zone(match[8]))
    return (moment + timedelta(hours=hour, minutes=minute, seconds=second)).timestamp() + part


def _unix(value: float) -> float:
    if not abs(value) < 1e15:
        raise ValueError("not a Unix time")
    return value / 1000 if abs(value) > _MILLI else value


def _zone(text: str | None) -> timezone:
    if text in (None, "Z", "UTC"):
        return UTC
    assert text
    size = timedelta(hours=int(text[1:3]), minutes=int(text[-2:]))
    return timezone(size if text[0] == "+" else -size)


def _day(year: int, month: int, day: int) -> datetime:
    """Return the beginning of a day, of the Gregorian or the Iranian calendar by its year."""
    if year not in _JALALI:
        return datetime(year, month, day, tzinfo=UTC)
    days = 31 if month <= 6 else 30 if month <= 11 else 29 + (year % 33 in _LEAP)
    if not (1 <= month <= 12 and 1 <= day <= days):
        raise ValueError(f"there is no day {year}/{month}/{day}")
    start = datetime(2021, 3, 21, tzinfo=UTC)  # 1400/01/01
    years = range(1400, year) if year >= 1400 else range(year, 1400)
    length = sum(365 + (one % 33 in _LEAP) for one in years)
    within = min(month - 1, 6) * 31 + max(0, month - 7) * 30 + day - 1
    return start + timedelta(days=(length if year >= 1400 else -length) + within)
