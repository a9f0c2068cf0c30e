"""Several trials at once, each in a process of its own, through Ray Tune on this machine.

Ray Tune starts, watches and ends the processes. What is tried and what is pruned is decided in the calling
process by the same `Study` that decides without Ray, and only its log is kept. Ray talks over the loopback
address alone and reports to nobody.
"""

from __future__ import annotations

import os
import tempfile
from typing import Any, Protocol

from tanzim.core.environ import environment
from tanzim.core.errors import Interrupted, RunError, TanzimError
from tanzim.core.optional import need
from tanzim.core.records import Json
from tanzim.tune.search import Objective, Report, outcome
from tanzim.tune.study import Study

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # the loopback address, as on those systems
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # a trial reads the paths of its config as the caller does
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the caller shows the progress
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # search.jsonl is the log
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


class End(Protocol):
    """Takes how a trial ended; see `tanzim.tune.search.search`."""

    def __call__(self, number: int, **ended: Any) -> None: ...  # noqa: ANN401, D102


def run(study: Study, objective: Objective, end: End) -> None:
    """Run what is left of ``study``, ``search.parallel`` trials at once.

    Args:
        study: the search.
        objective: one trial; it travels to the processes by pickle.
        end: called with each trial that ends, in this process.

    Raises:
        RunError: a trial's process died, or ended with an error other than `Failed`.
        Interrupted: the search was stopped (Ctrl-C).
        MissingExtra: Ray is not installed.

    """
    need("optuna", "search")
    with environment(_ENVIRONMENT):
        ray, tune = need("ray", "ray"), need("ray.tune", "ray")
        parallel = study.config.parallel
        every = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        cores = max(1, every // parallel)
        ray.init(
            num_cpus=cores * parallel,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
        )
        try:
            share = ray.cluster_resources().get("GPU", 0) / parallel
            resources = {"cpu": cores, "gpu": int(share) if share >= 1 else share}
            searcher, scheduler = _hooks(study, end)
            with tempfile.TemporaryDirectory(prefix="tanzim-ray-") as scratch:
                tuner = tune.Tuner(
                    tune.with_resources(_work(objective), resources),
                    tune_config=tune.TuneConfig(
                        search_alg=searcher,
                        scheduler=scheduler,
                        num_samples=-1,
                        max_concurrent_trials=parallel,
                    ),
                    run_config=tune.RunConfig(name="search", storage_path=scratch, verbose=0),
                )
                results = tuner.fit()
        finally:
            ray.shutdown()
    if scheduler.error is not None:
        raise scheduler.error
    if results.errors:
        last = str(results.errors[0]).strip().splitlines()[-1]
        raise RunError(
            f"a trial's process ended with: {last}",
            where=str(study.log.path),
            fix="mend this and run the same command again; finished trials are kept",
        )
    if not searcher.asked_all or study.ended < len(study.trials):
        raise Interrupted(
            f"stopped after {study.ended} of {study.total} trials",
            where=str(study.log.path),
            fix="run the same command again to go on from there",
        )


def _work(objective: Objective) -> Any:  # noqa: ANN401 - a trainable of Ray
    """Return what each process runs: one trial, its reports sent to the calling process."""

    def work(config: Json) -> None:
        tune = need("ray.tune", "ray")

        def send(step: int, value: float) -> bool:
            tune.report({"at": step, "value": value})
            return False  # the calling process ends this one

        tune.report(outcome(objective, config["params"], Report(config["number"], send)))

    return work


def _hooks(study: Study, end: End) -> tuple[Any, Any]:
    """Return Ray's searcher and scheduler that ask ``study`` for everything they say."""
    base = need("ray.tune.search", "ray").Searcher
    fifo = need("ray.tune.schedulers", "ray").FIFOScheduler

    class Asks(base):  # type: ignore[misc, valid-type]
        asked_all = False

        def suggest(self, trial_id: str) -> Any:  # noqa: ANN401 - settings, or that there are none left
            trial = study.ask() if scheduler.error is None else None
            if trial is None:
                self.asked_all = scheduler.error is None
                return base.FINISHED
            return {"number": trial.number, "params": trial.params}

        def on_trial_complete(self, trial_id: str, result: Json | None = None, error: bool = False) -> None:
            """Leave the end to the scheduler, which knows why it came."""

        def save(self, checkpoint_path: str) -> None:
            """Keep nothing: the log of the search does."""

    class Decides(fifo):  # type: ignore[misc, valid-type]
        error: TanzimError | None = None

        def on_trial_result(self, tune_controller: Any, trial: Any, result: Json) -> str:  # noqa: ANN401
            number = trial.config["number"]
            try:
                if "state" in result:
                    told = ("state", "value", "reason")
                    end(number, **{name: result[name] for name in told if name in result})
                elif "at" in result and study.report(number, result["at"], result["value"]):
                    end(number, state="pruned")
                    return str(self.STOP)
            except TanzimError as error:
                self.error = error
                tune_controller.request_stop_experiment()
                return str(self.STOP)
            return str(self.CONTINUE)

    scheduler = Decides()
    return Asks(), scheduler
