"""Text that was decoded in a wrong encoding on its way here (mojibake), as it was before.

`ftfy` undoes UTF-8 read as a Western, Cyrillic or Greek encoding (Speer, 2019). It does not know what befell
much Persian text: UTF-8 read as Windows-1256 («ط³ظ„ط§ظ…» for «سلام»), and Windows-1256 read as
Windows-1252 («ÓáÇã»). Both are undone here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

from tanzim.core.optional import need
from tanzim.core.records import Example
from tanzim.data.clean.config import RepairTextConfig
from tanzim.data.step import Outcome, Removed, Step
from tanzim.data.texts import rewrite

_LOST = "\ufffd"
_TIMES = 3  # text that was garbled twice or thrice is repaired as often
_1256 = bytes(range(256)).decode("cp1256")


def _class(first: int, last: int) -> str:
    return f"[{re.escape(_1256[first : last + 1])}]"


# UTF-8 as Windows-1256 shows it: one character of a first byte, then one for each of the other bytes.
_NEXT = _class(0x80, 0xBF)
_UNIT = f"(?:{_class(0xC2, 0xDF)}{_NEXT}|{_class(0xE1, 0xEF)}{_NEXT}{{2}}|{_class(0xF0, 0xF4)}{_NEXT}{{3}})"
_RUN = re.compile(f"{_UNIT}(?:[ -@\\[-`{{-~]*{_UNIT})*")
_UNITS = re.compile(_UNIT)
# What no text of any language holds: â€ and one more (quotes, dashes), أ or آ and a sign (Western letters).
_CLEAR = re.compile("â€[^ -~]|â‚¬|ï؟½|أ[ƒ„†‡ˆ‰‹Œ™›œ¢-©«®-¹¼-¾]|آ[£©®°±²³µ·¹¼-¾]")
_PERSIAN_UNIT = re.compile(f"{_class(0xD8, 0xDB)}{_NEXT}")
# Windows-1256 as Windows-1252 shows it: letters nearly all beyond ASCII, as no Western language writes.
_BEYOND = "À-ÿŒœŠšŽžŸƒ\x80-\xbf€‚„…†‡ˆ‰‹‘’“”•–—˜™›"
_WESTERN = re.compile(f"[{_BEYOND}](?:[ -@\\[-`{{-~]*[{_BEYOND}])+")
_UTF8 = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_ARABIC = re.compile("[\u0621-\u064a\u067e\u0686\u0698\u06a9\u06af\u06ba\u06be\u06d2]")
_FREQUENT = re.compile("[ايىرندهمتوبسشکكل]")


def repair_text(text: str, counts: Counter[str] | None = None) -> str:
    """Return a text with what was decoded in a wrong encoding repaired, line by line. Idempotent.

    Args:
        text: any text.
        counts: what was found is added here: lines by what had happened to them.

    Raises:
        MissingExtra: `ftfy` is not installed.

    """
    if text.isascii():
        return text
    found: Counter[str] = Counter() if counts is None else counts
    return "\n".join(line if line.isascii() else _line(line, found) for line in text.split("\n"))


def _line(line: str, counts: Counter[str]) -> str:
    need("ftfy", "data")  # it also brings the codec sloppy-windows-1252
    for _ in range(_TIMES):
        before = line
        for name, change in _WAYS:
            changed = change(line)
            if changed != line:
                counts[name] += 1
                line = changed
                break
        if line == before:
            break
    return line


def _western(line: str) -> str:
    """Undo UTF-8 read as one of ftfy's encodings; nothing but encodings is touched."""
    ftfy = need("ftfy", "data")
    config = ftfy.TextFixerConfig(fix_c1_controls=False)
    repaired: str = ftfy.fix_encoding(line, config)
    return repaired


def _utf8_as_1256(line: str) -> str:
    def decode(match: re.Match[str]) -> str:
        run = match[0]
        units = _UNITS.findall(run)
        persian = sum(bool(_PERSIAN_UNIT.fullmatch(unit)) for unit in units)
        signs = sum(not unit[-1].isalpha() for unit in units)
        if persian < 2 or persian < 0.5 * len(units) or signs < 0.3 * len(units):
            return run
        return _decoded(run, "cp1256", "utf-8")

    return _RUN.sub(decode, line)


def _signs_as_1256(line: str) -> str:
    return _CLEAR.sub(lambda one: _decoded(one[0], "cp1256", "utf-8"), line)


def _decoded(text: str, wrong: str, right: str) -> str:
    """Return a text that was decoded as ``wrong`` as it is in ``right``; as it came if it cannot be."""
    try:
        return text.encode(wrong).decode(right)
    except UnicodeError:
        return text


def _looks_like_utf8(line: str) -> bool:
    """Tell whether most bytes beyond ASCII make characters of UTF-8."""
    data = line.encode("sloppy-windows-1252", "ignore")
    whole = sum(len(unit) for unit in _UTF8.findall(data))
    return whole > 0.6 * sum(byte >= 0x80 for byte in data)


def _1256_as_1252(line: str) -> str:
    def decode(match: re.Match[str]) -> str:
        run = match[0]
        text = _decoded(run, "sloppy-windows-1252", "cp1256")
        letters = [character for character in text if character.isalpha()]
        arabic = len(_ARABIC.findall(text))
        usual = len(_FREQUENT.findall(text))
        sure = arabic >= 4 and arabic >= 0.9 * len(letters) and usual >= 0.6 * arabic
        return text if sure else run

    return line if _looks_like_utf8(line) else _WESTERN.sub(decode, line)


# In this order: what is sure first.
_WAYS = (
    ("UTF-8 read as Windows-1256 (lines)", _utf8_as_1256),
    ("Windows-1256 read as Windows-1252 (lines)", _1256_as_1252),
    ("UTF-8 read as Windows-1252 or the like (lines)", _western),
    ("UTF-8 read as Windows-1256 (lines)", _signs_as_1256),
)


class RepairText(Step[RepairTextConfig]):
    """Repair texts that were decoded in a wrong encoding; tool calls and tagged words stay as they are."""

    def apply(self, examples: Iterable[Example]) -> Iterator[Outcome]:
        """Yield each example, or its removal where letters are lost for good."""
        from ftfy.badness import badness

        lost = 0

        def repair(text: str) -> str:
            nonlocal lost
            if text.isascii():
                return text
            repaired = repair_text(text, self.counts)
            self.counts["texts repaired"] += repaired != text
            self.counts["signs of wrong decoding before"] += badness(text)
            self.counts["signs of wrong decoding after"] += badness(repaired)
            self.counts["lost characters (U+FFFD) left"] += repaired.count(_LOST)
            lost += repaired.count(_LOST)
            return repaired

        need("ftfy", "data")
        for example in examples:
            lost = 0
            repaired = rewrite(example, repair)
            if lost and self.config.lost == "drop":
                yield Removed(example, "letters are lost (U+FFFD)", f"{lost} of them")
            else:
                yield repaired
