"""Another of its kind in the place of each piece of personal data: the same one for the same one, everywhere.

What stands in the place follows from HMAC-SHA-256 under a secret key, word by word or digit by digit, so that
"John Smith" and "Smith" go together, and that nobody without the key can try out names. Names are made of
syllables and belong to nobody; addresses lie in reserved ranges (RFC 2606, 5737, 3849); numbers keep their
length, their separators and their check digits, and may by chance be somebody's, though not this person's.
"""

from __future__ import annotations

import hmac
import itertools
import re
import string
import unicodedata
from collections.abc import Callable

from tanzim.data.screen.checks import (
    DIGITS,
    digits_of,
    iban_check,
    like_digits,
    luhn_digit,
    national_id,
    national_id_digit,
)

_LATIN = (
    str.split(
        "bal bren cal cor dal dar del dor eld fal fen gar gil hal har kel ker lan lor mal mar mel "
        "nor ol or pel quin ral ren ros sal sel tal tam tor ul val ver wen yar"
    ),
    str.split("a e i o u ae ea ia io oa"),
    str.split(
        "bert brook by dale den dine ford gan ham ker land ley lin low man mer mont ner nick ran "
        "ric rin ros ry sen sey son stead ston tan ter ton tow ven vin wall ward wick win worth"
    ),
)
_PERSIAN = (
    str.split(
        "آبا آذر آرا آفر ارد بام برز بهر پار پرن تار تیر جان خر دار رام روش زر ژیر سام سپه شاد "
        "شیر فر کار کام گر مان مهر نار ناز نیک هور هیر ورد یار"
    ),
    str.split("ا ی و ین ان ند ور یم یس"),
    str.split(
        "آسا باد بان بخش پناه پور تاش جو چهر خواه داد دخت راد زاد زاده سار فر فام گر مند منش نیا "
        "نژاد ور وند یار"
    ),
)
_FOLD = str.maketrans({"ي": "ی", "ك": "ک", "\u200c": None, "ـ": None})
_WORD = re.compile(r"[^\W\d_]+(?:['’\u200c][^\W\d_]+)*")
_PARTICLES = frozenset(str.split("de del der van von da la le bin al ibn zu و"))


