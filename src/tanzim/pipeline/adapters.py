"""``tanzim adapters``: the verbs of the adapter repository. Torch is imported only where weights are read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tanzim.adapters.repository import Repository
from tanzim.adapters.repository_state import Deleted, Entry, Facts
from tanzim.core.errors import RunError
from tanzim.core.files import read_json
from tanzim.core.progress import Reporter
from tanzim.core.records import Json
from tanzim.core.run import RunFolder
from tanzim.pipeline.config import Config
from tanzim.pipeline.workspace import find_run, load_config

if TYPE_CHECKING:
    from tanzim.adapters.merge_models import Way
    from tanzim.adapters.repository_diff import Diff

# Of a report, the system whose scores are an adapter's.
_TUNED = "tuned"


def open_repository(url: str | Path | None = None) -> Repository:
    """Open the adapter repository at ``url``; without one, where ``adapters.repository`` says.

    Raises:
        ConfigError: the ``tanzim.yaml`` here has faults.
        MissingExtra: the package for this protocol is not installed.
        RunError: the URL cannot be used.

    """
    return Repository(url if url is not None else load_config().adapters.repository)


def add_adapter(
    path: str | Path,
    *,
    name: str | None = None,
    task: str | None = None,
    text: str = "",
    tags: Sequence[str] = (),
    repository: str | Path | None = None,
) -> Entry:
    """Keep the adapter of a finished run, or any adapter folder, as the next version of its name.

    Of a run, base, data fingerprints, training settings and the scores of its evaluation are kept with it.

    Args:
        path: a run directory, or an adapter folder with ``tanzim.json``.
        name: its name; unset: the run's, or the folder's.
        task: what it is for; unset: its name.
        text: anything worth saying.
        tags: words to search by.
        repository: folder or URL; unset: ``adapters.repository``.

    Raises:
        RunError: the run is not finished, or has no adapter; the repository cannot be used.
        ModelError: this is no adapter.
        WrongBaseError: it does not say which base weights it was made for.

    """
    folder = Path(path)
    if folder.name == "adapter" and (folder.parent / "manifest.json").is_file():
        folder = folder.parent
    where = open_repository(repository)
    if not (folder / "manifest.json").is_file():
        name = name or folder.resolve().name
        return where.add(folder, Facts(name, task or name, text, tuple(tags)))
    run, config = find_run(folder)
    manifest = run.read_manifest()
    if not run.adapter.is_dir() or manifest.status not in ("trained", "evaluated"):
        whole = (
            "every weight was trained, so there is no adapter" if run.model.is_dir() else "it is not trained"
        )
        raise RunError(f"this run has no adapter to keep: {whole}", where=str(folder), fix="tanzim train")
    name = name or config.name
    task = task or name
    facts = Facts(
        name,
        task,
        text,
        tuple(tags),
        data=dict(manifest.data.get("fingerprints", {})),
        scores=_scores(run, task),
        parents=({"run": str(folder.resolve())},),
        made=_settings(config),
    )
    return where.add(run.adapter, facts)


def search_adapters(
    text: str | None = None,
    *,
    task: str | None = None,
    base: str | None = None,
    tag: str | None = None,
    repository: str | Path | None = None,
) -> list[Entry]:
    """Return the adapters that match all of what is given; all of them, if nothing is.

    Args:
        text: words in name, task, text, tags or base.
        task: the task, exactly.
        base: the beginning of the base weights' hash, or a part of the base's name.
        tag: a tag, exactly.
        repository: folder or URL; unset: ``adapters.repository``.

    Raises:
        RunError: the repository cannot be used.

    """
    return open_repository(repository).search(text, task=task, base=base, tag=tag)


def diff_adapters(one: str, two: str, *, repository: str | Path | None = None) -> Diff:
    """Say what differs between two adapters: facts, settings, scores, and the weights by module.

    Args:
        one: ``name@version``, or a name for its newest version.
        two: the same.
        repository: folder or URL; unset: ``adapters.repository``.

    Raises:
        RunError: there is no such adapter.
        ModelError: its weights are damaged.

    """
    from tanzim.adapters.repository_diff import compare

    where = open_repository(repository)
    entries = where.get(one), where.get(two)
    return compare(entries[0], where.folder(entries[0]), entries[1], where.folder(entries[1]))


def promote_adapter(ref: str, *, task: str | None = None, repository: str | Path | None = None) -> Entry:
    """Make an adapter the one `fetch_adapter` returns for its task.

    Args:
        ref: ``name@version``, or a name for its newest version.
        task: another task than its own.
        repository: folder or URL; unset: ``adapters.repository``.

    Raises:
        RunError: there is no such adapter, or it is promoted already.

    """
    return open_repository(repository).promote(ref, task)


def roll_back_adapter(task: str, *, repository: str | Path | None = None) -> Entry:
    """Promote again what was promoted for ``task`` before.

    Raises:
        RunError: there is nothing to go back to.

    """
    return open_repository(repository).roll_back(task)


def delete_adapter(ref: str, *, repository: str | Path | None = None) -> Deleted:
    """Remove one version's files; its entry stays in the log.

    Raises:
        RunError: it is promoted, there is no such version, or ``ref`` names no version.

    """
    return open_repository(repository).delete(ref)


def fetch_adapter(
    task: str | None = None, *, ref: str | None = None, repository: str | Path | None = None
) -> tuple[Entry, Path]:
    """Return the adapter promoted for ``task`` (or the one called ``ref``) and a local folder with it.

    Raises:
        RunError: nothing is promoted for the task, or there is no such adapter; or not one of the two is
            given.

    """
    where = open_repository(repository)
    if (task is None) == (ref is None):
        raise RunError("name a task or an adapter", fix="tanzim adapters fetch TASK, or --ref NAME@VERSION")
    if task is not None:
        return where.fetch(task)
    entry = where.get(str(ref))
    return entry, where.folder(entry)


def merge_models(
    models: Sequence[str | Path],
    output: str | Path,
    *,
    way: Way = "linear",
    weights: Sequence[float] = (),
    base: str | Path | None = None,
    reporter: Reporter | None = None,
) -> Path:
    """Merge whole models of one architecture into a new folder, a tensor at a time.

    Args:
        models: names or folders, as ``model.name`` takes them.
        output: the new folder; one that holds something else is not replaced.
        way: linear, slerp (two models) or task_arithmetic (with ``base``).
        weights: one per model (all 1, unless given); for slerp one from 0 to 1 (0.5).
        base: what the models were trained from, for task arithmetic.
        reporter: takes the progress.

    Raises:
        ConfigError: the weights do not fit, or the folder holds something else.
        ModelError: the models differ in architecture, precision or vocabulary.

    """
    from tanzim.adapters.merge_models import MergePlan
    from tanzim.adapters.merge_models import merge_models as merge
    from tanzim.models.config import ModelConfig
    from tanzim.models.resolve import resolve

    reporter = reporter or Reporter()
    target = free_folder(Path(output))
    given = tuple(weights) or ((0.5,) if way == "slerp" else (1.0,) * len(models))
    plan = MergePlan(way, given)
    found = [resolve(ModelConfig(name=str(model))) for model in models]
    start = resolve(ModelConfig(name=str(base))) if base is not None else None
    record: Json = {
        "base": start.name if start else found[0].name,
        "base_hash": start.hash if start else found[0].hash,
        "models": [{"name": model.name, "hash": model.hash} for model in found],
    }
    with reporter.task("merging") as progress:
        merge(
            [model.path for model in found],
            target,
            plan,
            base=start.path if start else None,
            record=record,
            progress=progress,
        )
    return target


def free_folder(path: Path) -> Path:
    """Return ``path`` if it may be written: it is new, empty, or an earlier result of ours.

    Raises:
        ConfigError: it holds something else, or is a file.

    """
    from tanzim.core.errors import ConfigError

    if path.exists() and not path.is_dir():
        raise ConfigError("this is a file, not a folder", where=str(path), fix="choose another")
    if path.exists() and any(path.iterdir()) and not (path / "tanzim.json").is_file():
        raise ConfigError("the folder exists and holds other things", where=str(path), fix="choose another")
    return path


def _scores(run: RunFolder, task: str) -> dict[str, dict[str, float]]:
    """Return the scores of a run's evaluation on its own test set, {} if there was none."""
    report = run.evaluation / "report.json"
    if not report.is_file():
        return {}
    return {task: system_scores(read_json(report), _TUNED)}


def system_scores(report: Json, name: str) -> dict[str, float]:
    """Return metric → value of one system of an evaluation's ``report.json``."""
    system: Json = next((one for one in report["systems"] if one["name"] == name), {})
    values = {key: system.get(key) for key in ("loss", "perplexity")}
    for metric, groups in system.get("metrics", {}).items():
        if "." not in metric and "all" in groups:
            values[metric] = groups["all"]["value"]
    return {
        key: value for key, value in values.items() if isinstance(value, int | float) and math.isfinite(value)
    }


def _settings(config: Config) -> Json:
    """Return how a run trained: what its config says of it."""
    value: Json = config.train.model_dump(mode="json")
    return {"train": value, "train_on": config.model.train_on, "seed": config.seed}
