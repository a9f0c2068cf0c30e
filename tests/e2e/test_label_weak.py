"""Labels by rules, from a config, through `tanzim data prepare`: better than a vote on labels unseen."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import f1_score, precision_score, recall_score

from tanzim.cli.main import main
from tanzim.data.label.config import RuleConfig
from tanzim.data.label.functions import rule, votes
from tanzim.data.store import ExampleStore

# Each rule's word, its label, and how often it stands in texts of that label and of the other.
WORDS = [
    ("عالی", "خوب", 0.5, 0.03),
    ("خوشمزه", "خوب", 0.4, 0.02),
    ("tasty", "خوب", 0.3, 0.03),
    ("تازه", "خوب", 0.4, 0.3),  # says little
    ("افتضاح", "بد", 0.5, 0.02),
    ("cold", "بد", 0.4, 0.03),
    ("ولی", "بد", 0.5, 0.4),  # says little
    ("اما", "بد", 0.45, 0.35),  # says little
]
FILLER = ["غذا", "را", "دیروز", "گرفتیم", "the", "lunch", "می‌رسید", "خانه", "order", "پیک"]


def made(count: int, seed: int) -> tuple[list[str], list[str]]:
    """Return texts of which long ones hold more of every word, as real ones do, and their labels."""
    draw = random.Random(seed)
    texts, truth = [], []
    for number in range(count):
        label = "خوب" if draw.random() < 0.45 else "بد"
        long = draw.choice((0.5, 1.6))
        said = [
            word for word, of, own, other in WORDS if draw.random() < long * (own if of == label else other)
        ]
        said += draw.choices(FILLER, k=4)
        draw.shuffle(said)
        texts.append(f"{number} {' '.join(said)}")
        truth.append(label)
    return texts, truth


def config(folder: Path, **more: object) -> Path:
    functions = [{"label": label, "keywords": [word], "name": word} for word, label, *_ in WORDS]
    step = {"type": "weak_labels", "functions": functions, **more}
    data: dict[str, Any] = {"path": "raw.jsonl", "steps": [step], "split": {"test": 0.0, "validation": 0.0}}
    (folder / "tanzim.yaml").write_text(json.dumps({"name": "weak", "data": data}), encoding="utf-8")
    return folder / "tanzim.yaml"


def prepare(folder: Path, monkeypatch: pytest.MonkeyPatch, *settings: str) -> dict[str, Any]:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["tanzim", "data", "prepare", "tanzim.yaml", "--overwrite", *settings])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (0, None)
    return json.loads((folder / "runs" / "weak" / "data" / "report.json").read_text(encoding="utf-8"))


@pytest.fixture
def raw(tmp_path: Path) -> list[str]:
    texts, truth = made(3000, seed=5)
    lines = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    (tmp_path / "raw.jsonl").write_text(lines, encoding="utf-8")
    return truth


def test_rules_of_a_config_label_texts_better_than_a_vote(
    raw: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config(tmp_path)
    report = prepare(tmp_path, monkeypatch)
    store = ExampleStore(tmp_path / "runs" / "weak" / "data" / "train.arrow")
    assert len(store) == 3000  # those without a label stay
    found = {one.provenance.row: one for one in store}
    spoken = [row for row, one in found.items() if one.kind == "labelled"]
    truth = [raw[row - 1] for row in spoken]
    labels = [found[row].label for row in spoken]

    rules = [rule(RuleConfig(label=label, keywords=[word])) for word, label, *_ in WORDS]
    heads = []
    draw = random.Random(1)
    for said in votes([found[row].text for row in spoken], rules, ["بد", "خوب"]).tolist():
        bad, good = said.count(0), said.count(1)
        heads.append("بد" if bad > good or (bad == good and draw.random() < 0.5) else "خوب")
    measured = {
        name: [float(measure(truth, guess, pos_label="خوب")) for measure in (precision_score, recall_score)]
        for name, guess in (("model", labels), ("majority", heads))
    }
    gain = f1_score(truth, labels, average="macro") - f1_score(truth, heads, average="macro")
    print("precision and recall of خوب, on labels it did not see:", measured)
    assert gain > 0.03, measured
    assert min(measured["model"]) > 0.8, measured

    # What it says of itself: how sure it is, and which rules it trusts.
    sure = [found[row].about["weak_label"]["confidence"] for row in spoken]
    right = [label == true for label, true in zip(labels, truth, strict=True)]
    assert sum(sure) / len(sure) == pytest.approx(sum(right) / len(right), abs=0.05)
    trust = {one["name"]: one["thought right"] for one in report["steps"][0]["findings"]["functions"]}
    assert max(trust[word] for word in ("تازه", "ولی", "اما")) < min(
        trust[word] for word in ("عالی", "خوشمزه", "tasty", "افتضاح", "cold")
    )
    assert "weak_labels" in capsys.readouterr().out


def test_only_sure_labels_are_kept_where_asked(
    raw: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config(tmp_path, min_confidence=0.9, abstain="remove")
    report = prepare(tmp_path, monkeypatch)
    store = list(ExampleStore(tmp_path / "runs" / "weak" / "data" / "train.arrow"))
    assert all(one.kind == "labelled" for one in store)
    assert sum(report["steps"][0]["removed"].values()) == 3000 - len(store)
    right = sum(one.label == raw[one.provenance.row - 1] for one in store) / len(store)
    assert right > 0.93
    reasons = [
        json.loads(line)["reason"]
        for line in (tmp_path / "runs/weak/data/rejected.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert set(reasons) == {"no labelling function speaks of it", "its label is not sure enough"}
