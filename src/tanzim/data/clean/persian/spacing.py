"""Half-spaces: put in where a word is written in two (می خواهم) or glued (میخواهم), tidied where misplaced.

The rules are those of the Academy's orthography (دستور خط فارسی): the prefix می, the plural ها,
comparatives, and endings after a silent ه stand off by a half-space. After a letter that does not join the
next (ا د ذ ر ز ژ و) a half-space is not seen, and none is put in (کارها).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from tanzim.data.clean.persian.letters import NON_JOINING
from tanzim.data.clean.persian.lexicon import Lexicon
from tanzim.data.clean.persian.lists import (
    AFTER_BE,
    FIXED,
    GLUED_BE,
    GLUED_FIXED,
    GRADED,
    JOINED_OVER_SPACE,
    NOT_COMPOUND,
    NOT_GRADED,
    NOT_PLURAL,
    PLURAL_FIRST,
    SECOND_PARTS,
    SILENT_HEH,
    SPOKEN_HEH,
    STOP_WORDS,
)
from tanzim.data.clean.persian.script import HOLE, LETTERS, MARKS, ZWNJ, word_set
from tanzim.data.clean.persian.verbs import (
    NOT_VERBS,
    PARTICIPLES,
    PERFECT,
    PRESENT,
    PREVERBS,
    WITH_MI,
    progressive,
)

_POSSESSIVE = "م|ت|ش|مان|تان|شان"
_PLURAL = re.compile(f"(.{{2,}}?)(ها(?:یی|ی|ی(?:{_POSSESSIVE})|یند|ست)?|(?<=ه)ها(?:{_POSSESSIVE}))")
_GRADE = re.compile("(.{2,}?)(تر(?:ین)?(?:ی|ها|های|ین|ان|هایی|م|ت|ش|ند|ید|یم)?)")
_HEH = re.compile("(.+ه)(ای|ام|اش|ایم|اید|اند|ست|است|مان|تان|شان|ی)")
_BETWEEN = re.compile(f"([^{LETTERS}{MARKS}{ZWNJ}]+)")
# Endings that are no words of their own.
_SUFFIXES = word_set("""
ها های هایی هایم هایت هایش هایمان هایتان هایشان هایند هاست هام هات هاش هامان هاتان هاشان ترین ترینها
ترینهای
""")
_AFTER_HEH = word_set("ای ام اش ایم اید اند مان تان شان ی")
_PREFIXES = frozenset(
    f"{preverb}{mi}" for preverb in ("", *PREVERBS.split("|"), "قرار") for mi in ("می", "نمی")
)
_VERBAL = re.compile(".*(?:[میدن]|ست|[نیاورش]ه|ت|د)")
# After می as a word of its own: wine.
_WINE = word_set("""
و ناب را از که به در با یا تا هم نوشی خواره فروش فروشان پرست کهنه صاف سرخ
""")
# What typesetters and old converters wrote for a half-space. Here and in its neighbours a pattern begins with
# what is rare, and looks back from there: regular expressions then skip to it.
_STAND_IN = "[\u00ac\u200b\u00ad\u200c]"
_STAND_INS = re.compile(f"{_STAND_IN}(?<=[{LETTERS}{MARKS}].){_STAND_IN}*(?=[{LETTERS}])")
_BESIDE = f"[{LETTERS}{MARKS}{HOLE}\\w\u200d]"
_ASTRAY = re.compile(f"{ZWNJ}(?<!{_BESIDE}.){ZWNJ}*|{ZWNJ}+(?!{_BESIDE})")
_REMEMBERED = 300_000
_HEH_ENDS = tuple(
    word_set("""
