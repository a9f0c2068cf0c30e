"""Right-to-left lines as they stand on a page, brought back into the order in which they are read.

A PDF knows where glyphs stand, not how they are read. `logical` is the inverse of what the Unicode
bidirectional algorithm (UAX 9) does to a line of right-to-left text: the line is turned round, and
numbers and Latin words within it are turned back.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise

_ARABIC = re.compile(r"[\u0620-\u064a\u066e-\u06d3\u06fa-\u06ff\ufb50-\ufbff\ufe70-\ufefc]")
# Words that no page of Persian or Arabic is without, and whose mirror images are no words.
_COMMON = frozenset(
    [
        *("از", "به", "در", "که", "این", "است", "با", "برای", "را", "آن", "های", "یک", "شود", "بود", "هم"),
        *("تا", "یا", "هر", "بر", "من", "في", "على", "إلى", "عن", "هذا", "التي", "ما", "أن", "كان"),
    ]
)
_JOINTS = frozenset(" .,:/-+%'’&@_#٫٬")  # what may stand within a run of left-to-right text
_MIRROR = str.maketrans("()[]{}<>«»", ")(][}{><»«")
# Shapes that PDF fonts have for one or several letters; \ufdf0-\ufdff are signs of their own.
_SHAPES = re.compile(r"[\ufb00-\ufb06\ufb50-\ufbff\ufc00-\ufdef\ufe70-\ufefc]+")


def letters(text: str) -> str:
    """Return text with the shapes of letters (ﬁ, ﻣ) as the letters they are."""
    return _SHAPES.sub(lambda match: unicodedata.normalize("NFKC", match[0]), text)


def is_right_to_left(text: str) -> bool:
    """Tell whether at least three letters in ten are Arabic script."""
    arabic = len(_ARABIC.findall(text))
    return arabic > 0 and arabic >= 0.3 * sum(c.isalpha() for c in text)


def common_words(text: str) -> int:
    """Count words that every Persian or Arabic text holds, as a measure of whether it is in order."""
    plain = letters(text).replace("ي", "ی").replace("ك", "ک")
    return sum(word in _COMMON for word in re.findall(r"[\u0620-\u06ff]+", plain))


def logical(line: str) -> str:
    """Return a line of right-to-left text, given from left to right as on the page, in reading order."""
    turned = _clusters(line)[::-1]
    out: list[str] = []
    at = 0
    while at < len(turned):
        if not _is_left_to_right(turned[at]):
            out.append(turned[at].translate(_MIRROR))
            at += 1
            continue
        end = last = at
        while end < len(turned) and (_is_left_to_right(turned[end]) or turned[end] in _JOINTS):
            last = end if _is_left_to_right(turned[end]) else last
            end += 1
        out += _phrases(turned[at : last + 1])
        at = last + 1
    return "".join(out)


def _phrases(run: list[str]) -> list[str]:
    """Turn a run of Latin words and numbers back: each phrase as a whole, phrases in their order.

    Words and the numbers among them are one phrase (version 2.5), numbers side by side are not.
    """
    words = [word.split("\0") for word in "\0".join(run).split("\0 \0")]
    phrases = [words[0]]
    for before, word in pairwise(words):
        if _is_number(before) and _is_number(word):
            phrases.append([" "])
            phrases.append(word)
        else:
            phrases[-1] += [" ", *word]
    return [cluster for phrase in phrases for cluster in reversed(phrase)]


def _is_number(word: list[str]) -> bool:
    return not any(unicodedata.bidirectional(cluster[0]) == "L" for cluster in word)


def _clusters(line: str) -> list[str]:
    """Part a line into letters, each with the marks that stand on it."""
    clusters: list[str] = []
    for character in line:
        if clusters and unicodedata.combining(character):
            clusters[-1] += character
        else:
            clusters.append(character)
    return clusters


def _is_left_to_right(cluster: str) -> bool:
    return unicodedata.bidirectional(cluster[0]) in ("L", "EN", "AN")
