"""``tanzim search``: many short trainings, each a run of its own, and the config of the best one.

runs/<name>/
  search.jsonl      every trial: its settings, reports on the way, and end
  search.html       the page to look at
  best.yaml         the config of the best trial so far; `tanzim run` takes it
  data/, tokens/    prepared once, and shared by the trials that do not change them
  trials/<n>/       the run directory of trial n

What is tried and pruned is decided in `tanzim.tune`; here is what a trial is and what it is worth.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from tanzim.core.config import load, with_values
from tanzim.core.errors import ConfigError, Interrupted, PlanError, RunError, TrainError
from tanzim.core.files import new_folder, write_text
from tanzim.core.optional import need
from tanzim.core.progress import Reporter
from tanzim.core.records import Example, Json
from tanzim.core.run import RunFolder
from tanzim.core.units import number
from tanzim.data.prepare import DataReport
from tanzim.data.store import ExampleStore
from tanzim.evaluate.answers import System
from tanzim.evaluate.config import Metric
from tanzim.evaluate.items import select_items
from tanzim.evaluate.measure import evaluate
from tanzim.evaluate.report import ALL, TUNED
from tanzim.pipeline.config import Config
from tanzim.pipeline.finetune import Finetuned, finetune
from tanzim.pipeline.opened import open_models
from tanzim.pipeline.prepare import prepare_data
from tanzim.pipeline.search_page import write_search_page
from tanzim.pipeline.tokens import conversations, ready, tokenise
from tanzim.pipeline.workspace import open_run
from tanzim.score.metrics import fits
from tanzim.tune.config import SearchConfig
from tanzim.tune.importance import Importances, importances
from tanzim.tune.search import Failed, Report
from tanzim.tune.search import search as run_trials
from tanzim.tune.study import Study, describe
from tanzim.tune.trials import Trial, TrialLog

# What examples, and what their tokens, depend on.
_DATA = ("seed", "data")
_TOKENS = (*_DATA, "model")
_WEIGHTS = ("adapter", "model", "checkpoints")


@dataclass(frozen=True, slots=True)
class Searched:
    """What a search came to.

    Args:
        folder: the run directory of the search.
        trials: every trial, in the order they were begun.
        best: the winner.
        config: the winner's config file, without the values of search.trial.
        report: the page.
        importances: what each key explains.
        finished: the winner's full training, if search.finish.

    """

    folder: RunFolder
    trials: list[Trial]
    best: Trial
    config: Path
    report: Path
    importances: Importances
    finished: Finetuned | None


def search(config: Config, *, overwrite: bool = False, reporter: Reporter | None = None) -> Searched:
    """Try the settings that ``config.search`` names; go on where an interrupted search stopped.

    A trial that ended is never run again. One that was interrupted goes on from its newest checkpoint.

    Args:
        config: the project; its search section says what is tried.
        overwrite: delete an existing run of that name, trials included, first.
        reporter: takes the progress: trial n of m, and the best so far.

    Raises:
        ConfigError: nothing to search is named, a grid is too large, or the metric fits no answer.
        DataError: the data cannot be used, or has no validation set.
        RunError: the search began with other settings, is running already, or its trials all fail.
        Interrupted: it was asked to stop.
        MissingExtra: Optuna (or Ray) is not installed.

    """
    reporter = reporter or Reporter()
    settings = config.search
    if not settings.space:
        raise ConfigError(
            "nothing to search is named",
            where="search.space",
            fix="such as search.space={train.learning_rate: {low: 1e-5, high: 1e-3, log: true}}",
        )
    alone = with_values(config, {"search": {}}, where="search")
    folder = open_run(alone, overwrite=overwrite)
    with _alone(folder):
        maximise = settings.metric != "loss"
        about = describe(settings, seed=config.seed, maximise=maximise)
        study = Study(
            settings, TrialLog(folder.path / "search.jsonl", about), seed=config.seed, maximise=maximise
        )
        _prepare(alone, folder, settings, reporter)
        _run(study, alone, folder, reporter)
        if study.best is None:
            raise RunError(f"none of {len(study.trials)} trials came to a value", where=str(study.log.path))
        best = study.best
        report = write_search_page(folder)
    finished = None
    if settings.finish:
        won = _winner(alone, best)
        _share(won, open_run(won), folder)
        finished = finetune(won, reporter=reporter)
    shares = importances(settings.space, study.trials)
    return Searched(folder, study.trials, best, folder.path / "best.yaml", report, shares, finished)


@contextmanager
def _alone(folder: RunFolder) -> Iterator[None]:
    """Keep a second process from running the same search."""
    filelock = need("filelock", "train")
    lock = filelock.FileLock(folder.path / ".search.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise RunError("this search is running already", where=str(folder.path)) from None
    try:
        yield
    finally:
        lock.release()


def _prepare(config: Config, folder: RunFolder, settings: SearchConfig, reporter: Reporter) -> None:
    """Prepare what all trials share, and refuse what no trial could be measured on."""
    changed = {key.split(".")[0] for key in (*settings.space, *settings.trial)}
    if changed & {*_DATA}:
        reporter.say("the search changes the data: each trial has its own, and losses compare less well")
        return
    report = prepare_data(config, reporter=reporter)
    examples = ExampleStore(folder.data / "validation.arrow")
    if not len(examples):
        raise ConfigError(
            "there is no validation set to compare trials by",
            where="data",
            fix="more rows, or data.validation_path",
        )
    if settings.metric != "loss":
        _check_metric(config, _conversations(config, folder, report), settings.metric)
    if "model" not in changed:
        tokenise(config, folder, ready(config, report.labels, reporter), list(report.labels), reporter)


def _check_metric(config: Config, examples: list[Example], metric: str) -> None:
    items, _ = select_items(examples, most=config.evaluate.max_items, seed=config.seed)
    if not any(fits(cast(Metric, metric), item.reference) for item in items):
        raise ConfigError(
            f"the metric '{metric}' fits none of the {len(items)} right answers of the validation set",
            where="search.metric",
            fix="search.metric=loss",
        )


def _conversations(config: Config, folder: RunFolder, report: DataReport) -> list[Example]:
    store = ExampleStore(folder.data / "validation.arrow")
    return list(conversations(store, config.data, list(report.labels)))


def _run(study: Study, config: Config, folder: RunFolder, reporter: Reporter) -> None:
    """Run what is left, and keep page, winner's config and weights up to date after each trial."""
    settings = study.config

    def on_end(trial: Trial) -> None:
        best = study.best
        reporter.say(f"{_sentence(trial, study)}{' – the best so far' if trial is best else ''}")
        if best is not None:
            won = _winner(config, best).model_dump(mode="json", exclude_unset=True, exclude={"search"})
            write_text(folder.path / "best.yaml", yaml.safe_dump(won, allow_unicode=True, sort_keys=False))
            if settings.keep == "best":
                _keep(best, study.trials, folder)
        write_search_page(folder)

    if study.ended:
        reporter.say(f"{study.ended} of {study.total} trials have ended before")
    with reporter.task("searching") as progress:

        def watch(trial: int, line: Json) -> None:
            if line["kind"] == "train":
                best = f" · best {number(study.best.value or 0.0)}" if study.best else ""
                note = f"trial {trial} of {study.total}, step {line['step']}/{line['steps']}{best}"
                progress(study.ended, study.total, note)

        # What travels to Ray's processes cannot show progress here.
        job = TrialRun(config, settings, watch if settings.engine == "local" else None)
        progress(study.ended, study.total, "")
        run_trials(study, job, on_end=on_end)
        progress(study.ended, study.total, "")


