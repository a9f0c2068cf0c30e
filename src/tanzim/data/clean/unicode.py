"""One Unicode form, without characters that nobody sees; half-spaces (ZWNJ) stay."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Literal

from tanzim.core.records import Example
from tanzim.data.clean.config import UnicodeConfig
from tanzim.data.step import Outcome, Removed, Step
from tanzim.data.texts import blank, rewrite

_LINES = re.compile("\r\n?|[\v\f\x1c-\x1e\x85\u2028\u2029]")
_CONTROL = re.compile("[\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\ufdd0-\ufdef\ufffe\uffff]")
_SPACES = re.compile("[\xa0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_OVERRIDES = re.compile("[\u202a-\u202e\u2066-\u2069]")  # LRE RLE PDF LRO RLO, LRI RLI FSI PDI
_MARKS = re.compile("[\u200e\u200f\u061c]")  # LRM RLM ALM
_SURROGATES = re.compile("[\ud800-\udfff]")
# Soft hyphen, grapheme joiner, Hangul fillers, Mongolian vowel separator, zero-width space, word joiner and
# invisible operators, deprecated format characters, byte-order mark, annotation marks.
_HIDDEN = re.compile(
    "[\xad\u034f\u115f\u1160\u17b4\u17b5\u180e\u200b\u2060-\u2065\u206a-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb]"
)
# Flags of regions (a black flag, tags, the cancel tag) are seen; all other tags are not.
_TAGS = re.compile(
    "(\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{1,6}\U000e007f)|[\U000e0000-\U000e007f]"
)
# A selector picks the shape of a sign, an ideograph or an emoji; behind others, or in a row, it hides bytes.
_SELECTORS = re.compile(
    "(?<=[#*0-9\xa9\xae\u1000-\u1dff\u2010-\ufdff\U0001f000-\U0003ffff])([\ufe00-\ufe0f\U000e0100-\U000e01ef])"
    "|[\ufe00-\ufe0f\U000e0100-\U000e01ef]"
)
Form = Literal["NFC", "NFKC", "keep"]
_JOINER = "\u200d"
_CHECK = re.compile("[^\t\n -~]")


def clean_unicode(
    text: str,
    *,
    form: Form = "NFC",
    control: bool = True,
    invisible: bool = True,
    bidi: str = "overrides",
    spaces: bool = True,
    counts: Counter[str] | None = None,
) -> str:
    """Return a text in one Unicode form, without characters that cannot be seen. Idempotent.

    ZWNJ (the half-space of Persian) always stays; ZWJ stays where it can be seen: at the end of an Arabic
    word, in Indic scripts and in emoji. Lone surrogates become U+FFFD. Embeddings and overrides make text
    look other than it reads (Boucher and Anderson, 2021, "Trojan Source"); tag characters and runs of
    variation selectors hide text from people, not from a model.

    Args:
        text: any text.
        form: "NFC", "NFKC" (Unicode Standard Annex 15) or "keep".
        control: drop control characters and noncharacters; make every line end a line feed.
        invisible: drop characters that have no shape of their own.
        bidi: drop "overrides" (embeddings, overrides, isolates), "all" (marks as well), or "keep".
        spaces: make every kind of space U+0020.
        counts: what was found is added here.

    """
    if not _CHECK.search(text):
        return text
    found: Counter[str] = Counter()

    def replaced(pattern: re.Pattern[str], by: str, name: str, text: str) -> str:
        text, count = pattern.subn(by, text)
        found[name] += count
        return text

    text = replaced(_SURROGATES, "\ufffd", "lone surrogate", text)
    if form != "keep":
        composed = unicodedata.normalize(form, text)
        found[f"not in {form}"] += composed != text
        text = composed
    if control:
        text = _LINES.sub("\n", text)
        text = replaced(_CONTROL, "", "control character", text)
    if bidi != "keep":
        text = replaced(_OVERRIDES, "", "direction override", text)
    if bidi == "all":
        text = replaced(_MARKS, "", "direction mark", text)
    if spaces:
        text = replaced(_SPACES, " ", "unusual space", text)
    if invisible:
        length = len(text)
        text = _TAGS.sub(r"\1", _HIDDEN.sub("", text))
        text = _SELECTORS.sub(r"\1", text)
        text = _joiners(text) if _JOINER in text else text
        found["invisible character"] += length - len(text)
    if form != "keep":  # what stood between two characters may have kept them from one
        text = unicodedata.normalize(form, text)
    if counts is not None:
        counts.update(+found)
    return text


def _joiners(text: str) -> str:
    """Drop zero-width joiners but between letters of joining scripts, and in emoji."""
    kept: list[str] = []
    for at, character in enumerate(text):
        if character == _JOINER:
            before, after = kept[-1] if kept else "", text[at + 1 : at + 2]
            if not _joins(before) or after == _JOINER or (_is_arabic(before) and _is_arabic(after)):
                continue
        kept.append(character)
    return "".join(kept)


def _is_arabic(character: str) -> bool:
    """Return whether a character is of the Arabic script, whose letters join of themselves within a word."""
    return "\u0620" <= character <= "\u06ff" and character.isalpha()


def _joins(character: str) -> bool:
    """Return whether a joiner behind a character can change how it looks."""
    if not character or character == _JOINER:
        return False
    category = unicodedata.category(character)
    # Letters and marks of Arabic, Syriac, Indic and like scripts; emoji.
    return (category[0] in "LM" and "\u0600" <= character < "\u3000") or category in ("So", "Sk", "Mn")


class Unicode(Step[UnicodeConfig]):
    """Bring every text to one Unicode form; an example that nobody could see is removed."""

    def apply(self, examples: Iterable[Example]) -> Iterator[Outcome]:
        """Yield each example in its Unicode form."""
        for example in examples:
            cleaned = rewrite(example, self._clean)
            if cleaned is not example and blank(cleaned) and not blank(example):
                yield Removed(example, "nothing that can be seen")
            else:
                yield cleaned

    def _clean(self, text: str) -> str:
        config = self.config
        return clean_unicode(
            text,
            form=config.form,
            control=config.control,
            invisible=config.invisible,
            bidi=config.bidi,
            spaces=config.spaces,
            counts=self.counts,
        )
