"""The step `select` through the chain, on English and Persian examples of our own."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from tanzim.core.errors import DataError
from tanzim.core.powers import Powers
from tanzim.core.records import Example, Message, Provenance
from tanzim.data.chain import Done, run_steps
from tanzim.data.config import DataConfig
from tanzim.data.executor import Local
from tanzim.data.select.config import SelectConfig
from tanzim.data.shards import Dataset, write_shards

GOOD = ["خوشمزه", "عالی", "تازه", "گرم", "دلپذیر", "ممنون", "باکیفیت", "لذیذ"]
BAD = ["بد", "سرد", "مانده", "شور", "تلخ", "افتضاح", "بی\u200cکیفیت", "دیر"]
PLAIN = [
    "غذا",
    "سفارش",
    "پیک",
    "رستوران",
    "برنج",
    "کباب",
    "نان",
    "ماست",
    "امروز",
    "دیشب",
    "بود",
    "شد",
    "رسید",
]


def _reviews(count: int, wrong: int = 0) -> tuple[list[Example], set[int]]:
    """Make reviews, two of three good; so many have the other label."""
    rng = random.Random(4)
    rows = []
    for n in range(count):
        good = rng.random() < 2 / 3
        words = [*rng.choices(GOOD if good else BAD, k=2), *rng.choices(PLAIN, k=5)]
        rng.shuffle(words)
        rows.append((" ".join(words) + f" {n}", good))
    flipped = set(rng.sample(range(count), wrong))
    names = {True: "خوب", False: "بد"}
    made = [
        Example("labelled", Provenance("نظر", n + 1), text=text, label=names[good ^ (n in flipped)])
        for n, (text, good) in enumerate(rows)
    ]
    return made, flipped


def _talk(n: int, prompt: str, answer: str) -> Example:
    turns = (Message("user", prompt), Message("assistant", answer))
    return Example("messages", Provenance("گفتگو", n), messages=turns)


def _run(
    folder: Path, examples: Sequence[Example], powers: Powers | None = None, **settings: Any
) -> tuple[list[Example], Done]:
    """Run the step over three shards."""
    size = -(-len(examples) // 3)
    parts = [
        write_shards(folder / f"in-{start}", examples[start : start + size])
        for start in range(0, len(examples), size)
    ]
    shards = [shard for part in parts for shard in part.shards]
    steps = DataConfig.model_validate({"steps": [{"type": "select", **settings}]}).steps
    (done,) = run_steps(
        steps, Dataset(tuple(shards)), folder / "cache", seed=3, powers=powers, executor=Local(1)
    )
    return list(done.dataset), done


@pytest.mark.parametrize("by", ["reducible", "influence", "effort", "random"])
@pytest.mark.parametrize("classes", ["share", "root"])
def test_each_class_gets_its_part_and_every_example_comes_out(tmp_path: Path, by: str, classes: str) -> None:
    examples, _ = _reviews(240)
    kept, done = _run(tmp_path, examples, by=by, share=0.25, classes=classes, doubtful="as_others")
    assert len(kept) == 60
    before, after = (Counter(one.label for one in some) for some in (examples, kept))
    weights = {label: count if classes == "share" else count**0.5 for label, count in before.items()}
    total = sum(weights.values())
    assert all(abs(after[label] - 60 * weights[label] / total) < 1 for label in before)
    worth = done.report.findings["worth"]
    assert ("chosen" in worth) == (by != "random")
    assert worth["random"]["examples"] == round(worth["examples to choose from"] / 4)
    assert ("random, classes as chosen" in worth) == (classes == "root")
    assert done.report.findings["kept"] == 60
    whole = {one.text: one for one in examples}
    for one in kept:
        assert whole[one.text].provenance == one.provenance
        assert isinstance(one.about["select"]["area_under_margin"], float)


def test_what_is_chosen_teaches_more_than_chance(tmp_path: Path) -> None:
    """Few rare topics among many texts that are alike, some labels wrong: held-out loss and macro-F1."""
    examples, flipped = _reviews(400, wrong=60)
    kept, done = _run(tmp_path, examples, share=0.1)
    worth = done.report.findings["worth"]
    assert worth["chosen"]["macro_f1"] > worth["random"]["macro_f1"]
    assert worth["chosen"]["macro_f1"] > worth["random, classes as chosen"]["macro_f1"]
    assert worth["chosen"]["loss"] < worth["random"]["loss"]
    wrong = {examples[n].provenance.row for n in flipped}
    assert sum(one.provenance.row in wrong for one in kept) <= 1  # by chance 6
    assert all(one.about["select"]["reducible"] > 0 for one in kept)


def test_full_keeps_all_and_still_tells_what_may_be_wrong(tmp_path: Path) -> None:
    examples, flipped = _reviews(300, wrong=24)
    kept, done = _run(tmp_path, examples, by="full")
    assert len(kept) == 300
    potential = done.report.findings["error potential"]
    for name, found in (
        ("probably labelled wrongly", [one.about["select"]["doubtful"] for one in kept]),
        ("area under the margin below 0", [one.about["select"]["area_under_margin"] < 0 for one in kept]),
    ):
        numbers = set(np.flatnonzero(found).tolist())
        hits = len(numbers & flipped)
        assert hits / max(len(numbers), 1) > 0.5  # picked by chance: 0.08
        assert hits / len(flipped) > 0.5
        assert potential[name] == len(numbers)


def test_effort_would_choose_wrong_labels_but_leaves_them_for_last(tmp_path: Path) -> None:
    examples, flipped = _reviews(300, wrong=24)
    rows = {examples[n].provenance.row for n in flipped}
    taken = {}
    for doubtful in ("last", "as_others"):
        kept, _ = _run(tmp_path / doubtful, examples, by="effort", share=0.2, doubtful=doubtful)
        taken[doubtful] = sum(one.provenance.row in rows for one in kept)
    assert taken["as_others"] > 24 * 0.5  # by chance 5
    assert taken["last"] < taken["as_others"] / 2


@pytest.mark.parametrize("by", ["reducible", "influence"])
def test_examples_beyond_the_sample_are_judged_too(tmp_path: Path, by: str) -> None:
    examples, flipped = _reviews(450, wrong=30)
    kept, _ = _run(tmp_path, examples, by=by, share=1.0, surrogate_rows=150, doubtful="as_others")
    found = np.array([one.about["select"][by] for one in kept])
    wrong = np.array([n in flipped for n in range(450)])
    assert np.isfinite(found).all()
    assert np.median(found[wrong]) < np.percentile(found[~wrong], 25)  # a wrong label does harm


def test_few_of_many_are_chosen_from_beyond_the_sample_too(tmp_path: Path) -> None:
    examples, flipped = _reviews(600, wrong=60)
    kept, _ = _run(tmp_path, examples, share=0.2, surrogate_rows=200)
    assert len(kept) == 120
    numbers = {one.provenance.row - 1 for one in kept}
    assert len(numbers & flipped) <= 3  # by chance 12
    # a third of them was in the sample; what is chosen is drawn from all
    third = [sum(start <= n < start + 200 for n in numbers) for start in (0, 200, 400)]
    assert min(third) > 20


def test_embeddings_may_stand_for_words(tmp_path: Path) -> None:
    examples, _ = _reviews(150)
    asked: list[int] = []

    def embed(texts: Sequence[str]) -> np.ndarray:
        asked.append(len(texts))
        rows = [[sum(w in text for w in GOOD), sum(w in text for w in BAD), 1] for text in texts]
        found = np.array(rows, np.float32)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    powers = Powers(embed=lambda name: embed)
    kept, done = _run(tmp_path, examples, powers, count=30, embedding="here")
    assert len(kept) == 30
    assert sum(asked) == 150  # each text once
    assert done.report.findings["worth"]["all"]["accuracy"] > 0.9


def test_a_target_picks_the_talk_that_is_like_it(tmp_path: Path) -> None:
    rng = random.Random(9)
    cook = ["برنج", "را", "با", "آب", "و", "نمک", "بپز", "سپس", "کره", "و", "زعفران", "بریز", "و", "دم", "کن"]
    code = [
        "تابع",
        "را",
        "بنویس",
        "متغیر",
        "را",
        "مقدار",
        "بده",
        "حلقه",
        "را",
        "ببند",
        "خطا",
        "را",
        "چاپ",
        "کن",
    ]

    def said(words: list[str]) -> str:
        start = rng.randrange(len(words) - 6)
        return " ".join(words[start : start + 6])

    talks = []
    for n in range(1, 121):
        words = cook if n % 3 == 0 else code
        talks.append(_talk(n, said(words), said(words)))
    target = tmp_path / "target.jsonl"
    rows = [{"prompt": said(cook), "completion": said(cook)} for _ in range(20)]
    target.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    kept, done = _run(tmp_path, talks, by="influence", count=30, target=str(target))
    assert sum(one.provenance.row % 3 == 0 for one in kept) == 30  # by chance 10
    worth = done.report.findings["worth"]
    assert worth["chosen"]["nats per word"] < worth["random"]["nats per word"]


def test_effort_of_talk_is_the_surprise_of_what_is_said(tmp_path: Path) -> None:
    common = [_talk(n, f"سؤال {n}", f"بله حتماً همین طور است دوست من {n % 5}") for n in range(1, 61)]
    odd = [_talk(60 + n, "سؤال", f"واژه{n} نادر{n} شگفت{n} بی‌مانند{n} غریب{n} دور{n}") for n in range(1, 11)]
    kept, done = _run(tmp_path, [*common, *odd], by="effort", count=10)
    assert sum(one.provenance.row > 60 for one in kept) >= 9
    assert done.report.findings["surrogate"] == "word pairs"
    assert all("area_under_margin" not in one.about["select"] for one in kept)


def test_it_is_the_same_each_time(tmp_path: Path) -> None:
    examples, _ = _reviews(120)
    one, _ = _run(tmp_path / "a", examples, share=0.3)
    two, _ = _run(tmp_path / "b", examples, share=0.3)
    assert one == two


def test_without_labels_something_else_must_say_what_is_good(tmp_path: Path) -> None:
    for by in ("reducible", "influence"):
        with pytest.raises(DataError, match=f"by: {by} needs labels"):
            _run(tmp_path / by, [_talk(n, "سلام", "درود") for n in range(1, 9)], by=by, share=0.5)


def test_too_few_texts_are_refused(tmp_path: Path) -> None:
    few = [Example("labelled", Provenance("x", n), text="همان", label=str(n % 2)) for n in range(1, 7)]
    with pytest.raises(DataError, match="too few different texts"):
        _run(tmp_path, few, by="effort", share=0.5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"by": "effort"}, "either share"),
        ({"by": "effort", "share": 0.2, "count": 3}, "either share"),
        ({"by": "full", "share": 0.2}, "keeps all"),
        ({"by": "effort", "share": 0.2, "target": "x.jsonl"}, "looks at no target"),
        ({"share": 0.2, "target": "x.jsonl"}, "looks at no target"),
        ({"by": "influence", "share": 0.2, "target": "x.jsonl", "embedding": "m"}, "leave embedding out"),
    ],
)
def test_settings_that_contradict_one_another_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SelectConfig.model_validate(settings)