def _sentence(trial: Trial, study: Study) -> str:
    settings = ", ".join(f"{key}={value}" for key, value in trial.params.items())
    came = {
        "complete": f"{study.config.metric} {number(trial.value or 0.0)}",
        "pruned": f"pruned at {trial.prune_at} %",
        "failed": f"failed: {trial.reason}",
    }
    return f"trial {trial.number} of {study.total}: {came.get(trial.state, '')} ({settings})"


def _winner(config: Config, best: Trial) -> Config:
    return with_values(config, best.params | {"name": f"{config.name}-best"}, where="search.space")


def _keep(best: Trial, trials: list[Trial], folder: RunFolder) -> None:
    """Remove the weights of every trial that has ended and is not the best."""
    for trial in trials:
        if trial.state != "running" and trial.number != best.number:
            for name in _WEIGHTS:
                shutil.rmtree(folder.path / "trials" / str(trial.number) / name, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class TrialRun:
    """One trial: a training with other settings, and what it is worth on the validation set.

    Args:
        config: the project without its search.
        settings: the search.
        watch: takes (trial, line of its metrics) for progress; None where nobody watches.

    """

    config: Config
    settings: SearchConfig
    watch: Callable[[int, Json], None] | None

    def __call__(self, params: Json, report: Report) -> float:
        """Train with ``params`` and return the loss or metric; see `tanzim.tune.search.Objective`.

        Raises:
            Pruned: others are better at this point.
            Failed: these settings cannot be trained.

        """
        parent = RunFolder(Path(self.config.runs_dir) / self.config.name)
        place = {"name": str(report.number), "runs_dir": str(parent.path / "trials")}
        try:
            config = with_values(self.config, self.settings.trial | params | place, where="search.space")
            folder = open_run(config)
            _share(config, folder, parent)
            trained = finetune(config, reporter=_TrialReporter(report, self.settings.metric, self.watch))
            return self._worth(config, folder, trained)
        except Interrupted:
            raise
        except (ConfigError, PlanError, TrainError) as error:
            raise Failed(error.what) from error
        finally:
            gc.collect()  # a model's cycles would hold its memory while the next one is loaded

    def _worth(self, config: Config, folder: RunFolder, trained: Finetuned) -> float:
        metric = self.settings.metric
        if metric == "loss":
            loss = trained.result["best_loss"]
            if loss is None:
                raise Failed("no document of the validation set could be measured")
            return float(loss)
        examples = _conversations(config, folder, DataReport.read(folder.data))
        opened = open_models([str(folder.path)])
        report = evaluate(
            examples,
            [System(TUNED, opened.engine, opened.adapter, opened.base.hash)],
            renderer=opened.renderer,
            config=config.evaluate.model_copy(update={"metrics": [metric], "others": {}}),
            out=folder.path / "validation",
            seed=config.seed,
            labels=list(DataReport.read(folder.data).labels),
        )
        return report.systems[0].metrics[metric][ALL].value


class _TrialReporter(Reporter):
    """Hands the validation losses of a training to the search, in tenths of its steps."""

    def __init__(self, report: Report, metric: str, watch: Callable[[int, Json], None] | None) -> None:
        super().__init__()
        self.report, self.watch = report, watch
        self.sign = 1 if metric == "loss" else -1  # of a metric, more is better
        self.reached = 0

    def line(self, line: Json) -> None:
        """Report an evaluation; trials of different lengths meet at every tenth of their steps."""
        if self.watch is not None:
            self.watch(self.report.number, line)
        if line["kind"] == "eval" and line["step"] < line["steps"]:
            percent = 10 * max(1, round(10 * line["step"] / line["steps"]))
            if percent > self.reached:
                self.reached = percent
                self.report(percent, self.sign * line["loss"])


def _share(config: Config, folder: RunFolder, parent: RunFolder) -> None:
    """Give a trial the data and tokens of the search or of another trial, where they would be the same."""
    others = sorted((parent.path / "trials").iterdir(), key=lambda path: path.stat().st_mtime)
    for name, sections in (("data", _DATA), ("tokens", _TOKENS)):
        if (folder.path / name).exists():
            continue
        for source in (parent.path, *others):
            if (source / name / "report.json").is_file() and _same(config, source, sections):
                _link(source / name, folder.path / name)
                break


def _same(config: Config, source: Path, sections: tuple[str, ...]) -> bool:
    other = load(Config, RunFolder(source).config)
    return all(_plain(getattr(config, name)) == _plain(getattr(other, name)) for name in sections)


def _plain(value: Any) -> Any:  # noqa: ANN401 - a section or a number
    return json.loads(value.model_dump_json()) if hasattr(value, "model_dump_json") else value


def _link(source: Path, target: Path) -> None:
    """Make ``target`` hold the files of ``source``: the same bytes on disk, where the disk can."""
    with new_folder(target) as folder:
        for file in source.iterdir():
            try:
                os.link(file, folder / file.name)
            except OSError:
                shutil.copy2(file, folder / file.name)
