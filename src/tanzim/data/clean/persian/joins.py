"""Joins that PDF extraction breaks: reversed lines, paragraphs in lines, words cut or run together."""

from __future__ import annotations

import re
from statistics import quantiles

from tanzim.data.clean.persian.letters import NON_JOINING, shaped
from tanzim.data.clean.persian.lexicon import Lexicon
from tanzim.data.clean.persian.lists import STOP_WORDS
from tanzim.data.clean.persian.script import LETTERS, ZWNJ, has_forms, word_set

_L = f"[{LETTERS}]"
_COMMON = sorted(word_set("است که از این برای شده بود شود کرد یک باید کند دارد اند خود تا آن به شد را"))
_FORWARD = re.compile(f"(?<!{_L})(?:{'|'.join(_COMMON)})(?!{_L})")
_BACKWARD_WORDS = frozenset(word[::-1] for word in _COMMON)
_BACKWARD = re.compile(f"(?<!{_L})(?:{'|'.join(_BACKWARD_WORDS)})(?!{_L})")
_SIGN_BEFORE = re.compile(f"(?:^|\\s)[.،؛؟!:]+(?={_L})")
_SIGN_AFTER = re.compile(f"(?<={_L})[.،؛؟!:]+(?:\\s|$)")
# Latin words and numbers stand the right way round in a line that is otherwise reversed.
_LEFT_TO_RIGHT = re.compile(r"[0-9A-Za-z۰-۹٠-٩](?:[0-9A-Za-z۰-۹٠-٩ .,:/٫٬%@_+-]*[0-9A-Za-z۰-۹٠-٩])?")
_MIRROR = str.maketrans("()[]{}<>«»", ")(][}{><»«")
_NO_FORM = f"(?<![\ufb50-\ufdff\ufe70-\ufefc{LETTERS}])"
_INITIAL = re.compile(f"{_NO_FORM}[{shaped('INITIAL')}]")
_FINAL = re.compile(f"{_NO_FORM}[{shaped('FINAL')}]")
_WIDTH = range(35, 131)
_MARKUP = re.compile(r"\s*(?:[-*+#>|•●▪◦–—]|\d+[.)\-]|[۰-۹]+[.)\-]|```|~~~|:::|\||$)")
_CLOSED = re.compile(r"[:؟!|]\s*$|\s{2}$")
_PIECES = re.compile(f"(?<![{LETTERS}{ZWNJ}]){_L}+(?: {_L}+)+(?![{LETTERS}{ZWNJ}])")
_TOKEN = re.compile(f"(?<![{LETTERS}{ZWNJ}]){_L}{{5,}}(?![{LETTERS}{ZWNJ}])")
# Words that begin others (بازگردد, خودرو, پدربزرگ): what follows them belongs to them.
_BEGINS_WORDS = word_set("""
بر در باز فرا فرو سر خود هر دو چهار پدر مادر کار نظر چرا وا ور پر ابر دور زیر نا کرد سرما هزار نیرو
خدا را رود
""")
COMMON = 5  # times a word is seen before anything is put together to make it


def unreversed(text: str, words: list[str]) -> str:
    """Return a text whose lines were extracted in the order they are seen, right to left, in reading order.

    Told by the commonest words read backwards (تسا for است), or by final letter shapes that begin words.
    Where signs stand behind their words, only the letters of each word are in reverse. A line that would look
    as much in reverse when turned stays as it is.

    Args:
        text: the text.
        words: its runs of letters.

    """
    if _BACKWARD_WORDS.isdisjoint(words) and not has_forms(text):
        return text
    return "\n".join(map(_forwards, text.split("\n")))


def _forwards(line: str) -> str:
    if not _is_reversed(line):
        return line
    turned = _turned(line)
    return line if _is_reversed(turned) else turned


def _is_reversed(line: str) -> bool:
    backward = len(_BACKWARD.findall(line)) + len(_FINAL.findall(line))
    return backward >= 2 and backward > 3 * (len(_FORWARD.findall(line)) + len(_INITIAL.findall(line)))


