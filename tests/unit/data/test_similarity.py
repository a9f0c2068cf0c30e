"""Shingles, MinHash and bands against brute force and closed forms."""

from __future__ import annotations

import random
import string

import numpy as np
import pytest
from datasketch import MinHash
from hypothesis import given
from hypothesis import strategies as st

from helpers.properties import examples
from tanzim.core.records import Example, Message, Provenance
from tanzim.data.similarity import (
    HASHES,
    MinHasher,
    band_keys,
    bands_for,
    compared,
    jaccard,
    normalise,
    shingles,
)

WHERE = Provenance("a", 1)


def brute(one: str, two: str) -> float:
    """Jaccard similarity of the sets of character 5-grams, by the definition."""
    sets = [{t[i : i + 5] for i in range(max(1, len(t) - 4))} for t in (one, two)]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


TEXT = st.text(alphabet="abc سلام\u200cی🙂", max_size=60)


@examples(200)
@given(one=TEXT, two=TEXT)
def test_jaccard_is_that_of_the_sets_of_five_grams(one: str, two: str) -> None:
    got = jaccard(np.unique(shingles(one)), np.unique(shingles(two)))
    assert got == pytest.approx(brute(one, two), abs=1e-12)


def _pair(rng: random.Random, alphabet: str, changes: int, length: int = 600) -> tuple[str, str]:
    one = [rng.choice(alphabet) for _ in range(length)]
    two = list(one)
    for place in rng.sample(range(length), changes):
        two[place] = rng.choice(alphabet)
    return "".join(one), "".join(two)


@pytest.mark.parametrize(
    "alphabet", [string.ascii_lowercase + " ", "ابپتثجچحخدذرزژسشصضطظعغفقکگلمنوهی \u200c"]
)
def test_signatures_agree_as_often_as_the_sets_do(alphabet: str) -> None:
    """E[share of equal hashes] is the Jaccard similarity (Broder, 1997)."""
    rng = random.Random(1)
    errors = []
    for changes in (0, 3, 8, 15, 30, 60):
        for _ in range(20):
            one, two = _pair(rng, alphabet, changes)
            signatures = MinHasher(rng.randrange(2**40)).signatures([one, two])
            errors.append((signatures[0] == signatures[1]).mean() - brute(one, two))
    # 120 estimates from 126 hashes: a mean within 3 standard errors, a spread as of a binomial.
    assert abs(np.mean(errors)) < 3 * 0.5 / np.sqrt(120 * HASHES)
    assert np.std(errors) < 1.2 * 0.5 / np.sqrt(HASHES)


@pytest.mark.parametrize("length", [7, 15, 40, 130, 1500])
def test_short_and_long_texts_are_estimated_as_well_as_by_datasketch(length: int) -> None:
    """Unbiased, and no wider spread than K permutations give, from fewer shingles than bins to many more."""
    rng = random.Random(length)
    ours, theirs = [], []
    for number in range(120):
        one, two = _pair(rng, string.ascii_lowercase, rng.randrange(1, 2 + length // 20), length)
        true = brute(one, two)
        signatures = MinHasher(number).signatures([one, two])
        ours.append((signatures[0] == signatures[1]).mean() - true)
        sketches = [MinHash(HASHES, seed=number + 1) for _ in range(2)]
        for text, sketch in zip((one, two), sketches, strict=True):
            sketch.update_batch([text[i : i + 5].encode() for i in range(len(text) - 4)])
        theirs.append(sketches[0].jaccard(sketches[1]) - true)
    assert abs(np.mean(ours)) < 3.3 * 0.5 / np.sqrt(120 * HASHES)
    assert np.std(ours) < 1.3 * np.std(theirs)


def test_signature_does_not_depend_on_its_batch() -> None:
    rng = random.Random(2)
    texts = ["".join(rng.choices("abcdefgh ", k=rng.choice([0, 3, 40, 900, 70_000]))) for _ in range(30)]
    hasher = MinHasher(7)
    together = hasher.signatures(texts)
    alone = np.concatenate([hasher.signatures([text]) for text in texts])
    assert np.array_equal(together, alone)


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.85, 0.95, 1.0])
def test_bands_find_pairs_at_the_threshold(threshold: float) -> None:
    bands, rows = bands_for(threshold)
    assert bands * rows <= HASHES
    assert 1 - (1 - threshold**rows) ** bands >= 0.995


def test_recall_of_planted_near_duplicates() -> None:
    """Of pairs at or above 0.85, at least 99 % share a band; of unrelated ones, hardly any."""
    rng = random.Random(3)
    pairs = [
        _pair(rng, string.ascii_lowercase + " ", changes, 400)
        for changes in (1, 2, 3, 4, 5)
        for _ in range(120)
    ]
    near = [(one, two) for one, two in pairs if brute(one, two) >= 0.85]
    assert len(near) > 300
    hasher, (bands, rows) = MinHasher(11), bands_for(0.85)
    ones = band_keys(hasher.signatures([one for one, _ in near]), bands, rows)
    twos = band_keys(hasher.signatures([two for _, two in near]), bands, rows)
    recall = (ones == twos).any(axis=1).mean()
    assert recall >= 0.99, recall
    unrelated = (ones == np.roll(twos, 1, axis=0)).any(axis=1).mean()
    assert unrelated < 0.01, unrelated


def test_band_keys_are_equal_just_when_the_rows_are() -> None:
    rng = np.random.default_rng(4)
    signatures = rng.integers(0, 3, (200, HASHES), np.uint32)
    bands, rows = 42, 3
    keys = band_keys(signatures, bands, rows)
    parts = signatures[:, : bands * rows].reshape(200, bands, rows)
    for band in range(bands):
        same = (parts[:, None, band] == parts[None, :, band]).all(axis=2)
        assert np.array_equal(same, keys[:, None, band] == keys[None, :, band])


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("Hello  World\n", "hello world"),
        ("می‌خواهم", "می خواهم"),
        ("علي كوچك", "علی کوچک"),
        ("ﻻ ﺳﻼم", "لا سلام"),
        ("Ｆｕｌｌ", "full"),
        ("سلـــام", "سلام"),
        ("STRASSE", "straße"),
    ],
)
def test_spellings_that_compare_as_the_same(one: str, two: str) -> None:
    assert normalise(one) == normalise(two)


def test_other_words_do_not_compare_as_the_same() -> None:
    assert len({normalise(t) for t in ("کرم", "گرم", "کرم؟", "a b", "ab", "a.b")}) == 6


def test_system_prompt_and_label_do_not_count() -> None:
    turns = (Message("user", "Hi there"), Message("assistant", "Hello"))
    plain = Example("messages", WHERE, messages=turns)
    system = Example("messages", WHERE, messages=(Message("system", "Be kind. " * 50), *turns))
    assert compared(plain) == compared(system) == ("hi there hello", "hi there")
    happy = Example("labelled", WHERE, text="Nice", label="happy")
    assert compared(happy) == ("nice", "nice")
