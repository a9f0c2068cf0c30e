"""Which lines are Persian, and which parts of them are none of our business."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import product

# Letters of the Arabic script as they stand in Persian text, look-alikes and marks included.
LETTERS = "\u0621-\u063a\u0641-\u064a\u066e\u066f\u0671-\u06d3\u06d5\u06ee\u06ef\u06fa-\u06fc\u06ff"
MARKS = "\u064b-\u065f\u0670"
ZWNJ = "\u200c"
# Stands for a part that is left alone while the rest changes; itself left alone where a text holds it.
HOLE = "\ue000"

ARABIC_SCRIPT = re.compile("[\u0600-\u06ff\u0750-\u077f\ufb50-\ufdff\ufe70-\ufefc]")
_FORMS = re.compile("[\ufb50-\ufdff\ufe70-\ufefc]")


def word_set(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


_RUN = re.compile(f"[{LETTERS}]+")


def _spelt(words: str) -> frozenset[str]:
    """Return words in every mixture of Persian and Arabic ی and ک: judged before and after cleaning alike."""
    found: set[str] = set()
    for word in words.split():
        choices = [{"ی": "یيى", "ک": "کك"}.get(letter, letter) for letter in word]
        found.update(map("".join, product(*choices)))
    return frozenset(found)


_PERSIAN_WORDS = _spelt("""
از به که را این آن است می نمی های ها بود شد شده برای با تا هم یا اگر چه خود یک کرد کند شود دارد آنها
هر اما نیست باید بر در دیگر ما شما اند ای هایی هستند هست کردن شدن داد گفت خیلی خوب
""")
_ARABIC_WORDS = _spelt("فی وفی الی هذا هذه التی الذی ذلک علی عن کان قد لقد وقد") - _spelt("علی") | {
    "على",
    "إلى",
    "إن",
}
_OF_ARABIC = "ةأإ"
# Letters of Urdu, Kurdish, Pashto, Sindhi and Uyghur that Persian does not have.
_OTHERS = re.compile("[ةأإٹڈڑںےۓہھۃڕڵۆێەټډړښڼېځڅڳڱڻۇۈۋڭ]")
_OWN = re.compile("[یک]")


# Words with Arabic's article: not الان, البته, الگو, الهی, المپیک.
_WITH_ARTICLE = re.compile(f"ال(?<![{LETTERS}]..)(?![اآهیيگپچ]|بت|بر|کت|مپ|زا|نا|حا|ما)[{LETTERS}]{{3,}}")


def runs(text: str) -> list[str]:
    """Return the runs of letters in a text."""
    return _RUN.findall(text)


def _against(text: str, words: list[str]) -> list[str]:
    """Return letters and words that speak against Persian."""
    found = _WITH_ARTICLE.findall(text)
    if not _ARABIC_WORDS.isdisjoint(words):
        found += [word for word in words if word in _ARABIC_WORDS]
    return found + _OTHERS.findall(text)


def score(text: str) -> int:
    """Return how much in a text speaks for Persian (above zero), or for another language (below).

    Letters and words that no cleaning takes away are counted, so that a cleaned text is judged as before.
    """
    words = runs(text)
    return _for(text, words) - 2 * len(_against(text, words))


def _for(text: str, words: list[str]) -> int:
    return sum(map(text.count, "پچژگ")) + sum(map(_PERSIAN_WORDS.__contains__, words))


def is_persian(text: str) -> bool:
    """Say whether a text is Persian, and not Arabic, Urdu or another language of the same script.

    Decided by letters (پ چ ژ گ against ة أ إ or ٹ ں ے) and by the commonest words. What has neither counts as
    Persian if it is written with Persian's own ی or ک.
    """
    return judged(text)[0]


def judged(text: str, words: list[str] | None = None) -> tuple[bool, list[tuple[int, int]]]:
    """Say whether a text is Persian, and which of its lines (start, end) are not (a quotation, say).

    Args:
        text: the text.
        words: its runs of letters, where they are known.

    """
    words = runs(text) if words is None else words
    against = _against(text, words)
    found = _for(text, words) - 2 * len(against)
    if found < 0 or (found == 0 and not _OWN.search(text)):
        return False, []
    lines: set[tuple[int, int]] = set()
    for sign in set(against):
        at = text.find(sign)
        while at >= 0:
            end = text.find("\n", at)
            end = len(text) if end < 0 else end
            lines.add((text.rfind("\n", 0, at) + 1, end))
            at = text.find(sign, end)
    return True, [(start, end) for start, end in lines if score(text[start:end]) < 0]


# What is written for machines, or in Latin letters: code, tags, addresses, formulas, words, 1.2.3.
# Every repeat is bounded by what begins the next match, so that no text takes more than a few passes.
_LATIN = "A-Za-z\u00c0-\u024f\u0370-\u04ff"
_BESIDE = r"0-9_./\\:@#~%+=&*^|\-"
_APART = re.compile(
    rf"(?=[`<$@#\\{_LATIN}{_BESIDE}{HOLE}])(?:"
    r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`[^`\n]+`"
    r"|<(tool_call|tool_response|code|pre|script|style)\b(?:(?!<\1\b).)*?</\1>"
    r"|<!--(?:(?!<!--).)*?-->|</?[A-Za-z][^<>\n]*>"
    r"|\$\$[^$]+\$\$|\$[^$\n\u0600-\u06ff]+\$|\\[(\[](?:(?!\\[(\[]).)+?\\[)\]]"
    rf"|(?:(?<![{_BESIDE}])[{_BESIDE}]++)?(?:(?:https?|ftp|file)://|www\.)[^\s<>«»\"\u200c،؛]+"
    r"|(?<![0-9A-Za-z_.+-])[0-9A-Za-z_.+-]{1,64}@[0-9A-Za-z_-]+(?:\.[0-9A-Za-z_-]+)+|[@#][\w\u200c]+"
    r"|(?<![0-9])[0-9]+(?:[.:][0-9]+){2,}"
    rf"|(?:(?<![{_BESIDE}])[{_BESIDE}]+)?[{_LATIN}](?:[{_LATIN}{_BESIDE}'’]*[{_LATIN}0-9_/\\%+=&*#])?"
    f"|{HOLE})",
    re.DOTALL,
)
_VERSE = re.compile("﴿[^﴾﴿]*﴾|﴾[^﴿﴾]*﴿")
_DECODER = json.JSONDecoder()


def _objects(text: str) -> Iterator[tuple[int, int]]:
    """Find JSON objects that stand in a text."""
    at = text.find("{")
    while at >= 0:
        try:
            value, end = _DECODER.raw_decode(text, at)
        except json.JSONDecodeError as error:
            end = max(at + 1, error.pos)
        except RecursionError:
            return  # nobody reads an object a thousand deep
        else:
            yield (at, end) if value else (at, at + 2)
        at = text.find("{", end)


class Holes:
    """Parts of a text set aside, each with `HOLE` in its place, and put back afterwards.

    Args:
        text: the text.
        spans: (start, end) of further parts to set aside; may overlap.

    """

    def __init__(self, text: str, spans: list[tuple[int, int]]) -> None:
        spans = [*spans, *(m.span() for m in _APART.finditer(text))]
        if "{" in text:
            spans += _objects(text)
        if "﴿" in text:
            spans += [m.span() for m in _VERSE.finditer(text)]
        spans.sort()
        self._parts: list[str] = []
        kept: list[str] = []
        at = 0
        for start, end in _merged(spans):
            kept += (text[at:start], HOLE)
            self._parts.append(text[start:end])
            at = end
        kept.append(text[at:])
        self.text = "".join(kept)

    def fill(self, text: str) -> str:
        """Return ``text`` with the parts back in their places."""
        if not self._parts:
            return text
        pieces = text.split(HOLE)
        if len(pieces) != len(self._parts) + 1:
            raise AssertionError("a rule took away or doubled a part that it must not touch")
        whole = [pieces[0]]
        for part, piece in zip(self._parts, pieces[1:], strict=True):
            whole += (part, piece)
        return "".join(whole)


def _merged(spans: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    last: tuple[int, int] | None = None
    for start, end in spans:
        if last is None:
            last = (start, end)
        elif start < last[1]:
            last = (last[0], max(last[1], end))
        else:
            yield last
            last = (start, end)
    if last is not None:
        yield last


def has_forms(text: str) -> bool:
    """Say whether a text has presentation forms: letters coded by their shape."""
    return _FORMS.search(text) is not None
