"""Half-spaces: put in where a word is written in two (می خواهم) or glued (میخواهم), tidied where misplaced.

The rules are those of the Academy of Persian Language's orthography (دستور خط فارسی): the prefix می, the plural ها,
comparatives, and endings after a silent ه stand off by a half-space. After a letter that does not join the
next (ا د ذ ر ز ژ و) a half-space is not seen, and none is put in (کارها).
"""

from __future__ import annotations

import re

from tanzim.data.clean.persian.letters import NON_JOINING
from tanzim.data.clean.persian.lexicon import Lexicon
from tanzim.data.clean.persian.lists import (
    AFTER_BE,
    FIXED,
    GLUED_BE,
    GRADED,
    JOINED_OVER_SPACE,
    NOT_COMPOUND,
    NOT_GRADED,
    NOT_PLURAL,
    SECOND_PARTS,
    SILENT_HEH,
    SPOKEN_HEH,
    STOP_WORDS,
)
from tanzim.data.clean.persian.script import HOLE, LETTERS, MARKS, ZWNJ
from tanzim.data.clean.persian.verbs import NOT_VERBS, PARTICIPLES, PERFECT, WITH_MI, progressive

_L = f"[{LETTERS}]"
_NOT_IN_WORD = f"(?<![{LETTERS}{MARKS}])"
_END = f"(?![{LETTERS}{MARKS}{ZWNJ}])"
_POSSESSIVE = "م|ت|ش|مان|تان|شان"
_PLURAL = re.compile(f"(.{{2,}}?)(ها(?:یی|ی|ی?(?:{_POSSESSIVE})|یند|ست)?)")
_GRADE = re.compile("(.{2,}?)(تر(?:ین)?(?:ی|ها|های|ین|ان|هایی|م|ت|ش|ند|ید|یم)?)")
_HEH = re.compile("(.+ه)(ای|ام|اش|ایم|اید|اند|ست|است|مان|تان|شان|ی)")
_TOKEN = re.compile(f"{_L}+(?:{ZWNJ}{_L}+)*")
_MI = re.compile(f"{_NOT_IN_WORD}(ن?می) +(?=({_L}+))")
# Endings that are no words of their own.
_SUFFIX = re.compile(
    f"(?<=({_L})) +(های(?:ی|م|ت|ش|مان|تان|شان|ند)?|ها(?:ست|م|ت|ش|مان|تان|شان)?|ترین(?:های?)?|ئی){_END}"
)
_AFTER_WORD = re.compile(
    f"{_NOT_IN_WORD}({_L}+(?:{ZWNJ}{_L}+)*) +(ای|ام|اش|ایم|اید|اند|مان|تان|شان|ی|تر|{'|'.join(sorted(JOINED_OVER_SPACE))})"
    f"{_END}"
)
_HEH_ENDINGS = frozenset("ای ام اش ایم اید اند مان تان شان ی".split())
_BE = re.compile(f"{_NOT_IN_WORD}(به) ({'|'.join(sorted(AFTER_BE, key=len, reverse=True))}){_END}")
_FIXED = re.compile(
    f"{_NOT_IN_WORD}(?:{'|'.join(sorted(FIXED, key=len, reverse=True))})(?![{LETTERS}{MARKS}])"
)
_PAIR = re.compile(f"{_NOT_IN_WORD}({_L}+)(?= ({_L}+))")
# What typesetters and old converters wrote for a half-space.
_STAND_INS = re.compile(f"(?<=[{LETTERS}{MARKS}])[\u00ac\u200b\u00ad]+(?=[{LETTERS}])")
_DOUBLED = re.compile(f"{ZWNJ}{{2,}}")
_ASTRAY = re.compile(
    f"(?<![{LETTERS}{MARKS}{HOLE}\\w\u200d]){ZWNJ}+|{ZWNJ}+(?![{LETTERS}{MARKS}{HOLE}\\w\u200d])"
)
_REMEMBERED = 200_000


def tidy(text: str) -> str:
    """Return a text with one half-space where there were several, none beside a space or a sign, and none disguised."""
    text = _STAND_INS.sub(ZWNJ, text)
    if ZWNJ not in text:
        return text
    return _ASTRAY.sub("", _DOUBLED.sub(ZWNJ, text))


