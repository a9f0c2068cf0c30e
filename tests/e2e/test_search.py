"""A real search over real trainings of a tiny model: through the command line, killed, and through Ray."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tanzim.core.errors import ConfigError, RunError
from tanzim.core.run import read_lines
from tanzim.pipeline.search import search
from tanzim.pipeline.workspace import load_config
from tanzim.tune.trials import Trial, read_trials

pytestmark = pytest.mark.slow
RATES = [1e-5, 5e-3, 2e-3]


@pytest.fixture
def project(tmp_path: Path, tiny_model: Path, fruit_rows: Path) -> Path:
    """Return a config file of a search over three learning rates; the middle one learns fastest."""
    config = {
        "name": "fruit",
        "runs_dir": str(tmp_path / "runs"),
        "data": {"path": str(fruit_rows), "split": {"validation": 0.2}},
        "model": {"name": str(tiny_model)},
        "train": {"epochs": 40, "tokens_per_step": 512, "tokens_per_pass": 512, "eval_steps": 3},
        "evaluate": {"max_new_tokens": 8},
        "search": {
            "method": "grid",
            "space": {"train.learning_rate": {"values": RATES}},
            "trial": {"train.max_steps": 24},
        },
    }
    path = tmp_path / "tanzim.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def trials(project: Path) -> list[Trial]:
    path = project.parent / "runs" / "fruit" / "search.jsonl"
    return read_trials(read_lines(path)) if path.is_file() else []


def lines(project: Path, trial: int, kind: str) -> list[dict[str, Any]]:
    """Return what a trial measured, without what the clock says."""
    path = project.parent / "runs" / "fruit" / "trials" / str(trial) / "metrics.jsonl"
    clock = {"seconds", "tokens_per_s"}
    return [
        {key: value for key, value in line.items() if key not in clock}
        for line in read_lines(path)
        if line["kind"] == kind
    ]


def start(project: Path, *overrides: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tanzim", "search", str(project), *overrides],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_three_trials_and_the_winner(project: Path) -> None:
    process = start(project)
    said, wrong = process.communicate(timeout=300)
    assert process.returncode == 0, wrong + said
    assert "trial 3 of 3" in said
    assert "trial 2 of 3 is the best" in said

    # The value of a trial is the least validation loss in its own metrics; its config says its rate.
    folder = project.parent / "runs" / "fruit"
    for trial, rate in zip(trials(project), RATES, strict=True):
        measured = lines(project, trial.number, "eval")
        assert trial.value == min(line["loss"] for line in measured)
        tenths: dict[int, float] = {}  # the first evaluation near each tenth of the steps
        for line in measured[:-1]:
            tenths.setdefault(10 * max(1, round(10 * line["step"] / 24)), line["loss"])
        assert trial.reports == tenths
        own = yaml.safe_load((folder / "trials" / str(trial.number) / "config.yaml").read_text())
        assert (own["train"]["learning_rate"], own["train"]["max_steps"]) == (rate, 24)
        assert (folder / "trials" / str(trial.number) / "adapter" / "adapter_model.safetensors").is_file()
    values = [trial.value for trial in trials(project)]
    assert values[1] < values[2] < values[0]

    # Data and tokens are on the disk once.
    for name in ("data/train.arrow", "tokens/train.arrow"):
        places = [folder / name, *(folder / "trials" / str(n) / name for n in (1, 2, 3))]
        assert len({place.stat().st_ino for place in places}) == 1

    # The winner's config runs as it is, with its rate and without the trials' limit of steps.
    best = load_config(folder / "best.yaml")
    assert (best.name, best.train.learning_rate, best.train.max_steps) == ("fruit-best", RATES[1], None)
    page = (folder / "search.html").read_text(encoding="utf-8")
    assert "Trial 2 is the best" in page

    # The same call again runs nothing.
    before = (folder / "search.jsonl").read_bytes()
    assert search(load_config(project)).best.number == 2
    assert (folder / "search.jsonl").read_bytes() == before


def test_killed_at_any_time_it_goes_on_and_ends_the_same(project: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "tanzim.yaml"
    other.parent.mkdir()
    config = yaml.safe_load(project.read_text()) | {"runs_dir": str(tmp_path / "other" / "runs")}
    other.write_text(yaml.safe_dump(config))
    longer = "search.trial={train.max_steps: 60}"
    search(load_config(other, [longer]))

    ended: list[list[int]] = []
    for kill in (signal.SIGKILL, signal.SIGKILL, signal.SIGINT):
        process = start(project, longer)
        goal = len(ended) + 1  # in the middle of this trial
        place = project.parent / "runs" / "fruit" / "trials" / str(goal) / "metrics.jsonl"
        while not place.is_file() or len(lines(project, goal, "eval")) < 3:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.send_signal(kill)
        _, wrong = process.communicate(timeout=120)
        assert process.returncode == (1 if kill == signal.SIGINT else -kill), wrong
        assert kill != signal.SIGINT or "run the same command again" in wrong
        ended.append([trial.number for trial in trials(project) if trial.state != "running"])
    assert ended == [[], [1], [1, 2]]
    search(load_config(project, [longer]))

    log = list(read_lines(project.parent / "runs" / "fruit" / "search.jsonl"))
    for number in (1, 2, 3):
        assert sum(line["kind"] == "ask" and line["trial"] == number for line in log) == 1
        assert sum(line["kind"] == "tell" and line["trial"] == number for line in log) == 1
        for kind in ("train", "eval"):
            assert lines(project, number, kind) == lines(other, number, kind)
        resumed = [line["message"] for line in lines(project, number, "event")]
        assert any("resumed from checkpoint" in message for message in resumed)
    assert [(t.params, t.value, t.reports) for t in trials(project)] == [
        (t.params, t.value, t.reports) for t in trials(other)
    ]


def test_by_a_metric_keeping_the_best_alone_and_training_it(project: Path) -> None:
    overrides = ["search.metric=exact_match", "search.keep=best", "search.finish=true", "train.epochs=8"]
    result = search(load_config(project, overrides))
    folder = project.parent / "runs" / "fruit"
    for trial in result.trials:
        report = json.loads(
            (folder / "trials" / str(trial.number) / "validation" / "report.json").read_text()
        )
        system = report["systems"][0]
        assert system["name"] == "tuned"
        assert trial.value == system["metrics"]["exact_match"]["all"]["value"]
    assert result.best.value == max(trial.value for trial in result.trials)
    kept = [n for n in (1, 2, 3) if (folder / "trials" / str(n) / "adapter").exists()]
    assert kept == [result.best.number]
    assert result.finished is not None
    assert result.finished.folder.path == folder.parent / "fruit-best"
    assert result.finished.result["step"] != 24
    assert result.finished.output.is_dir()


def test_a_bad_trial_fails_alone_and_bad_input_is_one_error(project: Path) -> None:
    space = "{train.tokens_per_step: {values: [256, 512]}, train.tokens_per_pass: {values: [256, 512]}}"
    result = search(load_config(project, [f"search.space={space}", "search.trial={train.max_steps: 3}"]))
    assert [trial.state for trial in result.trials] == ["complete", "failed", "complete", "complete"]
    assert "tokens_per_pass (512) exceeds tokens_per_step (256)" in result.trials[1].reason
    with pytest.raises(RunError, match=r"began differently: .*space"):
        search(load_config(project))
    with pytest.raises(ConfigError, match="fits none"):
        search(load_config(project, ["name=b", "search.metric=json_valid"]))
    with pytest.raises(ConfigError, match="nothing to search"):
        search(load_config(project, ["name=c", "search.space={}"]))


def listening(pids: set[int]) -> set[str]:
    """Return the addresses (as /proc writes them) on which these processes listen."""
    sockets = {}
    for name in ("tcp", "tcp6"):
        for row in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            fields = row.split()
            if fields[3] == "0A":
                sockets[f"socket:[{fields[9]}]"] = fields[1].rpartition(":")[0]
    found = set()
    for pid in pids:
        try:
            targets = {os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()}
        except OSError:
            continue
        found |= {sockets[target] for target in targets if target in sockets}
    return found


def family(pid: int) -> set[int]:
    """Return a process and all below it."""
    above = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            above[int(entry.parent.name)] = int(entry.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found, size = {pid}, 0
    while len(found) > size:
        size = len(found)
        found |= {child for child, parent in above.items() if parent in found}
    return found


def test_ray_runs_two_trials_at_once_and_agrees_with_one_after_another(project: Path, tmp_path: Path) -> None:
    process = start(project, "search.engine=ray", "search.parallel=2")
    heard: set[str] = set()
    while process.poll() is None:
        heard |= listening(family(process.pid))
        time.sleep(0.2)
    said, wrong = process.communicate()
    assert process.returncode == 0, wrong + said
    assert "trial 2 of 3 is the best" in said
    assert heard <= {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
    assert heard, "Ray listens on something"

    log = list(read_lines(project.parent / "runs" / "fruit" / "search.jsonl"))
    first_end = next(index for index, line in enumerate(log) if line["kind"] == "tell")
    assert sum(line["kind"] == "ask" for line in log[:first_end]) == 2
    other = load_config(project, [f"runs_dir={tmp_path / 'other'}"])
    for ours, theirs in zip(trials(project), search(other).trials, strict=True):
        assert (ours.params, ours.state) == (theirs.params, theirs.state)
        assert ours.value == pytest.approx(theirs.value, rel=1e-6)
