"""Entities in a row of tags (BIO and its kin), counted as CoNLL's evaluation counts them."""

from __future__ import annotations

from collections.abc import Sequence

OUTSIDE = "O"
PREFIXES = ("B-", "I-", "E-", "S-")
Entity = tuple[str, int, int]


def entities(tags: Sequence[str]) -> list[Entity]:
    """Return (type, first word, last word) of every entity, as seqeval and conlleval find them.

    A tag is B, I, E or S, a hyphen and the entity's type. An entity begins at B and S, and wherever the
    type changes or O was before; it ends at E and S, before the next B, S or O, and where the type changes.
    """
    found: list[Entity] = []
    start, before, kind = 0, OUTSIDE, ""
    for place, tag in enumerate([*tags, OUTSIDE]):
        prefix, _, name = tag.partition("-")
        name = name or "_"
        inside, was = prefix != OUTSIDE, before != OUTSIDE
        if was and (before in "ES" or prefix in "BSO" or name != kind):
            found.append((kind, start, place - 1))
        if inside and (prefix in "BS" or not was or before in "ES" or name != kind):
            start = place
        before, kind = prefix, name
    return found


def are_entities(tags: Sequence[str]) -> bool:
    """Tell tags of entities from other tags of words, such as parts of speech."""
    return OUTSIDE in tags and all(tag == OUTSIDE or tag.startswith(PREFIXES) for tag in tags)
