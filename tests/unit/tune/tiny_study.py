"""A search over a closed form, in a folder of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tanzim.tune.config import SearchConfig
from tanzim.tune.study import Study, describe
from tanzim.tune.trials import TrialLog


def config(**settings: Any) -> SearchConfig:
    return SearchConfig.model_validate(settings)


def study(folder: Path, seed: int = 3, maximise: bool = False, **settings: Any) -> Study:
    """Begin a search in ``folder``, or take up the one that is there."""
    made = config(**settings)
    about = describe(made, seed=seed, maximise=maximise)
    return Study(made, TrialLog(folder / "search.jsonl", about), seed=seed, maximise=maximise)
