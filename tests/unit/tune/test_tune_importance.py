"""Importances where the right answer is known."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from tiny_study import config, study

from tanzim.tune.importance import importances
from tanzim.tune.search import search
from tanzim.tune.trials import Trial

SPACE = {
    "big": {"low": 0.0, "high": 1.0},
    "small": {"low": 0.0, "high": 1.0},
    "none": {"values": ["a", "b", "c"]},
}


def value(params):
    return 10 * params["big"] + params["small"]


def test_shares_are_those_of_the_variances(tmp_path):
    """For 10·u + v with u, v uniform, the variances are as 100 : 1, and the third key has none."""
    made = study(tmp_path, method="random", space=SPACE, trials=150, pruning="none")
    search(made, lambda params, report: value(params))
    found = importances(made.config.space, made.trials)
    assert found.trials == 150
    assert found.step is None
    assert next(iter(found.shares)) == "big"
    assert found.shares["big"] == pytest.approx(100 / 101, abs=0.03)
    assert found.shares["small"] == pytest.approx(1 / 101, abs=0.02)
    assert found.shares["none"] < 0.01
    assert sum(found.shares.values()) == pytest.approx(1)


def test_where_most_are_pruned_all_are_compared_at_a_common_step(tmp_path):
    def slow(params, report):
        for step in (10, 30, 90):
            report(step, value(params))
        return value(params)

    made = study(tmp_path, method="halving", space=SPACE, trials=120)
    search(made, slow)
    left = [trial for trial in made.trials if trial.state == "complete"]
    assert len(left) < 30
    found = importances(made.config.space, made.trials)
    assert (found.step, found.trials) == (10, 120)
    assert found.shares["big"] > 0.95


def test_too_few_or_equal_trials_say_nothing():
    space = config(space=SPACE).space
    params = {"big": 0.5, "small": 0.5, "none": "a"}
    few = [Trial(n, params | {"big": n / 4}, "complete", float(n)) for n in range(1, 4)]
    assert importances(space, few).shares == {}
    equal = [Trial(n, params | {"big": n / 9}, "complete", 1.0) for n in range(1, 9)]
    assert importances(space, equal).shares == {}
    assert importances(space, []).shares == {}
