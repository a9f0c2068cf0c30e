"""The root of ``tanzim.yaml``: one file describes a project."""

from __future__ import annotations

from pydantic import Field

from tanzim.core.config import Section
from tanzim.data.config import DataConfig
from tanzim.evaluate.config import EvaluateConfig
from tanzim.export.config import ExportConfig
from tanzim.models.config import ModelConfig
from tanzim.serve.config import ServeConfig
from tanzim.train.config import TrainConfig


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
