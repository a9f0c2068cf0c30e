"""Evaluation items in training data, beside a plain search with sets of words; English and Persian."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
from pydantic import ValidationError

from tanzim.core.errors import DataError
from tanzim.core.powers import Powers
from tanzim.core.records import Example, Message, Provenance
from tanzim.data.chain import run_steps
from tanzim.data.config import DataConfig, Splits
from tanzim.data.prepare import prepare
from tanzim.data.screen.config import ContaminationConfig, ContaminationSemanticConfig
from tanzim.data.screen.contamination import pieces_of
from tanzim.data.screen.overlap import Overlap, words_in
from tanzim.data.shards import write_shards

LONG = "A train leaves the old station at nine and reaches the far harbour before the bells ring out loud"
FARSI = "کشاورزی سه سبد سیب دارد و در هر سبد دوازده سیب می‌گذارد، او روی هم چند سیب دارد؟"


def asking(text: str, answer: str = "…", row: int = 1) -> Example:
    return Example(
        "messages", Provenance("train", row), messages=(Message("user", text), Message("assistant", answer))
    )


def evaluation(path, *prompts: str, answer: str = "four"):
    lines = [json.dumps({"prompt": one, "completion": answer}, ensure_ascii=False) for one in prompts]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def test_words_of_any_script():
    assert words_in("Don't STOP—now, ٣ مي‌خواهم كتاب‌هايِ") == words_in("don't stop now ۳ می خواهم کتاب هاي")
    assert words_in("東京は大きい") == list("東京は大きい")
    assert words_in("café") == words_in("cafe\u0301") == ["cafe"]


def test_runs_beside_sets_of_tuples():
    """Random texts over few words share many runs; the index must find what a plain search finds."""
    rng = random.Random(3)
    vocabulary = [f"w{n}" for n in range(12)]
    items = [asking(" ".join(rng.choices(vocabulary, k=rng.randint(5, 14)))) for _ in range(60)]
    overlap = Overlap(items, words=5, shortest=4, common=2)
    texts = [next(words_in(t.content) for t in one.messages) for one in items]

    def runs(words, length):
        return {tuple(words[i : i + length]) for i in range(len(words) - length + 1)}

    owners: dict[tuple, set[int]] = {}
    for number, words in enumerate(texts):
        for run in runs(words, 5):
            owners.setdefault(run, set()).add(number)
    for _ in range(150):
        words = rng.choices(vocabulary, k=60)
        wanted = {n for run in runs(words, 5) for n in owners.get(run, ()) if len(owners[run]) <= 2}
        assert {hit.item for hit in overlap.find(asking(" ".join(words)))} == wanted


def test_coverage_is_the_share_of_words():
    words = LONG.split()
    overlap = Overlap([asking(LONG)], words=8)
    (hit,) = overlap.find(asking("So: " + " ".join(words[2:14]) + " is all."))
    assert hit.coverage == 12 / len(words)
    assert overlap.find(asking(" ".join(words[2:14])), coverage=0.9) == []
    assert overlap.find(asking(" ".join(words[2:9]))) == []  # seven words


@pytest.mark.parametrize(
    "text",
    [
        FARSI,
        FARSI.replace("ی", "ي").replace("ک", "ك").replace("\u200c", " "),
        "پرسش زیر را پاسخ دهید:\n" + FARSI.replace("،", " ,"),
        FARSI.rstrip("؟") + " …",
    ],
)
def test_persian_in_its_spellings(text):
    (hit,) = Overlap([asking(FARSI)]).find(asking(text))
    assert hit.coverage == 1.0
    assert Overlap([asking(FARSI)]).find(asking("کشاورزی سه سبد سیب دارد و به خانه می‌رود")) == []


def test_short_items_and_forms_of_words():
    short = "Who wrote the Shahnameh?"
    overlap = Overlap([asking(short), asking("9 + 5 = ?")])
    assert [hit.item for hit in overlap.find(asking("WHO WROTE the shahnameh"))] == [0]
    assert [hit.item for hit in overlap.find(asking(f"Questions:\n{short}\n9+5=?"))] == [0, 1]
    assert overlap.find(asking("I asked who wrote the Shahnameh and he knew")) == []
    form = "Choose the one of the following four answers that is right and give its letter alone: "
    overlap = Overlap([asking(f"{form}{word} {LONG}") for word in ("one", "two", "three", "four")], common=3)
    assert overlap.find(asking(form + "what is a fish")) == []


def test_through_the_chain(tmp_path):
    against = evaluation(
        tmp_path / "eval.jsonl",
        LONG,
        FARSI,
        "a wholly other thing that nobody has ever said to anyone before",
    )
    rows = [asking(f"Clean row number {n} speaks of other things entirely.", row=n) for n in range(1, 8)]
    rows += [
        asking(LONG.upper() + "!", row=8),
        asking("سلام. " + FARSI, row=9),
        asking("hi", f"He said: {LONG}", row=10),
    ]
    dataset = write_shards(tmp_path / "in", iter(rows))
    (done,) = run_steps([ContaminationConfig(against=against)], dataset, tmp_path / "cache", seed=0)
    found = done.report.findings
    assert (
        found["contaminated_items"],
        found["training_examples_that_share"],
        found["evaluation_items"],
    ) == (2, 3, 3)
    first, second = sorted(found["items"], key=lambda item: -item["rows"])
    assert LONG in first["content"] and first["item"].endswith("row 1")  # noqa: PT018
    assert [(one["row"], one["likeness"]) for one in first["training"]] == [
        ("train, row 8", 1.0),
        ("train, row 10", 1.0),
    ]
    assert second["training"] == [{"row": "train, row 9", "part": "prompt", "likeness": 1.0}]
    assert done.report.removed == {"it holds an evaluation item": 3}
    assert done.dataset.rows == 7
    (told,) = run_steps(
        [ContaminationConfig(against=against, action="report")], dataset, tmp_path / "cache", seed=0
    )
    assert told.dataset.rows == 10
    assert told.report.findings["contaminated_items"] == 2
    again = [ContaminationConfig(against=against)]
    assert next(run_steps(again, dataset, tmp_path / "cache", seed=0)).report.cached
    evaluation(tmp_path / "eval.jsonl", LONG)  # another content under the same name
    other = next(run_steps(again, dataset, tmp_path / "cache", seed=0)).report
    assert not other.cached
    assert other.findings["evaluation_items"] == 1


def test_held_out_examples_stay(tmp_path):
    """The same text in training and test data: only the training side is cleaned of it."""
    against = evaluation(tmp_path / "eval.jsonl", LONG)
    train = evaluation(
        tmp_path / "train.jsonl", LONG + " Why?", *(f"What is {n} plus {n * n}?" for n in range(20))
    )
    test = evaluation(tmp_path / "test.jsonl", LONG + " When?", "Where is the sea?")
    step = ContaminationConfig(against=against)
    config = DataConfig(path=train, test_path=test, steps=[step], split=Splits(validation=0, leakage="allow"))
    report = prepare(config, tmp_path / "out", seed=0)
    assert report.splits == {"train": 20, "validation": 0, "test": 2}
    assert report.steps[0]["removed"] == {"it holds an evaluation item": 1}
    line = json.loads((tmp_path / "out" / "rejected.jsonl").read_text(encoding="utf-8"))
    assert line["detail"] == f"{against}, row 1 (1.00)"


def test_what_cannot_be_compared_with(tmp_path):
    dataset = write_shards(tmp_path / "in", iter([asking("x")]))
    with pytest.raises(DataError, match="no such file"):
        list(
            run_steps(
                [ContaminationConfig(against=str(tmp_path / "no.jsonl"))], dataset, tmp_path / "c", seed=0
            )
        )
    with pytest.raises(ValidationError, match=r"shortest \(20\) is above words"):
        ContaminationConfig(against="x", shortest=20)
    with pytest.raises(ValidationError, match="no evaluation set"):
        ContaminationConfig(against=[])


def bag(texts):
    """Embed by counts of words: texts of the same words in another order are alike."""
    vectors = np.zeros((len(texts), 512), np.float32)
    for row, text in enumerate(texts):
        for word in words_in(text):
            vectors[row, hash_word(word)] += 1
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def hash_word(word: str) -> int:
    return sum(ord(c) * 31**i for i, c in enumerate(word)) % 512


def test_said_in_other_words(tmp_path):
    against = evaluation(tmp_path / "eval.jsonl", LONG, FARSI)
    shuffled = LONG.split()
    random.Random(1).shuffle(shuffled)
    rows = [asking(f"Clean row {n} about {n} fish", row=n) for n in range(1, 300)]
    rows += [asking(" ".join(shuffled), row=300)]
    assert Overlap([asking(LONG)]).find(rows[-1]) == []
    dataset = write_shards(tmp_path / "in", iter(rows))
    config = ContaminationSemanticConfig(against=against, model="bag", similarity=0.8)
    powers = Powers(embed=lambda name: bag)
    (done,) = run_steps([config], dataset, tmp_path / "cache", seed=0, powers=powers)
    (item,) = done.report.findings["items"]
    exact = float((bag([LONG]) @ bag([" ".join(shuffled)]).T)[0, 0])
    assert item["training"] == [{"row": "train, row 300", "part": "prompt", "likeness": round(exact, 4)}]
    assert done.dataset.rows == 299


def test_what_the_model_does_not_know_is_not_compared(tmp_path):
    """To a model of English all Persian texts are alike: each would seem to hold each Persian item."""

    def blind(texts):
        return np.array([[1, 0] if not text.isascii() else [0, 1] for text in texts], np.float32)

    against = evaluation(tmp_path / "eval.jsonl", LONG, FARSI)
    rows = [
        asking("هوا امروز ابری است.", row=1),
        asking("Where is the sea?", row=2),
        asking("کتاب نو", row=3),
    ]
    dataset, powers = write_shards(tmp_path / "in", iter(rows)), Powers(embed=lambda name: blind)

    def run(name, **settings):
        config = ContaminationSemanticConfig(against=against, **settings)
        (done,) = run_steps([config], dataset, tmp_path / name, seed=0, powers=powers)
        return [one.provenance.row for one in done.dataset], done.report.findings

    left, findings = run("embedded", model="all-minilm-l6-v2")
    assert left == [1, 3]  # the English one is like the English item
    assert findings["evaluation items not compared: in another language"] == 1
    assert findings["training examples not compared: in another language"] == 2
    assert run("persian", model="all-minilm-l6-v2", languages=["fa"])[0] == [2]
    assert run("none", model="all-minilm-l6-v2", languages=["de"])[0] == [1, 2, 3]
    for settings in ({"model": "e5"}, {"model": "all-minilm-l6-v2", "languages": []}):
        left, findings = run(str(len(settings)), **settings)
        assert left == []
        assert not any("not compared" in key for key in findings)


def test_pieces_hold_all_of_a_long_text():
    text = " ".join(f"Sentence number {n} stands here." for n in range(200))
    pieces = pieces_of(Example("text", Provenance("a", 1), text=text))
    assert " ".join(pieces) == text
    assert max(map(len, pieces)) <= 800
    assert "".join(pieces_of(asking("x" * 5000))) == "x" * 5000
