"""What the models are asked when examples are made, and how their answers are read."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from tanzim.core.records import Example, Json, Message

_SHAPES = {
    "conversation": '{"question": "…", "answer": "…"}',
    "labelled": '{"text": "…"}',
    "text": '{"text": "…"}',
}
_FIELDS = {"conversation": ("question", "answer"), "labelled": ("text",), "text": ("text",)}
_YES = re.compile(r"\W*(yes|true|بله|آری)\b", re.IGNORECASE)
_NO = re.compile(r"\W*(no|false|خیر|نه)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Seed:
    """What an example is written from.

    Args:
        shape: of what is written: conversation, labelled or text.
        text: the document, text or conversation, as it is shown.
        label: of a text with a label.
        document: whether a question on the text is wanted, rather than an example like it.

    """

    shape: str
    text: str
    label: str = ""
    document: bool = False

    @property
    def wanted(self) -> str:
        """What is to be written, in words."""
        if self.document:
            return "a question that this document answers, and its answer from the document alone"
        if self.shape == "conversation":
            return "a new question of the same kind as this one, about something else, and its correct answer"
        if self.shape == "labelled":
            return (
                f'a new text of the class "{self.label}", of the same kind as this one, about something else'
            )
        return "a new text of the same kind as this one, about something else, that says nothing untrue"


def seed_of(example: Example, make: str, most: int) -> Seed | None:
    """Return what an example gives to write from; None for one that gives nothing.

    Nothing is written from tagged words, pairs, and conversations that call tools or have no answer.

    Args:
        example: any example.
        make: alike or questions; questions are made of texts only.
        most: characters that are shown.

    """
    if make == "questions":
        if example.kind != "text" or not example.text.strip():
            return None
        return Seed("conversation", example.text[:most], document=True)
    if example.kind in ("text", "labelled"):
        return Seed(example.kind, example.text[:most], example.label) if example.text.strip() else None
    turns = [turn for turn in example.messages if turn.role != "system"]
    plain = all(turn.role != "tool" and not turn.tool_calls for turn in turns)
    roles = [turn.role for turn in turns]
    if example.kind != "messages" or not plain or roles[:2] != ["user", "assistant"]:
        return None
    return Seed("conversation", shown({"question": turns[0].content, "answer": turns[1].content})[:most])


def shown(draft: Json) -> str:
    """Return a draft as a model sees it."""
    if "text" in draft:
        return str(draft["text"])
    return f"Question: {draft['question']}\nAnswer: {draft['answer']}"


def generate(seed: Seed, task: str, number: int) -> list[Message]:
    """Ask for a draft; ``number`` tells apart the drafts that are written from one seed."""
    variation = f" Write one that differs from {number} others already written." if number else ""
    return _ask(
        f"{_purpose(task)}{seed.text}\n\nWrite {seed.wanted}, in the same language.{variation} "
        f"Answer with JSON alone, in this form: {_SHAPES[seed.shape]}"
    )


def refine(seed: Seed, task: str, draft: Json) -> list[Message]:
    """Ask for a better draft."""
    return _ask(
        f"{_purpose(task)}{seed.text}\n\nWanted was {seed.wanted}. This is a draft:\n\n{shown(draft)}\n\n"
        "Correct what is wrong in it, make it clear and complete, and keep its language. "
        f"Answer with JSON alone, in this form: {_SHAPES[seed.shape]}"
    )


def accuracy(seed: Seed, task: str, draft: Json) -> list[Message]:
    """Ask whether a draft is right."""
    if seed.document:
        asked = "Is the answer correct, and does the document say so?"
    elif seed.shape == "labelled":
        asked = f'Does the text belong to the class "{seed.label}" without doubt?'
    else:
        asked = "Is all that it says correct?"
    source = f"Document:\n{seed.text}\n\n" if seed.document else ""
    return _ask(f"{_purpose(task)}{source}{shown(draft)}\n\n{asked} Answer yes or no, then why.")


def relevance(seed: Seed, task: str, draft: Json) -> list[Message]:
    """Ask whether a draft is what was wanted."""
    return _ask(
        f"{_purpose(task)}{seed.text}\n\nWanted was {seed.wanted}. This was written:\n\n{shown(draft)}\n\n"
        "Is it what was wanted? Answer yes or no, then why."
    )


def read_draft(seed: Seed, answer: str) -> Json | None:
    """Return the draft in an answer: its first JSON object with the wanted fields, none of them empty."""
    decoder = json.JSONDecoder()
    at = answer.find("{")
    while at >= 0:
        try:
            value, _ = decoder.raw_decode(answer, at)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            fields = {name: value.get(name) for name in _FIELDS[seed.shape]}
            if all(isinstance(text, str) and text.strip(" …\n") for text in fields.values()):
                return {name: str(text).strip() for name, text in fields.items()}
        at = answer.find("{", at + 1)
    return None


def read_verdict(answer: str) -> bool | None:
    """Return what a verifier said: yes, no, or None where it said neither."""
    if _YES.match(answer):
        return True
    return False if _NO.match(answer) else None


def _purpose(task: str) -> str:
    return f"Training examples are wanted for this task: {task}\n\n" if task.strip() else ""


def _ask(text: str) -> list[Message]:
    return [Message("user", text)]