def _turned(line: str) -> str:
    if len(_SIGN_AFTER.findall(line)) > len(_SIGN_BEFORE.findall(line)):
        return re.sub("[\u0600-\u06ff\ufb50-\ufdff\ufe70-\ufefc\u200c]+", _word_turned, line)
    whole = line[::-1].translate(_MIRROR)
    return _LEFT_TO_RIGHT.sub(lambda found: found[0][::-1], whole)


def _word_turned(found: re.Match[str]) -> str:
    word = found[0]
    bare = word.rstrip(".،؛؟!:")
    return bare[::-1] + word[len(bare) :]


def unwrapped(text: str) -> str:
    """Return a text whose paragraphs were cut into lines of one width with each paragraph in one line.

    A line break is taken for such a cut where the next line's first word would not have fitted, and only in
    texts where most breaks are such: verse, lists and tables keep theirs.
    """
    while (new := _unwrapped_once(text)) != text:
        text = new
    return text


def _unwrapped_once(text: str) -> str:
    lines = text.split("\n")
    lengths = [len(line.rstrip()) for line in lines if line.strip()]
    if len(lengths) < 4:
        return text
    width = int(quantiles(lengths, n=20)[18])
    if width not in _WIDTH:
        return text
    breaks = [i for i in range(len(lines) - 1) if lines[i].strip() and lines[i + 1].strip()]
    cuts = {i for i in breaks if _is_cut(lines[i].rstrip(), lines[i + 1], width)}
    if len(cuts) < 3 or 2 * len(cuts) < len(breaks):
        return text
    out: list[str] = []
    for i, line in enumerate(lines):
        if i - 1 in cuts:
            out[-1] = f"{out[-1].rstrip()} {line.lstrip()}"
        else:
            out.append(line)
    return "\n".join(out)


def _is_cut(line: str, following: str, width: int) -> bool:
    if _MARKUP.match(following) or _MARKUP.match(line) or _CLOSED.search(line):
        return False
    return len(line) + 1 + len(following.split(maxsplit=1)[0]) > 0.96 * width


class CutWords:
    """Puts words together that were cut by a space, and parts words that lost one, by a corpus's own words.

    Args:
        lexicon: the corpus; what it has seen is taken for a word.

    """

    def __init__(self, lexicon: Lexicon) -> None:
        self._words = lexicon.words
        self._known: dict[str, str] = {}

    def repair(self, text: str) -> str:
        """Return the text with its words whole."""
        return _TOKEN.sub(self._parted, _PIECES.sub(self._whole, text))

    def _whole(self, found: re.Match[str]) -> str:
        words = found[0].split(" ")
        if all(self._words[word] >= COMMON for word in words):
            return found[0]
        out = [words[0]]
        for word in words[1:]:
            if self._one(out[-1], word):
                out[-1] += word
            else:
                out.append(word)
        return " ".join(out)

    def _one(self, first: str, second: str) -> bool:
        """Say whether two pieces are one word: together common, one of them nothing by itself."""
        together = self._words[first + second]
        if together < COMMON or first in STOP_WORDS or second in STOP_WORDS:
            return False
        return min(self._words[first], self._words[second]) * 20 < together

    def _parted(self, found: re.Match[str]) -> str:
        word = found[0]
        if self._words[word] >= COMMON:
            return word
        if (known := self._known.get(word)) is None:
            known = self._known[word] = self._cut(word)
        return known

    def _cut(self, word: str) -> str:
        """Part a word that is not known into two that are, after a letter that does not join."""
        best, most = word, 0
        for cut in range(2, len(word) - 2):
            first, second = word[:cut], word[cut:]
            if first in _BEGINS_WORDS:
                continue
            if first[-1] not in NON_JOINING:
                continue
            if (seen := min(self._words[first], self._words[second])) > max(most, 4 * COMMON):
                best, most = f"{first} {second}", seen
        return best
