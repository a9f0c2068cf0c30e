"""How the server's fine-tuning jobs are configured: an order of the API becomes a ``tanzim.yaml``."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from tanzim.adapters.config import MethodConfig, RoutedConfig, form
from tanzim.core.config import with_values
from tanzim.core.errors import ConfigError
from tanzim.core.files import write_json, write_text
from tanzim.core.records import Json
from tanzim.models.quantised import Quantised
from tanzim.pipeline.config import Config
from tanzim.pipeline.form import form_of
from tanzim.serve.engine_config import VllmEngineConfig
from tanzim.serve.jobs.work import Order

EPOCHS, FEW = 3, 10_000  # passes over a file of at most so many rows, where n_epochs is auto; one over more
KEPT = 3  # of the last epochs, each a model of its own, as OpenAI has it
CONFIG, ORDER = "tanzim.yaml", "order.json"
_BY_VLLM = ("lora", "rslora", "lora_fa", "dylora")  # methods that leave plain LoRA
# Keys of ``train`` that reach files or other machines: they are as the server's own config has them.
_OWN = ("trackers", "method.tasks", "objective.teacher", "objective.teacher_revision")


class Workshop:
    """Makes jobs out of orders; implements `tanzim.serve.jobs.work.Workshop`.

    Args:
        project: the server's own config, whose ``model`` and ``train`` sections are the starting point.
        form: in which form the server keeps its base; None for the weights as they are.

    """

    def __init__(self, project: Config, form: Quantised | None = None) -> None:
        self._project, self._form = project, form

    def check(self, order: Order) -> None:
        """Refuse what can never be trained, or be asked afterwards, before it is queued.

        Raises:
            ConfigError: a value is wrong, or this server could not answer with what the method makes.

        """
        method = self._config(order, Path("job")).train.method
        reason = self._unanswerable(method)
        if reason is not None:
            raise ConfigError(f"train.method.type={method.type}: {reason}", where="tanzim.train.method.type")

    def _unanswerable(self, method: MethodConfig) -> str | None:
        """Say why this server could not answer with what a method makes; None if it could."""
        trained, kept = form_of(method), self._form
        if isinstance(method, RoutedConfig):
            return "it trains an adapter for each of several files, and a job has one file"
        if isinstance(self._project.serve.engine, VllmEngineConfig) and method.type not in _BY_VLLM:
            return f"vLLM answers for this server; it takes {', '.join(_BY_VLLM)}"
        if form(method) == "model" and kept is not None:
            return f"it trains every weight, and this server keeps the base in {kept}"
        if trained != kept and (kept is None or kept.integer is None):
            names = (str(one or "its own precision") for one in (trained, kept))
            return "it trains on the base in {}, and this server keeps it in {}".format(*names)
        return None

    def furnish(self, order: Order, folder: Path) -> None:
        """Write the job's config into ``folder``, where ``training.jsonl`` lies already."""
        config = self._config(order, folder)
        text = yaml.safe_dump(config.model_dump(mode="json", exclude_unset=True), allow_unicode=True)
        write_text(folder / CONFIG, text)
        write_json(folder / ORDER, {"hyperparameters": dict(order.hyperparameters)})

    def command(self, folder: Path, lease: float | None) -> list[str]:
        """Return the command that trains."""
        command = [sys.executable, "-m", "tanzim.pipeline.job", str(folder)]
        return command if lease is None else [*command, f"{lease:g}"]

    def _config(self, order: Order, folder: Path) -> Config:
        start = Config(model=self._project.model, train=self._project.train, name=order.name)
        data: Json = {
            "data.path": str(folder / "training.jsonl"),
            "data.max_rejected": 0.0,
            "data.split.test": 0.0,
            "data.split.validation": 0.0,
            "data.split.leakage": "allow",
        }
        if order.validation:
            data["data.validation_path"] = str(folder / "validation.jsonl")
        train = {f"train.{key}": value for key, value in order.settings.items()}
        config = with_values(start, train, where="tanzim.train")
        for key in _OWN:
            if _value(config.train, key) != _value(start.train, key):
                raise ConfigError(f"train.{key} cannot be set through the API", where=f"tanzim.train.{key}")
        multiplier = order.hyperparameters.get("learning_rate_multiplier", "auto")
        if not isinstance(multiplier, str):
            data["train.learning_rate"] = config.train.learning_rate * multiplier
        epochs = order.hyperparameters.get("n_epochs", "auto")
        if not isinstance(epochs, str):
            data["train.epochs"] = epochs
        data |= {"runs_dir": str(folder / "runs"), "seed": order.seed, "train.keep_epochs": KEPT}
        return with_values(config, data, where="hyperparameters")


def _value(section: object, key: str) -> object:
    """Return what stands at a dotted key; None where this variant of a section has none such."""
    for name in key.split("."):
        section = getattr(section, name, None)
    return section
