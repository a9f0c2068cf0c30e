"""What each method tries, what is given up, and that a search goes on as if nothing had happened."""

from __future__ import annotations

import itertools
import math
import statistics
import sys
from pathlib import Path

import optuna
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from tiny_study import config, study

from tanzim.core.errors import ConfigError, RunError
from tanzim.core.run import read_lines
from tanzim.tune.search import Failed, Pruned, Report, search
from tanzim.tune.trials import read_trials

SPACE = {"a.x": {"low": 0.0, "high": 1.0}, "a.rate": {"low": 1e-5, "high": 1e-1, "log": True}}


def bowl(params, report):
    """Return a function whose least value, 0, is at x = 0.3, rate = 1e-3."""
    return (params["a.x"] - 0.3) ** 2 + (math.log10(params["a.rate"]) + 3) ** 2


def test_a_grid_is_exactly_the_product(tmp_path):
    space = {
        "m": {"values": ["lora", {"type": "full"}, None]},
        "n": {"low": 2, "high": 9, "step": 3},
        "p": {"low": 0.1, "high": 0.5, "step": 0.2},
    }
    made = study(tmp_path, method="grid", space=space, trials=27)
    search(made, lambda params, report: 0.0)
    tried = [tuple(trial.params.values()) for trial in made.trials]
    product = list(itertools.product(["lora", {"type": "full"}, None], [2, 5, 8], [0.1, 0.3, 0.5]))
    assert tried == product
    assert all(trial.state == "complete" for trial in made.trials)


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"x": {"low": 0, "high": 20}}, "21 combinations"),
        ({"x": {"low": 0.0, "high": 1.0}}, "continuous"),
    ],
)
def test_a_grid_without_end_or_too_large_is_refused(tmp_path, space, said):
    with pytest.raises(ConfigError, match=said):
        study(tmp_path, method="grid", space=space)
    assert study(tmp_path, method="random", space=space).ask()  # what has not begun can change


@pytest.mark.parametrize("method", ["random", "bayesian", "halving"])
def test_draws_stay_within_bounds_and_follow_the_seed(tmp_path, method):
    space = SPACE | {"n": {"low": 3, "high": 64, "log": True}, "s": {"low": -1.0, "high": 1.0, "step": 0.25}}
    runs = []
    for index, seed in enumerate((3, 3, 4)):
        made = study(tmp_path / str(index), seed=seed, method=method, space=space, trials=25)
        search(made, lambda params, report: params["a.x"])
        runs.append([trial.params for trial in made.trials])
    assert runs[0] == runs[1] != runs[2]
    for params in runs[0]:
        assert 0 <= params["a.x"] <= 1
        assert 1e-5 <= params["a.rate"] <= 1e-1
        assert params["n"] in range(3, 65)
        assert params["s"] in [-1 + 0.25 * step for step in range(9)]
    if method == "random":  # even by size: half of the draws below the geometric mean of the ends
        below = sum(params["a.rate"] < 1e-3 for params in runs[0])
        assert 5 < below < 20


def test_no_setting_is_tried_twice_and_a_small_space_ends_the_search(tmp_path):
    space = {"x": {"values": [1, True, "1"]}, "y": {"low": 0, "high": 1}}
    for method in ("random", "bayesian"):
        made = study(tmp_path / method, method=method, space=space, trials=50)
        search(made, lambda params, report: float(params["y"]))
        tried = [(repr(trial.params["x"]), trial.params["y"]) for trial in made.trials]
        assert sorted(tried) == sorted(itertools.product(["1", "True", "'1'"], [0, 1]))


def test_bayesian_beats_random_and_comes_near_optuna_itself(tmp_path):
    def best(method, seed):
        made = study(tmp_path / f"{method}{seed}", seed=seed, method=method, space=SPACE, trials=30)
        search(made, bowl)
        return made.best.value

    def optunas(seed):
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=6)
        theirs = optuna.create_study(sampler=sampler)
        theirs.optimize(
            lambda trial: bowl(
                {
                    "a.x": trial.suggest_float("x", 0, 1),
                    "a.rate": trial.suggest_float("rate", 1e-5, 1e-1, log=True),
                },
                None,
            ),
            n_trials=30,
        )
        return theirs.best_value

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seeds = range(8)
    ours, random, theirs = (
        statistics.median(work(seed) for seed in seeds)
        for work in (lambda s: best("bayesian", s), lambda s: best("random", s), optunas)
    )
    assert ours < random / 3
    assert ours < 5 * theirs


