"""Small models to beat: from a table to the report of a run, measured as scikit-learn measures."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from sklearn.metrics import f1_score

from tanzim.core.errors import DataError
from tanzim.core.seeds import derive
from tanzim.data.balance.baseline import baselines
from tanzim.data.prepare import DataReport
from tanzim.data.store import ExampleStore
from tanzim.pipeline.config import Config
from tanzim.pipeline.prepare import prepare_data
from tanzim.pipeline.report_data import data_section


def _config(folder: Path, rows: list[dict[str, str]], **data: object) -> Config:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return Config.model_validate(
        {
            "name": "base",
            "runs_dir": str(folder / "runs"),
            "data": {"path": str(path), "workers": 1, "baseline": True, **data},
        }
    )


def _reviews() -> list[dict[str, str]]:
    rng = random.Random(1)
    words = {"خوب": ["عالی", "تازه", "خوش‌مزه"], "بد": ["سرد", "کهنه", "بی‌مزه"]}
    rows = []
    for number in range(160):
        label = "بد" if number % 5 == 0 else "خوب"
        text = " ".join([*rng.choices(words[label], k=2), *(f"{rng.randrange(10**6)}" for _ in range(3))])
        rows.append({"text": text, "label": label})
    return rows


def test_baseline_stands_in_the_report(tmp_path: Path) -> None:
    config = _config(tmp_path, _reviews(), split={"method": "stratified", "test": 0.25})
    report = prepare_data(config)
    found = report.baseline
    folder = tmp_path / "runs" / "base" / "data"
    assert DataReport.read(folder) == report
    train, test = (list(ExampleStore(folder / f"{name}.arrow")) for name in ("train", "test"))
    assert (found["learnt_from"], found["measured_on"]) == (len(train), len(test))
    assert sum(one.label == "بد" for one in test) == 8  # stratified: a fifth of forty
    texts, labels = [one.text for one in train], [one.label for one in train]
    guesses = baselines(
        texts, labels, [one.text for one in test], seed=derive(config.seed, "data", "baseline")
    )
    right = [one.label for one in test]
    for model, values in found["models"].items():
        macro = f1_score(right, guesses[model].labels, average="macro", zero_division=0)
        assert values["macro_f1"] == pytest.approx(macro, abs=1e-4)
    assert found["models"]["logistic regression"]["macro_f1"] > 0.9
    page = "".join(map(str, data_section(report.to_json(), None)))
    assert "A mark to beat" in page
    assert "PR-AUC" in page
    assert "boosting" in page


def test_data_without_labels_has_no_baseline(tmp_path: Path) -> None:
    rows = [{"text": f"only text {number} {number**2}"} for number in range(40)]
    with pytest.raises(DataError, match="0 labelled examples to learn from"):
        prepare_data(_config(tmp_path, rows))
