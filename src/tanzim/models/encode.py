"""Texts and tagged words to tokens, for a head on the base: no chat template, no next token.

A text is tokenised as the tokenizer does it by itself, with the special tokens that it adds; so does
anyone who asks the trained model. Words are joined by single spaces and found again in the text by the
characters each token covers, so that every tokenizer works; a word's tag stands on its first token (Devlin
et al. 2018, arXiv:1810.04805, §5.3), its further tokens have no weight.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from tanzim.core.errors import RenderError
from tanzim.core.records import Example, Json, Rendered, Segment

SPECIAL = "special"  # role of a segment of tokens that the tokenizer added


class LabelEncoder:
    """Turns texts with a label, or words with tags, into tokens and the numbers of their labels.

    Args:
        tokenizer: the base model's.
        labels: the classes, in the order of the head's outputs.
        tagged: whether examples are words with tags, or texts with one label.

    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, labels: Sequence[str], *, tagged: bool) -> None:
        self._tokenizer = tokenizer
        self._numbers = {label: number for number, label in enumerate(labels)}
        self._tagged = tagged

    @property
    def template(self) -> Json:
        """What a manifest must say for others to render alike."""
        return {"source": "tokenizer", "labels": list(self._numbers), "tagged": self._tagged}

    def render_many(self, examples: Iterable[Example]) -> list[Rendered]:
        """Turn examples into tokens, tokenised together.

        Raises:
            RenderError: the tokenizer leaves nothing of a text, or of a word; the message names it.

        """
        batch = list(examples)
        if not batch:
            return []
        encoded = self._tokenizer(
            [example.text for example in batch],
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            return_attention_mask=False,
            verbose=False,
        )
        return [
            self._one(
                example,
                encoded["input_ids"][row],
                encoded["offset_mapping"][row],
                encoded["special_tokens_mask"][row],
            )
            for row, example in enumerate(batch)
        ]

    def _one(
        self, example: Example, ids: list[int], offsets: list[tuple[int, int]], special: list[int]
    ) -> Rendered:
        if all(special):
            raise RenderError("the tokenizer leaves nothing of this text", where=str(example.provenance))
        weights = [0.0] * len(ids)
        if self._tagged:
            places = _first_tokens(example, offsets, special)
            labels = tuple(self._numbers[tag] for tag in example.tags)
        else:
            places, labels = [0], (self._numbers[example.label],)
        for place in places:
            weights[place] = 1.0
        return Rendered(tuple(ids), tuple(weights), _segments(special), example.provenance, (labels,))


def _first_tokens(example: Example, offsets: Sequence[tuple[int, int]], special: Sequence[int]) -> list[int]:
    """Return the place of each word's first token."""
    places: list[int] = []
    start, token = 0, 0
    for number, word in enumerate(example.words, 1):
        end = start + len(word)
        # A token may begin with the space before its word, and what is special covers nothing.
        while token < len(offsets) and (special[token] or offsets[token][1] <= start):
            token += 1
        if token == len(offsets) or offsets[token][0] >= end or token in places[-1:]:
            raise RenderError(
                f"the tokenizer leaves no token of its own for word {number} ({word!r})",
                where=str(example.provenance),
                fix="leave such words out of the data, or use another base model",
            )
        places.append(token)
        start = end + 1
    return places


def _segments(special: Sequence[int]) -> tuple[Segment, ...]:
    """Divide tokens into those of the text and those that the tokenizer added around it."""
    first = next(place for place, added in enumerate(special) if not added)
    last = len(special) - next(place for place, added in enumerate(reversed(special)) if not added)
    parts: list[Any] = [(0, first, SPECIAL), (first, last, "text"), (last, len(special), SPECIAL)]
    return tuple(Segment(start, end, role, role == "text") for start, end, role in parts if start < end)
