"""Normalising many texts at a time, against the one way that `normalise` does it."""

from __future__ import annotations

import random
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from helpers.properties import examples
from tanzim.core import optional
from tanzim.data.dedup.columns import pack_texts
from tanzim.data.dedup.fold import fold_list, fold_texts
from tanzim.data.similarity import MinHasher, as_codes, normalise

TRICKY = (
    "aA \t\u00a0\u200c\u200d\u064b\u0651\u0654\u0653اوهیيكکﷺﻻﺳ…½ßİıﬁ\u0301éÅ각\u1161\u11a8🙂𝐀🄰ـ\x1c\u2028ǅΣς"
)


def assert_same(texts: list[str]) -> None:
    folded = fold_texts(*pack_texts(texts))
    for index, text in enumerate(texts):
        assert folded.text(index) == normalise(text), repr(text)


def test_every_character_alone_and_between_others() -> None:
    characters = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    characters = characters[:0x20000]  # the planes beyond hold ideographs and nothing
    assert_same([f"xا{c} {c}{c}هA" for c in characters])


@examples(400)
@given(st.lists(st.text(alphabet=TRICKY, max_size=12), max_size=6))
def test_tricky_neighbours(texts: list[str]) -> None:
    assert_same(texts)


def test_pairs_of_tricky_characters() -> None:
    assert_same([a + b + c for a in TRICKY for b in TRICKY for c in "ا\u0654 e"])


def test_without_numba_the_same(monkeypatch: object) -> None:
    rng = random.Random(1)
    texts = ["".join(rng.choices(TRICKY + "bcdefghij", k=rng.choice([0, 1, 4, 30, 400]))) for _ in range(60)]
    fast = fold_list(texts)
    signed = MinHasher(3).sketch(fast)

    def missing(module: str, extra: str) -> None:
        raise optional.MissingExtra(f"{module} {extra}")

    for place in ("tanzim.data.dedup.fold.need", "tanzim.data.similarity.need"):
        monkeypatch.setattr(place, missing)  # type: ignore[attr-defined]
    slow = fold_list(texts)
    assert np.array_equal(fast.codes, slow.codes)
    assert np.array_equal(fast.ends, slow.ends)
    assert np.array_equal(signed, MinHasher(3).sketch(slow))
    assert as_codes(["ab", "", "🙂"]).text(2) == "🙂"
