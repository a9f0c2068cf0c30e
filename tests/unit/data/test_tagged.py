"""Words with tags: recognised, kept as they are, refused where they do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tanzim.core.errors import DataError
from tanzim.core.records import Example
from tanzim.data.config import DataConfig
from tanzim.data.ingest.convert import conversation
from tanzim.data.inspect import inspect
from tanzim.data.prepare import prepare
from tanzim.data.store import ExampleStore

WHOLE = {"validation": 0.0, "test": 0.0}
ROWS = [
    {"tokens": ["Ada", "lives", "in", "New", "York"], "ner_tags": ["B-PER", "O", "O", "B-LOC", "I-LOC"]},
    {"tokens": ["می\u200cروم", "به", "شیراز"], "ner_tags": ["O", "O", "B-LOC"]},
    {"tokens": ["nothing", "here"], "ner_tags": ["O", "O"]},
]


def written(path: Path, rows: list[object]) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_words_and_tags_are_recognised_and_kept_as_they_are(tmp_path: Path) -> None:
    path = written(tmp_path / "ner.jsonl", ROWS)
    found = inspect(path, DataConfig())
    assert found.format == "tagged"
    assert "'ner_tags' has a tag for each of 'tokens'" in found.reason
    assert found.labels == {"O": 6, "B-LOC": 2, "B-PER": 1, "I-LOC": 1}

    report = prepare(DataConfig(path=path, split=WHOLE), tmp_path / "data", seed=1)
    examples = list(ExampleStore(tmp_path / "data" / "train.arrow"))
    assert [(list(e.words), list(e.tags)) for e in examples] == [(r["tokens"], r["ner_tags"]) for r in ROWS]
    assert examples[1].text == "می\u200cروم به شیراز"
    assert Example.from_json(examples[0].to_json()) == examples[0]
    assert {tag: splits["train"] for tag, splits in report.labels.items()} == found.labels
    assert list(report.labels) == sorted(found.labels)


def test_numbers_get_their_names(tmp_path: Path) -> None:
    path = written(tmp_path / "ner.jsonl", [{"words": ["a", "b"], "labels": [0, 1]}] * 3)
    config = DataConfig(path=path, labels={0: "O", 1: "B-X"}, split=WHOLE)
    prepare(config, tmp_path / "data", seed=1)
    assert ExampleStore(tmp_path / "data" / "train.arrow")[0].tags == ("O", "B-X")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"tokens": ["a", "b"], "tags": ["O"]}, "words and tags differ in number"),
        ({"tokens": [], "tags": []}, "there are no words"),
        ({"tokens": ["a", " "], "tags": ["O", "O"]}, "a word is blank or no text"),
        ({"tokens": ["a", "b"], "tags": ["O", ""]}, "a tag is missing"),
        ({"tokens": "a b", "tags": ["O", "O"]}, "words or tags are not a list"),
    ],
)
def test_a_row_that_does_not_fit_is_rejected_by_name(tmp_path: Path, row: object, reason: str) -> None:
    good = [{"tokens": [f"word{i}", "b"], "tags": ["B-X", "O"]} for i in range(9)]
    path = written(tmp_path / "ner.jsonl", [*good, row])
    report = prepare(DataConfig(path=path, split=WHOLE, max_rejected=0.2), tmp_path / "data", seed=1)
    assert report.rejected == {reason: 1}
    line = json.loads((tmp_path / "data" / "rejected.jsonl").read_text(encoding="utf-8"))
    assert line["row"] == 10
    with pytest.raises(DataError, match=reason):
        prepare(DataConfig(path=path, split=WHOLE, max_rejected=0.05), tmp_path / "again", seed=1)


def test_token_ids_with_label_ids_are_no_tagged_words(tmp_path: Path) -> None:
    path = written(tmp_path / "ids.jsonl", [{"tokens": [5, 6], "labels": [6, 7], "text": "five six"}] * 4)
    assert inspect(path, DataConfig()).format != "tagged"


def test_tagged_words_are_no_conversation(tmp_path: Path) -> None:
    path = written(tmp_path / "ner.jsonl", ROWS)
    prepare(DataConfig(path=path, split=WHOLE), tmp_path / "data", seed=1)
    example = ExampleStore(tmp_path / "data" / "train.arrow")[0]
    with pytest.raises(DataError, match="token_classification"):
        conversation(example, labels=[], instruction="{text}", system=None)
