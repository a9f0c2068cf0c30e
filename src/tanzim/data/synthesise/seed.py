"""What examples are written from."""

from __future__ import annotations

from dataclasses import dataclass

from tanzim.core.records import Example, Json


@dataclass(frozen=True, slots=True)
class Seed:
    """What an example is written from.

    Args:
        shape: of what is written: conversation, labelled or text.
        text: the document, text or conversation, as it is shown.
        label: of a text with a label.
        document: whether a question on the text is wanted, rather than an example like it.
        focus: the sentence of the document that the question is to be about; empty for any.
        shots: other seeds of the same data, for worked examples: (text or conversation, label).

    """

    shape: str
    text: str
    label: str = ""
    document: bool = False
    focus: str = ""
    shots: tuple[tuple[str, str], ...] = ()

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
