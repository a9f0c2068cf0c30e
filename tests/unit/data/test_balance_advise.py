"""What is recommended for uneven classes, its numbers by closed forms, and the config that `init` writes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom, entropy
from sklearn.dummy import DummyClassifier
from sklearn.metrics import accuracy_score, f1_score
from sklearn.utils.class_weight import compute_class_weight

from tanzim.data.balance.advise import weigh
from tanzim.data.balance.counts import (
    blind_scores,
    chance_of_none,
    class_weights,
    effective_number,
    evenness,
)
from tanzim.data.config import DataConfig
from tanzim.data.inspect import inspect
from tanzim.pipeline.init import init
from tanzim.pipeline.workspace import load_config

COUNTS = np.array([900, 90, 10])
LABELS = np.repeat([0, 1, 2], COUNTS)


def test_weights_are_those_of_scikit_learn() -> None:
    theirs = compute_class_weight("balanced", classes=np.arange(3), y=LABELS)
    np.testing.assert_allclose(class_weights(COUNTS), theirs)


def test_evenness_is_the_entropy_over_its_maximum() -> None:
    assert evenness(COUNTS) == pytest.approx(entropy(COUNTS / COUNTS.sum()) / math.log(3))
    assert evenness(np.array([7, 7, 7, 7])) == pytest.approx(1)


def test_effective_number_is_the_sum_of_a_geometric_series() -> None:
    beta = 0.99
    theirs = [sum(beta**k for k in range(count)) for count in COUNTS]
    np.testing.assert_allclose(effective_number(COUNTS, beta), theirs)
    assert (effective_number(COUNTS) <= COUNTS).all()


def test_chance_of_none_is_binomial() -> None:
    assert chance_of_none(0.03, 50) == pytest.approx(binom.pmf(0, 50, 0.03))


def test_blind_scores_are_those_of_a_dummy() -> None:
    guess = DummyClassifier(strategy="most_frequent").fit(LABELS[:, None], LABELS).predict(LABELS[:, None])
    accuracy, macro_f1 = blind_scores(COUNTS)
    assert accuracy == pytest.approx(accuracy_score(LABELS, guess))
    assert macro_f1 == pytest.approx(f1_score(LABELS, guess, average="macro", zero_division=0))


def test_what_is_recommended_follows_the_numbers() -> None:
    def first(counts: dict[str, int], **numbers: float) -> dict[str, str]:
        found = weigh(counts, characters=numbers.get("characters", 200), tokens_per_step=2048)
        assert found is not None
        return {one.fits: one.technique for one in found.advice if one.first}

    assert weigh({"a": 5}, characters=1, tokens_per_step=1) is None
    assert first({"a": 100, "b": 90}) == {}
    assert first({"a": 900, "b": 200}) == {"head": "class weights", "words": "over-sampling"}
    # Long texts: few in a step, and most steps without one of the rare class.
    assert first({"a": 900, "b": 20}, characters=4000)["head"] == "class-stratified mini-batches"
    assert first({"a": 90_000, "b": 5000})["words"] == "under-sampling"
    found = weigh({"a": 9000, "b": 20}, characters=200, tokens_per_step=2048)
    assert found is not None
    assert found.ratio == 450
    assert found.per_step == pytest.approx(2048 / 50 * 20 / 9020, abs=0.01)
    assert "10 times, not 450" in next(one.why for one in found.advice if one.technique == "over-sampling")
    assert not any(one.technique == "noisy labels" for one in found.advice)


def test_a_part_is_recommended_where_there_is_much() -> None:
    def chosen(counts: dict[str, int]) -> list[str]:
        found = weigh(counts, characters=200, tokens_per_step=2048)
        assert found is not None
        return [one.why for one in found.advice if one.technique == "data-efficient tuning"]

    assert chosen({"a": 1500, "b": 300}) == []
    (why,) = chosen({"a": 15_000, "b": 300})
    assert "15,300 examples" in why
    assert "96% of the macro-F1 that all taught, a fifth by chance 89%" in why


def _write(path: Path, counts: dict[str, int]) -> str:
    rows = [
        {"text": f"متن شماره‌ی {n} {label}", "label": label} for label, k in counts.items() for n in range(k)
    ]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_init_writes_what_inspect_recommends(tmp_path: Path) -> None:
    data = _write(tmp_path / "a.jsonl", {"خوب": 300, 'بد: #1 "خیلی"': 60})
    found = inspect(data, DataConfig())
    assert found.balance["ratio"] == 5
    assert any("unbalanced" in line and "5 times as often" in line for line in found.advice)
    path = init(data, output=tmp_path / "tanzim.yaml")
    config = load_config(path)
    assert config.data.split.method == "stratified"
    assert config.evaluate.metrics == ["macro_f1", "accuracy"]
    assert config.data.steps == []
    # With the marks of the comments taken away, each recommendation is a config that is accepted.
    text = path.read_text(encoding="utf-8")
    active = text.replace("  # steps:", "  steps:").replace("  #   - {", "    - {")
    lines = []
    for line in active.splitlines():
        head = line.startswith(("  # objective:", "  #   type: classification", "  #   class_weights"))
        lines.append(line.replace("  # ", "  ", 1) if head else line)
    (tmp_path / "active.yaml").write_text("\n".join(lines), encoding="utf-8")
    config = load_config(tmp_path / "active.yaml")
    assert [step.type for step in config.data.steps] == ["label_noise", "oversample"]
    assert config.train.objective.type == "classification"
    assert config.train.objective.class_weights == "balanced"
    costs = next(line for line in lines if "type: cost" in line).replace("  #   # ", "    ", 1)
    more = "\n".join(costs if "type: cost" in line else line for line in lines)
    (tmp_path / "costs.yaml").write_text(more, encoding="utf-8")
    objective = load_config(tmp_path / "costs.yaml").train.objective
    assert objective.type == "classification"
    assert objective.loss.type == "cost"
    assert objective.loss.costs == {'بد: #1 "خیلی"': {"خوب": 5}}


def test_even_classes_change_nothing(tmp_path: Path) -> None:
    data = _write(tmp_path / "a.jsonl", {"a": 100, "b": 95})
    assert inspect(data, DataConfig()).balance["advice"] == []
    config = load_config(init(data, output=tmp_path / "tanzim.yaml"))
    assert config.data.split.method == "random"
    assert config.evaluate.metrics == "auto"
