"""How drafts are written and checked: generate → refine → what rules tell → what the verifier says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tanzim.core.powers import Complete, Embed
from tanzim.core.records import Json, Message
from tanzim.data.similarity import normalise
from tanzim.data.synthesise import prompts, simple
from tanzim.data.synthesise.config import SynthesiseConfig
from tanzim.data.synthesise.read import read_draft, read_line, read_verdict
from tanzim.data.synthesise.rules import agree, fault
from tanzim.data.synthesise.seed import Seed, shown

_SHOWN = 300  # characters of an answer that a reason shows
_UNREAD = "the draft could not be read"
# Tokens that small models may say at once: they often find no end. A Persian letter may be two of them.
_QUESTION, _ANSWER, _CLASS = 96, 192, 24


@dataclass(slots=True)
class Draft:
    """A text on its way to an example.

    Args:
        seed: what it is written from.
        number: which of the drafts from that seed it is, counted from 0.
        value: question and answer, or text; empty until it is written.
        reason: why it is rejected; empty for one that is not.
        detail: what the verifier said, or what the draft repeats.

    """

    seed: Seed
    number: int
    value: Json
    reason: str = ""
    detail: str = ""

    def reject(self, reason: str, detail: str) -> None:
        """Note why it is no example; the first reason stays."""
        if not self.reason:
            self.reason, self.detail = reason, detail[:_SHOWN]


def write_drafts(
    drafts: Sequence[Draft],
    writer: Complete,
    verifier: Complete,
    config: SynthesiseConfig,
    embed: Embed | None = None,
) -> None:
    """Write drafts and verify them; each ends with a value, a reason to reject it, or both.

    What is refined is taken only where rules find no fault with it; else the draft stands as it was. None
    passes without having been checked by rules and by the verifier.

    Args:
        drafts: with their seeds; filled in.
        writer: the model that writes.
        verifier: the model that checks.
        config: the style, the task, and what rules allow.
        embed: tells how near two texts are; None leaves that out.

    """
    style = _Simple(writer, verifier) if config.style == "simple" else _Full(writer, verifier, config.task)
    style.generate(drafts)
    left = _left(drafts)
    for one, value in zip(left, style.refined(left), strict=True):
        if value and fault(one.seed, value, min_stated=config.min_stated) is None:
            one.value = value
    for one in left:
        if found := fault(one.seed, one.value, min_stated=config.min_stated):
            one.reject(*found)
    if embed is not None:
        _near(_left(drafts), embed, config.min_relevance)
    style.verify(_left(drafts))


def _left(drafts: Sequence[Draft]) -> list[Draft]:
    return [one for one in drafts if not one.reason]


def _near(drafts: Sequence[Draft], embed: Embed, least: float) -> None:
    """Reject drafts whose embedding is far from that of their document or seed."""
    if not drafts:
        return
    seeds_ND = embed([one.seed.focus or one.seed.text for one in drafts])
    texts_ND = embed([shown(one.value) for one in drafts])
    for one, seed, text in zip(drafts, seeds_ND, texts_ND, strict=True):
        if (cosine := float(seed @ text)) < least:
            one.reject("about something else", f"cosine {cosine:.2f}")


class _Full:
    """For models that follow instructions: all in one call, and two questions to be answered by yes or no."""

    def __init__(self, writer: Complete, verifier: Complete, task: str) -> None:
        self._writer, self._verifier, self._task = writer, verifier, task

    def generate(self, drafts: Sequence[Draft]) -> None:
        answers = self._writer([prompts.generate(one.seed, self._task, one.number) for one in drafts])
        for one, answer in zip(drafts, answers, strict=True):
            if (value := read_draft(one.seed.shape, answer)) is None:
                one.reject(_UNREAD, answer)
            else:
                one.value = value

    def refined(self, drafts: Sequence[Draft]) -> list[Json | None]:
        answers = self._writer([prompts.refine(one.seed, self._task, one.value) for one in drafts])
        return [read_draft(one.seed.shape, answer) for one, answer in zip(drafts, answers, strict=True)]

    def verify(self, drafts: Sequence[Draft]) -> None:
        """Ask both of each draft, whatever the answer to the first."""
        for ask, what in ((prompts.accuracy, "accurate"), (prompts.relevance, "relevant")):
            answers = self._verifier([ask(one.seed, self._task, one.value) for one in drafts])
            for one, answer in zip(drafts, answers, strict=True):
                verdict = read_verdict(answer)
                if verdict is not True:
                    one.reject(
                        f"not {what}" if verdict is False else f"no verdict whether it is {what}", answer
                    )


class _Simple:
    """For small models: one thing a call; what the verifier answers itself must agree with the draft."""

    def __init__(self, writer: Complete, verifier: Complete) -> None:
        self._writer, self._verifier = writer, verifier

    def generate(self, drafts: Sequence[Draft]) -> None:
        asked = self._lines([simple.generate(one.seed) for one in drafts], _QUESTION)
        talks = []
        for one, line in zip(drafts, asked, strict=True):
            if not line:
                one.reject(_UNREAD, "nothing was said, or no end was found")
            elif one.seed.shape == "conversation":
                one.value = {"question": line}
                talks.append(one)
            else:
                one.value = {"text": line}
        said = self._lines([simple.reply(one.seed, one.value["question"]) for one in talks], _ANSWER)
        for one, line in zip(talks, said, strict=True):
            one.value = {**one.value, "answer": line}
            if not line:
                one.reject("the question was not answered", "nothing was said, or no end was found")

    def _lines(self, conversations: Sequence[Sequence[Message]], longest: int) -> list[str]:
        return [read_line(answer) for answer in self._writer(conversations, longest=longest)]

    def refined(self, drafts: Sequence[Draft]) -> list[Json | None]:
        talks = [one for one in drafts if one.seed.shape == "conversation"]
        asked = [simple.refine(one.seed, one.value["question"], one.value["answer"]) for one in talks]
        lines = dict(zip(map(id, talks), self._lines(asked, _ANSWER), strict=True))
        return [{**one.value, "answer": lines[id(one)]} if lines.get(id(one)) else None for one in drafts]

    def verify(self, drafts: Sequence[Draft]) -> None:
        talks = [one for one in drafts if one.seed.shape == "conversation"]
        asked = [simple.check(one.seed, one.value["question"]) for one in talks]
        for one, answer in zip(talks, self._verifier(asked, longest=_ANSWER), strict=True):
            if not (line := read_line(answer)):
                one.reject("no verdict whether it is accurate", answer)
            elif not agree(one.value["question"], one.value["answer"], line):
                one.reject("not accurate: the verifier answers otherwise", line)
        texts = [one for one in drafts if one.seed.shape == "labelled"]
        asked = [simple.classify(one.seed, one.value["text"]) for one in texts]
        for one, answer in zip(texts, self._verifier(asked, longest=_CLASS), strict=True):
            line = read_line(answer)
            if normalise(line).strip(" .") != normalise(one.seed.label).strip(" ."):
                one.reject("not accurate: the verifier names another class", line)


def with_shots(seed: Seed, others: Sequence[tuple[str, str]]) -> Seed:
    """Return a seed with other texts of the data for worked examples, itself not among them."""
    return replace(seed, shots=tuple(one for one in others if one[0] != seed.text))