class HalfSpaces:
    """Puts in the half-spaces that are missing.

    Args:
        lexicon: what the corpus itself says, for doubtful cases; None for the rules alone.
        phrases: whether به عنوان and the like are joined without the corpus saying so.

    """

    def __init__(self, lexicon: Lexicon | None = None, phrases: bool = False) -> None:
        self._lexicon = lexicon
        self._phrases = phrases
        self._known: dict[str, str] = {}

    def repair(self, text: str) -> str:
        """Return the text with its half-spaces."""
        for _ in range(6):
            text = _TOKEN.sub(self._token, text)
            text, changed = self._joined(text)
            if not changed:
                break
        return text

    def _token(self, found: re.Match[str]) -> str:
        token = found[0]
        if len(token) < 4:
            return token
        known = self._known.get(token)
        if known is None:
            if len(self._known) > _REMEMBERED:
                self._known.clear()
            known = self._known[token] = self._parted(token)
        return known

    def _parted(self, token: str) -> str:
        for _ in range(5):
            parts = token.split(ZWNJ)
            new = ZWNJ.join([self.part(parts[0]), *(self.part(p, first=False) for p in parts[1:])])
            if new == token:
                break
            token = new
        return token

    def part(self, word: str, *, first: bool = True) -> str:
        """Return a glued word with its half-spaces.

        Args:
            word: letters alone.
            first: whether no half-space stands before it.

        """
        if len(word) < 4 or word in NOT_PLURAL or word in NOT_GRADED or word in NOT_COMPOUND:
            return word
        if first and "می" in word[:6] and word not in NOT_VERBS and (found := WITH_MI.fullmatch(word)):
            return word[: found.end("mi")] + ZWNJ + word[found.end("mi") :]
        if (found := PERFECT.fullmatch(word)) and found["stem"] not in ("", "ک"):
            return f"{found['participle']}{ZWNJ}{found['copula']}"
        if first and word in GLUED_BE:
            return f"به{ZWNJ}{word[2:]}"
        for rule in (self._heh, self._plural, self._grade, self._compound):
            if (new := rule(word)) is not None:
                return new
        if self._lexicon is not None and first and (corpus := self._lexicon.glued(word)) is not None:
            return corpus if corpus[corpus.index(ZWNJ) - 1] not in NON_JOINING else word
        return word

    def _count(self, word: str) -> int:
        return self._lexicon.words[word] if self._lexicon is not None else 0

    def _silent(self, word: str) -> bool:
        """Say whether a word ends in a silent ه, as far as is known."""
        if word in SILENT_HEH or word in PARTICIPLES:
            return True
        if word in SPOKEN_HEH or len(word) < 4 or word[-2] in "اوی":
            return False
        return self._count(word) >= 5 and self._count(word) > 5 * self._count(word[:-1])

    def _heh(self, word: str) -> str | None:
        found = _HEH.fullmatch(word)
        if found is None or not self._silent(found[1]) or (found[2] == "ی" and self._count(word) > 2):
            return None
        if found[2] in ("ایم", "ای") and found[1][:-1] in STOP_WORDS:
            return None
        return f"{self.part(found[1])}{ZWNJ}{found[2]}"

    def _plural(self, word: str) -> str | None:
        found = _PLURAL.fullmatch(word)
        if found is None:
            return None
        base = found[1]
        if self._count(word) > 50 * (self._count(base) + 1):
            return None  # the corpus knows it as a word of its own
        return self._ended(base, found[2])

    def _ended(self, base: str, ending: str) -> str:
        whole = self.part(base)
        return whole + ending if base[-1] in NON_JOINING else f"{whole}{ZWNJ}{ending}"

    def _grade(self, word: str) -> str | None:
        found = _GRADE.fullmatch(word)
        if found is None or found[1][-1] in NON_JOINING:
            return None
        base, ending = found[1], found[2]
        if base in GRADED or (ending.startswith("ترین") and len(base) > 2) or base.endswith(("‌مند", "ناک")):
            return self._ended(base, ending)
        if self._lexicon is not None and self._lexicon.halves[f"{base}{ZWNJ}تر"] > 1:
            return self._ended(base, ending)
        return None

    def _compound(self, word: str) -> str | None:
        at = word.find("آ", 2)
        if at > 1 and word[at - 1] not in NON_JOINING and word[:at] not in ("الا", "ال", "من", "مر", "جر"):
            return f"{self.part(word[:at])}{ZWNJ}{word[at:]}"
        for cut in range(len(word) - 2, 1, -1):
            first, second = word[:cut], word[cut:]
            if first[-1] in NON_JOINING:
                continue
            if second in SECOND_PARTS or (second[-1] == "ی" and second[:-1] in SECOND_PARTS):
                if first in SILENT_HEH or (len(first) > 2 and self._stands(first, second)):
                    return f"{self.part(first)}{ZWNJ}{second}"
            elif first[-1] == "ه" and len(second) > 2 and first in SILENT_HEH and self._count(second) > 4:
                return f"{first}{ZWNJ}{second}"
        return None

    def _stands(self, first: str, second: str) -> bool:
        """Say whether two words may be parted: where a corpus is known, the first must be a word of it."""
        if second.rstrip("ی") not in _CLEAR:
            return self._count(first) > 4 and self._count(second) > 4
        return self._lexicon is None or self._count(first) > 1

    def _joined(self, text: str) -> tuple[str, int]:
        text, mi = _MI.subn(self._with_mi, text)
        text, suffixes = _SUFFIX.subn(_suffixed, text)
        old = text
        text = _AFTER_WORD.sub(self._after_word, text)
        text = _FIXED.sub(self._fixed, text)
        text = _BE.sub(self._be, text)
        if self._lexicon is not None:
            text = self._by_corpus(text)
        return text, mi + suffixes + (text != old)

    def _with_mi(self, found: re.Match[str]) -> str:
        word = found[2]
        if progressive(word) or (
            len(word) > 3 and word.endswith(("ند", "ید", "یم")) and word not in STOP_WORDS
        ):
            return found[1] + ZWNJ
        return found[0]

    def _after_word(self, found: re.Match[str]) -> str:
        whole, ending = found[1], found[2]
        last = whole.rsplit(ZWNJ, 1)[-1]
        if ending in _HEH_ENDINGS:
            join = last[-1] == "ه" and self._silent(last)
            if ending in ("ام", "ایم", "اید", "اند") and last not in PARTICIPLES:
                join = join and ending == "ام" and last in SILENT_HEH
        elif ending == "تر":
            join = (last in GRADED or last.endswith(("مند", "ناک", "پذیر"))) and last not in ("خشک",)
        else:
            join = len(last) > 2 and last not in STOP_WORDS and last[-1] != "ی"
            if self._lexicon is not None and join:
                join = self._lexicon.joined(last, ending) is not False
        if not join:
            return found[0]
        return whole + ("" if ending == "تر" and last[-1] in NON_JOINING else ZWNJ) + ending

    def _fixed(self, found: re.Match[str]) -> str:
        first, second = found[0].split(" ")
        if self._lexicon is not None and self._lexicon.joined(first, second) is False:
            return found[0]
        return FIXED[found[0]]

    def _be(self, found: re.Match[str]) -> str:
        join = self._lexicon.joined("به", found[2]) if self._lexicon is not None else None
        if join or (join is None and self._phrases):
            return f"به{ZWNJ}{found[2]}"
        return found[0]

    def _by_corpus(self, text: str) -> str:
        lexicon = self._lexicon
        assert lexicon is not None
        at, kept = 0, []
        for found in _PAIR.finditer(text):
            if f"{found[1]}{ZWNJ}{found[2]}" in lexicon.halves and lexicon.joined(found[1], found[2]):
                kept += (text[at : found.end()], ZWNJ)
                at = found.end() + 1
        return "".join(kept) + text[at:]


# Second parts that tell a compound by themselves; others need the corpus to know both words.
_CLEAR = frozenset(
    second.rstrip("ی") for second in
    "سازی گذاری بندی پذیری پذیر کننده دهنده شونده گیری سنجی شناسی نویسی گرایی محور پردازی ریزی زدایی رسانی "
    "افزایی پژوهی اندیشی یافته".split()
)  # fmt: skip


def _suffixed(found: re.Match[str]) -> str:
    return found[2] if found[1] in NON_JOINING and found[2] != "ئی" else ZWNJ + found[2]
