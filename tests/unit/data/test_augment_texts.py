"""Augmenters of letters, words and sentences, held against nltk's edit distance and plain counting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nltk import edit_distance as nltk_distance

from helpers.properties import examples
from tanzim.core.errors import ConfigError
from tanzim.core.powers import Powers
from tanzim.core.records import Example, Message, Provenance, ToolCall
from tanzim.data.augment.adversarial import edit_distance
from tanzim.data.augment.augmenter import bound
from tanzim.data.augment.characters import NEIGHBOURS, slip
from tanzim.data.augment.sentences import pieces, rearrange
from tanzim.data.augment.words import change_words, near_words
from tanzim.data.chain import Done, run_steps
from tanzim.data.config import DataConfig
from tanzim.data.executor import Local
from tanzim.data.shards import write_shards

ENGLISH = "My parcel 4711 has not come yet, and nobody at the office answers mail@firm.example. Please help!"
PERSIAN = "بسته‌ی من هنوز نرسیده است. لطفاً بگویید که چرا کسی پاسخ نمی‌دهد؟ سفارش ۴۷۱۱ را می‌خواهم."
SLIPS = ("keyboard", "ocr", "swap", "delete", "insert")


def _run(
    folder: Path, examples: Sequence[Example], powers: Powers | None = None, **step: Any
) -> tuple[list[Example], Done]:
    configs = DataConfig.model_validate({"steps": [step]}).steps
    dataset = write_shards(folder / "in", examples)
    (done,) = run_steps(configs, dataset, folder / "cache", seed=3, powers=powers, executor=Local(1))
    return list(done.dataset), done


def _labelled(*texts: str) -> list[Example]:
    return [Example("labelled", Provenance("نمونه", n), text=t, label="الف") for n, t in enumerate(texts, 1)]


# --- letters


@pytest.mark.parametrize("text", [ENGLISH, PERSIAN])
@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5])
def test_slips_stay_within_the_bound(text: str, rate: float) -> None:
    letters = sum(map(str.isalpha, text))
    changed = 0
    for seed in range(30):
        new = slip(text, Random(seed), rate=rate, operations=SLIPS)
        # An edit is one edit, or two where one letter is read as two.
        assert nltk_distance(text, new, transpositions=True) <= 2 * bound(rate, letters)
        changed += new != text
    assert changed >= 25
    assert slip(text, Random(1), rate=rate, operations=SLIPS) == slip(
        text, Random(1), rate=rate, operations=SLIPS
    )


@given(st.integers(0, 10_000), st.sampled_from(SLIPS))
@examples(60)
def test_numbers_and_addresses_stay(seed: int, operation: str) -> None:
    for text, kept in ((ENGLISH, ("4711", "mail@firm.example.")), (PERSIAN, ("۴۷۱۱",))):
        new = slip(text, Random(seed), rate=0.5, operations=[operation])
        assert all(word in new.split() for word in kept)


@pytest.mark.parametrize(
    ("letter", "near"), [("g", "fhtyvb"), ("q", "wa"), ("p", "ol"), ("ل", "بافغرذ"), ("ش", "سضصظ")]
)
def test_keys_that_touch(letter: str, near: str) -> None:
    assert set(NEIGHBOURS[letter]) == set(near)  # read off a keyboard; ISIRI 9147 for Persian
    assert all(letter in NEIGHBOURS[other] for other in NEIGHBOURS[letter])


def test_a_slip_of_the_keyboard_takes_a_key_beside() -> None:
    for seed in range(40):
        for text in ("hello", "سلام", "HELLO"):
            new = slip(text, Random(seed), rate=0.1, operations=["keyboard"])
            (place,) = [n for n, (a, b) in enumerate(zip(text, new, strict=True)) if a != b]
            assert new[place].lower() in NEIGHBOURS[text[place].lower()]
            assert new[place].isupper() == text[place].isupper()


# --- words


@pytest.mark.parametrize("text", [ENGLISH, PERSIAN, "  a\n\nb c  ", ""])
def test_words_change_within_the_bound(text: str) -> None:
    words = text.split()
    for seed in range(40):
        new = change_words(text, Random(seed), rate=0.2, operations=["delete"], near={}).split()
        gone = Counter(words) - Counter(new)
        assert not Counter(new) - Counter(words)
        assert gone.total() <= max(1, int(0.2 * len(words)))
        new = change_words(text, Random(seed), rate=0.2, operations=["swap"], near={}).split()
        assert Counter(new) == Counter(words)
        moved = sum(a != b for a, b in zip(words, new, strict=True))
        assert moved <= max(2, int(0.2 * len(words)) + 1)
        new = "".join(change_words(text, Random(seed), rate=0.2, operations=["case"], near={}).lower())
        assert new == text.lower()
        new = change_words(text, Random(seed), rate=0.2, operations=["split"], near={})
        assert "".join(new.split()).replace("\u200c", "") == "".join(words).replace("\u200c", "")


def test_a_near_word_keeps_the_case_and_the_marks() -> None:
    near = {"parcel": ["package"], "بسته‌ی": ["پاکت"]}
    found = {
        change_words(text, Random(seed), rate=0.5, operations=["neighbour"], near=near)
        for text in ("(Parcel!", "PARCEL", "«بسته‌ی»")
        for seed in range(3)
    }
    assert found == {"(Package!", "PACKAGE", "«پاکت»"}


def _circle(words: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Place good and bad beside each other, and so glad and sad; all others elsewhere."""
    angles = {"good": 0.0, "bad": 0.05, "fine": 0.1, "سیب": 2.0, "هلو": 2.05, "lamp": 4.0}
    return np.array([[np.cos(a), np.sin(a)] for a in (angles.get(w, 3.0) for w in words)], np.float32)


