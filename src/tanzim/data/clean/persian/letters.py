"""Letters: look-alikes, presentation forms, digits, diacritics, kashida.

Unicode's names: U+064A ARABIC YEH ي and U+0643 ARABIC KAF ك are Arabic's, U+06CC FARSI YEH ی and U+06A9
KEHEH ک Persian's; presentation forms (U+FB50–U+FDFF, U+FE70–U+FEFC) are letters coded by their shape, and
what PDF files are often made of; kashida (tatweel, U+0640) only stretches a word.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Literal

from tanzim.data.clean.persian.script import LETTERS, MARKS, ZWNJ, has_forms

Digits = Literal["keep", "unify", "persian", "latin", "arabic"]
Diacritics = Literal["keep", "vowels", "remove"]

# One letter for one letter: reading does not change. ة, أ, إ, ؤ, ئ are spelling, and stay.
LOOK_ALIKES = {
    "ي": "ی", "ى": "ی", "ې": "ی", "ۍ": "ی", "ے": "ی",
    "ك": "ک", "ڪ": "ک", "ﮎ": "ک",
    "ہ": "ه", "ھ": "ه", "ە": "ه", "ۂ": "ۀ", "ۃ": "ة",
    "ٱ": "ا", "ٲ": "أ", "ٳ": "إ",
}  # fmt: skip
_PERSIAN_DIGITS, _ARABIC_DIGITS, _LATIN_DIGITS = "۰۱۲۳۴۵۶۷۸۹", "٠١٢٣٤٥٦٧٨٩", "0123456789"
# Words written as one sign keep their sign: rial, blessings, basmala.
_SIGNS = range(0xFDFA, 0xFE00)
# Letters that do not join the next one: after them a half-space is not seen.
NON_JOINING = frozenset("اآأإٱدذرزژوؤةء")


def _forms() -> dict[int, str]:
    table: dict[int, str] = {}
    for code in (*range(0xFB50, 0xFE00), *range(0xFE70, 0xFEFD)):
        plain = unicodedata.normalize("NFKC", chr(code))
        if code in _SIGNS or plain == chr(code) or code in (0xFD3E, 0xFD3F):
            continue
        # A mark on a space or a kashida is the mark, for use on a letter.
        table[code] = plain.lstrip(" ـ") if len(plain) > 1 and plain[0] in " ـ" else plain
    return table


_FORM_TABLE = _forms()


def shaped(*shapes: Literal["INITIAL", "FINAL", "ISOLATED"]) -> str:
    """Return the letters that are coded in one of the shapes."""
    names = tuple(f"{shape} FORM" for shape in shapes)
    return "".join(chr(code) for code in _FORM_TABLE if unicodedata.name(chr(code)).endswith(names))


def _last(form: str) -> str:
    return _FORM_TABLE[ord(form)][-1]


# Letters that would join the next one, in the shape that does not; and those that begin what follows.
_ENDS = "".join(
    form
    for form in shaped("FINAL", "ISOLATED")
    if _last(form) not in NON_JOINING and not unicodedata.combining(_last(form))
)
_BEGINS = "".join(form for form in shaped("INITIAL", "ISOLATED") if not unicodedata.combining(_last(form)))
_HIDDEN_HALF_SPACE = re.compile(f"(?<=[{_ENDS}])(?=[{_BEGINS}])")

_KASHIDA = re.compile(
    f"(?<=[{LETTERS}{MARKS}])ـ+(?=[{MARKS}]*[{LETTERS}])|(?<=[{LETTERS}{MARKS}])ــ+|(?<!ـ)ـ+(?=[{LETTERS}])"
)
_VOWELS = re.compile("[\u064c-\u0650\u0652\u0656-\u065f\u0670]")
_ALL_MARKS = re.compile("[\u064b-\u0652\u0656-\u065f\u0670]")
_WORD = re.compile(f"[{LETTERS}{MARKS}\u06d6-\u06edـ]+")
_QURANIC = re.compile("[\u06d6-\u06ed\u0671]")
_HARAKAT = re.compile("[\u064b-\u0652\u0670]")
_DENSE = re.compile(
    f"[\u064b-\u0652\u0670\u06d6-\u06ed\u0671](?:(?<={_QURANIC.pattern})|[{LETTERS}]{{0,2}}{_HARAKAT.pattern})"
)


def shapes_to_letters(text: str) -> str:
    """Return a text with presentation forms as ordinary letters.

    Where a word goes on after a letter in its final shape, the typesetter had a half-space: it comes back.
    """
    if not has_forms(text):
        return text
    return _HIDDEN_HALF_SPACE.sub(ZWNJ, text).translate(_FORM_TABLE)


def _digit_pairs(policy: Digits) -> dict[str, str]:
    to = {"persian": _PERSIAN_DIGITS, "latin": _LATIN_DIGITS, "arabic": _ARABIC_DIGITS}
    if policy == "keep":
        return {}
    if policy == "unify":
        return dict(zip(_ARABIC_DIGITS, _PERSIAN_DIGITS, strict=True))
    return {
        digit: to[policy][value]
        for digits in (_PERSIAN_DIGITS, _ARABIC_DIGITS, _LATIN_DIGITS)
        for value, digit in enumerate(digits)
        if digits != to[policy]
    }


def letter_pairs(look_alikes: bool, digits: Digits) -> dict[str, str]:
    """Return which letters and digits become which; none of those that come out is one that goes in."""
    return {**(LOOK_ALIKES if look_alikes else {}), **_digit_pairs(digits)}


def replaced(text: str, pairs: dict[str, str]) -> str:
    """Return a text with the letters of ``pairs`` replaced: twenty times as quick as `str.translate`."""
    for old, new in pairs.items():
        if old in text:
            text = text.replace(old, new)
    return text


def marked(text: str) -> list[tuple[int, int]]:
    """Return the parts (start, end) that are Quranic or fully vowelled: their marks are part of the text.

    A part is a run of three words or more that have, on the average, a vowel sign on each third letter or
    more densely, or a word with a sign that only the Quran has.
    """
    if not _DENSE.search(text):
        return []
    found: list[tuple[int, int]] = []
    run: list[re.Match[str]] = []
    for word in _WORD.finditer(text):
        marks = len(_HARAKAT.findall(word[0]))
        dense = 3 * marks >= len(word[0]) - marks or _QURANIC.search(word[0]) is not None
        if dense and run and text[run[-1].end() : word.start()].strip(" \u200c"):
            _close(run, found)
            run = []
        if dense:
            run.append(word)
        else:
            _close(run, found)
            run = []
    _close(run, found)
    return found


def _close(run: list[re.Match[str]], found: list[tuple[int, int]]) -> None:
    if len(run) >= 3 or any(_QURANIC.search(word[0]) for word in run):
        found.append((run[0].start(), run[-1].end()))


def without_marks(text: str, policy: Diacritics) -> str:
    """Return a text without vowel signs.

    Args:
        text: the text; parts to be left alone are no longer in it.
        policy: vowels leaves ً (لطفاً) and ّ, which are spelling; remove takes all but the hamza of هٔ.

    """
    if policy == "keep":
        return text
    return (_VOWELS if policy == "vowels" else _ALL_MARKS).sub("", text)


def without_kashida(text: str) -> str:
    """Return a text without the strokes that stretch words; one that stands alone is a dash, and stays."""
    return _KASHIDA.sub("", text) if "ـ" in text else text
