"""Augmenters that must keep the meaning: adversarial edits, translation and back, other people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from nltk import edit_distance as nltk_distance

from tanzim.core.powers import Powers
from tanzim.core.records import Example, Message, Provenance
from tanzim.data.augment.augmenter import bound
from tanzim.data.augment.back_translate import fault
from tanzim.data.augment.demographic import Swapper
from tanzim.data.augment.people import NAMES, PLACES
from tanzim.data.chain import Done, run_steps
from tanzim.data.config import DataConfig
from tanzim.data.executor import Local
from tanzim.data.shards import write_shards

TEXTS = [
    "The train to the coast leaves at nine, and tickets are sold on board.",
    "قطار ساعت نه به سوی دریا راه می‌افتد و بلیت در قطار فروخته می‌شود.",
]


def _run(
    folder: Path, examples: Sequence[Example], powers: Powers | None = None, **step: Any
) -> tuple[list[Example], Done]:
    configs = DataConfig.model_validate({"steps": [{"share": 1.0, **step}]}).steps
    dataset = write_shards(folder / "in", examples)
    (done,) = run_steps(configs, dataset, folder / "cache", seed=3, powers=powers, executor=Local(1))
    return list(done.dataset), done


def _labelled(*texts: str) -> list[Example]:
    return [Example("labelled", Provenance("rows", n), text=t, label="x") for n, t in enumerate(texts, 1)]


def _letters(texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Embed a text by how often each pair of letters stands in it."""
    vectors = np.zeros((len(texts), 512), np.float32)
    for row, text in enumerate(texts):
        for one, two in pairwise(text):
            vectors[row, (ord(one) * 31 + ord(two)) % 512] += 1
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("least", [0.7, 0.9])
def test_adversarial_edits_stay_within_both_bounds(tmp_path: Path, least: float) -> None:
    powers = Powers(embed=lambda name: _letters)
    step = {"type": "adversarial", "embedding": "letters", "min_similarity": least, "copies": 2}
    out, done = _run(tmp_path, _labelled(*TEXTS), powers, **step)
    made = [one for one in out if one.provenance.derived]
    assert done.report.counts["made"] == len(made) >= 2
    for one in made:
        text = TEXTS[one.provenance.row - 1]
        assert 0 < nltk_distance(text, one.text, transpositions=True) <= bound(0.05, len(text))
        vectors = _letters([text, one.text])
        assert float(vectors[0] @ vectors[1]) >= least
        assert one.about["adversarial_similarity"] == pytest.approx(vectors[0] @ vectors[1], abs=1e-4)
        assert one.label == "x"


