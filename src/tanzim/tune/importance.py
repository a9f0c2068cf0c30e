"""How much each key mattered: the share of the differences between trials that it explains by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tanzim.core.optional import need
from tanzim.tune.config import Entry
from tanzim.tune.space import Space
from tanzim.tune.trials import Trial

FEWEST = 4  # trials below which a forest has nothing to say


@dataclass(frozen=True, slots=True)
class Importances:
    """What the keys explain.

    Args:
        shares: key → its share, largest first, summing to 1; empty where nothing can be said.
        trials: how many trials were compared.
        step: the step they were compared at; None at their ends.

    """

    shares: dict[str, float] = field(default_factory=dict)
    trials: int = 0
    step: int | None = None


def importances(entries: Mapping[str, Entry], trials: Sequence[Trial]) -> Importances:
    """Return each key's share of the variance between trials.

    fANOVA (Hutter, Hoos and Leyton-Brown, ICML 2014): a forest of regression trees learns the value as a
    function of the keys; the importance of key k is V_k / V, the variance of the forest's mean over all
    other keys, divided by its whole variance; the shares are scaled to sum to 1.

    Complete trials are compared by their values. Where more trials were pruned than not, those left are a
    choice of good ones and hide what made the others bad: then all are compared at the last step that all
    have reached.

    Args:
        entries: the search space.
        trials: the search so far.

    Raises:
        MissingExtra: Optuna or scikit-learn is not installed.

    """
    space = Space(entries)
    step, compared = _comparable(trials)
    if len(compared) < FEWEST or len({value for _, value in compared}) < 2:
        return Importances(trials=len(compared), step=step)
    need("optuna", "search")
    need("sklearn", "search")
    import optuna
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study()
    distributions = space.distributions()
    for trial, value in compared:
        params = space.encode(trial.params)
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=value))
    found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    shares = {key: float(share) for key, share in sorted(found.items(), key=lambda pair: -pair[1])}
    return Importances(shares, len(compared), step)


def _comparable(trials: Sequence[Trial]) -> tuple[int | None, list[tuple[Trial, float]]]:
    """Return the step to compare trials at (None: their ends), and each with its value there."""
    complete = [(trial, trial.value) for trial in trials if trial.value is not None]
    reported = [trial for trial in trials if trial.state in ("complete", "pruned") and trial.reports]
    common = set.intersection(*(set(trial.reports) for trial in reported)) if reported else set()
    if 2 * len(complete) >= len(reported) or not common:
        return None, complete
    step = max(common)
    return step, [(trial, trial.reports[step]) for trial in reported]