def rungs(first, reduction, most):
    return [first * reduction**k for k in range(10) if first * reduction**k <= most]


def test_halving_follows_the_written_rule(tmp_path):
    """Asynchronous halving (Li et al. 2018, algorithm 2): at rung first·reduction^k, one of `reduction`.

    Written out here: a trial goes on from a rung if it is among the best ⌊n / reduction⌋ (at least one) of
    the n trials that have reached that rung so far, itself included.
    """
    first, reduction = 10, 3
    steps = range(10, 101, 10)

    def curve(x, step):
        return (x - 0.3) ** 2 + 1 / step + 0.05 * math.sin(40 * x + step)

    def slow(params, report):
        for step in steps:
            report(step, curve(params["x"], step))
        return curve(params["x"], 100)

    space = {"x": {"low": 0.0, "high": 1.0}}
    made = study(tmp_path, method="halving", space=space, trials=40, first=first, reduction=reduction)
    search(made, slow)

    reached: dict[int, list[float]] = {rung: [] for rung in rungs(first, reduction, 100)}
    for trial in made.trials:
        ended = None
        for rung, values in reached.items():
            value = curve(trial.params["x"], rung)
            values.append(value)
            keep = max(1, len(values) // reduction)
            if value > sorted(values)[keep - 1]:
                ended = rung
                break
        assert trial.prune_at == ended, trial
        assert trial.state == ("complete" if ended is None else "pruned")
    assert list(reached) == [10, 30, 90]
    counts = [len(values) for values in reached.values()]
    assert counts[0] == 40
    assert counts[2] < counts[1] < counts[0] / 2


def test_median_ends_what_is_worse_than_half_of_the_complete_ones(tmp_path):
    def flat(params, report):
        for step in (10, 20):
            report(step, params["x"])
        return params["x"]

    values = [0.5, 0.1, 0.9, 0.4, 0.7, 0.3]
    space = {"x": {"values": values}}
    made = study(tmp_path, method="grid", space=space, pruning="median", startup=3)
    search(made, flat)
    assert [trial.state for trial in made.trials] == [
        "complete", "complete", "complete",  # the first three begin
        "complete",  # 0.4 is below the median 0.5 of 0.5, 0.1, 0.9
        "pruned",  # 0.7 is above the median 0.45 of those and 0.4
        "complete",
    ]  # fmt: skip


@pytest.mark.parametrize("method", ["random", "bayesian", "halving"])
def test_a_search_cut_off_anywhere_proposes_what_it_would_have(tmp_path, method):
    """The log is cut after every line in turn, in the middle of the next one, as a kill leaves it."""

    def slow(params, report):
        for step in (10, 30, 90):
            report(step, bowl(params, report) + 1 / step)
        return bowl(params, report)

    settings = {"method": method, "space": SPACE, "trials": 12, "startup": 3}
    whole = study(tmp_path / "whole", **settings)
    search(whole, slow)
    lines = (tmp_path / "whole" / "search.jsonl").read_bytes().splitlines(keepends=True)
    for cut in range(1, len(lines), 3):
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / "search.jsonl").write_bytes(b"".join(lines[:cut]) + lines[cut][:-5])
        ended = {t.number for t in read_trials(read_lines(folder / "search.jsonl")) if t.state != "running"}
        run = []

        def watched(params, report, run=run):
            run.append(report.number)
            return slow(params, report)

        made = study(folder, **settings)
        search(made, watched)
        assert not ended & set(run)
        assert [(t.params, t.state, t.value, t.reports) for t in made.trials] == [
            (t.params, t.state, t.value, t.reports) for t in whole.trials
        ]


