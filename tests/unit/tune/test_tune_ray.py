"""Trials in processes of their own, through a real Ray on this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from far_trials import broken, slow
from tiny_study import study

from tanzim.core.errors import RunError
from tanzim.tune.search import search

pytestmark = pytest.mark.slow
HELPERS = sys.path[0]
SPACE = {"a.x": {"low": 0.0, "high": 1.0}}


@pytest.fixture(autouse=True)
def helpers(monkeypatch):
    """Let the processes find the trials."""
    monkeypatch.setenv("PYTHONPATH", HELPERS)


def test_bad_trials_are_given_up_and_the_search_goes_on_where_it_was(tmp_path):
    settings = {"method": "halving", "space": SPACE, "engine": "ray", "parallel": 2}
    search(study(tmp_path, trials=5, **settings), slow)
    made = study(tmp_path, trials=8, **settings)
    ended = []
    search(made, slow, on_end=lambda trial: ended.append(trial.number))
    assert sorted(ended) == [6, 7, 8]
    alone = study(tmp_path / "alone", trials=8, method="halving", space=SPACE)
    search(alone, slow)
    assert [trial.params for trial in made.trials] == [trial.params for trial in alone.trials]
    pruned = [trial for trial in made.trials if trial.state == "pruned"]
    assert pruned
    for trial in pruned:
        assert trial.prune_at in (10, 30, 90)
        assert max(trial.reports) < 90 or trial.prune_at == 90
    assert made.best.value == made.best.params["a.x"]
    assert "RAY_USAGE_STATS_ENABLED" not in os.environ


def test_a_failure_is_the_trials_own_and_a_defect_stops_the_search(tmp_path):
    space = {"x": {"low": 1, "high": 3}}
    made = study(tmp_path, method="grid", space=space, engine="ray", parallel=1)
    with pytest.raises(RunError, match="ValueError: a defect"):
        search(made, broken)
    assert [(trial.state, trial.reason) for trial in made.trials] == [
        ("failed", "too bad"),
        ("complete", ""),
        ("running", ""),
    ]