def test_near_words_are_those_of_the_embedding() -> None:
    words = ["good", "bad", "fine", "سیب", "هلو", "lamp"]
    found = near_words(words, _circle, neighbours=1, min_similarity=0.9)
    assert found == {"good": ["bad"], "bad": ["good"], "fine": ["bad"], "سیب": ["هلو"], "هلو": ["سیب"]} or (
        found | {"bad": ["fine"]} == found
    )
    near = near_words(
        words, _circle, neighbours=1, min_similarity=0.9, fits=lambda one, other: words[other] != "bad"
    )
    assert near["good"] == ["fine"]


def test_near_words_of_the_data_do_not_cross_labels(tmp_path: Path) -> None:
    rows = [("good good fine fine", "+"), ("bad bad lamp lamp", "-")] * 5
    examples = [
        Example("labelled", Provenance("rows", n), text=t, label=y) for n, (t, y) in enumerate(rows, 1)
    ]
    out, done = _run(
        tmp_path,
        examples,
        Powers(embed=lambda name: _circle),
        type="augment_words",
        operations=["neighbour"],
        embedding="circle",
        share=1.0,
        rate=0.5,
        min_similarity=0.9,
        even=False,
    )
    made = [one for one in out if one.provenance.derived]
    assert done.report.findings["words with near ones"] == 2  # good and fine; bad has none of its label
    assert len(made) == 5
    assert {one.label for one in made} == {"+"}
    assert all(set(one.text.split()) <= {"good", "fine"} for one in made)
    with pytest.raises(ConfigError, match="embedding model"):
        _run(tmp_path / "none", examples, type="augment_words", operations=["neighbour"])


def test_words_of_texts_without_labels_replace_too(tmp_path: Path) -> None:
    examples = [
        Example("labelled", Provenance("rows", n), text=text, label=label)
        for n, (text, label) in enumerate([("a good day", "+"), ("a bad day", "-")], 1)
    ]
    more = tmp_path / "more.txt"
    step = {"type": "augment_words", "operations": ["neighbour"], "embedding": "circle", "share": 1.0}
    step |= {"rate": 0.5, "min_similarity": 0.9, "more_texts": str(more), "even": False}
    powers = Powers(embed=lambda name: _circle)
    for words, expected in (("fine bad fine", {"a fine day"}), ("lamp lamp", set())):
        more.write_text(f"{words}\n{words}\n", encoding="utf-8")
        out, done = _run(tmp_path, examples, powers, **step)  # another file: done again
        made = {one.text for one in out if one.provenance.derived and one.label == "+"}
        assert made == expected
        assert done.report.findings["words"] >= 3
    more.unlink()
    with pytest.raises(ConfigError, match="more_texts"):
        _run(tmp_path / "none", examples, powers, **step)


# --- sentences


@pytest.mark.parametrize("text", [ENGLISH + " One. Two? Three!", PERSIAN + "\n\n" + PERSIAN])
def test_sentences_are_moved_or_dropped(text: str) -> None:
    parts = pieces(text)
    assert "".join(sentence + after for sentence, after in parts) == text
    whole = Counter(sentence for sentence, _ in parts)
    touched = max(1, int(0.5 * len(parts)))
    for seed in range(30):
        new = rearrange(text, Random(seed), rate=0.5, operations=["shuffle"], least=2)
        assert Counter(s for s, _ in parts if s in new) == whole
        assert len(new) == len(text)
        dropped = rearrange(text, Random(seed), rate=0.5, operations=["drop"], least=2)
        gone = [s for s in whole if dropped.count(s) < whole[s]]
        assert 1 <= len(gone) <= touched
        assert dropped.strip() == dropped
    assert rearrange(text, Random(1), rate=0.5, operations=["drop"], least=99) == text


