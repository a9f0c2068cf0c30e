"""What tests of fine-tuning jobs have in common: a client of a real server, and its jobs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai

from helpers.serving import serving
from tanzim.models.config import ModelConfig
from tanzim.pipeline.config import Config
from tanzim.pipeline.opened import open_models

FAST = {"n_epochs": 20, "batch_size": 20, "learning_rate_multiplier": 25.0}
ENDED = ("succeeded", "failed", "cancelled")


@contextmanager
def client_of(model: Path, folder: Path, **settings: Any) -> Iterator[openai.OpenAI]:
    """Yield a client of a server for a model, which is called tiny; ``settings`` are of ``serve``."""
    opened = open_models([str(model)])
    project = Config(model=ModelConfig(name=str(model)))
    with (
        serving(opened.engine, opened.renderer, {"tiny": None}, folder, project, **settings) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


def create(client: openai.OpenAI, file: str, **settings: Any) -> Any:
    method = {"type": "supervised", "supervised": {"hyperparameters": settings.pop("hyper", FAST)}}
    return client.fine_tuning.jobs.create(model="tiny", training_file=file, method=method, seed=5, **settings)


def wait(client: openai.OpenAI, job: str, until: Callable[[Any], bool], seconds: float = 120) -> Any:
    end = time.monotonic() + seconds
    while not until(found := client.fine_tuning.jobs.retrieve(job)):
        assert time.monotonic() < end, found
        assert found.status not in ENDED or until(found), found
        time.sleep(0.1)
    return found


def told(client: openai.OpenAI, job: str) -> list[str]:
    """Return the messages of a job's events, the oldest first."""
    return [event.message for event in reversed(list(client.fine_tuning.jobs.list_events(job, limit=100)))]


def steps_of(client: openai.OpenAI, job: str) -> list[int]:
    """Return the training steps that were told, in the order they were."""
    found = list(client.fine_tuning.jobs.list_events(job, limit=100))
    return [e.data["step"] for e in reversed(found) if e.type == "metrics" and "train_loss" in e.data]


def losses_of(client: openai.OpenAI, job: str) -> dict[int, float]:
    """Return the training loss of each step that was told."""
    found = client.fine_tuning.jobs.list_events(job, limit=100)
    return {e.data["step"]: e.data["train_loss"] for e in found if e.type == "metrics"}


def process_of(folder: Path, job: str) -> int:
    """Return the job's process, as soon as it has one."""
    path = folder / "jobs" / job / "pid"
    while not path.is_file():
        time.sleep(0.05)
    return int(path.read_text())
