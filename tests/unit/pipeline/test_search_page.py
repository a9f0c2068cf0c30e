"""The page of a search is read back and compared with the log it was made of."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "tune"))
from tiny_study import study

from tanzim.core.errors import RunError
from tanzim.core.files import write_json
from tanzim.core.run import RunFolder
from tanzim.core.scatter import Mark, scatter
from tanzim.pipeline.search_page import search_page, write_search_page
from tanzim.tune.search import Failed, search

HOSTILE = "</td><script>alert(1)</script>"
SPACE = {
    "train.learning_rate": {"low": 1e-5, "high": 1e-1, "log": True},
    "train.weight_decay": {"low": 0.0, "high": 0.2, "step": 0.1},
    "data.system": {"values": [HOSTILE, "سلام", None]},
}


def train(params, report):
    loss = 1000 * params["train.learning_rate"] + params["train.weight_decay"]
    if params["train.learning_rate"] > 0.03:
        raise Failed(f"the loss became nan {HOSTILE}")
    for percent in (10, 50):
        report(percent, loss + 1 / percent)
    return loss


@pytest.fixture
def folder(tmp_path):
    made = study(tmp_path / "fruit", method="random", space=SPACE, trials=24, startup=4)
    search(made, train)
    return RunFolder(tmp_path / "fruit"), made


def rows(html):
    cells = [
        re.findall("<t[hd][^>]*>(.*?)</t[hd]>", row, re.S) for row in re.findall("<tr>(.*?)</tr>", html, re.S)
    ]
    return [[re.sub("<[^>]+>", "", cell) for cell in row] for row in cells]


def test_every_trial_stands_in_the_table_as_it_ended(folder):
    run, made = folder
    html = search_page(run)
    shown = {row[0]: row for row in rows(html.split('id="table"')[1])[1:]}
    assert len(shown) == 24
    states = set()
    for trial in made.trials:
        row = shown[str(trial.number)]
        states.add(trial.state)
        rate = trial.params["train.learning_rate"]
        assert float(row[2]) == pytest.approx(rate, rel=1e-3)
        if trial.state == "complete":
            assert float(row[1].replace(",", "")) == pytest.approx(trial.value, rel=1e-3)
        elif trial.state == "pruned":
            assert row[1] == f"ended early at {trial.prune_at} %"
        else:
            assert row[1].startswith("failed")
    assert states == {"complete", "pruned", "failed"}
    ordered = [float(row[1].replace(",", "")) for row in shown.values() if row[1][0].isdigit()]
    assert ordered == sorted(ordered)
    assert next(iter(shown)) == str(made.best.number)
    assert f"Trial {made.best.number} is the best" in html
    assert "<script" not in html
    assert "سلام" in html


def test_each_chart_marks_every_trial_that_has_a_value(folder):
    run, made = folder
    charts = re.findall("<svg.*?</svg>", search_page(run), re.S)
    charts = [chart for chart in charts if "<title" in chart and " by " in chart]
    assert len(charts) == 1 + len(SPACE)
    for chart in charts:
        marked = {int(number) for number in re.findall(r"<title>trial (\d+)", chart)}
        assert marked == {trial.number for trial in made.trials if trial.reports}
        crossed = chart.count('<g class="k2">')
        assert crossed == sum(trial.state == "pruned" for trial in made.trials)
        assert chart.count('<g class="k4">') == 1


def test_importances_are_shown_and_few_trials_say_nothing(folder, tmp_path):
    html = search_page(folder[0])
    assert "How much each key mattered" in html
    made = study(tmp_path / "few", method="random", space=SPACE, trials=2)
    search(made, lambda params, report: 1.0)
    few = search_page(RunFolder(tmp_path / "few"))
    assert "Too few trials" in few


def test_other_validation_sets_are_warned_of(folder):
    run, _ = folder
    for number, fingerprint in ((1, "a"), (2, "a")):
        manifest = {"data": {"fingerprints": {"validation": fingerprint}}}
        write_json(run.path / "trials" / str(number) / "manifest.json", manifest)
    assert "not of the same texts" not in search_page(run)
    write_json(run.path / "trials" / "2" / "manifest.json", {"data": {"fingerprints": {"validation": "b"}}})
    assert "not of the same texts" in search_page(run)


def test_a_search_that_has_just_begun_or_is_none(tmp_path):
    study(tmp_path / "new", method="random", space=SPACE).ask()
    page = write_search_page(RunFolder(tmp_path / "new")).read_text(encoding="utf-8")
    assert "None has come to a value" in page
    with pytest.raises(RunError, match="no search here"):
        search_page(RunFolder(tmp_path / "none"))


@pytest.mark.parametrize("low", [1e-6, 0.002, 0.3, 40.0])
def test_a_log_axis_puts_equal_ratios_at_equal_distances(low):
    marks = [Mark(low * 10**n, 1.0 + n, "dot", f"trial {n}") for n in range(3)]
    chart = scatter("x", marks, x_name="rate", axis="log")
    xs = [float(x) for x in re.findall(r'<circle cx="([\d.]+)"[^>]*class="dot"', chart)]
    assert xs[2] - xs[1] == pytest.approx(xs[1] - xs[0], abs=0.02)
    assert 64 <= xs[0] < xs[2] <= 732
