"""Numbers of people in Iran, in digits of any script: ids, telephones, accounts, cards, post codes.

A bare run of digits says little, so each needs its check digits, its prefix, or a word before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tanzim.data.screen.checks import DIGITS, MARKS, digits_of, iban, luhn, national_id
from tanzim.data.screen.found import Found

ENTITIES = ("IR_NATIONAL_ID", "IR_MOBILE", "IR_LANDLINE", "IR_SHEBA", "IR_CARD", "IR_POSTAL_CODE")
_BEFORE = 40  # characters before a number in which a word says what it is
_LETTERS = str.maketrans({"ي": "ی", "ك": "ک", "\u200c": " "})

# First six digits of the cards that Iran's banks give out.
_BANKS = frozenset(
    str.split(
        "603799 589210 627648 207177 627961 603770 639217 628023 627760 502908 627412 622106 627884 639194 "
        "502229 639347 627488 502910 621986 639346 639607 636214 502806 504706 502938 603769 610433 991975 "
        "627353 585983 589463 627381 639370 639599 505785 505416 636949 505801 606373 628157 507677 505809 "
        "606256 585947 636795 581874 170019"
    )
)
_AREAS = "11|13|17|21|23|24|25|26|28|31|34|35|38|41|44|45|51|54|56|58|61|66|71|74|76|77|81|83|84|86|87"

_MOBILE = re.compile(r"(?<![\d+])(?:(?:\+|00)?98[ .-]?(?:\(0\)|0)?[ .-]?|0)?9[0-49](?:[ .-]?\d){8}(?!\d)")
_LANDLINE = re.compile(
    rf"(?<![\d+])\(?(?:(?:\+|00)98[ .-]?\(?0?|0)(?:{_AREAS})\)?[ ./-]{{0,2}}[2-9]\d{{3}}[ .-]?\d{{4}}(?!\d)"
)
_LOCAL = re.compile(r"(?<![\d+])[2-9]\d{3}[ -]?\d{4}(?!\d)")
_SHEBA = re.compile(r"(?<![A-Za-z0-9])(?:IR[ -]?)?\d{2}(?:[ -]?\d){22}(?!\d)", re.IGNORECASE)
_CARD = re.compile(r"(?<!\d)(?:\d{16}|(?:\d{4}[ -]+){3}\d{4})(?![\d]|[ -]\d{4}(?!\d))")
_NATIONAL = re.compile(r"(?<![\d+])(?:\d{3}-\d{6}-\d|\d{8,10})(?!\d)")
_POSTAL = re.compile(r"(?<![\d+])[13-9]{4}[1346-9][ -]?\d{5}(?!\d)")

_SAYS_NATIONAL = re.compile(r"(?:کد|شماره|کارت) ?ملی|national (?:id|code|number|card)|\bmelli\b")
SAYS_OTHER = re.compile(
    r"سفارش|فاکتور|پیگیری|رهگیری|مرسوله|قرارداد|سریال|بارکد|شناسه|شابک|ثبت|order|invoice|track|ticket|"
    r"serial|isbn|barcode|sku|timestamp|reference|receipt|version|model|part"
)
SAYS_PHONE = re.compile(
    r"موبایل|همراه|تماس|تلفن|تلگرام|واتس|mobile|cell|phone|call|whatsapp|telegram|\btel\b"
)
_SAYS_LANDLINE = re.compile(r"(?:تلفن|ثابت|phone|\btel\b)[^\d]{0,12}$")
_SAYS_SHEBA = re.compile(r"شبا|sheba|shaba|iban")
_SAYS_POSTAL = re.compile(r"کد ?پستی|postal|post ?code|\bzip\b")


def find_iranian(text: str) -> list[Found]:
    """Return the numbers of people in Iran that stand in a text (they may overlap).

    Args:
        text: with digits of any script.

    """
    plain = text.translate(DIGITS).translate(MARKS)
    return list(_find(plain, plain.translate(_LETTERS).lower()))


def _find(plain: str, words: str) -> Iterator[Found]:
    for match in _SHEBA.finditer(plain):
        digits = digits_of(match[0])
        named = match[0][:2].upper() == "IR" or before(_SAYS_SHEBA, words, match.start())
        if named and iban(f"IR{digits}"):
            yield Found(*match.span(), "IR_SHEBA", 1.0)
    for match in _CARD.finditer(plain):
        digits = digits_of(match[0])
        if digits[:6] in _BANKS and luhn(digits):
            yield Found(*match.span(), "IR_CARD", 1.0)
    for match in _MOBILE.finditer(plain):
        if match[0][0] != "9" or len(digits_of(match[0])) == 12:
            yield Found(*match.span(), "IR_MOBILE", 0.95)
        elif before(SAYS_PHONE, words, match.start()):
            yield Found(*match.span(), "IR_MOBILE", 0.7)
    for match in _LANDLINE.finditer(plain):
        yield Found(*match.span(), "IR_LANDLINE", 0.85)
    for match in _LOCAL.finditer(plain):
        if before(_SAYS_LANDLINE, words, match.start()):
            yield Found(*match.span(), "IR_LANDLINE", 0.6)
    for match in _POSTAL.finditer(plain):
        if before(_SAYS_POSTAL, words, match.start()):
            yield Found(*match.span(), "IR_POSTAL_CODE", 0.92)
    yield from _national(plain, words)


def _national(plain: str, words: str) -> Iterator[Found]:
    for match in _NATIONAL.finditer(plain):
        digits = digits_of(match[0])
        if not national_id(digits.zfill(10)):
            continue
        named, other = before(_SAYS_NATIONAL, words, match.start()), before(SAYS_OTHER, words, match.start())
        if named and named >= other:
            yield Found(*match.span(), "IR_NATIONAL_ID", 1.0)
        elif len(digits) == 10 and not other:
            # One in eleven numbers of ten digits passes the check: without a word this is a guess.
            yield Found(*match.span(), "IR_NATIONAL_ID", 0.5)


def before(pattern: re.Pattern[str], words: str, start: int) -> int:
    """Return how near a word stands before a number: 0 if none does, the more the nearer.

    Args:
        pattern: the words.
        words: the text in small letters.
        start: where the number begins.

    """
    window = words[max(0, start - _BEFORE) : start]
    return max((found.end() for found in pattern.finditer(window)), default=0)
