"""Texts that belong together, and texts that do not, to tokens: for embeddings.

The anchor is what was asked, its match the (preferred) answer, and the other answer of a pair a hard
negative. Each text is tokenised as the tokenizer does it by itself, with the special tokens that it adds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise

from transformers import PreTrainedTokenizerBase

from tanzim.core.errors import RenderError
from tanzim.core.records import Example, Json, Message, Rendered, Segment
from tanzim.models.source_target import source_text

ROLES = ("anchor", "match", "negative")


class PairEncoder:
    """Turns questions with answers, or pairs of answers, into the tokens of texts side by side.

    Args:
        tokenizer: the base model's.

    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer

    @property
    def template(self) -> Json:
        """What a manifest must say for others to render alike."""
        return {"source": "tokenizer"}

    def render_many(self, examples: Iterable[Example]) -> list[Rendered]:
        """Turn examples into tokens, tokenised together.

        Raises:
            RenderError: one of the texts is missing or leaves no token; the message names the example.

        """
        batch = list(examples)
        if not batch:
            return []
        parts = [pair_texts(example) for example in batch]
        ids = iter(self.ids([text for part in parts for text in part]))
        made = []
        for example, part in zip(batch, parts, strict=True):
            rows = [next(ids) for _ in part]
            if not all(rows):
                raise RenderError("the tokenizer leaves nothing of a text", where=str(example.provenance))
            borders = [0, *accumulate(len(row) for row in rows)]
            names = (*ROLES[:2], *(ROLES[2] for _ in rows[2:]))
            segments = tuple(
                Segment(start, end, role, True)
                for (start, end), role in zip(pairwise(borders), names, strict=True)
            )
            weights = (1.0,) + (0.0,) * (borders[-1] - 1)
            lengths = (tuple(len(row) for row in rows),)
            tokens = tuple(token for row in rows for token in row)
            made.append(Rendered(tokens, weights, segments, example.provenance, lengths))
        return made

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of texts."""
        found: list[list[int]] = self._tokenizer(list(texts), verbose=False).input_ids
        return found


def pair_texts(example: Example) -> tuple[str, ...]:
    """Return the anchor, its match and a hard negative, if there is one.

    Raises:
        RenderError: the example has no two texts that belong together.

    """
    try:
        if example.kind == "messages":
            return source_text(example.messages[:-1], example.tools), _answer(example.messages[-1:])
        if example.kind == "pair":
            anchor = source_text(example.messages, example.tools)
            return anchor, _answer(example.chosen), _answer(example.rejected)
        raise RenderError(f"an example of kind '{example.kind}' holds no two texts that belong together")
    except RenderError as error:
        raise RenderError(error.what, where=str(example.provenance), fix=error.fix) from error


def _answer(turns: Sequence[Message]) -> str:
    text = "\n".join(turn.content for turn in turns)
    if not text.strip() or any(turn.role != "assistant" for turn in turns):
        raise RenderError("there is no text that belongs to the question")
    return text
