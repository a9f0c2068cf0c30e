"""``tanzim adapters combine``: combine adapters in several ways, and measure each on every task.

The tasks are those of the runs the adapters came from: each combination answers every run's test set beside
the base and the task's own adapter, and is filed in the repository with its scores and its parents.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tanzim.adapters.combine import combine
from tanzim.adapters.folder import WEIGHTS
from tanzim.adapters.recipe import Recipe
from tanzim.adapters.repository import Repository, check_name
from tanzim.adapters.repository_state import Entry, Facts, State
from tanzim.core.errors import ConfigError
from tanzim.core.files import sha256, write_json
from tanzim.core.progress import Reporter
from tanzim.core.records import Json
from tanzim.core.run import RunFolder, read_lines
from tanzim.data.prepare import DataReport
from tanzim.data.store import ExampleStore
from tanzim.evaluate.answers import System
from tanzim.evaluate.measure import evaluate
from tanzim.evaluate.report import ALL, BASE, TUNED, EvalReport, SystemResult, title
from tanzim.pipeline.adapters import free_folder, open_repository, system_scores
from tanzim.pipeline.config import Config
from tanzim.pipeline.evaluate import measure_loss
from tanzim.pipeline.form import form_of
from tanzim.pipeline.opened import Opened, open_base
from tanzim.pipeline.short_answers import Lengths, ShortAnswers, find_short, lengths
from tanzim.pipeline.tasks import task_of
from tanzim.pipeline.tokens import conversations
from tanzim.pipeline.workspace import find_run
from tanzim.train.tokens import TokenStore

_OURS = {"evaluation", "report.json"}  # beside the adapters, in a folder that was written here


@dataclass(frozen=True, slots=True)
class Task:
    """A task that combinations are measured on.

    Args:
        name: the task.
        own: the adapter made for it.
        run: the run directory it came from.

    """

    name: str
    own: Entry
    run: Path


@dataclass(frozen=True, slots=True)
class Combination:
    """One way of combining, and what came of it.

    Args:
        label: what it is called in tables: the mode and the weights.
        recipe: how it was made.
        folder: the adapter.
        entry: where it stands in the repository.

    """

    label: str
    recipe: Recipe
    folder: Path
    entry: Entry


@dataclass(frozen=True, slots=True)
class Combined:
    """What every combination does on every task.

    Args:
        combinations: in the order they were asked for.
        reports: task → evaluation of base, the task's own adapter ("tuned"), and every combination.
        lengths: task → how long the answers are.
        short: combinations whose answers to a task are too short.
        skipped: adapters or tasks that could not be measured, and why.
        folder: where adapters, evaluations and ``report.json`` are.

    """

    combinations: tuple[Combination, ...]
    reports: Mapping[str, EvalReport]
    lengths: Mapping[str, Lengths]
    short: tuple[ShortAnswers, ...]
    skipped: tuple[str, ...]
    folder: Path


@dataclass(slots=True)
class _Bench:
    """Loaded bases by their settings, so that tasks on one base share it."""

    reporter: Reporter
    opened: dict[str, Opened] = field(default_factory=dict)

    def open(self, config: Config) -> Opened:
        form = form_of(config.train.method)
        key = f"{config.model.model_dump_json()} {form}"
        if key not in self.opened:
            self.opened[key] = open_base(config.model, form=form, reporter=self.reporter)
        return self.opened[key]


def combine_adapters(
    refs: Sequence[str],
    recipes: Sequence[Recipe],
    *,
    name: str,
    task: str | None = None,
    measure: bool = True,
    repository: str | Path | None = None,
    output: str | Path | None = None,
    reporter: Reporter | None = None,
) -> Combined:
    """Combine adapters of the repository by every recipe, and measure the results on every task.

    Every combination becomes a version of ``name``. Answers are kept as they come: an interrupted
    evaluation goes on when the same is asked again.

    Args:
        refs: two or more adapters, plain LoRA on one base: ``name@version``, or a name for the newest.
        recipes: ways of combining, each with one weight per adapter (`make_recipes`).
        name: the new adapter's name.
        task: what the new adapter is for; unset: its parents' tasks, joined.
        measure: evaluate every combination on every task.
        repository: folder or URL; unset: ``adapters.repository``.
        output: where adapters and evaluations are written; unset: ``combined/NAME``.
        reporter: takes warnings and progress.

    Raises:
        ConfigError: the weights do not fit the adapters.
        ModelError: an adapter is not plain LoRA, ranks do not fit the mode, or a name cannot be used.
        WrongBaseError: the adapters are for different base weights.
        RunError: there is no such adapter, or the repository cannot be used.

    """
    reporter = reporter or Reporter()
    if len(refs) < 2:
        raise ConfigError("one adapter alone cannot be combined", fix="name at least two")
    where = open_repository(repository)
    parents = [where.get(ref) for ref in refs]
    check_name(name, "name")
    ways = {_label(recipe): recipe for recipe in recipes}
    if len(ways) < len(recipes):
        raise ConfigError(f"{len(recipes) - len(ways)} of {len(recipes)} ways to combine are there twice")
    target = Path(output) if output is not None else Path("combined") / name
    _check_room(target)
    folders = _combine_all(where, parents, ways, target, reporter)
    skipped: list[str] = []
    reports: dict[str, EvalReport] = {}
    found = list(_tasks(where.state(), parents, skipped)) if measure else []
    bench = _Bench(reporter)
    for one in found:
        reporter.say(f"measuring {len(folders)} combinations on '{one.name}' (run {one.run})")
        reports[one.name] = _measure(one, where, folders, target / "evaluation" / one.name, bench, reporter)
    measured = {
        one: lengths(list(read_lines(target / "evaluation" / one / "items.jsonl"))) for one in reports
    }
    short = find_short(measured, list(ways), own=TUNED)
    combinations = []
    for label, recipe in ways.items():
        facts = _facts(name, task, parents, recipe, label, reports, short)
        combinations.append(Combination(label, recipe, folders[label], where.add(folders[label], facts)))
    result = Combined(tuple(combinations), reports, measured, tuple(short), tuple(skipped), target)
    write_json(target / "report.json", _to_json(result))
    return result


def _check_room(target: Path) -> None:
    """Refuse a folder that holds what others put there: adapters and reports of ours are replaced.

    Raises:
        ConfigError: it does, or is a file.

    """
    if not target.is_dir():
        free_folder(target)
        return
    found = {path.name for path in target.iterdir()}
    adapters = {name for name in found if (target / name / "tanzim.json").is_file()}
    if found and not (adapters and found <= {*adapters, *_OURS}):
        raise ConfigError("the folder exists and holds other things", where=str(target), fix="choose another")


def _label(recipe: Recipe) -> str:
    """Name a recipe by what distinguishes it: mode, weights, density (d), rank (r), seed (s)."""
    parts = [recipe.mode, ":".join(f"{weight:g}" for weight in recipe.weights)]
    for key in ("density", "rank", "seed"):
        value = recipe.to_json().get(key)
        parts += [f"{key[0]}{value:g}"] if value is not None else []
    return " ".join(parts)


def _combine_all(
    where: Repository,
    parents: Sequence[Entry],
    recipes: Mapping[str, Recipe],
    target: Path,
    reporter: Reporter,
) -> dict[str, Path]:
    """Write every combination; return label → folder."""
    sources = [where.folder(entry) for entry in parents]
    folders = {}
    for label, recipe in recipes.items():
        folders[label] = target / label.replace(" ", "-").replace(":", "_")
        with reporter.task(f"combining by {label}") as progress:
            rank = combine(
                sources,
                folders[label],
                recipe,
                names=[entry.ref for entry in parents],
                say=reporter.say,
                progress=progress,
            )
        reporter.say(f"{label}: rank {rank}")
    return folders


def _tasks(state: State, parents: Sequence[Entry], skipped: list[str]) -> Iterator[Task]:
    """Find the tasks of the runs that ``parents``, or what they were combined from, came from."""
    names: set[str] = set()
    seen: set[Path] = set()
    queue = list(parents)
    while queue:
        entry = queue.pop(0)
        queue += [state.entries[parent["adapter"]] for parent in entry.facts.parents if "adapter" in parent]
        runs = [Path(parent["run"]) for parent in entry.facts.parents if "run" in parent]
        if (entry.facts.parents and not runs) or (runs and seen.issuperset(runs)):
            continue
        seen.update(runs)
        if entry.deleted is not None or not runs:
            why = "it was deleted" if entry.deleted else "it was added without its run"
            skipped.append(f"{entry.ref}: {why}, so there is no test set")
        elif not (runs[0] / "manifest.json").is_file() or not (runs[0] / "data" / "test.arrow").is_file():
            skipped.append(f"{entry.ref}: its run {runs[0]} is not on this machine, so there is no test set")
        elif not task_of(find_run(runs[0])[1]).writes:
            skipped.append(
                f"{entry.ref}: its run {runs[0]} labels or embeds, so there are no answers to compare"
            )
        else:
            task = entry.facts.task
            name = task if task not in names else f"{task} ({entry.ref})"
            names.add(name)
            yield Task(name, entry, runs[0])


def _measure(
    task: Task,
    where: Repository,
    folders: Mapping[str, Path],
    out: Path,
    bench: _Bench,
    reporter: Reporter,
) -> EvalReport:
    """Measure base, the task's own adapter and every combination on the task's test set."""
    run, config = find_run(task.run)
    opened = bench.open(config)
    tokens = TokenStore(run.tokens / "test.arrow")
    labels = list(DataReport.read(run.data).labels)
    examples = list(conversations(ExampleStore(run.data / "test.arrow"), config.data, labels))
    loss = measure_loss(opened.engine, tokens, config)
    systems = [System(BASE, opened.engine, None, opened.base.hash, loss)]
    for label, folder in {TUNED: where.folder(task.own), **folders}.items():
        # The weights' own hash names them: the engine is shared by all tasks.
        digest = sha256(folder / WEIGHTS)
        if f"a{digest}" not in opened.engine.adapters:
            opened.engine.add_adapter(f"a{digest}", folder)
        systems.append(System(label, opened.engine, f"a{digest}", f"{opened.base.hash}/{digest}", loss))
    _borrow_answers(run, out)
    with reporter.task(f"evaluating on {task.name}") as progress:
        return evaluate(
            examples,
            systems,
            renderer=opened.renderer,
            config=config.evaluate.model_copy(update={"base": True, "others": {}}),
            out=out,
            seed=config.seed,
            labels=labels,
            progress=progress,
        )


def _borrow_answers(run: RunFolder, out: Path) -> None:
    """Begin with the answers of the run's own evaluation: base and own adapter need not answer again."""
    answers = run.evaluation / "answers.jsonl"
    if answers.is_file() and not (out / "answers.jsonl").is_file():
        out.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(answers, out / "answers.jsonl")


