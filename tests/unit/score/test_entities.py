"""Entities in rows of tags against seqeval."""

from __future__ import annotations

import random

import pytest
from seqeval.metrics.sequence_labeling import get_entities

from tanzim.score.entities import are_entities, entities


def test_entities_of_ordinary_tags() -> None:
    tags = ["B-PER", "I-PER", "O", "B-LOC", "B-LOC", "I-LOC"]
    assert entities(tags) == [("PER", 0, 1), ("LOC", 3, 3), ("LOC", 4, 5)]
    assert entities([]) == []


@pytest.mark.parametrize("prefixes", ["BI", "BIES", "I", "BE"])
def test_entities_are_seqevals_whatever_the_order(prefixes: str) -> None:
    draw = random.Random(prefixes)
    every = ["O", *(f"{prefix}-{kind}" for prefix in prefixes for kind in ("A", "B", "A-B"))]
    for _ in range(400):
        tags = [draw.choice(every) for _ in range(draw.randrange(1, 12))]
        assert entities(tags) == get_entities(tags), tags


def test_parts_of_speech_are_no_entities() -> None:
    assert are_entities(["O", "B-PER", "I-PER"])
    assert not are_entities(["NOUN", "VERB"])
    assert not are_entities(["O", "PER"])
