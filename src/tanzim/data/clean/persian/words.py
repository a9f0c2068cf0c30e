"""Persian sentences, tokens, stems and lemmas."""

from __future__ import annotations

import re
from functools import lru_cache

from tanzim.data.clean.persian.letters import LOOK_ALIKES
from tanzim.data.clean.persian.lists import NOT_PLURAL, SILENT_HEH, STOP_WORDS
from tanzim.data.clean.persian.script import LETTERS, MARKS, ZWNJ, word_set
from tanzim.data.clean.persian.spacing import HalfSpaces
from tanzim.data.clean.persian.verbs import INFINITIVES, PRESENT, PREVERBS, infinitive

__all__ = ["STOP_WORDS", "lemma", "sentences", "stem", "tokens"]

_LETTER_TABLE = str.maketrans(LOOK_ALIKES)
_MARKS = re.compile(f"[{MARKS}ـ]")
_END = re.compile("(?:[.!?؟…]+|۔)[»”\"')\\]]*(?=\\s|$)|\n\\s*\n|\n(?=\\s*[-*•#\\d۰-۹])")
# After these a full stop does not end a sentence: initials, abbreviations, numbers of a list.
_ABBREVIATED = re.compile(
    f"(?<![{LETTERS}\\w])(?:[{LETTERS}]|\\d{{1,2}}|[۰-۹]{{1,2}}|[A-Za-z]|"
    "ه\\.ش|ه\\.ق|ق\\.م|دکتر|ر\\.ک|ص\\.ص|etc|Dr|Mr|Mrs|Prof|vs|e\\.g|i\\.e|Fig|No)$"
)
# After a quotation these go on with the sentence around it.
_GOES_ON = re.compile(f"[ ](?:و|که|را|گفت|گفتند|پرسید|پرسیدند|پاسخ)(?![{LETTERS}])")
_TOKEN = re.compile(
    r"(?:https?://|www\.)[^\s«»،؛]+|[\w.+-]+@[\w-]+(?:\.[\w-]+)+|[@#]\w[\w\u200c]*"
    r"|\d+(?:[.,/:٫٬]\d+)*%?"
    rf"|[^\W\d](?:[\w{MARKS}ـ'’\u200c]*[\w{MARKS}ـ])?|\.{{2,}}|[!?؟]+|[^\w\s\u200c]"
)

_HALVES = HalfSpaces()
_OWN = "مان|تان|شان|ام|ات|اش|یم|یت|یش|م|ت|ش"
_ENDING = re.compile(
    f"{ZWNJ}(?:ها(?:یی|ی|ی?(?:م|ت|ش|مان|تان|شان)|یند|ست)?|تر(?:ین)?(?:ی|ها|های)?|ای|ی|ا?(?:{_OWN})|اند|ایم|اید|است|ست)$"
)
_GLUED_ENDING = re.compile("(?<=..[ادذرزژو])(?:ها(?:یی|ی|ی?(?:م|ت|ش|مان|تان|شان))?)$")
_OF_STEM = re.compile("(?<=..)(?:ترین|تر|یی|ات|ان|(?:ی|م|ت|ش)?(?:مان|تان|شان)|ی|م|ش)$")
_SIMPLE_PAST = re.compile(
    f"(?:{PREVERBS})?ن?(?P<stem>{'|'.join(sorted(INFINITIVES, key=len, reverse=True))})(?P<end>م|یم|ید|ند)?"
)
_SUBJUNCTIVE = re.compile(
    f"(?:{PREVERBS})?[بن]ی?(?P<stem>{'|'.join(sorted(PRESENT, key=len, reverse=True))})(?:م|د|یم|ید|ند)"
)
_PLAIN_PRESENT = re.compile("(?P<stem>کن|شو|دار|خواه|باش|توان|گوی|ده|گیر)(?:م|د|یم|ید|ند)")
# Third persons of the past that are hardly ever another word.
_PAST = word_set("""
کرد شد بود داشت رفت آمد گفت داد خواست توانست دانست دید گرفت آورد برد زد ساخت یافت رسید نوشت گذاشت
گذشت ایستاد نشست خرید فروخت کشید پرداخت شناخت انداخت سوخت آموخت ریخت گریخت پذیرفت شنید افزود نمود
فرمود نهاد افتاد فرستاد پرسید فهمید ترسید
""")
_IRREGULAR = {
    "است": "بودن", "هست": "بودن", "نیست": "بودن", "هستند": "بودن", "هستم": "بودن", "هستیم": "بودن",
    "هستید": "بودن", "نیستند": "بودن", "نیستم": "بودن", "نیستیم": "بودن", "باید": "بایستن",
    "شاید": "شایستن", "توان": "توان", "بیاید": "آمدن", "بیایند": "آمدن", "بیایم": "آمدن",
    "نیاید": "آمدن", "برای": "برای", "برم": "برم", "بدان": "بدان", "بدانید": "دانستن", "مردم": "مردم",
    "مردند": "مردن", "بردند": "بردن", "نظر": "نظر", "چنانم": "چنان", "شدید": "شدید", "جدید": "جدید",
    "دیدم": "دیدن", "کردم": "کردن", "دهم": "دهم", "سفید": "سفید", "نگارند": "نگاشتن", "پرورش": "پرورش",
    "بند": "بند", "خورشید": "خورشید", "مادرم": "مادر", "نشان": "نشان", "درد": "درد", "کردید": "کردن",
    "مرد": "مرد", "امید": "امید", "خورد": "خوردن", "دوم": "دوم", "نرم": "نرم", "بهترین": "بهتر",
    "بیشترین": "بیشتر", "کمترین": "کمتر", "برترین": "برتر", "بدترین": "بدتر", "مهترین": "مهتر",
}  # fmt: skip