# --- all of them, as steps


@pytest.mark.parametrize("type_", ["augment_characters", "augment_words", "augment_sentences"])
def test_steps_keep_what_came_in_and_say_what_they_made(tmp_path: Path, type_: str) -> None:
    call = Message("assistant", "", tool_calls=(ToolCall("look", {"order": "4711"}),))
    talk = (Message("system", ENGLISH), Message("user", PERSIAN), Message("assistant", ENGLISH))
    examples = [
        *_labelled(ENGLISH + " Yes. No.", PERSIAN),
        Example("text", Provenance("t", 1), text=PERSIAN),
        Example("messages", Provenance("m", 1), messages=talk),
        Example(
            "pair",
            Provenance("p", 1),
            messages=talk[1:2],
            chosen=talk[2:],
            rejected=(Message("assistant", "?"),),
        ),
        Example("messages", Provenance("c", 1), messages=(Message("user", ENGLISH), call)),
        Example("tagged", Provenance("g", 1), text="a b", words=("a", "b"), tags=("X", "O")),
    ]
    step = {"type": type_, "share": 1.0, "copies": 3, "even": False}
    out, done = _run(tmp_path, examples, **step)
    again, _ = _run(tmp_path / "again", examples, **step)
    assert out == again
    assert [one for one in out if not one.provenance.derived] == examples
    made = [one for one in out if one.provenance.derived]
    assert done.report.added == len(made) == done.report.counts["made"] > 5
    assert done.report.counts["left alone: tagged words or tool calls"] == 2
    before = {(one.provenance.source, one.provenance.row): one for one in examples}
    for one in made:
        old = before[one.provenance.source, one.provenance.row]
        assert one.provenance.derived.startswith(f"{type_} ")
        assert (one.label, one.chosen, one.rejected) == (old.label, old.chosen, old.rejected)
        assert [m for m in one.messages if m.role != "user"] == [m for m in old.messages if m.role != "user"]
        assert (one.text, one.messages) != (old.text, old.messages)


def test_classes_stay_even_where_some_texts_cannot_be_changed(tmp_path: Path) -> None:
    texts = [("One. Two. Three.", "long"), ("یک. دو. سه. چهار.", "long"), ("One.", "short"), ("ی", "short")]
    examples = [Example("labelled", Provenance("r", n), text=t, label=y) for n, (t, y) in enumerate(texts)]
    examples.append(Example("text", Provenance("r", 9), text="One."))
    out, done = _run(tmp_path, examples, type="augment_sentences", share=1.0, copies=2)
    made = [one for one in out if one.provenance.derived]
    assert Counter(one.label for one in made) == {"long": 4, "short": 4}
    assert all(one.text in ("One.", "ی") for one in made if one.label == "short")
    assert done.report.counts["made"] + done.report.counts["repeated as it is"] == len(made)
    uneven, _ = _run(tmp_path / "u", examples, type="augment_sentences", share=1.0, copies=2, even=False)
    assert not [one for one in uneven if one.provenance.derived and one.label == "short"]


def test_share_is_met_and_one_example_does_not_depend_on_the_others(tmp_path: Path) -> None:
    examples = _labelled(*(f"{ENGLISH} {n}" for n in range(400)))
    out, _ = _run(tmp_path, examples, type="augment_characters", share=0.25)
    made = [one for one in out if one.provenance.derived]
    assert 65 <= len(made) <= 135  # four deviations around 100
    half, _ = _run(tmp_path / "half", examples[::2], type="augment_characters", share=0.25)
    rows = {one.provenance.row for one in examples[::2]}
    assert [one for one in half if one.provenance.derived] == [m for m in made if m.provenance.row in rows]


@given(st.text("abج ", max_size=12), st.text("abج ", max_size=12), st.integers(0, 12))
@examples(200)
def test_edit_distance_is_that_of_nltk(one: str, two: str, most: int) -> None:
    expected = nltk_distance(one, two, transpositions=False)
    found = edit_distance(one, two, most)
    swaps = edit_distance(one, two, 99)
    assert found == min(swaps, most + 1)
    assert nltk_distance(one, two, transpositions=True) <= swaps <= expected