def _facts(
    name: str,
    task: str | None,
    parents: Sequence[Entry],
    recipe: Recipe,
    label: str,
    reports: Mapping[str, EvalReport],
    short: Sequence[ShortAnswers],
) -> Facts:
    refs = ", ".join(entry.ref for entry in parents)
    warned = [one.text for one in short if one.system == label]
    return Facts(
        name,
        task or "+".join(dict.fromkeys(entry.facts.task for entry in parents)),
        text="; ".join([f"{refs} combined by {label}", *warned]),
        tags=("combined", recipe.mode, *(("short-answers",) if warned else ())),
        data={
            f"{entry.facts.name}.{split}": digest
            for entry in parents
            for split, digest in entry.facts.data.items()
        },
        scores={one: system_scores(report.to_json(), label) for one, report in reports.items()},
        parents=tuple(
            {"adapter": entry.ref, "weight": weight}
            for entry, weight in zip(parents, recipe.weights, strict=True)
        ),
        made=recipe.to_json(),
    )


def combined_rows(result: Combined) -> list[list[str]]:
    """Return the table of what each combination does on each task: a header, then a row per measure.

    Metrics are in percent. Behind a combination's metric stands how it compares with the task's own
    adapter on the same items: better, worse, or nothing where no difference can be measured.
    """
    labels = [one.label for one in result.combinations]
    rows = [["task", "measure", "base", "own adapter", *labels]]
    for task, report in result.reports.items():
        systems = [report.system(name) for name in (BASE, TUNED, *labels)]
        if any(system.loss is not None for system in systems):
            losses = ["–" if system.loss is None else f"{system.loss:.3f}" for system in systems]
            rows.append([task, "held-out loss", *losses])
        verdicts = {(c.against, c.metric): c.verdict for c in report.comparisons if c.group == ALL}
        for metric in (metric for metric in report.metrics if "." not in metric):
            cells = [_cell(system, metric, verdicts.get((system.name, metric))) for system in systems[2:]]
            plain = [_cell(system, metric, None) for system in systems[:2]]
            rows.append([task, title(metric), *plain, *cells])
        measured = result.lengths[task]
        if measured.references:
            flagged = {one.system for one in result.short if one.task == task}
            cells = [
                f"{measured.mean(system.name):.0f}{' short!' if system.name in flagged else ''}"
                for system in systems
            ]
            rows.append([task, f"characters per answer (right ones {measured.mean():.0f})", *cells])
    return rows


def _cell(system: SystemResult, metric: str, verdict: str | None) -> str:
    """Say a metric in percent, and the verdict, which is on the own adapter minus this system, turned."""
    estimate = system.metrics.get(metric, {}).get(ALL)
    turned = {"better": " worse", "worse": " better"}.get(verdict or "", "")
    return "–" if estimate is None else f"{100 * estimate.value:.1f}{turned}"


def _to_json(result: Combined) -> Json:
    return {
        "combinations": [
            {"label": one.label, "adapter": one.entry.ref, "folder": str(one.folder), **one.recipe.to_json()}
            for one in result.combinations
        ],
        "table": combined_rows(result),
        "short_answers": [one.text for one in result.short],
        "skipped": list(result.skipped),
    }
