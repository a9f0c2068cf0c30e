"""The chain of steps: run shard by shard, counted, timed, cached; every removal has its reason.

A step's result lies in a folder named by the fingerprint of its input and its settings, so that a second
run does only what changed, whichever step it was; an interrupted one goes on at the shard where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

from tanzim.core.files import read_json, write_json
from tanzim.core.powers import Powers
from tanzim.core.records import Json, Progress, no_progress
from tanzim.data.cache import code, used
from tanzim.data.config import StepConfig
from tanzim.data.executor import Executor, Local, Tell, nobody, telling, told
from tanzim.data.ledger import Ledger, StepReport
from tanzim.data.shards import Dataset, Shard, write_shard
from tanzim.data.step import Survey, WholeStep
from tanzim.data.steps import make_step, step_class


@dataclass(frozen=True, slots=True)
class Done:
    """The result of a step.

    Args:
        dataset: what came out.
        report: what was done.
        rejected: files of removed examples, lines of ``rejected.jsonl``, in order.

    """

    dataset: Dataset
    report: StepReport
    rejected: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class _Task:
    """One shard and one step."""

    config: StepConfig
    seed: int
    shard: Shard
    out: Path
    first: int = 0
    verdict: Path | None = None
    turn: int = 1


def run_steps(
    configs: Sequence[StepConfig],
    dataset: Dataset,
    cache: Path,
    *,
    seed: int,
    powers: Powers | None = None,
    executor: Executor | None = None,
    progress: Progress = no_progress,
) -> Iterator[Done]:
    """Run steps one after another, and yield the result of each.

    Args:
        configs: the steps.
        dataset: the examples.
        cache: the folder that keeps results; those of an earlier run are taken from it.
        seed: the run's seed.
        powers: what steps may need of higher rooms.
        executor: where the work is done; the cores of this machine, if none is given.
        progress: told the examples done of each step.

    Raises:
        DataError: a step lost an example, or cannot work on these.

    """
    turns: Counter[str] = Counter()
    for config in configs:
        turns[config.type] += 1
        done = run_step(
            config,
            dataset,
            cache,
            seed=seed,
            powers=powers or Powers(),
            executor=executor or Local(),
            progress=progress,
            turn=turns[config.type],
        )
        dataset = done.dataset
        yield done


def run_step(
    config: StepConfig,
    dataset: Dataset,
    cache: Path,
    *,
    seed: int,
    powers: Powers,
    executor: Executor,
    progress: Progress = no_progress,
    turn: int = 1,
) -> Done:
    """Run one step (see `run_steps`), the ``turn``-th of its type."""
    folder = used(cache / f"{config.type}-{_key(config, dataset, seed, turn)}")
    if (folder / "done.json").is_file():
        return _read(folder, cached=True)
    started = time.monotonic()
    kind = step_class(config.type)
    local = executor if kind.parallel else _Here(powers)
    findings, verdict = {}, None
    if issubclass(kind, WholeStep):
        verdict = folder / "verdict"
        looks = [
            _Task(config, seed, shard, folder / f"survey-{number:05d}", turn=turn)
            for number, shard in enumerate(dataset.shards)
        ]
        step = make_step(config, powers, seed, turn)
        assert isinstance(step, WholeStep)
        findings = _decide(step, looks, verdict, local, progress)
    firsts = accumulate((shard.rows for shard in dataset.shards), initial=0)
    tasks = [
        _Task(config, seed, shard, folder / f"part-{number:05d}", first, verdict, turn)
        for number, (shard, first) in enumerate(zip(dataset.shards, firsts, strict=False))
    ]
    _run(local, _judge, tasks, ".json", partial(_noted, progress, config.type))
    report = StepReport(config.type, config.model_dump(mode="json"), findings=findings)
    shards = []
    for task in tasks:
        part = read_json(task.out.with_suffix(".json"))
        report.take(part)
        shards.append(part["shard"])
    report.seconds = round(time.monotonic() - started, 3)
    write_json(folder / "done.json", {"report": report.to_json(), "shards": shards})
    return _read(folder, cached=False)


def _key(config: StepConfig, dataset: Dataset, seed: int, turn: int) -> str:
    kind = step_class(config.type)
    settings = [config.model_dump(mode="json"), code(), kind.outside(config), seed, dataset.fingerprint, turn]
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:24]


def _read(folder: Path, *, cached: bool) -> Done:
    value = read_json(folder / "done.json")
    report = StepReport.from_json({**value["report"], "cached": cached, "folder": folder.name})
    shards = tuple(Shard.from_json(shard, folder) for shard in value["shards"] if shard["rows"])
    return Done(Dataset(shards), report, tuple(sorted(folder.glob("part-*.rejected.jsonl"))))


class _Here:
    """Works in this process, for steps that use powers (which do not travel between processes)."""

    def __init__(self, powers: Powers) -> None:
        self._powers = powers

    def map(
        self, function: Callable[..., Any], tasks: Sequence[Any], tell: Tell = nobody
    ) -> Generator[tuple[int, Any], None, None]:
        with telling(tell):
            for number, task in enumerate(tasks):
                yield number, function(task, powers=self._powers)


def _run(
    executor: Executor | _Here,
    function: Callable[[_Task], None],
    tasks: Sequence[_Task],
    suffix: str,
    progress: Progress,
) -> None:
    """Run the tasks whose result is not there yet."""
    left = [task for task in tasks if not task.out.with_suffix(suffix).is_file()]
    total = sum(task.shard.rows for task in tasks)
    rows = total - sum(task.shard.rows for task in left)
    progress(rows, total, "")
    before = shown = rows

    def tell(inside: int) -> None:
        nonlocal shown
        shown = min(total, max(shown, rows, before + inside))
        progress(shown, total, "")

    with closing(executor.map(function, left, tell)) as results:
        for number, _ in results:
            rows += left[number].shard.rows
            tell(0)


def _decide(
    step: WholeStep[Any],
    tasks: Sequence[_Task],
    verdict: Path,
    executor: Executor | _Here,
    progress: Progress,
) -> Json:
    """Survey all shards, and decide; both are kept."""
    findings_path = verdict.with_name("findings.json")
    if findings_path.is_file():
        found: Json = read_json(findings_path)
        return found
    type = step.config.type
    _run(executor, _survey, tasks, ".survey", partial(_noted, progress, f"{type}: looking"))
    surveys = [Survey(task.out.with_suffix(".survey"), task.shard.rows, task.shard.origin) for task in tasks]
    findings = step.decide(surveys, verdict, partial(_noted, progress, type))
    write_json(findings_path, findings)
    for survey in surveys:
        survey.path.unlink()
    return findings


def _noted(progress: Progress, type: str, done: int, total: int | None, note: str) -> None:
    progress(done, total, f"{type}: {note}" if note else type)


def _survey(task: _Task, powers: Powers | None = None) -> None:
    step = make_step(task.config, powers or Powers(), task.seed, task.turn)
    assert isinstance(step, WholeStep)
    path = task.out.with_suffix(".survey")
    part = path.with_suffix(".part")
    step.survey(told(task.shard), part)
    part.replace(path)


def _judge(task: _Task, powers: Powers | None = None) -> None:
    """Run a step on one shard; write what came out, what was removed, and what was counted."""
    step = make_step(task.config, powers or Powers(), task.seed, task.turn)
    ledger = Ledger(step)
    rejected = task.out.with_suffix(".rejected.part")
    with rejected.open("w", encoding="utf-8", errors="backslashreplace") as file:
        incoming = ledger.incoming(told(task.shard.stored()))
        outcomes = (
            step.judge(incoming, task.verdict, task.first)
            if isinstance(step, WholeStep) and task.verdict
            else step.apply(incoming)
        )
        shard = write_shard(
            task.out.with_suffix(".arrow"), ledger.outgoing(outcomes, file), task.shard.origin
        )
    if shard.sha256 == task.shard.sha256:
        _share(task.shard.path, shard.path)
    rejected.replace(task.out.with_suffix(".rejected.jsonl"))
    write_json(task.out.with_suffix(".json"), {**ledger.to_json(), "shard": shard.to_json()})


def _share(old: Path, new: Path) -> None:
    """Keep one file where two say the same."""
    link = new.with_suffix(".link")
    link.unlink(missing_ok=True)
    with suppress(OSError):  # two disks, or a disk without links: then there are two files
        link.hardlink_to(old)
        link.replace(new)
