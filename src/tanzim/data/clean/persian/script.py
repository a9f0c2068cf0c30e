"""Which lines are Persian, and which parts of them are none of our business."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

# Letters of the Arabic script as they stand in Persian text, look-alikes and marks included.
LETTERS = "\u0621-\u063a\u0641-\u064a\u066e\u066f\u0671-\u06d3\u06d5\u06ee\u06ef\u06fa-\u06fc\u06ff"
MARKS = "\u064b-\u065f\u0670"
ZWNJ = "\u200c"
# Stands for a part that is left alone while the rest changes; itself left alone where a text holds it.
HOLE = "\ue000"

ARABIC_SCRIPT = re.compile("[\u0600-\u06ff\u0750-\u077f\ufb50-\ufdff\ufe70-\ufefc]")
_FORMS = re.compile("[\ufb50-\ufdff\ufe70-\ufefc]")
_PERSIAN_WORDS = (
    "از|به|که|را|این|آن|است|می|نمی|های|ها|بود|شد|شده|برای|با|تا|هم|یا|اگر|چه|خود|یک|کرد|کند|شود|دارد|"
    "آنها|هر|اما|نیست|باید|بر|در|دیگر|ما|شما|اند|ای|هایی|هستند|هست|کردن|شدن|داد|گفت|خیلی|خوب"
)
_PERSIAN = re.compile(f"[پچژگ]|(?<![{LETTERS}])(?:{_PERSIAN_WORDS})(?![{LETTERS}])")
_ARABIC = re.compile(
    f"[ةأإ]|(?<![{LETTERS}])(?:ال(?!ا?ن(?![{LETTERS}])|[اآه]|بته|گو|م(?![{LETTERS}])|ی)[{LETTERS}]{{2,}}"
    f"|و?ف[یي]|إلى|هذا|هذه|الت[یي]|الذ[یي]|ذل[کك]|على|عن|كان|کان|قد|لقد|وقد|إن)(?![{LETTERS}])"
)
# Letters of Urdu, Kurdish, Pashto, Sindhi and Uyghur that Persian does not have.
_OTHERS = re.compile("[ٹڈڑںےۓہھۃڕڵۆێەټډړښڼېځڅڳڱڻۇۈۋڭ]")
_SURE = re.compile("[یک]")
_LINES = re.compile(r"[^\n]*\n|[^\n]+$")


def score(text: str) -> int:
    """Return how much in a text speaks for Persian (above zero), or for another language (below).

    Letters and words that no cleaning takes away are counted, so that a cleaned text is judged as before.
    """
    return len(_PERSIAN.findall(text)) - 2 * len(_ARABIC.findall(text)) - 2 * len(_OTHERS.findall(text))


def is_persian(text: str) -> bool:
    """Say whether a text is Persian, and not Arabic, Urdu or another language of the same script.

    Decided by letters (پ چ ژ گ against ة أ إ or ٹ ں ے) and by the commonest words. What has neither counts as
    Persian if it is written with Persian's own ی or ک.
    """
    found = score(text)
    return found > 0 or (found == 0 and _SURE.search(text) is not None)


def other_lines(text: str) -> list[tuple[int, int]]:
    """Return the lines (start, end) of a Persian text that are of another language, a quotation of Arabic say."""
    if not (_OTHERS.search(text) or _ARABIC.search(text)):
        return []
    found = []
    for line in _LINES.finditer(text):
        if score(line[0]) < 0:
            found.append((line.start(), line.end() - line[0].endswith("\n")))
    return found


# What is written for machines, or in Latin letters: code, tags, addresses, formulas, words, numbers with dots.
_APART = re.compile(
    r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`[^`\n]+`"
    r"|<(tool_call|tool_response|code|pre|script|style)\b.*?</\1>|<!--.*?-->|</?[A-Za-z][^<>\n]*>"
    r"|\$\$.+?\$\$|\$[^$\n\u0600-\u06ff]+\$|\\[(\[].+?\\[)\]]"
    r"|(?:https?|ftp|file)://[^\s<>«»\"\u200c،؛]+|www\.[^\s<>«»\"\u200c،؛]+"
    r"|[\w.+-]+@[\w-]+(?:\.[\w-]+)+|[@#][\w\u200c]+"
    r"|\d+(?:[.:]\d+){2,}"
    r"|[0-9_./\\:@#~%+=&*^|-]*[A-Za-z\u00c0-\u024f\u0370-\u04ff](?:[\w./\\:@#~%+=&*^'’|-]*"
    r"[0-9A-Za-z\u00c0-\u024f\u0370-\u04ff_/\\%+=&*#])?"
    f"|{HOLE}",
    re.DOTALL | re.ASCII,
)
_VERSE = re.compile("﴿[^﴾]*﴾|﴾[^﴿]*﴿")
_DECODER = json.JSONDecoder()


def _objects(text: str) -> Iterator[tuple[int, int]]:
    """Find JSON objects that stand in a text."""
    at = text.find("{")
    while at >= 0:
        try:
            value, end = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            end = at + 1
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
