"""What small models are asked when examples are made (style simple): one thing a call, after worked examples.

A model of a few hundred million parameters writes no form with two fields, copies what a long prompt ends
with, and says the same to every yes-or-no question. It does go on with a pattern of short turns, and
answers questions on a few sentences. So it is asked for a question about one sentence, then for the answer,
each after worked examples in the language of the document; and a draft is checked by having it answered
once more from the whole document, with the answer out of sight (round-trip consistency: Alberti et al., ACL
2019).
"""

from __future__ import annotations

from collections.abc import Sequence

from tanzim.core.records import Message
from tanzim.data.clean.linguistic import guess, sentences
from tanzim.data.synthesise.read import read_draft
from tanzim.data.synthesise.rules import held, telling
from tanzim.data.synthesise.seed import Seed

# Language → (text, question, answer).
_WORKED = {
    "en": (
        (
            "The school garden was planted in 1998.",
            "When was the school garden planted?",
            "The school garden was planted in 1998.",
        ),
        (
            "The pupils grow beans and carrots, and sell them in autumn.",
            "What do the pupils grow?",
            "The pupils grow beans and carrots.",
        ),
        (
            "Doctor Hale sees patients in the old town hall.",
            "Where does Doctor Hale see patients?",
            "Doctor Hale sees patients in the old town hall.",
        ),
    ),
    "fa": (
        (
            "باغ مدرسه در سال ۱۳۷۷ ساخته شد.",
            "باغ مدرسه در چه سالی ساخته شد؟",
            "باغ مدرسه در سال ۱۳۷۷ ساخته شد.",
        ),
        (
            "دانش‌آموزان لوبیا و هویج می‌کارند و پاییز آن‌ها را می‌فروشند.",
            "دانش‌آموزان چه می‌کارند؟",
            "دانش‌آموزان لوبیا و هویج می‌کارند.",
        ),
        (
            "دکتر هادی بیماران را در ساختمان قدیمی شهرداری می‌بیند.",
            "دکتر هادی بیماران را کجا می‌بیند؟",
            "دکتر هادی بیماران را در ساختمان قدیمی شهرداری می‌بیند.",
        ),
    ),
}
_SAID = {
    "en": {
        "ask": "Text: {text}\nWrite a question that this text answers.",
        "question": "Question: {question}",
        "reply": "Text: {text}\nQuestion: {question}\nAnswer from the text.",
        "answer": "Answer: {answer}",
        "refine": "Question: {question}\nAnswer: {answer}\nWrite the answer as one full sentence.",
    },
    "fa": {
        "ask": "متن: {text}\nپرسشی بنویس که این متن به آن پاسخ می‌دهد.",
        "question": "پرسش: {question}",
        "reply": "متن: {text}\nپرسش: {question}\nاز روی متن پاسخ بده.",
        "answer": "پاسخ: {answer}",
        "refine": "پرسش: {question}\nپاسخ: {answer}\nپاسخ را در یک جمله‌ی کامل بنویس.",
    },
}
_SHOT = 300  # characters of a worked example out of the data


def _talk(pairs: Sequence[tuple[str, str]], last: str) -> list[Message]:
    turns = [turn for asked, said in pairs for turn in (Message("user", asked), Message("assistant", said))]
    return [*turns, Message("user", last)]


def _worked(language: str, asked: str, said: str) -> list[tuple[str, str]]:
    words = _SAID[language]
    rows = [{"text": t, "question": q, "answer": a} for t, q, a in _WORKED[language]]
    return [(words[asked].format(**row), words[said].format(**row)) for row in rows]


def _talks(seed: Seed) -> list[tuple[str, str]]:
    """Return questions and answers of the data, that of the seed last."""
    found = []
    for text, _ in (*seed.shots, (seed.text, "")):
        if value := read_draft("conversation", text):
            found.append((value["question"][:_SHOT], value["answer"][:_SHOT]))
    return found


def generate(seed: Seed) -> list[Message]:
    """Ask for a question, or for a text of a class."""
    if seed.document:
        language = guess(seed.text)
        last = _SAID[language]["ask"].format(text=seed.focus or seed.text)
        return _talk(_worked(language, "ask", "question"), last)
    if seed.shape == "conversation":
        return _talk(
            [("Write a question.", f"Question: {asked}") for asked, _ in _talks(seed)], "Write a question."
        )
    asked = f"Write a short text of the class: {seed.label}"
    own = [(text, label) for text, label in seed.shots if label == seed.label]
    return _talk([(asked, text[:_SHOT]) for text, _ in (*own, (seed.text, seed.label))], asked)


def reply(seed: Seed, question: str) -> list[Message]:
    """Ask for the answer to a question that was written."""
    if not seed.document:
        return _talk(_talks(seed), question)
    language = guess(seed.text)
    last = _SAID[language]["reply"].format(text=seed.focus or seed.text, question=question)
    return _talk(_worked(language, "reply", "answer"), last)


def refine(seed: Seed, question: str, answer: str) -> list[Message]:
    """Ask for a better answer."""
    language = guess(seed.text)
    last = _SAID[language]["refine"].format(question=question, answer=answer)
    return _talk(_worked(language, "refine", "answer"), last)


def check(seed: Seed, question: str) -> list[Message]:
    """Have a question answered once more: from where the document speaks of it, or without other talks."""
    if not seed.document:
        return _talk([], question)
    language = guess(seed.text)
    # Other examples first: of a document of one sentence, this must not be what `reply` asks.
    worked = _worked(language, "reply", "answer")[::-1]
    text = spoken_of(seed.text, question, language)
    return _talk(worked, _SAID[language]["reply"].format(text=text, question=question))


def spoken_of(document: str, question: str, language: str) -> str:
    """Return the two sentences of a document that share most words with a question, in their order."""
    asked = telling(question)
    whole = sentences(document, language)
    shared = [len(held(asked, telling(one))) for one in whole]
    best = sorted(range(len(whole)), key=lambda n: (-shared[n], n))[:2]
    return " ".join(whole[n] for n in sorted(best)) or document


def classify(seed: Seed, text: str) -> list[Message]:
    """Ask for the class of a text that was written."""
    asked = "Which class is this text?\n{}"
    worked = [(asked.format(one[:_SHOT]), label) for one, label in ((seed.text, seed.label), *seed.shots)]
    return _talk(worked, asked.format(text))
