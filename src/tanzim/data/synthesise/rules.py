"""What can be checked of a draft without a model: language, lengths, and whether the document says so."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache

from tanzim.core.records import Json
from tanzim.data.clean.linguistic import guess, stop_words
from tanzim.data.similarity import normalise
from tanzim.data.synthesise.seed import Seed

_WORD = re.compile(r"[^\W_]+")
_NUMBER = re.compile(r"\d+(?:[.,:٫]\d+)*")
_LONGEST_QUESTION = 400  # characters; what is longer is no question but a text of its own
_TIMES = 4.0  # that a text may be longer or shorter than its seed
_ABOUT = 0.5  # share of a question's words that its document must hold
_STEM = 4  # first letters that two forms of a word share, at least
_SHORTEST = 3  # letters of a word that tells something
# Questions that a number answers, and numbers in words.
_COUNTED = re.compile(
    r"\bhow (?:many|much|long|far|tall|high|old|wide|deep|heavy|often)\b|\b(?:what|which) year\b"
    r"|\bچند\b|\bچقدر\b|\bچه سالی\b",
    re.IGNORECASE,
)
_PERSON = re.compile(r"\b(?:who|whom|whose)\b|\bچه کسی\b", re.IGNORECASE)
# Numbers in words; "one" is left out, which rarely is a number.
_UNITS = (
    "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen",
    "دو سه چهار پنج شش هفت هشت نه ده یازده دوازده سیزده چهارده پانزده شانزده هفده هجده نوزده",
)
_TENS = (
    "twenty thirty forty fifty sixty seventy eighty ninety hundred",
    "بیست سی چهل پنجاه شصت هفتاد هشتاد نود صد",
)
_IN_WORDS = {
    word: str(first + step * place)
    for lists, first, step in ((_UNITS, 2, 1), (_TENS, 20, 10))
    for words in lists
    for place, word in enumerate(words.split())
} | {"thousand": "1000", "هزار": "1000", "million": "1000000", "میلیون": "1000000"}
_AGREE = 0.6  # share of words (F1) from which two answers say the same

# A reason, the same for every draft that is rejected for it, and what is particular to this one.
Fault = tuple[str, str]


@cache
def _stop() -> frozenset[str]:
    return frozenset(
        word for language in ("en", "fa") for one in stop_words(language) for word in normalise(one).split()
    )


def telling(text: str) -> list[str]:
    """Return the words of a text that tell something: numbers, in digits, and words not short or frequent."""
    words = _WORD.findall(_in_digits(text))
    return [
        _IN_WORDS.get(word, word)
        for word in words
        if word.isdigit() or word in _IN_WORDS or (len(word) >= _SHORTEST and word not in _stop())
    ]


def _in_digits(text: str) -> str:
    return "".join(str(int(c)) if c.isdecimal() else c for c in normalise(text))


def numbers(text: str) -> set[str]:
    """Return the numbers of a text, in the digits 0 to 9; of those in words each word on its own."""
    folded = _in_digits(text)
    return set(_NUMBER.findall(folded)) | {
        _IN_WORDS[word] for word in _WORD.findall(folded) if word in _IN_WORDS
    }


def akin(one: str, two: str) -> bool:
    """Tell whether two words are likely forms of one: "return" and "returned"."""
    if one == two:
        return True
    shared = next(
        (n for n, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two))
    )
    return shared >= _STEM and shared >= 0.7 * max(len(one), len(two))


def held(words: Iterable[str], source: Sequence[str]) -> list[str]:
    """Return those of some words that, in one form or another, stand among others."""
    known = set(source)
    return [word for word in words if word in known or any(akin(word, other) for other in known)]


def agree(question: str, one: str, two: str) -> bool:
    """Tell whether two answers to a question say the same: most of their words, and no other number.

    Beyond the words of the question: the F1 of SQuAD (Rajpurkar et al., EMNLP 2016) is at least 0.6.
    """
    asked = telling(question)
    first, second = _beyond(one, asked), _beyond(two, asked)
    if not first and not second:  # "Yes" and "Yes": all there is, is short
        return bool(one.strip()) and normalise(one).strip(" .!") == normalise(two).strip(" .!")
    n, m = numbers(one), numbers(two)
    if not (n <= m or m <= n):
        return False
    return len(held(first, second)) + len(held(second, first)) >= _AGREE * (len(first) + len(second))


def _beyond(answer: str, asked: Sequence[str]) -> list[str]:
    """Return the telling words of an answer that the question has not, each once."""
    return [word for word in dict.fromkeys(telling(answer)) if not held([word], asked)]


def fault(seed: Seed, draft: Json, *, min_stated: float) -> Fault | None:
    """Say what is wrong with a draft as far as rules can tell; None if nothing is.

    Args:
        seed: what it was written from.
        draft: question and answer, or text.
        min_stated: share of an answer's words that the document must hold; 0 asks for none.

    """
    for name, text in draft.items():
        if guess(text) != guess(seed.text):
            return "in another language", f"the {name}"
    if seed.shape != "conversation":
        return _of_length("text", draft["text"], seed.text)
    question, answer = draft["question"], draft["answer"]
    if len(question) > _LONGEST_QUESTION:
        return "of another length than wanted", f"the question has {len(question)} characters"
    if normalise(question) == normalise(answer):
        return "the answer says no more than the question", answer
    return next(_on_document(seed, question, answer, min_stated), None) if seed.document else None


def _of_length(name: str, text: str, model: str) -> Fault | None:
    if len(model) / _TIMES <= len(text) <= max(len(model), 20) * _TIMES:
        return None
    return "of another length than wanted", f"the {name} has {len(text)} characters, its seed {len(model)}"


def _on_document(seed: Seed, question: str, answer: str, min_stated: float) -> Iterator[Fault]:
    """Yield what is wrong with a question and its answer from a document, what is plainest first."""
    source, asked = telling(seed.text), telling(question)
    if "?" not in question and "؟" not in question:
        yield "asks nothing", question
    if len(set(asked)) < len(asked):
        yield "the question goes round in a circle", question
    if len(held(asked, source)) < max(1, _ABOUT * len(asked)):
        yield "the question is not about the document", question
    if len(answer) > max(len(seed.text), 200):
        yield "of another length than wanted", f"the answer has {len(answer)} characters"
    said = _beyond(answer, asked)
    if not said and not numbers(answer) - numbers(question):
        yield "the answer says no more than the question", answer
    if _COUNTED.search(question) and not numbers(answer) - numbers(question):
        yield "the answer names no number, which was asked for", answer
    if _PERSON.search(question) and not [word for word in said if not numbers(word)]:
        yield "the answer names nobody, who was asked for", answer
    foreign = numbers(answer) - numbers(seed.text) - numbers(question)
    if min_stated and foreign:
        yield "the document does not state the answer", f"it has no {', '.join(sorted(foreign))}"
    if len(found := held(said, source)) < min_stated * len(said):
        missing = [word for word in said if word not in found]
        yield "the document does not state the answer", f"it has no {', '.join(missing[:8])}"
