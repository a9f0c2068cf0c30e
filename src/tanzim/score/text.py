"""Text as scores compare it: letters unified, invisible signs left out, words, numbers, scripts.

Unicode names: ZWNJ (U+200C) is the half-space of Persian, kashida (U+0640) only stretches a word.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal

# Keyboards write the same Persian letter with different code points.
_LETTERS = {"ي": "ی", "ى": "ی", "ك": "ک"} | {chr(0x660 + i): chr(0x6F0 + i) for i in range(10)}
# What no reader sees: kashida, zero-width joiners and spaces, direction marks, byte order mark.
_INVISIBLE = "ـ\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff"
_UNIFY = str.maketrans(_LETTERS | dict.fromkeys(_INVISIBLE, ""))
_TO_ASCII = str.maketrans({chr(0x6F0 + i): str(i) for i in range(10)} | {"٫": ".", "٬": ",", "−": "-"})
_NUMBER = re.compile(r"(?<![\w.)])-?\d+(?:,\d{3})*(?:\.\d+)?|\d+(?:,\d{3})*(?:\.\d+)?")
_UNSPACED = re.compile(r"([\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff])")
_THOUGHT = re.compile(r"^.*</think>", re.DOTALL)
_SCRIPTS = ("LATIN", "ARABIC", "CYRILLIC", "GREEK", "HEBREW", "DEVANAGARI", "CJK", "HIRAGANA", "KATAKANA",
            "HANGUL", "THAI", "ARMENIAN", "GEORGIAN", "BENGALI", "TAMIL")  # fmt: skip


def normalise(text: str) -> str:
    """Return ``text`` as exact match compares it.

    NFC; Arabic ي, ى, ك and digits as their Persian twins; kashida, ZWNJ and other invisible signs
    left out (so می‌رود equals میرود: writers leave the half-space out, readers do not see it; a full
    space still differs); runs of white space as one space. Case, punctuation and the difference of
    Persian and Latin digits stay. Saved answers are never changed, only compared this way.
    """
    unified = unicodedata.normalize("NFC", text).translate(_UNIFY)
    return " ".join(unicodedata.normalize("NFC", unified).split())


def visible(answer: str) -> str:
    """Return the part of an answer after its thinking (``</think>``), if it has one."""
    return _THOUGHT.sub("", answer).strip()


def words(text: str) -> list[str]:
    """Split ``text`` into lower-case words of letters, marks and digits of any script.

    Scripts that write no spaces (Han, kana) are split into letters.
    """
    kept = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in normalise(text).lower())
    return _UNSPACED.sub(r" \1 ", kept).split()


def final_number(text: str) -> Decimal | None:
    """Return the number an answer ends with: the first after the last ``####``, else its last one.

    Latin, Persian and Arabic digits, thousands separators, decimal points; None if there is none.
    """
    plain = normalise(text).translate(_TO_ASCII)
    _, mark, after = plain.rpartition("####")
    found = _NUMBER.findall(after)
    if mark and found:
        return Decimal(found[0].replace(",", ""))
    found = _NUMBER.findall(plain)
    return Decimal(found[-1].replace(",", "")) if found else None


def script(text: str) -> str:
    """Name the script most letters of ``text`` are in: Latin, Arabic, Cyrillic… ("none" without letters)."""
    counts: Counter[str] = Counter()
    for letter in text:
        if letter.isalpha():
            name = unicodedata.name(letter, "").split(" ")[0].split("-")[0]
            counts[name if name in _SCRIPTS else "OTHER"] += 1
    if not counts:
        return "none"
    name = counts.most_common(1)[0][0]
    return name if name == "CJK" else name.capitalize()


def scripts(texts: Sequence[str]) -> list[str]:
    """Name the script of each text, by what is its own: what all texts begin and end with is left out.

    An English instruction around each Persian text must not make the texts English.
    """
    head = _shared(texts)
    tail = _shared([text[head:][::-1] for text in texts])
    own = [text[head : len(text) - tail] for text in texts]
    named = [script(text) for text in own]
    return [script(whole) if name == "none" else name for name, whole in zip(named, texts, strict=True)]


def _shared(texts: Sequence[str]) -> int:
    """Count the letters that all ``texts`` begin with (the first and last in order differ earliest)."""
    first, last = min(texts, default=""), max(texts, default="")
    return next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
