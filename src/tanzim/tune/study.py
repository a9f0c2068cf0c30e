"""Which setting is tried next, and which trial is given up: Optuna decides, the log remembers.

Optuna's study lives in memory and is made anew from the log, so that there is one record of a search. The
sampler of each trial is seeded by the trial's number: what is proposed depends on the seed and on the
trials before alone, and a search that was interrupted proposes what it would have proposed.
"""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Any

from tanzim.core.errors import ConfigError
from tanzim.core.optional import need
from tanzim.core.records import Json
from tanzim.core.seeds import derive
from tanzim.tune.config import SearchConfig
from tanzim.tune.space import Space, identity
from tanzim.tune.trials import State, Trial, TrialLog

if TYPE_CHECKING:
    import optuna

_DRAWS = 32  # proposals that may repeat an earlier trial before the rest of the space is listed
# What may change when a search goes on.
_FREE = {"trials", "engine", "parallel", "keep", "finish"}


def describe(config: SearchConfig, *, seed: int, maximise: bool) -> Json:
    """Return what makes a search the search it is; the log keeps it."""
    return config.model_dump(mode="json", exclude=_FREE) | {"seed": seed, "maximise": maximise}


class Study:
    """The state of a search: `ask` for a trial, `report` on the way, `tell` how it ended.

    Args:
        config: the ``search`` section.
        log: where every line goes; what it holds already is taken up.
        seed: everything drawn is derived from it.
        maximise: whether a higher value is better.

    Raises:
        ConfigError: a grid has no end, or more combinations than trials are allowed.
        MissingExtra: Optuna is not installed.

    """

    def __init__(self, config: SearchConfig, log: TrialLog, *, seed: int, maximise: bool) -> None:
        need("optuna", "search")
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.config, self.log, self.seed, self.maximise = config, log, seed, maximise
        self.space = Space(config.space)
        self._grid = _whole_grid(self.space, config.trials) if config.method == "grid" else []
        self._distributions = self.space.distributions()
        self._study = optuna.create_study(
            direction="maximize" if maximise else "minimize", sampler=self._sampler(0), pruner=_pruner(config)
        )
        self._handles: dict[int, optuna.Trial] = {}
        self._begun: dict[int, float] = {}
        self.trials: list[Trial] = []
        self._replay()
        self._unfinished = [trial for trial in self.trials if trial.state == "running"]

    @property
    def total(self) -> int:
        """How many trials there will be, those before included."""
        return min(self.config.trials, self.space.size or self.config.trials)

    @property
    def ended(self) -> int:
        """How many trials need not run any more."""
        return sum(trial.state != "running" for trial in self.trials)

    @property
    def best(self) -> Trial | None:
        """The complete trial with the best value; the earliest of equals."""
        sign = -1 if self.maximise else 1
        complete = [trial for trial in self.trials if trial.value is not None]
        return min(complete, key=lambda trial: sign * (trial.value or 0.0), default=None)

    def ask(self) -> Trial | None:
        """Return the trial to run next: an unfinished one first; None if there is nothing left to try."""
        while self._unfinished:
            trial = self._unfinished.pop(0)
            self._begun[trial.number] = time.monotonic()
            if trial.prune_at is None:
                return trial
            self.tell(trial.number, "pruned")
        if len(self.trials) >= self.config.trials:
            return None
        number = len(self.trials) + 1
        params = self._propose(number)
        if params is None:
            return None
        trial = Trial(number, params)
        self.log.write({"kind": "ask", "trial": number, "params": params})
        self.trials.append(trial)
        self._begun[number] = time.monotonic()
        return trial

    def report(self, number: int, step: int, value: float) -> bool:
        """Take a value on the way; return whether the trial should end here.

        A step that is known already (an unfinished trial runs again) is not counted twice.
        """
        trial = self.trials[number - 1]
        if step not in trial.reports:
            self._handles[number].report(value, step)
            prune = bool(self._handles[number].should_prune())
            line = {"kind": "report", "trial": number, "step": step, "value": value, "prune": prune}
            self.log.write(line)
            trial.apply(line)
        return trial.prune_at is not None and step >= trial.prune_at

    def tell(self, number: int, state: State, value: float | None = None, reason: str = "") -> Trial:
        """Take how a trial ended; return it."""
        trial = self.trials[number - 1]
        seconds = time.monotonic() - self._begun[number]
        line = {"kind": "tell", "trial": number, "state": state, "value": value, "reason": reason}
        self.log.write(line | {"seconds": seconds})
        trial.apply(line | {"seconds": seconds})
        self._end(trial)
        return trial

    def put_back(self, number: int) -> None:
        """Take back that a trial failed: it runs again when the search goes on."""
        self.log.write({"kind": "again", "trial": number})

    def _sampler(self, *names: int) -> optuna.samplers.BaseSampler:
        from optuna.samplers import RandomSampler, TPESampler

        seed = derive(self.seed, "search", *names) % 2**32
        if self.config.method == "bayesian" and any(names):
            return TPESampler(seed=seed, n_startup_trials=self.config.startup)
        return RandomSampler(seed=seed)

    def _propose(self, number: int) -> Json | None:
        """Choose a setting that was not tried yet; None if all were."""
        tried = {identity(trial.params) for trial in self.trials}
        if self.config.method == "grid":
            left = (params for params in self._grid if identity(params) not in tried)
            return self._fix(number, next(left, None))
        for draw in range(_DRAWS):
            self._study.sampler = self._sampler(number, draw)
            handle = self._study.ask(self._distributions)
            params = self.space.decode(handle.params)
            # Only what the log holds counts, so that a search that goes on sees what this one saw.
            self._study.tell(handle, state=_optuna_state("failed"))
            if identity(params) not in tried:
                return self._fix(number, params)
        if self.space.size is None:
            return None
        left = (params for params in self.space.grid() if identity(params) not in tried)
        return self._fix(number, next(left, None))

    def _fix(self, number: int, params: Json | None) -> Json | None:
        """Make Optuna's trial of a setting that was chosen elsewhere."""
        if params is not None:
            self._study.sampler = self._sampler(0)
            self._study.enqueue_trial(self.space.encode(params))
            self._handles[number] = self._study.ask(self._distributions)
        return params

    def _replay(self) -> None:
        """Bring Optuna to where the log ends, through the calls that it saw then."""
        for line in self.log.lines[1:]:
            number = line["trial"]
            if line["kind"] == "ask":
                self.trials.append(Trial(number, line["params"]))
                self._fix(number, line["params"])
                continue
            trial = self.trials[number - 1]
            trial.apply(line)
            if line["kind"] == "report":
                self._handles[number].report(line["value"], line["step"])
                self._handles[number].should_prune()
            elif line["kind"] == "tell":
                self._end(trial)
            elif line["kind"] == "again":
                self._fix(number, trial.params)
                trial.reports, trial.prune_at = {}, None

    def _end(self, trial: Trial) -> None:
        self._study.tell(self._handles[trial.number], trial.value, state=_optuna_state(trial.state))


def _whole_grid(space: Space, most: int) -> list[Json]:
    grid = list(itertools.islice(space.grid(), most + 1))
    if len(grid) > most:
        raise ConfigError(
            f"this grid has {space.size} combinations, more than search.trials ({most}) allows",
            where="search.space",
            fix=f"search.trials={space.size}, fewer values, or search.method=random",
        )
    return grid


def _pruner(config: SearchConfig) -> optuna.pruners.BasePruner:
    from optuna.pruners import MedianPruner, NopPruner, SuccessiveHalvingPruner

    way: str = config.pruning
    if way == "auto":
        way = {"grid": "none", "halving": "halving"}.get(config.method, "median")
    if way == "halving":
        return SuccessiveHalvingPruner(
            min_resource=config.first, reduction_factor=config.reduction, min_early_stopping_rate=0
        )
    if way == "median":
        return MedianPruner(n_startup_trials=config.startup, n_warmup_steps=config.first)
    return NopPruner()


def _optuna_state(state: State) -> Any:  # noqa: ANN401 - an enum of a package that is imported late
    from optuna.trial import TrialState

    return {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}[state]
