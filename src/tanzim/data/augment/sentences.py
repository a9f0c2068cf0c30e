"""Sentences in another order, or left out."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from tanzim.data.augment.augmenter import Augmenter, bound
from tanzim.data.augment.config import AugmentSentencesConfig
from tanzim.data.clean.linguistic import guess, sentences


def pieces(text: str) -> list[tuple[str, str]]:
    """Return the sentences of a text, each with the white space after it; joined, they are the text."""
    found, at = [], 0
    whole = sentences(text, guess(text))
    starts = []
    for sentence in whole:
        at = text.index(sentence, at)
        starts.append(at)
        at += len(sentence)
    ends = [*starts[1:], len(text)]
    for number, (sentence, start, end) in enumerate(zip(whole, starts, ends, strict=True)):
        lead = text[:start] if number == 0 else ""
        found.append((lead + sentence, text[start + len(sentence) : end]))
    return found


def rearrange(text: str, rng: Random, *, rate: float, operations: Sequence[str], least: int) -> str:
    """Return a text with sentences swapped or left out; white space stays where it was.

    Args:
        text: any text.
        rng: where chance comes from.
        rate: share of the sentences that may be touched; a swap touches two, and may always be one swap.
        operations: of `AugmentSentencesConfig`.
        least: a text with fewer sentences stays as it is.

    """
    parts = pieces(text)
    if len(parts) < least:
        return text
    left = bound(rate, len(parts))
    while left > 0:
        if rng.choice(operations) == "drop" and len(parts) > 1:
            gone = rng.randrange(len(parts))
            if gone == len(parts) - 1:  # what ended the text ends it still
                parts[gone - 1] = parts[gone - 1][0], parts[gone][1]
            del parts[gone]
            left -= 1
        elif len(parts) > 1:
            one, two = rng.sample(range(len(parts)), 2)
            (a, after_a), (b, after_b) = parts[one], parts[two]
            parts[one], parts[two] = (b, after_a), (a, after_b)
            left -= 2
        else:
            break
    return "".join(sentence + after for sentence, after in parts)


class AugmentSentences(Augmenter[AugmentSentencesConfig]):
    """Make copies with sentences in another order, or left out."""

    def change(self, text: str, rng: Random) -> str:
        """Return the text with sentences swapped or left out."""
        config = self.config
        return rearrange(
            text, rng, rate=config.rate, operations=config.operations, least=config.min_sentences
        )
