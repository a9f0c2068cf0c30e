"""Small edits that change the embedding most while the meaning is kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from random import Random

import numpy as np

from tanzim.core.powers import Embed
from tanzim.core.records import Example, Message
from tanzim.core.seeds import derive
from tanzim.data.augment.augmenter import bound, draw_of, open_to_change, repeated
from tanzim.data.augment.characters import slip
from tanzim.data.augment.config import AdversarialConfig
from tanzim.data.augment.words import change_words
from tanzim.data.balance.sample import derived
from tanzim.data.step import Outcome, Step

_SLIPS = ("keyboard", "ocr", "swap", "delete", "insert")
_WORDS = ("swap", "split", "case")


def edit_distance(one: str, two: str, most: int) -> int:
    """Return how many letters were inserted, deleted, replaced, or swapped with the next one.

    The optimal string alignment distance (Damerau 1964; Boytsov 2011), looked for near the diagonal only
    (Ukkonen 1985).

    Args:
        one: a text.
        two: another.
        most: a greater distance is returned as ``most + 1``.

    """
    if abs(len(one) - len(two)) > most:
        return most + 1
    far = most + 1
    before, row = [far] * (len(two) + 1), list(range(len(two) + 1))
    for i, letter in enumerate(one, 1):
        new = [far] * (len(two) + 1)
        new[0] = i
        for j in range(max(1, i - most), min(len(two), i + most) + 1):
            best = min(row[j] + 1, new[j - 1] + 1, row[j - 1] + (letter != two[j - 1]))
            if i > 1 and j > 1 and letter == two[j - 2] and one[i - 2] == two[j - 1]:
                best = min(best, before[j - 2] + 1)
            new[j] = best
        before, row = row, new
    return min(row[-1], far)


def candidates(text: str, seed: int, *, tries: int, most: int) -> list[str]:
    """Return different texts within an edit distance of one.

    Args:
        text: any text.
        seed: where chance comes from.
        tries: texts that are made; those too far away and those made twice are left out.
        most: the edit distance.

    """
    found: dict[str, None] = {}
    for number in range(tries):
        rng = Random(derive(seed, number))
        new = (
            slip(text, rng, rate=most / (2 * max(1, len(text))), operations=_SLIPS)
            if number % 2 == 0
            else change_words(text, rng, rate=0.01, operations=_WORDS, near={})
        )
        if new != text and edit_distance(text, new, most) <= most:
            found[new] = None
    return list(found)


def hardest(text: str, others: Sequence[str], embed: Embed, least: float) -> tuple[str, float] | None:
    """Return of some texts the one least like the first whose meaning is kept, and its similarity.

    Args:
        text: the text itself.
        others: texts to choose from.
        embed: texts → rows of length 1.
        least: cosine below which the meaning is lost.

    """
    if not others:
        return None
    vectors = embed([text, *others])
    similar = np.asarray(vectors[1:] @ vectors[0], np.float64)
    kept = [(float(value), number) for number, value in enumerate(similar) if value >= least]
    if not kept:
        return None
    value, number = min(kept)
    return others[number], value


class Adversarial(Step[AdversarialConfig]):
    """Make copies with small edits that the embedding feels most, the meaning being kept.

    What is edited is the text, or of a conversation the user's last turn. The meaning is said to be kept
    by two bounds, both checked on the result: an edit distance, and the similarity of the embeddings.
    A copy is left out, and counted, where no edit stays within both.
    """

    parallel = False
    training_only = True

    def apply(self, examples: Iterable[Example]) -> Iterator[Outcome]:
        """Yield each example, and its copies after it."""
        for example in examples:
            yield example
            yield from self.copies(example)

    def copies(self, example: Example) -> Iterator[Example]:
        """Yield the changed copies of one example."""
        config = self.config
        text = edited(example)
        if text is None:
            self.counts["left alone: nothing to edit"] += 1
            return
        if draw_of(self.seed, example).random() >= config.share:
            return
        embed = self.powers.embed(config.embedding)
        most, seen = bound(config.rate, len(text)), {text}
        for copy in range(1, config.copies + 1):
            seed = derive(self.seed, str(example.provenance), copy)
            others = candidates(text, seed, tries=config.tries, most=most)
            found = hardest(text, [one for one in others if one not in seen], embed, config.min_similarity)
            if found is None:
                self.counts["no edit kept the meaning"] += 1
                if again := repeated(example, config, f"{self.name} {copy}"):
                    self.counts["repeated as it is"] += 1
                    yield again
                continue
            seen.add(found[0])
            self.counts["made"] += 1
            new = derived(with_text(example, found[0]), f"{self.name} {copy}")
            yield replace(new, about={**new.about, "adversarial_similarity": round(found[1], 4)})


def _last_user(turns: Sequence[Message]) -> int | None:
    return next((n for n in reversed(range(len(turns))) if turns[n].role == "user"), None)


def edited(example: Example) -> str | None:
    """Return the one text of an example that may be put in other words: its text, or the last question."""
    if not open_to_change(example):
        return None
    if example.text.strip():
        return example.text
    last = _last_user(example.messages)
    text = "" if last is None else example.messages[last].content
    return text if text.strip() else None


def with_text(example: Example, text: str) -> Example:
    """Return the example with another text in the place of the one that `edited` returns."""
    if example.text.strip():
        return replace(example, text=text)
    last = _last_user(example.messages)
    assert last is not None
    turns = list(example.messages)
    turns[last] = replace(turns[last], content=text)
    return replace(example, messages=tuple(turns))
