"""Ranks as workers of Ray Train, on a cluster of this machine alone."""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tanzim.core.config import load
from tanzim.core.errors import DataError, TrainError
from tanzim.core.progress import Reporter
from tanzim.launch.config import RayLaunch
from tanzim.launch.heartbeat import Heartbeat
from tanzim.launch.place import place
from tanzim.launch.ray import run_on_ray
from tanzim.pipeline.config import Config
from tanzim.pipeline.finetune import finetune

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Ray sets what Ray has deprecated
]


def die_on_the_second(folder: str) -> None:
    """Beat, and let rank 1 be killed in step 3 while rank 0 waits for it."""
    here = place()
    assert here is not None
    assert here.world == 2
    heart = Heartbeat(Path(folder), here.rank)
    if here.rank == 1:
        heart.beat("working", 3, ["a.jsonl, row 5"])
        os.kill(os.getpid(), signal.SIGKILL)
    heart.beat("waiting", 3)
    time.sleep(120)


class Heard(Reporter):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def test_a_killed_worker_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # by which the workers find this file
    sys.modules["test_ranks_on_ray"] = sys.modules[__name__]
    entry = functools.partial(die_on_the_second, str(tmp_path / "ranks"))
    with pytest.raises(TrainError, match=r"rank 1 died in step 3, on a\.jsonl, row 5"):
        run_on_ray(entry, tmp_path / "ranks", RayLaunch(nproc=2), name="killed")


def test_a_run_on_ray_equals_a_run_alone(
    tiny_model: Path, fruit_rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    common = [f"data.path=[{fruit_rows}]", f"model.name={tiny_model}", "model.device=cpu"]
    common += ["train.tokens_per_step=512", "train.tokens_per_pass=256", "train.learning_rate=2e-3"]
    common += ["train.max_steps=4"]
    two = "launch={type: ray, nproc: 2}"
    heard = Heard()
    ray = finetune(load(Config, None, [*common, "name=ray", two]), reporter=heard)
    alone = finetune(load(Config, None, [*common, "name=alone"]))
    assert any(line.startswith("[rank 0] training 4/4") for line in heard.lines)
    losses = [
        [line["loss"] for line in run.folder.read_metrics() if line["kind"] == "train"]
        for run in (ray, alone)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert ray.folder.read_manifest().status == "trained"
    assert json.loads((ray.output / "adapter_config.json").read_text())["peft_type"] == "LORA"
    with pytest.raises(DataError, match="longer than 8 tokens"):
        finetune(load(Config, None, [*common, "name=short", "model.max_length=8", two]))