کننده دهنده شونده گیرنده سازنده آورنده دارنده نامه خانه گونه گانه ساله زاده شده یافته دیده گذشته نوشته بسته
""")
)
_AGENTS = frozenset(f"{stem}نده" for stem in PRESENT)  # گوینده, سازنده
_LONGEST = 40  # letters of a word that is looked at
_BEFORE_WORD = _PREFIXES | {"بی"}


def tidy(text: str) -> str:
    """Return a text with half-spaces one at a time, none beside a space or a sign, and none disguised."""
    text = _STAND_INS.sub(ZWNJ, text)
    if ZWNJ not in text:
        return text
    while ZWNJ + ZWNJ in text:
        text = text.replace(ZWNJ + ZWNJ, ZWNJ)
    return _ASTRAY.sub("", text)


def _listed(word: str) -> bool:
    """Say whether a word ends in a silent ه by the lists."""
    if word in SPOKEN_HEH:
        return False
    if word in SILENT_HEH or word in PARTICIPLES or word in _AGENTS:
        return True
    return len(word) > 4 and (word.endswith(_HEH_ENDS) or (len(word) > 6 and word[-5:] in SILENT_HEH))


def _closed(word: str, first: bool) -> str | None:
    """Part what needs no knowledge of other words: می and a verb, and fixed phrases."""
    if first and "می" in word[:6] and word not in NOT_VERBS and (found := WITH_MI.fullmatch(word)):
        return word[: found.end("mi")] + ZWNJ + word[found.end("mi") :]
    if first and word in GLUED_BE:
        return f"به{ZWNJ}{word[2:]}"
    return GLUED_FIXED.get(word)


class _Memory(dict[str, str]):
    """Results of a function, up to a number of them."""

    def __init__(self, function: Callable[[str], str]) -> None:
        super().__init__()
        self._function = function

    def __missing__(self, word: str) -> str:
        if len(self) > _REMEMBERED:
            self.clear()
        value = self[word] = self._function(word)
        return value


class HalfSpaces:
    """Puts in the half-spaces that are missing.

    Args:
        lexicon: what the corpus itself says, for doubtful cases; None for the rules alone.
        phrases: whether به عنوان and the like are joined without the corpus saying so.

    """

    def __init__(self, lexicon: Lexicon | None = None, phrases: bool = False) -> None:
        self._lexicon = lexicon
        self._phrases = phrases
        self._known = _Memory(self._parted)
        self._hot = (
            _SUFFIXES | _AFTER_HEH | JOINED_OVER_SPACE | {"تر", *(pair.split(" ")[1] for pair in FIXED)}
        )
        if phrases:
            self._hot |= AFTER_BE
        if lexicon is not None:
            self._hot |= {pair.split(ZWNJ)[1] for pair in lexicon.halves if lexicon.joined(*pair.split(ZWNJ))}
        self._hot -= _PREFIXES
        self._looked_at = self._hot | _BEFORE_WORD
        self._whole = ""

    def repair(self, text: str) -> str:
        """Return the text with its half-spaces; one that it has just given comes back at once."""
        if text == self._whole:
            return text
        parts = _BETWEEN.split(text)
        words = parts[::2]
        for _ in range(5):
            at = [i for i, word in enumerate(words) if word in self._looked_at]
            joined = {i for i in at if self._before(words, parts, i)}
            apart = {i + 1: words[i + 1] for i in joined}
            new = list(map(self._known.__getitem__, words))
            for i, word in apart.items():
                new[i] = word  # no longer the beginning of a word: looked at again once it is joined
            after = [i for i in at if i and i - 1 not in joined and parts[2 * i - 1].strip(" ") == ""]
            signs = {i: sign for i in after if (sign := self._after(new[i - 1], new[i])) is not None}
            signs |= {i + 1: ZWNJ for i in joined}
            if not signs and new == words:
                self._whole = text
                break
            parts[::2] = words = new
            for i, sign in signs.items():
                parts[2 * i - 1] = sign
            text = "".join(parts)
            if signs:
                parts = _BETWEEN.split(text)
                words = parts[::2]
        return text

    def _before(self, words: list[str], parts: list[str], at: int) -> bool:
        """Say whether a word is a prefix of the next: می, بی."""
        if at + 1 >= len(words) or parts[2 * at + 1] != " " or words[at] not in _BEFORE_WORD:
            return False
        word = words[at + 1]
        if words[at] == "بی":
            return len(word) > 1 and word not in STOP_WORDS and word not in _SUFFIXES
        return word not in _WINE and (progressive(word) or _VERBAL.fullmatch(word) is not None)

    def _after(self, before: str, word: str) -> str | None:
        """Return what should stand between two words that a space parts, None if the space should."""
        last = before.rsplit(ZWNJ, 1)[-1]
        if not last or word not in self._hot:
            return None
        if word in _SUFFIXES:
            return "" if last[-1] in NON_JOINING else ZWNJ
        # شده است is two words and شده‌است one in texts that are otherwise alike: left as it is.
        corpus = self._lexicon.joined(last, word) if self._lexicon is not None and word != "است" else None
        if word in _AFTER_HEH:
            unsaid = len(last) > 2 and last[-2] not in "او" and last not in SPOKEN_HEH
            join = last[-1] == "ه" and (unsaid or _listed(last))
            if word == "اند" and last[-1] == "ی":
                join = len(last) > 2
        elif word == "تر":
            if (
                last in GRADED
                or last.endswith(("مند", "ناک", "پذیر"))
                or (last[-1] == "ه" and self._silent(last))
            ):
                return "" if last[-1] in NON_JOINING else ZWNJ
            join = False
        elif f"{last} {word}" in FIXED or (self._phrases and last == "به" and word in AFTER_BE):
            join = corpus is not False
        elif word in JOINED_OVER_SPACE:
            join = len(last) > 2 and last not in STOP_WORDS and last[-1] != "ی" and corpus is not False
        else:
            join = False
        return ZWNJ if join or corpus else None

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
        if not 4 <= len(word) <= _LONGEST or word in NOT_PLURAL or word in NOT_GRADED or word in NOT_COMPOUND:
            return word
        if (whole := _closed(word, first) or self._perfect(word)) is not None:
            return whole
        for rule in (self._heh, self._plural, self._grade, self._compound):
            if (new := rule(word)) is not None:
                return new
        corpus = self._lexicon.glued(word) if self._lexicon is not None and first else None
        return corpus if corpus is not None and corpus[corpus.index(ZWNJ) - 1] not in NON_JOINING else word

    def _perfect(self, word: str) -> str | None:
        found = PERFECT.fullmatch(word)
        if found is None or (found["copula"] in ("ای", "ایم") and self._plural_first(found["participle"])):
            return None
        return f"{found['participle']}{ZWNJ}{found['copula']}"

    def _count(self, word: str) -> int:
        return self._lexicon.words[word] if self._lexicon is not None else 0

    def _silent(self, word: str) -> bool:
        """Say whether a word ends in a silent ه, as far as is known."""
        if _listed(word):
            return True
        if len(word) < 4 or word[-2] in "اوی" or word in SPOKEN_HEH:
            return False
        return self._count(word) >= 2 and self._count(word) > 5 * self._count(word[:-1])

    def _heh(self, word: str) -> str | None:
        found = _HEH.fullmatch(word)
        if found is None or not (_listed(found[1]) if found[2] == "ی" else self._silent(found[1])):
            return None
        if found[2] in ("ایم", "ای", "ام", "اش") and self._plural_first(found[1]):
            return None
        return f"{self.part(found[1])}{ZWNJ}{found[2]}"

    def _plural_first(self, word: str) -> bool:
        """Say whether a word before ای is more likely without its ه and with a plural: روزهای, not روزه‌ای."""
        if word in PLURAL_FIRST:
            return self._count(word) <= 5 * self._count(word[:-1]) + 5
        if word in PARTICIPLES:
            return False
        return word[-2] in NON_JOINING and self._count(word[:-1]) > self._count(word)

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
        if (
            base in GRADED
            or (base[-1] == "ه" and self._silent(base))
            or (ending.startswith("ترین") and len(base) > 2)
            or base.endswith(("‌مند", "ناک"))
        ):
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
        return second in _CLEAR or (self._count(first) > 4 and self._count(second) > 4)


# Second parts that tell a compound by themselves; others need the corpus to know both words.
_CLEAR = word_set("""
ساز گذار بند پذیر کننده دهنده شونده گیر سنج شناس نویس محور پرداز ریز زدا رسان افزا پژوه اندیش یافته کنندگان
دهندگان یافتگان آورندگان جویان شکن پرستان طلب طلبان زا فرسا گانه سازی گذاری بندی پذیری گیری سنجی شناسی نویسی
پردازی ریزی زدایی رسانی افزایی پژوهی اندیشی شکنی طلبی زایی
""")