class Pseudonyms:
    """Makes pseudonyms under a key.

    Args:
        key: the secret; who has it can find out by trial who is meant.

    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._makers: dict[str, Callable[[str], str]] = {
            "EMAIL_ADDRESS": self._email,
            "PERSON": self._name,
            "LOCATION": self._name,
            "ORGANIZATION": self._name,
            "CREDIT_CARD": self._card,
            "IR_CARD": self._card,
            "IBAN_CODE": self._iban,
            "IR_SHEBA": self._sheba,
            "IR_NATIONAL_ID": self._national_id,
            "IR_MOBILE": lambda text: self._phone(text, 2),
            "IR_LANDLINE": lambda text: self._phone(text, 2),
            "PHONE_NUMBER": lambda text: self._phone(text, 3),
            "IP_ADDRESS": self._ip,
            "MAC_ADDRESS": self._mac,
        }

    def of(self, entity: str, text: str) -> str:
        """Return what stands in the place of ``text``.

        Args:
            entity: what it is, such as EMAIL_ADDRESS; one that has no form of its own keeps its letters'
                cases, its digits' scripts, and its separators.
            text: as it was written.

        """
        return self._makers.get(entity, self._alike)(text)

    def _number(self, kind: str, value: str) -> int:
        return int.from_bytes(hmac.digest(self._key, f"{kind}\0{value}".encode(), "sha256"), "big")

    def _digits(self, kind: str, value: str, count: int) -> str:
        return str(self._number(kind, value) % 10**count).zfill(count)

    def _word(self, word: str, *, latin: bool = False) -> str:
        """Return a word of syllables for a word, in its script (or Latin) and its case."""
        plain = unicodedata.normalize("NFKC", word).casefold().translate(_FOLD)
        number = self._number("word", plain)
        persian = not latin and any("\u0600" <= c <= "\u06ff" for c in plain)
        if len(plain) == 1 and not persian:
            return _cased(string.ascii_lowercase[number % 26], word)
        made = ""
        for syllables in _PERSIAN if persian else _LATIN:
            number, place = divmod(number, len(syllables))
            made += syllables[place]
        return made if persian else _cased(made, word)

    def _name(self, text: str) -> str:
        return _WORD.sub(lambda m: m[0] if m[0].lower() in _PARTICLES else self._word(m[0]), text)

    def _email(self, text: str) -> str:
        local, _, domain = text.lower().translate(DIGITS).rpartition("@")
        made = re.sub(r"[^\W\d_]+", lambda m: self._word(m[0], latin=True), local)
        made = re.sub(r"\d+", lambda m: self._digits("local", local + m[0], len(m[0])), made)
        return f"{made}@{self._word(domain, latin=True)}.example"

    def _phone(self, text: str, kept: int) -> str:
        """Change all digits but the country code and the first ``kept`` of the number within the country."""
        digits = digits_of(text)
        national = digits.removeprefix("0")[-10:]
        free = max(len(national) - kept, 1)
        return like_digits(digits[: len(digits) - free] + self._digits("phone", national, free), text)

    def _card(self, text: str) -> str:
        digits = digits_of(text)
        new = digits[:6] + self._digits("card", digits, len(digits) - 7)
        return like_digits(new + luhn_digit(new), text)

    def _sheba(self, text: str) -> str:
        digits = digits_of(text)
        rest = digits[2:5] + self._digits("sheba", digits, 19)
        return like_digits(iban_check("IR", rest) + rest, text)

    def _iban(self, text: str) -> str:
        plain = re.sub(r"[ -]", "", text).upper()
        country, rest = plain[:2], _alike(plain[4:], self._number("iban", plain))
        new = iter(country + iban_check(country, rest) + rest)
        return "".join(next(new) if c not in " -" else c for c in text)

    def _national_id(self, text: str) -> str:
        digits = digits_of(text)
        lost = 10 - len(digits)  # zeros that stood in front
        for attempt in itertools.count():
            nine = "0" * lost + self._digits(f"national id {attempt}", digits.zfill(10), 9 - lost)
            if national_id(made := nine + national_id_digit(nine)):
                return like_digits(made[lost:], text)
        raise AssertionError

    def _ip(self, text: str) -> str:
        number = self._number("ip", text.lower())
        if ":" in text:
            return "2001:db8::" + ":".join(f"{number >> shift & 0xFFFF:x}" for shift in (0, 16, 32))
        slash, mask = text.partition("/")[1:]
        return "10." + ".".join(str(number >> shift & 255) for shift in (0, 8, 16)) + slash + mask

    def _mac(self, text: str) -> str:
        plain = re.sub(r"[^0-9a-f]", "", text.lower())
        new = iter(f"02{self._number('mac', plain) % 16**10:010x}")  # 02: given out by no maker (IEEE 802)
        made = "".join(next(new) if c in string.hexdigits else c for c in text)
        return made.upper() if text == text.upper() else made

    def _alike(self, text: str) -> str:
        return _alike(text, self._number("other", text.translate(DIGITS).casefold()))


def _alike(text: str, number: int) -> str:
    """Return other digits for digits and other letters for letters, ``number`` choosing which."""
    made = []
    for c in text:
        digit = c.translate(DIGITS)
        if digit in string.digits:
            number, new = divmod(number, 10)
            made.append(like_digits(str(new), c))
        elif c.isascii() and c.isalpha():
            number, new = divmod(number, 26)
            made.append((string.ascii_uppercase if c.isupper() else string.ascii_lowercase)[new])
        else:
            made.append(c)
        if number < 1 << 32:  # long texts use a number up
            number = int.from_bytes(
                hmac.digest(str(number).encode(), str(len(made)).encode(), "sha256"), "big"
            )
    return "".join(made)


def _cased(made: str, like: str) -> str:
    if like.isupper():
        return made.upper()
    return made.capitalize() if like[:1].isupper() else made
