"""Values that are missing: blank, or a word that stands for nothing."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

from tanzim.core.powers import Powers
from tanzim.core.records import Example, Message
from tanzim.data.clean.config import MissingConfig
from tanzim.data.step import Outcome, Removed, Step

# As they are compared: small letters, Persian ی and ک, no spaces, half-spaces, brackets or end marks.
_NOTHING = frozenset(
    (
        "n/a", "na", "n.a", "nan", "#n/a", "null", "nil", "none", "undefined", "missing", "empty", "blank",
        "noinput", "noinputrequired", "noinputneeded", "noinputprovided", "noinputgiven",
        "nooutput", "noanswer",
        "nocontext", "notavailable", "notapplicable", "notprovided", "notgiven", "nodata", "notext",
        "unknown",        "tbd", "tba", "todo", "xxx", "deleted", "removed",
        "ندارد", "نامشخص", "نامعلوم", "خالی", "هیچ", "هیچکدام", "موجودنیست", "وجودندارد",
        "بدونورودی", "بدونمقدار",
        "بدونمتن", "بدونپاسخ", "بدونبرچسب", "تهی", "ثبتنشده", "واردنشده", "اعلامنشده", "دردسترسنیست",
    )
)  # fmt: skip
# Of these, what is an answer or the name of a class as often as not: no text, but a fair answer.
_ANSWERS = frozenset(("none", "unknown", "blank", "empty", "nil", "missing", "removed", "deleted",
    "undefined", "null", "nan", "na",
    "ندارد", "نامشخص", "نامعلوم", "خالی", "هیچ", "هیچکدام", "وجودندارد", "تهی"))  # fmt: skip
_LABELS = _ANSWERS - frozenset(("null", "nan", "na", "undefined", "missing"))
_STRIPPED = re.compile(r"[\s\u200c\u200d\u200e\u200f\ufeff]+")
_EDGES = "<>[](){}«»\"'`“”.,:;!*_~"
_FOLD = str.maketrans("يكۀة", "یکهه")
_LONGEST = 40  # characters of a placeholder
_FIELDS = {"answer": "messages", "preferred answer": "chosen", "other answer": "rejected"}
_MARKS = re.compile(r"[-‐-―−_.·•*/\\|~،؛…ـ?؟]*")


def fold(text: str) -> str:
    """Return a value as it is compared with placeholders."""
    small = unicodedata.normalize("NFKC", text).casefold().translate(_FOLD)
    return _STRIPPED.sub("", small).strip(_EDGES)


def is_missing(
    text: str,
    *,
    role: Literal["text", "answer", "label"] = "text",
    placeholders: Collection[str] = (),
    real: Collection[str] = (),
) -> bool:
    """Return whether a value is missing: blank, marks alone (- … ؟), or a placeholder of either language.

    Case, spaces, half-spaces, brackets and end marks do not matter: "<No Input>." is "noinput".

    Args:
        text: the value.
        role: "text" (a document, a question, its context), "answer" or "label": "none" may answer a question,
            and be the name of a class, but is no document.
        placeholders: more of them, as `fold` returns them.
        real: words that are none, as `fold` returns them.

    """
    if len(text) > _LONGEST and text.strip():
        return False
    folded = fold(text)
    if folded in placeholders or not text.strip():
        return True
    if folded in real:
        return False
    known = {"text": _NOTHING, "answer": _NOTHING - _ANSWERS, "label": _NOTHING - _LABELS}[role]
    return folded in known or _MARKS.fullmatch(folded) is not None


def without_context(text: str, placeholders: Collection[str] = (), real: Collection[str] = ()) -> str:
    """Return a question without a placeholder below it, such as Alpaca's "No input"."""
    head, gap, tail = text.rstrip().rpartition("\n\n")
    if gap and head.strip() and is_missing(tail, placeholders=placeholders, real=real):
        return head.rstrip()
    return text


