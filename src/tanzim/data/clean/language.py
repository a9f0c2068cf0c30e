"""Which language a text is in, with care for short texts and for the languages of the Arabic script."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

from tanzim.core.errors import ConfigError
from tanzim.core.optional import need
from tanzim.core.powers import Powers
from tanzim.core.records import Example
from tanzim.data.clean.config import LanguageConfig
from tanzim.data.step import Outcome, Removed, Step
from tanzim.data.texts import read

UNDETERMINED = "und"
_LONGEST = 4000  # characters looked at: more make nothing surer
_ARABIC = re.compile(
    "[\u0620-\u063f\u0641-\u064a\u066e-\u06d3\u06d5\u06ee\u06ef\u06fa-\u06ff\u0750-\u077f\ufb50-\ufdff\ufe70-\ufefc]"
)
_LETTER = re.compile(r"[^\W\d_]")
_ARABIC_SCRIPT = re.compile("[\u0600-\u06ff\u0750-\u077f\u200c\ufb50-\ufdff\ufe70-\ufefc]+")
_OTHER_SCRIPTS = re.compile(r"(?:(?![\u0600-\u06ff\u0750-\u077f\ufb50-\ufdff\ufe70-\ufefc])[^\W\d_])+")
_APART = re.compile(
    r"```.*?(?:```|\Z)|https?://\S+|www\.\S+|\S+@\S+|<[^<>\n]{1,200}>|[@#]\w+|%\(\w+\)\w|\{[^{}\n]{0,60}\}",
    re.DOTALL,
)
_WORD = re.compile("[\u0621-\u06d3\u06d5\u06fa-\u06ff\u0750-\u077f]+")
# Arabic yeh and kaf are typed in Persian as well, so that they tell nothing.
_FOLD = str.maketrans({"ي": "ی", "ى": "ی", "ك": "ک", "\u200c": " ", "ـ": ""})
# Letters that stand in one language of the Arabic script (or few), and its most frequent words.
_OWN_LETTERS = {
    "fa": "پچژگ",
    "ar": "ةأإ",
    "ur": "ٹڈڑںےہھۓپچگ",
    "ps": "ټډړږښځڅڼۍېګپچ",
    "ckb": "ڕڵێۆەڤپچگژ",
    "ug": "ۇۈۋڭېەپچگئ",
    "sd": "ڄٺڃڀٻڏڌڊڍڳڱڻ۾۽",
}
_OWN_WORDS = {
    "fa": "در به از که این را با است برای آن یک خود تا هم بود شد شده می های ها کند شود دارد نیست باید کرد "
    "اگر شما هر چه نمی هست نشده کنید لطفا وارد مورد دو سه دیگر وی گفت خیلی خوب بسیار کدام چند کجا کی چرا",
    "ar": "في من على إلى أن هذا هذه التي الذي عن كان ما لا مع لم قد كل بعد بين ذلك ثم أو هو هي لقد حتى عند "
    "يتم تم غير هل إن ليس كما عليه منها وقد وهو يجب أي",
    "ur": "کے کی ہے میں سے کو کا اور یہ ہیں نے پر کہ اس نہیں ہو ایک تھا بھی گیا آپ کر لیے وہ تو "
    "جا رہا کیا کریں ہوا گا تھی",
    "ps": "د په چې او له کې دی دا سره ته یې نه هم څخه شي کړي وي دي کړئ لپاره شو",
    "ckb": "لە بە کە بۆ ئەم لەگەڵ بوو هەر ئەو نییە یان ناو دوای هەیە تکایە بکە دەبێت ئەوە",
    "ug": "ۋە بىلەن ئۈچۈن بۇ بىر ئۇ ھەم دەپ بولۇپ بولغان",
    "sd": "جي جو آهي کي سان ۽ ۾ جا کان تي هن",
}
_PERSIAN_ALONE, _ARABIC_ALONE = (re.compile(f"[{_OWN_LETTERS[one]}]") for one in ("fa", "ar"))
_DIGITS = re.compile(r"\d+")
_LETTERS_OF = {
    letter: {one for one, letters in _OWN_LETTERS.items() if letter in letters}
    for letter in set("".join(_OWN_LETTERS.values()))
}
_WORDS_OF: dict[str, set[str]] = {}
for _language, _words in _OWN_WORDS.items():
    for _one in _words.split():
        _WORDS_OF.setdefault(_one.translate(_FOLD), set()).add(_language)
# What the model tells apart and ISO 639-1 does not: spoken Arabic, Southern Kurdish (its name for Sorani).
_SAME = {"arz": "ar", "ary": "ar", "sdh": "ckb"}
_WEIGHT_LETTER, _WEIGHT_WORD, _WEIGHT_MODEL, _FLOOR = 1.0, 1.5, 1.0, 1e-4


@cache
def _model() -> Any:  # noqa: ANN401 - the library has no types
    identifier = need("py3langid.langid", "clean").LanguageIdentifier
    return identifier.from_model_file("data/model.npz.xz", norm_probs=True)


def languages() -> frozenset[str]:
    """Return the codes of all languages that are known."""
    return frozenset(_SAME.get(one, one) for one in _model().labels) - {"zxx"} | frozenset(_OWN_WORDS)


def rank(text: str, among: Collection[str] = ()) -> list[tuple[str, float]]:
    """Return languages with their probabilities, the likeliest first; nothing for a text without letters.

    A naive Bayes model over byte n-grams (Lui and Baldwin, 2012, "langid.py"; py3langid). Texts in Arabic
    letters are judged by that model, by the letters and by the frequent words of each language together: the
    model takes Persian written with ي and ك, as old files have it, for Arabic. Of a text in two scripts, such
    as an English question with a Persian answer, each script's part is judged alone and counts by its
    letters: to the model a mixture looks like a third language.

    Args:
        text: any text; code, addresses and tags in it are not looked at.
        among: ISO 639-1 codes that may occur; empty for all.

    """
    said = _APART.sub(" ", text[:_LONGEST]) if len(text) < 10 * _LONGEST else text[:_LONGEST]
    letters, arabic = len(_LETTER.findall(said)), len(_ARABIC.findall(said))
    if not letters:
        return []
    found: dict[str, float] = {}
    for count, other, judge in (
        (arabic, _OTHER_SCRIPTS, _rank_arabic),
        (letters - arabic, _ARABIC_SCRIPT, _rank_other),
    ):
        if count > 0:
            for one, share in judge(other.sub(" ", said) if count < letters else said, among):
                found[one] = found.get(one, 0.0) + share * count / letters
    return _normalised(found)


def _rank_other(text: str, among: Collection[str]) -> list[tuple[str, float]]:
    """Rank the languages of all other scripts."""
    found: dict[str, float] = {}
    for code, share in _model().rank(text):
        one = _SAME.get(code, code)
        if one != "zxx" and (not among or one in among):
            found[one] = found.get(one, 0.0) + share
    return _normalised(found)


def _rank_arabic(text: str, among: Collection[str]) -> list[tuple[str, float]]:
    """Rank the languages of the Arabic script."""
    candidates = [one for one in _OWN_WORDS if not among or one in among]
    if _PERSIAN_ALONE.search(text) and not _ARABIC_ALONE.search(text):
        candidates = [one for one in candidates if one != "ar"] or candidates
    evidence = _evidence(text)
    text = _DIGITS.sub("", text)  # to the model, digits of an Arabic keyboard are Kurdish
    shares = dict.fromkeys(candidates, 0.0)
    for written in {text, text.translate({0x64A: "ی", 0x643: "ک"})}:
        for code, share in _model().rank(written):
            if (one := _SAME.get(code, code)) in shares:
                shares[one] += share
    scores = {
        one: _WEIGHT_MODEL * math.log(max(shares[one], _FLOOR)) + evidence.get(one, 0.0) for one in candidates
    }
    best = max(scores.values(), default=0.0)
    return _normalised({one: math.exp(score - best) for one, score in scores.items()})


def _evidence(text: str) -> dict[str, float]:
    """Return what letters and words say for each language, in nats; more text says more, but ever less so."""
    found = dict.fromkeys(_OWN_WORDS, 0.0)
    for letter in text:
        for one in _LETTERS_OF.get(letter, ()):
            found[one] += _WEIGHT_LETTER
    for word in _WORD.findall(text.translate(_FOLD)):
        for one in _WORDS_OF.get(word, ()):
            found[one] += _WEIGHT_WORD
    return {one: 2.0 * math.sqrt(value) for one, value in found.items()}


def _normalised(shares: dict[str, float]) -> list[tuple[str, float]]:
    total = sum(shares.values())
    return (
        sorted(((one, share / total) for one, share in shares.items()), key=lambda pair: -pair[1])
        if total
        else []
    )


def identify(
    text: str, *, among: Collection[str] = (), min_confidence: float = 0.3, min_letters: int = 12
) -> tuple[str, float]:
    """Return the language of a text and its probability, or "und" (undetermined).

    Args:
        text: any text.
        among: ISO 639-1 codes that may occur; empty for all.
        min_confidence: below this probability it is "und".
        min_letters: with fewer letters it is "und".

    """
    ranked = rank(text, among)
    if not ranked:
        return UNDETERMINED, 0.0
    code, confidence = ranked[0]
    short = sum(1 for _ in _LETTER.finditer(text[: 8 * min_letters + 200])) < min_letters
    if confidence < min_confidence or short:
        return UNDETERMINED, confidence
    return code, confidence


class Language(Step[LanguageConfig]):
    """Write about.language and about.language_confidence, and keep the languages that are wanted.

    What users and assistants say is judged together. A language that the source gave stays where the text
    alone does not tell.
    """

    def __init__(self, config: LanguageConfig, powers: Powers, seed: int) -> None:
        super().__init__(config, powers, seed)
        unknown = sorted({*config.keep, *config.among} - languages())
        if unknown:
            raise ConfigError(
                f"unknown languages: {', '.join(unknown)}",
                where="data.steps: language",
                fix="give ISO 639-1 codes, such as en for English and fa for Persian",
            )

    def apply(self, examples: Iterable[Example]) -> Iterator[Outcome]:
        """Yield each example with its language, or its removal."""
        config = self.config
        for example in examples:
            code, confidence = identify(
                read(example),
                among=config.among,
                min_confidence=config.min_confidence,
                min_letters=config.min_letters,
            )
            if config.keep and code not in config.keep and confidence < config.sure:
                code = UNDETERMINED
            if code == UNDETERMINED:
                code = str(example.about.get("language") or code)
            self.counts[code] += 1
            wanted = config.undetermined == "keep" if code == UNDETERMINED else code in config.keep
            if config.keep and not wanted:
                yield Removed(example, "another language", f"{code} {confidence:.2f}")
            else:
                found = {"language": code, "language_confidence": round(confidence, 3)}
                yield replace(example, about={**example.about, **found})
