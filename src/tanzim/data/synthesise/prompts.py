"""What models that follow instructions are asked when examples are made (style full)."""

from __future__ import annotations

from tanzim.core.records import Json, Message
from tanzim.data.synthesise.seed import Seed, shown

_SHAPES = {
    "conversation": "Question: …\nAnswer: …",
    "labelled": "Text: …",
    "text": "Text: …",
}


def generate(seed: Seed, task: str, number: int) -> list[Message]:
    """Ask for a draft; ``number`` tells apart the drafts that are written from one seed."""
    other = f" Write one that differs from {number} others already written." if number else ""
    if number and seed.focus:
        other = f' The question is to be about this: "{seed.focus}"'
    return _ask(
        f"{_purpose(task)}{seed.text}\n\nWrite {seed.wanted}, in the same language.{other} "
        f"Answer in this form, with nothing before or after:\n{_SHAPES[seed.shape]}"
    )


def refine(seed: Seed, task: str, draft: Json) -> list[Message]:
    """Ask for a better draft."""
    return _ask(
        f"{_purpose(task)}{seed.text}\n\nWanted was {seed.wanted}. This is a draft:\n\n{shown(draft)}\n\n"
        "Correct what is wrong in it, make it clear and complete, and keep its language. "
        f"Answer in this form, with nothing before or after:\n{_SHAPES[seed.shape]}"
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


def _purpose(task: str) -> str:
    return f"Training examples are wanted for this task: {task}\n\n" if task.strip() else ""


def _ask(text: str) -> list[Message]:
    return [Message("user", text)]
