"""Run trials one after another, or hand them to Ray; what a trial is, the caller knows."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from tanzim.core.errors import RunError
from tanzim.core.records import Json
from tanzim.tune.study import Study
from tanzim.tune.trials import Trial

IN_A_ROW = 3  # failures after which something other than the settings must be wrong


class Pruned(Exception):
    """The trial is given up here: others are better at this point."""


class Failed(Exception):
    """The trial came to nothing by its own settings; the text says why. The search goes on."""


class Report:
    """What a trial calls on its way with (step, value).

    Args:
        number: the trial's.
        take: receives step and value; returns whether the trial should end.

    """

    def __init__(self, number: int, take: Callable[[int, float], bool]) -> None:
        self.number = number
        self._take = take

    def __call__(self, step: int, value: float) -> None:
        """Report ``value`` at ``step`` (whole, from 1 up, in a unit that all trials share).

        Raises:
            Pruned: the trial should end.
            Failed: the value is not finite.

        """
        if not math.isfinite(value):
            raise Failed(f"the value at {step} is {value}")
        if self._take(step, float(value)):
            raise Pruned


# (params, report) → value. Called again with the same number after an interruption, it may go on from
# what it kept under that number.
Objective = Callable[[Json, Report], float]
OnEnd = Callable[[Trial], None]


def outcome(objective: Objective, params: Json, report: Report) -> Json:
    """Run one trial and return how it ended: its state, value and reason, as `Study.tell` takes them."""
    try:
        value = objective(params, report)
        if not math.isfinite(value):
            raise Failed(f"the value is {value}")
    except Pruned:
        return {"state": "pruned"}
    except Failed as failure:
        return {"state": "failed", "reason": str(failure)}
    return {"state": "complete", "value": float(value)}


def search(study: Study, objective: Objective, *, on_end: OnEnd = lambda trial: None) -> None:
    """Run what is left of ``study``, as its config says; return when every trial has ended.

    Args:
        study: the search; what ended before is not run again.
        objective: one trial. Errors other than `Pruned` and `Failed` stop the search; the trial counts
            as unfinished and runs again when the search goes on.
        on_end: called with each trial that ends, in this process.

    Raises:
        RunError: several trials failed in a row, or (ray) a trial's process died.
        Interrupted: (ray) the search was stopped.
        MissingExtra: Ray is not installed.

    """
    guard = _Guard(study)

    def end(number: int, **ended: Any) -> None:  # noqa: ANN401 - the arguments of Study.tell
        trial = study.tell(number, **ended)
        on_end(trial)
        guard.check(trial)

    if study.config.engine == "ray":
        from tanzim.tune.ray_engine import run

        run(study, objective, end)
        return
    while (trial := study.ask()) is not None:
        report = Report(trial.number, partial(study.report, trial.number))
        end(trial.number, **outcome(objective, trial.params, report))


class _Guard:
    """Stops a search whose trials all fail: then it is not the settings."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.failed: list[Trial] = []

    def check(self, trial: Trial) -> None:
        self.failed = [*self.failed, trial] if trial.state == "failed" else []
        if len(self.failed) < IN_A_ROW:
            return
        for one in self.failed:
            self.study.put_back(one.number)
        raise RunError(
            f"{IN_A_ROW} trials failed in a row, the last one because: {trial.reason}",
            where=f"trials {', '.join(str(one.number) for one in self.failed)} of {self.study.log.path}",
            fix="mend this and run the same command again; these trials then run again",
        )