class Missing(Step[MissingConfig]):
    """Drop or fill what is missing: texts, questions, answers and labels.

    Of a conversation the first question and the last answer are looked at: between them "…" may be meant.
    """

    def __init__(self, config: MissingConfig, powers: Powers, seed: int) -> None:
        super().__init__(config, powers, seed)
        self._placeholders = frozenset(map(fold, config.placeholders))
        self._real = frozenset(map(fold, config.real))

    def apply(self, examples: Iterable[Example]) -> Iterator[Outcome]:
        """Yield each example, with what is missing filled in, or its removal."""
        for example in examples:
            whole = self._cut(example)
            for part in self._missing(whole):
                self.counts[f"missing {part}"] += 1
                action = self.config.label if part == "label" else self.config.text
                if action == "drop":
                    yield Removed(example, f"the {part} is missing", _value(whole, part).strip()[:40])
                    break
                if action == "fill":
                    whole = self._filled(whole, part)
            else:
                yield whole

    def _is(self, text: str, role: Literal["text", "answer", "label"]) -> bool:
        return is_missing(text, role=role, placeholders=self._placeholders, real=self._real)

    def _cut(self, example: Example) -> Example:
        """Cut a placeholder off the first question."""
        at = _first(example.messages)
        if self.config.context == "keep" or at is None:
            return example
        turn = example.messages[at]
        content = without_context(turn.content, self._placeholders, self._real)
        if content == turn.content:
            return example
        self.counts["placeholders cut off a question"] += 1
        turns = (*example.messages[:at], replace(turn, content=content), *example.messages[at + 1 :])
        return replace(example, messages=turns)

    def _missing(self, example: Example) -> list[str]:
        """Name the parts of an example that are missing."""
        if example.kind == "tagged":
            return [] if example.words else ["text"]
        if example.kind in ("text", "labelled"):
            parts = ["text"] if self._is(example.text, "text") else []
            return [
                *parts,
                *(["label"] if example.kind == "labelled" and self._is(example.label, "label") else []),
            ]
        at = _first(example.messages)
        parts = ["question"] if at is not None and self._is(example.messages[at].content, "text") else []
        answers = {"answer": example.messages} if example.kind == "messages" else {
            "preferred answer": example.chosen, "other answer": example.rejected
        }  # fmt: skip
        return parts + [name for name, turns in answers.items() if self._no_answer(turns)]

    def _no_answer(self, turns: tuple[Message, ...]) -> bool:
        said = [turn for turn in turns if turn.role == "assistant"]
        return not said or (not said[-1].tool_calls and self._is(said[-1].content, "answer"))

    def _filled(self, example: Example, part: str) -> Example:
        if part == "label":
            return replace(example, label=self.config.label_fill)
        fill = self.config.text_fill
        if part == "question":
            at = _first(example.messages)
            assert at is not None
            return replace(example, messages=_with(example.messages, at, fill))
        field = _FIELDS.get(part)
        if field is None:
            return example if example.kind == "tagged" else replace(example, text=fill)
        turns: tuple[Message, ...] = getattr(example, field)
        at = _last(turns)
        filled = (*turns, Message("assistant", fill)) if at is None else _with(turns, at, fill)
        if field == "messages":
            return replace(example, messages=filled)
        return replace(example, chosen=filled) if field == "chosen" else replace(example, rejected=filled)


def _first(turns: Sequence[Message]) -> int | None:
    return next((at for at, turn in enumerate(turns) if turn.role == "user"), None)


def _last(turns: Sequence[Message]) -> int | None:
    return next((at for at in reversed(range(len(turns))) if turns[at].role == "assistant"), None)


def _with(turns: tuple[Message, ...], at: int, content: str) -> tuple[Message, ...]:
    return (*turns[:at], replace(turns[at], content=content), *turns[at + 1 :])


def _value(example: Example, part: str) -> str:
    if part in ("text", "label"):
        return example.label if part == "label" else example.text
    turns = example.messages if part == "question" else getattr(example, _FIELDS[part])
    at = _first(turns) if part == "question" else _last(turns)
    return "" if at is None else turns[at].content
