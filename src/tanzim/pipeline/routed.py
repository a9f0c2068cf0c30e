"""Runs with one adapter per task: which data are whose, and which adapter answers what."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tanzim.adapters.config import RoutedConfig
from tanzim.adapters.routed import task_of_source
from tanzim.core.errors import DataError
from tanzim.core.records import Provenance
from tanzim.core.run import RunFolder
from tanzim.data.store import ExampleStore
from tanzim.pipeline.config import Config

KEY = "train.method.tasks"


def tasks_of(config: Config) -> dict[str, str]:
    """Return the tasks of a project whose tokens are routed; none for any other."""
    method = config.train.method
    return method.tasks if isinstance(method, RoutedConfig) else {}


def check_tasks(config: Config, folder: RunFolder) -> None:
    """Refuse data that belongs to no task, and a task without data.

    Raises:
        DataError: names the file, or the task.

    """
    tasks = tasks_of(config)
    if not tasks:
        return
    found = set()
    for split in ("train", "validation", "test"):
        for example in ExampleStore(folder.data / f"{split}.arrow"):
            task = task_of_source(example.provenance.source, tasks)
            if task is None:
                raise DataError(
                    "these data belong to none of the tasks " + ", ".join(tasks),
                    where=str(example.provenance),
                    fix=f"name their file, folder or pattern in {KEY}, as it stands in data.path",
                )
            if split == "train":
                found.add(task)
    for task in tasks:
        if task not in found:
            raise DataError(
                f"the task '{task}' has no training example",
                where=f"{KEY}.{task}: {tasks[task]}",
                fix="write its file, folder or pattern as it stands in data.path",
            )


def adapter_name(run: str, task: str) -> str:
    """Return the name that the adapter of a task is loaded under."""
    return f"{run}-{task}"


def adapters_of(config: Config, folder: RunFolder) -> list[tuple[str, Path]]:
    """Return the adapters a run left, by the names they are loaded under."""
    tasks = tasks_of(config)
    if not tasks:
        return [(config.name, folder.adapter)]
    return [(adapter_name(config.name, task), folder.adapter / task) for task in tasks]


def route(config: Config) -> Callable[[Provenance], str] | None:
    """Return the function from an example's place to its adapter's name; None where one adapter does all."""
    tasks = tasks_of(config)
    if not tasks:
        return None
    first = next(iter(tasks))
    return lambda place: adapter_name(config.name, task_of_source(place.source, tasks) or first)


def task_name(config: Config, place: Provenance) -> str:
    """Return the task of an example, by where it came from."""
    return task_of_source(place.source, tasks_of(config)) or ""
