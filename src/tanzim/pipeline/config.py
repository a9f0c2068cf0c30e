"""The root of ``tanzim.yaml``: one file describes a project."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import Field, ValidationInfo, field_validator

from tanzim.core.config import Section, with_values
from tanzim.core.errors import ConfigError
from tanzim.data.config import DataConfig
from tanzim.evaluate.config import EvaluateConfig, Metric
from tanzim.export.config import ExportConfig
from tanzim.launch.config import LaunchConfig, LocalLaunch
from tanzim.models.config import ModelConfig
from tanzim.serve.config import ServeConfig
from tanzim.train.config import TrainConfig
from tanzim.tune.config import SearchConfig

SEARCHED = ("seed", "data", "model", "train")  # what the value of a trial depends on


class AdaptersConfig(Section):
    """The adapter repository."""

    repository: str = "adapters"
    """Where adapters are kept: a folder, or a URL such as s3://bucket/prefix."""


class Config(Section):
    """A project: a section per stage."""

    name: str = Field("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    """Name of the run; its folder is runs_dir/name."""
    runs_dir: str = "runs"
    """Folder of all runs."""
    seed: int = Field(13, ge=0)
    """The one seed that every random choice is derived from."""
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    export: ExportConfig = ExportConfig()
    serve: ServeConfig = ServeConfig()
    launch: LaunchConfig = LocalLaunch()
    """On how many processes and machines the training runs; it changes nothing that is learnt."""
    adapters: AdaptersConfig = AdaptersConfig()
    search: SearchConfig = SearchConfig()

    @field_validator("search")
    @classmethod
    def _can_be_tried(cls, search: SearchConfig, info: ValidationInfo) -> SearchConfig:
        if search.space or search.trial:
            check_search(cls(**info.data), search)
        return search


def check_search(config: Section, search: SearchConfig) -> None:
    """Try every value and every end of a range that a search names, before anything runs.

    Args:
        config: the project without its search.
        search: what would be tried.

    Raises:
        ConfigError: a key is unknown or not to be searched, or a value is refused whatever the others are.

    """
    if search.metric != "loss" and search.metric not in get_args(Metric):
        known = ", ".join(["loss", *get_args(Metric)])
        raise ConfigError(f"'{search.metric}' is not one of {known}", where="search.metric")
    for place, keys in (("trial", search.trial), ("space", search.space)):
        for key in keys:
            section = key.split(".")[0]
            if section in type(config).model_fields and section not in SEARCHED:
                raise ConfigError(
                    f"only keys of {', '.join(SEARCHED)} can be searched", where=f"search.{place}.{key}"
                )
            if section == key != "seed":
                raise ConfigError(
                    f"this is a whole section; name its keys, as in search.{place}={{{key}.KEY: …}}",
                    where=f"search.{place}.{key}",
                )
    for key, value in search.trial.items():
        config = with_values(config, {key: value}, where=f"search.trial.{key}")
    lowest = {key: entry.extremes[0] for key, entry in search.space.items()}
    highest = {key: entry.extremes[-1] for key, entry in search.space.items()}
    for key, entry in search.space.items():
        where = f"search.space.{key}"
        for value in entry.extremes:
            try:
                with_values(config, {key: value}, where=where)
            except ConfigError:
                # It may be right with other values of the other keys alone.
                if not any(_fits(config, others | {key: value}) for others in (lowest, highest)):
                    raise


def _fits(config: Section, values: Mapping[str, Any]) -> bool:
    try:
        with_values(config, values, where="search.space")
    except ConfigError:
        return False
    return True