def test_a_finished_search_goes_on_where_more_trials_are_allowed(tmp_path):
    settings = {"method": "bayesian", "space": SPACE}
    search(study(tmp_path / "a", trials=10, **settings), bowl)
    more = study(tmp_path / "a", trials=16, **settings)
    search(more, bowl)
    whole = study(tmp_path / "b", trials=16, **settings)
    search(whole, bowl)
    assert [trial.params for trial in more.trials] == [trial.params for trial in whole.trials]
    with pytest.raises(RunError, match="method was 'bayesian' and is 'random'"):
        study(tmp_path / "a", method="random", space=SPACE)


def test_a_failed_trial_is_told_and_does_not_run_again(tmp_path):
    def fragile(params, report):
        if params["x"] == 2:
            raise Failed("the loss became nan")
        if params["x"] == 3:
            report(10, math.inf)
        return float(params["x"])

    settings = {"method": "grid", "space": {"x": {"low": 1, "high": 4}}}
    search(study(tmp_path, **settings), fragile)
    made = study(tmp_path, **settings)
    assert [trial.state for trial in made.trials] == ["complete", "failed", "failed", "complete"]
    assert [trial.reason for trial in made.trials[1:3]] == ["the loss became nan", "the value at 10 is inf"]
    assert made.best.number == 1
    assert made.ask() is None


def test_a_search_whose_trials_all_fail_stops_and_tries_them_again(tmp_path):
    full = [True]

    def disk(params, report):
        if full[0] and params["x"] > 2:
            raise Failed("no space left")
        return float(params["x"])

    settings = {"method": "grid", "space": {"x": {"low": 1, "high": 9}}}
    with pytest.raises(RunError, match="no space left"):
        search(study(tmp_path, **settings), disk)
    full[0] = False
    made = study(tmp_path, **settings)
    search(made, disk)
    assert [trial.value for trial in made.trials] == [float(x) for x in range(1, 10)]


def test_an_error_that_is_not_the_trials_own_stops_the_search_and_keeps_it(tmp_path):
    def broken(params, report):
        if params["x"] == 2:
            raise KeyboardInterrupt
        return float(params["x"])

    settings = {"method": "grid", "space": {"x": {"low": 1, "high": 3}}}
    with pytest.raises(KeyboardInterrupt):
        search(study(tmp_path, **settings), broken)
    made = study(tmp_path, **settings)
    assert [trial.state for trial in made.trials] == ["complete", "running"]
    search(made, lambda params, report: 7.0)
    assert [trial.value for trial in made.trials] == [1.0, 7.0, 7.0]


def test_maximising_turns_best_and_pruning_round(tmp_path):
    def rising(params, report):
        report(10, params["x"])
        return params["x"]

    space = {"x": {"values": [0.2, 0.9, 0.5, 0.1]}}
    made = study(tmp_path, maximise=True, method="grid", space=space, pruning="median", startup=3)
    search(made, rising)
    assert made.best.params == {"x": 0.9}
    assert [trial.state for trial in made.trials] == ["complete"] * 3 + ["pruned"]


def test_a_report_raises_when_it_should():
    with pytest.raises(Pruned):
        Report(1, lambda step, value: True)(10, 0.5)
    with pytest.raises(Failed, match="nan"):
        Report(1, lambda step, value: False)(10, math.nan)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"space": {"x": {"low": 2, "high": 1}}}, "must be below"),
        ({"space": {"x": {"low": 0.0, "high": 1.0, "log": True}}}, "above 0"),
        ({"space": {"x": {"low": 1, "high": 3, "step": 5}}}, "at most high"),
        ({"space": {"x": {"low": 1, "high": 3, "step": 1, "log": True}}}, "exclude"),
        ({"space": {"x": {"low": 1, "high": math.inf}}}, "finite"),
        ({"space": {"x": {"values": []}}}, "at least 1"),
        ({"space": {"x": {"values": [1, 1]}}}, "stands twice"),
        ({"parallel": 2}, "engine=ray"),
        ({"method": "halving", "pruning": "median"}, "prunes by halving"),
        ({"space": {"x": {"values": [1]}}, "trial": {"x": 2}}, "both in space and in trial"),
    ],
)
def test_impossible_settings_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        config(**settings)
