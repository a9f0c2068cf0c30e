from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tiny_train import fit, lines

from tanzim.core.errors import MissingExtra
from tanzim.core.run import RunFolder
from tanzim.train.trackers import TRACKERS, check_trackers, open_trackers

TRAIN = {"step": 3, "kind": "train", "loss": 1.5, "tokens": 7, "grad_norm": None}
EVAL = {"step": 3, "kind": "eval", "loss": 1.25}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_reads_back_what_was_logged(tmp_path: Path) -> None:
    reader = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    fit(tmp_path, trackers=["tensorboard"], max_steps=4, eval_steps=2)
    events = reader.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    for kind, numbers in (
        ("train", ("loss", "learning_rate", "grad_norm")),
        ("eval", ("loss", "perplexity")),
    ):
        for name in numbers:
            curve = [(event.step, event.value) for event in events.Scalars(f"{kind}/{name}")]
            written = [(line["step"], pytest.approx(line[name], rel=1e-6)) for line in lines(tmp_path, kind)]
            assert curve == written
    assert "learning_rate" in str(events.Tensors("config/text_summary"))


class Fake(ModuleType):
    """Stands for a tracker's package and records every call."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args: Any, **kwargs: Any) -> Fake:
            self.calls.append((name, args, kwargs))
            return self

        return call


@pytest.mark.parametrize("name", ["mlflow", "wandb", "trackio"])
def test_numbers_reach_the_package(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake(name)
    monkeypatch.setitem(sys.modules, name, fake)
    for variable in ("WANDB_MODE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(variable, raising=False)
    check_trackers([name])
    (tracker,) = open_trackers([name], RunFolder(tmp_path / "run"), {"seed": 5}, 1)
    tracker.log(TRAIN)
    tracker.log(EVAL)
    tracker.close()
    logged = [
        (args[0], kwargs["step"])
        for call, args, kwargs in fake.calls
        if call.startswith("log") and "step" in kwargs
    ]
    assert logged == [({"train/loss": 1.5, "train/tokens": 7.0}, 3), ({"eval/loss": 1.25}, 3)]
    assert fake.calls[-1][0] in ("finish", "end_run")
    if name == "wandb":
        assert fake.calls[0][2]["mode"] == "offline"
    if name == "mlflow":
        assert fake.calls[0][1][0].startswith(f"sqlite:///{tmp_path}")


@pytest.mark.parametrize("name", TRACKERS)
def test_missing_packages_are_named_with_their_command(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra) as caught:
        check_trackers([name])
    assert f"tanzim[{name}]" in str(caught.value)