def sentences(text: str) -> list[str]:
    """Return the sentences of a Persian text, in order, without the white space around them.

    A sentence ends at . ! ؟ … (with what closes behind it) before white space, and at a blank line; not after
    an initial, an abbreviation or the number of a list, nor where the sentence goes on after a quotation.
    """
    found: list[str] = []
    start = 0
    for mark in _END.finditer(text):
        if mark[0][0] == "." and len(mark[0]) == 1 and _ABBREVIATED.search(text, start, mark.start()):
            continue
        if "»" in mark[0] and _GOES_ON.match(text, mark.end()):
            continue
        if part := text[start : mark.end()].strip():
            found.append(part)
        start = mark.end()
    if part := text[start:].strip():
        found.append(part)
    return found


def tokens(text: str) -> list[str]:
    """Return words (half-spaces within), numbers, addresses and signs of a Persian text, in order."""
    return _TOKEN.findall(text)


def _plain(word: str) -> str:
    return _MARKS.sub("", word.translate(_LETTER_TABLE)).strip(ZWNJ)


def _split(word: str) -> str:
    return ZWNJ.join(_HALVES.repair(part) for part in word.split(ZWNJ))


def _noun(word: str) -> str:
    """Take plural, comparative and possessive endings that a half-space sets off, or could."""
    base = _split(word)
    while (shorter := _GLUED_ENDING.sub("", _ENDING.sub("", base))) != base:
        if base in NOT_PLURAL:
            break
        base = shorter
    return base


@lru_cache(100_000)
def lemma(word: str) -> str:
    """Return the form of a word that a dictionary has: nouns without endings, verbs as infinitives.

    By morphology and a list of verbs, without the sentence (کتاب‌هایشان → کتاب, بزرگ‌ترین → بزرگ, می‌خواهم →
    خواستن, نرفته‌اند → رفتن). A word that could be no verb's form stays.
    """
    word = _plain(word)
    return _IRREGULAR.get(word) or _verb(word) or _noun(word)


def _verb(word: str) -> str | None:
    if verb := infinitive(word):
        split = _split(word)
        return verb if ZWNJ in split and infinitive(split) else word
    bare = word.removeprefix("ن") if word not in _PAST else word
    if bare in _PAST:
        return INFINITIVES[bare]
    found = _SIMPLE_PAST.fullmatch(word)
    if found and found["end"] and (len(found["stem"]) > 2 or found["stem"] in _PAST):
        return INFINITIVES[found["stem"]]
    found = _PLAIN_PRESENT.fullmatch(word) or (
        _SUBJUNCTIVE.fullmatch(word) if len(word) > 3 and word not in SILENT_HEH else None
    )
    return PRESENT[found["stem"]] if found else None


@lru_cache(100_000)
def stem(word: str) -> str:
    """Return what is left of a word when its endings are cut, by rules alone: کتابی, کتاب‌ها, کتابم → کتاب.

    Rougher than `lemma`: words of one stem are meant to fall together, not to be found in a dictionary.
    """
    word = _plain(word)
    if word in STOP_WORDS:
        return word
    base = _noun(word)
    found = _OF_STEM.search(base)
    if found is not None and found.start() >= (3 if len(found[0]) == 1 else 2):
        base = base[: found.start()].rstrip(ZWNJ)
    return base.replace("ۀ", "ه")
