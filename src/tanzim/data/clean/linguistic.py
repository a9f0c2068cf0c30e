"""Sentences, tokens, lemmas, stems and stop words of English and Persian: functions, and a step."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from tanzim.core.errors import ConfigError
from tanzim.core.optional import need
from tanzim.core.records import Example
from tanzim.data.clean.config import LinguisticConfig
from tanzim.data.step import Outcome, Removed, Step

LANGUAGES = ("en", "fa")

# Articles, pronouns, prepositions, conjunctions, auxiliaries and adverbs without a meaning of their own.
_ENGLISH_STOP = frozenset(
    re.findall(
        r"\S+",
        """
        a an the this that these those some any each every either neither no such same other another
        i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his himself
        she her hers herself it its itself they them their theirs themselves one who whom whose which what
        about above across after against along among around as at before behind below beneath beside besides
        between beyond but by down during except for from in into of off on onto out over per since through
        throughout to toward towards under until up upon with within without via
        and or nor so yet if then else than because while although though unless whether whereas when where
        why how be am is are was were been being have has had having do does did doing done will would shall
        should can could may might must ought cannot not n't 's 're 've 'll 'd 'm
        again also already always almost just only even ever never still too very much many more most
        less least few several own both all enough here there now once quite rather perhaps
        however therefore thus hence
        """,
    )
)
_CONTRACTED = re.compile(r"(?i)([^\W\d_]+)(n['’]t|['’](?:s|re|ve|ll|d|m))$")
_TOKEN = re.compile(
    r"https?://[^\s<>\"]+|[\w.+-]{1,64}+@[\w-]+(?:\.[\w-]+)+"  # addresses; before @ RFC 5321 allows 64
    r"|\d+(?:[.,:/٫٬]\d+)*|(?:[A-Za-z]\.){2,}|(?:Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|vs|etc)\."  # numbers, U.S., Dr.
    r"|[^\W\d_](?:[\w\u200c\u064b-\u0652]|['’-](?=\w))*"  # words, don't, well-known, half-spaces
    r"|\.{2,}|[^\w\s\u200c]|_+|\w+"
)
_WHOLE = {"ca": "can", "wo": "will", "sha": "shall", "n't": "not", "n’t": "not"}
_SCRIPTS = {"fa": re.compile("[\u0600-\u06ff\ufb50-\ufdff\ufe70-\ufefc]"), "en": re.compile("[A-Za-z]")}


def guess(text: str) -> str:
    """Return "fa" for a text mostly in Arabic letters, else "en": all that these functions must know."""
    shown = text[:2000]
    return "fa" if len(_SCRIPTS["fa"].findall(shown)) > len(_SCRIPTS["en"].findall(shown)) else "en"


def _known(language: str) -> str:
    if language not in LANGUAGES:
        raise ConfigError(
            f"words of the language '{language}' cannot be taken apart",
            fix=f"use one of {', '.join(LANGUAGES)}",
        )
    return language


def sentences(text: str, language: str = "en") -> list[str]:
    """Return the sentences of a text, in order, without the white space around them.

    English and others by simplemma's rules (abbreviations, initials, ordinals), Persian by our own.

    Args:
        text: any text; blank lines end a sentence.
        language: "fa", "en", or another code.

    """
    if language == "fa":
        from tanzim.data.clean.persian.words import sentences as persian

        return persian(text)
    found: list[str] = need("simplemma", "clean").split_sentences(text, language)
    return found


def tokens(text: str, language: str = "en") -> list[str]:
    """Return words, numbers and punctuation marks, in order.

    Contractions are taken apart as in the Penn Treebank (do n't, it 's); a half-space does not end a word.

    Raises:
        ConfigError: another language than English and Persian.

    """
    if _known(language) == "fa":
        from tanzim.data.clean.persian.words import tokens as persian

        return persian(text)
    found = []
    for token in _TOKEN.findall(text):
        match = _CONTRACTED.match(token)
        found += [match[1], match[2]] if match else [token]
    return found


@cache
def stop_words(language: str = "en") -> frozenset[str]:
    """Return frequent words that tell little, in small letters.

    Raises:
        ConfigError: another language than English and Persian.

    """
    if _known(language) == "fa":
        from tanzim.data.clean.persian.lists import STOP_WORDS

        return STOP_WORDS
    return _ENGLISH_STOP


def lemmas(words: Sequence[str], language: str = "en") -> list[str]:
    """Return the dictionary form of each word ("went" → "go", «کتاب‌ها» → «کتاب»).

    English by simplemma's dictionary, without the sentence: "left" is "leave" wherever it stands.

    Raises:
        ConfigError: another language than English and Persian.

    """
    if _known(language) == "fa":
        from tanzim.data.clean.persian.words import lemma

        return [lemma(word) for word in words]
    lemmatize = need("simplemma", "clean").lemmatize
    return [lemmatize(_WHOLE.get(word.lower(), word), lang="en") for word in words]


@cache
def _stemmer(language: str) -> Callable[[str], str]:
    if language == "fa":
        from tanzim.data.clean.persian.words import stem

        return stem
    stemmer: Any = need("snowballstemmer", "clean").stemmer("english")
    stemmed: Callable[[str], str] = stemmer.stemWord
    return stemmed


def stems(words: Sequence[str], language: str = "en") -> list[str]:
    """Return the stem of each word, in small letters: English by Snowball (Porter, 2001), Persian by our own.

    Raises:
        ConfigError: another language than English and Persian.

    """
    stem = _stemmer(_known(language))
    return [stem(word.lower()) for word in words]


def reduced(text: str, config: LinguisticConfig, language: str) -> str:
    """Return the words of a text as a classic model reads them, a space between them.

    Args:
        text: any text.
        config: what is done with the words.
        language: "en" or "fa".

    """
    words = tokens(text, language)
    if config.punctuation == "drop":
        words = [word for word in words if any(map(str.isalnum, word))]
    if config.stop_words == "drop":
        dull = stop_words(language)
        words = [word for word in words if word.lower().replace("’", "'") not in dull]
    if config.words == "lemma":
        words = lemmas(words, language)
    elif config.words == "stem":
        words = stems(words, language)
    return " ".join(word.lower() for word in words) if config.lower else " ".join(words)


def language_of(example: Example, wanted: str) -> str:
    """Return the language of an example: the wanted one, or about.language, or that of its letters."""
    if wanted != "auto":
        return wanted
    return str(example.about.get("language") or guess(example.text))


class Linguistic(Step[LinguisticConfig]):
    """Reduce the words of texts and labelled texts; those of other languages stay as they are."""

    def apply(self, examples: Iterable[Example]) -> Iterator[Outcome]:
        """Yield each example with its words reduced; one that was all stop words is removed."""
        for example in examples:
            language = language_of(example, self.config.language)
            if example.kind not in ("text", "labelled") or language not in LANGUAGES:
                self.counts["left as it is"] += 1
                yield example
                continue
            lines = (reduced(line, self.config, language) for line in example.text.split("\n"))
            text = "\n".join(lines)
            if example.text.strip() and not text.strip():
                yield Removed(example, "nothing but stop words and punctuation")
            else:
                yield replace(example, text=text)
