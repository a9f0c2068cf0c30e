"""The encoding of bytes that are neither UTF-8 nor marked: named when it is sure, else refused.

`charset-normalizer` proposes; its proposal holds only if the encoding is in wide use, and if the letters
that the bytes then are stand where such letters can stand. In a wrong encoding they do not: a curly quote
becomes a capital within a word (donÕt), a letter becomes a sign between letters (caf‚).
"""

from __future__ import annotations

import re
import unicodedata

from tanzim.core.optional import need

_WIDE = ("utf_16", "utf_16_le", "utf_16_be", "utf_32", "utf_32_le", "utf_32_be")
# Encodings that text files are found in. Code pages of DOS and terminals are not: what looks like one of
# them is mostly something else.
_USED = frozenset(
    [
        *_WIDE, *(f"cp125{n}" for n in range(9)), *(f"iso8859_{n}" for n in range(1, 17)),
        "latin_1", "mac_roman", "mac_cyrillic", "koi8_r", "koi8_u", "cp874", "tis_620", "cp932", "shift_jis",
        "euc_jp", "iso2022_jp", "gb18030", "gbk", "gb2312", "hz", "big5", "cp950", "cp949", "euc_kr", "johab",
    ]
)  # fmt: skip
_ALEF = re.compile("[اآأإ]")  # the commonest letter of Persian and Arabic
_SAMPLE = 1 << 16
_SURE = 0.9  # of the letters and signs beyond ASCII must stand well
_OPENING, _CLOSING = "“‘«„‚¿¡", "”’»"
_SIGNS = ("Pd", "Pi", "Pf", "Po", "Zs", "Nd", "No", "Sc", "Sm", "So", "Cf")


def detect_encoding(sample: bytes) -> str | None:
    """Return the encoding of a text, or None if it cannot be told.

    Args:
        sample: the beginning of the text; not valid UTF-8.

    Raises:
        MissingExtra: `charset-normalizer` is not installed.

    """
    normalizer = need("charset_normalizer", "data")
    sample = sample[:_SAMPLE]
    best = normalizer.from_bytes(sample).best()
    # Half-spaces are noise to the library: Persian text full of them is looked for here.
    names = [best.encoding] if best is not None and best.encoding in _USED else []
    for name in (*names, "cp1256"):
        text = sample.decode(name, errors="replace")
        if name == "cp1256" and len(_ALEF.findall(text)) < 0.05 * sum(byte >= 0x80 for byte in sample):
            continue
        if well_placed(text) >= _SURE:
            return str(name.replace("_", "-") if name in _WIDE else name)
    return None


def well_placed(text: str) -> float:
    """Return the share of the characters beyond ASCII that stand where they can, from 0 to 1 (1 for none).

    A letter stands by a letter of its own script, a capital not behind a small letter; a quotation mark
    at the edge of a word; controls and unassigned characters nowhere.
    """
    good = total = 0
    padded = f" {text} "
    for at, character in enumerate(padded):
        if character < "\x80":
            continue
        total += 1
        good += _stands(padded[at - 1], character, padded[at + 1])
    return good / total if total else 1.0


def _stands(before: str, character: str, after: str) -> bool:
    category = unicodedata.category(character)
    if category[0] == "L" and category != "Lm":
        latin = _is_latin(character)
        kin = [other for other in (before, after) if other.isalpha()]
        late = category == "Lu" and before.islower()
        return not late and all(_is_latin(other) == latin for other in kin) and (bool(kin) or not latin)
    if category[0] == "M":
        return before.isalpha() or unicodedata.category(before)[0] == "M"
    if character in _OPENING:
        return not before.isalnum()
    if character in _CLOSING:
        return not after.isalpha() or (character == "’" and before.isalnum())
    within = before.isalpha() and after.isalpha()
    return category in _SIGNS and not (within and category[0] == "S")


def _is_latin(character: str) -> bool:
    return unicodedata.name(character, "").startswith("LATIN") if character >= "\x80" else True