def test_where_no_edit_keeps_the_meaning_there_is_no_copy(tmp_path: Path) -> None:
    def unlike(texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        return np.eye(len(texts), dtype=np.float32)

    step = {"type": "adversarial", "embedding": "unlike"}
    powers = Powers(embed=lambda name: unlike)
    out, done = _run(tmp_path, _labelled(*TEXTS), powers, **step, even=False)
    assert out == _labelled(*TEXTS)
    assert done.report.counts["no edit kept the meaning"] == 2
    out, done = _run(tmp_path / "even", _labelled(*TEXTS), powers, **step)
    assert [one.text for one in out] == [text for text in TEXTS for _ in range(2)]
    assert [one.provenance.derived for one in out] == ["", "adversarial 1, as it is"] * 2


# --- translation and back


class Translator:
    """Translates by putting a mark before a text, and takes the mark off in other words."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, conversations: Sequence[Sequence[Message]]) -> list[str]:
        return [self._one(turns[0].content) for turns in conversations]

    def _one(self, asked: str) -> str:
        self.asked.append(asked)
        head, _, text = asked.partition("\n\n")
        if "into German" in head or "into French" in head:
            return "" if "silence" in text else f"({head.split()[5]}) {text}"
        text = text.partition(" ")[2]
        if "same" in text:
            return text
        return text.replace("train", "railway").replace("قطار", "ترن") + (" 5" if "number" in text else "")


def test_back_translation(tmp_path: Path) -> None:
    translator = Translator()
    texts = [*TEXTS, "silence at all times", "the same again and again", "a number was written here"]
    examples = _labelled(*texts)
    talk = (Message("user", TEXTS[0]), Message("assistant", TEXTS[1]))
    examples.append(Example("messages", Provenance("m", 1), messages=talk))
    powers = Powers(complete=lambda name: translator)
    out, done = _run(
        tmp_path, examples, powers, type="back_translate", model="fake", through=["German"], even=False
    )
    made = [one for one in out if one.provenance.derived]
    assert [one.text for one in made[:2]] == [
        TEXTS[0].replace("train", "railway"),
        TEXTS[1].replace("قطار", "ترن"),
    ]
    assert made[2].messages == (Message("user", TEXTS[0].replace("train", "railway")), talk[1])
    assert {one.provenance.derived for one in made} == {"back_translate 1"}
    assert {k: v for k, v in done.report.findings.items() if k != "not taken"} == {
        "asked for": 6,
        "made": 3,
        "said nothing": 1,
        "came out the same": 1,
        "changed a number": 1,
    }
    assert any("into Persian" in one for one in translator.asked)
    (path,) = (tmp_path / "cache").rglob("answers.jsonl")
    kept = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    # The English sentence stands twice and is asked once: 5 ways there, and back all but the silent one.
    assert len(kept) == len(translator.asked) == 5 + 4


def test_what_did_not_come_back_stands_once_more(tmp_path: Path) -> None:
    examples = _labelled(TEXTS[0], "silence at all times", "x" * 50)
    powers = Powers(complete=lambda name: Translator())
    step = {"type": "back_translate", "model": "fake", "through": ["German"], "max_characters": 49}
    out, done = _run(tmp_path, _labelled("silence at all times", "x" * 50), powers, **step)
    assert [one.text for one in out] == ["silence at all times"] * 2 + ["x" * 50]
    assert done.report.counts == {"repeated as it is": 1}
    assert len(_run(tmp_path / "n", examples, powers, **step, even=False)[0]) == 3


def test_what_came_back_is_checked() -> None:
    assert fault("سفارش ۱۲ رسید", "سفارش 12 آمد") == ""
    assert fault("order 12 came", "order 21 came") == "changed a number"
    assert fault("a b c d e f", "a") == "lost or added much"
    assert fault("the order came", "سفارش من رسید") == "came back in another script"


# --- other people


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("He lost his key; it is his.", "She lost her key; it is hers."),
        ("She said her father saw him.", "He said his mother saw her."),
        ("I met her. HERSELF, a woman!", "I met him. HIMSELF, a man!"),
        ("The theme of this sheet", "The theme of this sheet"),
        ("پدرم گفت آقای مدیر آمد.", "مادرم گفت خانم مدیر آمد."),
        ("پدرانه و مردم و زنبور", "پدرانه و مردم و زنبور"),
    ],
)
def test_words_of_gender(text: str, expected: str) -> None:
    assert Swapper(["pronouns"], Random(1))(text) == expected


def test_names_and_places_stand_for_the_same_throughout() -> None:
    for seed in range(20):
        swapper = Swapper(["names", "places"], Random(seed))
        new = swapper("Emma and James met in Paris. Emma left Paris, James stayed.").replace(".", "").split()
        assert new[0] == new[6]
        assert new[2] == new[9].strip()
        assert new[0] != "Emma"
        assert new[0] in NAMES["en"]["f"]
        assert new[2] in NAMES["en"]["m"]
        assert new[5] in PLACES["en"]
        assert new[8].strip(",") == new[5]
        both = Swapper(["names", "pronouns"], Random(seed))("مريم به تهران رفت و علی ماند").split()
        assert both[0] in NAMES["fa"]["m"]
        assert both[5] in NAMES["fa"]["f"]
        assert both[2] == "تهران"


def test_people_are_changed_in_answers_too_but_not_behind_a_system_prompt(tmp_path: Path) -> None:
    talk = (Message("user", "Where is Omar?"), Message("assistant", "Omar is in Lima. He is well."))
    examples = [
        Example("messages", Provenance("a", 1), messages=(Message("system", "Be brief."), *talk)),
        Example("messages", Provenance("b", 1), messages=(Message("system", "You are Omar's aide."), *talk)),
        *_labelled("nobody is here"),
    ]
    out, done = _run(tmp_path, examples, type="demographic", even=False)
    (made,) = [one for one in out if one.provenance.derived]
    assert made.provenance == Provenance("a", 1, "demographic 1")
    system, asked, answer = made.messages
    name = asked.content.removeprefix("Where is ").removesuffix("?")
    assert system == Message("system", "Be brief.")
    assert name in NAMES["en"]["f"]
    assert answer.content.startswith(f"{name} is in ")
    assert answer.content.endswith(". She is well.")
    assert "Lima" not in answer.content
    assert done.report.counts["came out the same"] == 2


def test_no_name_stands_in_two_lists() -> None:
    names = [name for genders in NAMES.values() for group in genders.values() for name in group]
    places = [place for group in PLACES.values() for place in group]
    assert len({*names, *places}) == len(names) + len(places)
