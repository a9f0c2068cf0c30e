"""``tanzim adapters``: one place for every adapter. Each verb is one pipeline function."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tanzim.adapters.repository_diff import Diff
    from tanzim.adapters.repository_state import Entry, State
    from tanzim.pipeline.combine import Combined

app = typer.Typer(help="Keep, find, compare, promote and combine adapters.", no_args_is_help=True)

# typer reads these annotations at run time.
Where = Annotated[
    str | None,
    typer.Option("--repository", "-r", help="Folder or URL (s3://bucket/prefix); else adapters.repository."),
]
Ref = Annotated[str, typer.Argument(help="NAME@VERSION, or NAME for its newest version.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="A word to search by; may be repeated.")]


@app.command("add")
def add_command(
    path: Annotated[str, typer.Argument(help="Run folder (runs/NAME), or adapter folder.")],
    name: Annotated[str | None, typer.Option("--name", help="Else the run's name.")] = None,
    task: Annotated[str | None, typer.Option("--task", help="What it is for; else its name.")] = None,
    text: Annotated[str, typer.Option("--text", help="Anything worth saying.")] = "",
    tags: Tags = None,
    promote: Annotated[bool, typer.Option("--promote", help="Promote it for its task, too.")] = False,
    repository: Where = None,
) -> None:
    """Keep the adapter of a run with its base, data fingerprints, scores and origin."""
    from tanzim.cli import show
    from tanzim.pipeline.adapters import add_adapter, promote_adapter

    entry = add_adapter(path, name=name, task=task, text=text, tags=tags or (), repository=repository)
    if promote:
        promote_adapter(entry.ref, repository=repository)
    said = f"{entry.ref} is kept for '{entry.facts.task}'{' and promoted' if promote else ''}"
    show.done(said, "" if promote else f"tanzim adapters promote {entry.ref}")


@app.command("list")
def list_command(repository: Where = None) -> None:
    """Show every adapter; a star marks the promoted one of its task."""
    from tanzim.pipeline.adapters import open_repository

    state = open_repository(repository).state()
    _entries(state.alive(), state)


@app.command("search")
def search_command(
    text: Annotated[str | None, typer.Argument(help="Words in name, task, text, tags or base.")] = None,
    task: Annotated[str | None, typer.Option("--task", help="The task, exactly.")] = None,
    base: Annotated[str | None, typer.Option("--base", help="Part of the base's name or hash.")] = None,
    tag: Annotated[str | None, typer.Option("--tag", help="A tag, exactly.")] = None,
    repository: Where = None,
) -> None:
    """Show the adapters that match everything given."""
    from tanzim.pipeline.adapters import open_repository, search_adapters

    found = search_adapters(text, task=task, base=base, tag=tag, repository=repository)
    _entries(found, open_repository(repository).state())


@app.command("show")
def show_command(ref: Ref, repository: Where = None) -> None:
    """Show all that is known about one adapter, and what it descends from."""
    from tanzim.adapters.repository_state import lineage
    from tanzim.cli.show import console
    from tanzim.pipeline.adapters import open_repository

    where = open_repository(repository)
    entry = where.get(ref)
    value = entry.to_json() | {"ref": entry.ref, "lineage": lineage(where.state(), entry)}
    console.print_json(json.dumps(value, ensure_ascii=False))


@app.command("diff")
def diff_command(
    one: Ref, two: Annotated[str, typer.Argument(help="The other.")], repository: Where = None
) -> None:
    """Show what differs between two adapters: facts, settings, scores, and weights by module."""
    from tanzim.pipeline.adapters import diff_adapters

    _diff(diff_adapters(one, two, repository=repository), one, two)


@app.command("promote")
def promote_command(
    ref: Ref,
    task: Annotated[str | None, typer.Option("--task", help="Another task than its own.")] = None,
    repository: Where = None,
) -> None:
    """Make an adapter the one that is fetched for its task."""
    from tanzim.cli import show
    from tanzim.pipeline.adapters import promote_adapter

    entry = promote_adapter(ref, task=task, repository=repository)
    show.done(f"{entry.ref} is promoted for '{task or entry.facts.task}'")


@app.command("rollback")
def rollback_command(
    task: Annotated[str, typer.Argument(help="The task.")], repository: Where = None
) -> None:
    """Promote again what was promoted for a task before."""
    from tanzim.cli import show
    from tanzim.pipeline.adapters import roll_back_adapter

    show.done(f"'{task}' is back at {roll_back_adapter(task, repository=repository).ref}")


@app.command("delete")
def delete_command(
    ref: Annotated[str, typer.Argument(help="NAME@VERSION.")], repository: Where = None
) -> None:
    """Remove one version's files (never a promoted one's); that it existed stays in the log."""
    from tanzim.cli import show
    from tanzim.pipeline.adapters import delete_adapter

    gone = delete_adapter(ref, repository=repository)
    show.done(f"{gone.entry.ref} is deleted: {len(gone.entry.files)} files; its entry stays in the log")
    if gone.history:
        show.console.print(f"  can no longer be rolled back to: {', '.join(gone.history)}", markup=False)
    if gone.children:
        show.console.print(f"  stays, though combined from it: {', '.join(gone.children)}", markup=False)


@app.command("fetch")
def fetch_command(
    task: Annotated[str | None, typer.Argument(help="The task whose promoted adapter is wanted.")] = None,
    ref: Annotated[str | None, typer.Option("--ref", help="A certain adapter instead.")] = None,
    repository: Where = None,
) -> None:
    """Print the folder of the adapter promoted for a task, for use in commands."""
    from tanzim.pipeline.adapters import fetch_adapter

    print(fetch_adapter(task, ref=ref, repository=repository)[1])


@app.command("combine")
def combine_command(  # noqa: PLR0913, PLR0917 - a verb's options
    refs: Annotated[list[str], typer.Argument(help="Two or more adapters: NAME@VERSION or NAME.")],
    name: Annotated[str, typer.Option("--name", help="Name of the new adapter.")],
    modes: Annotated[
        list[str] | None,
        typer.Option("--mode", help="cat, svd, linear, ties, dare_linear, dare_ties (or …_svd); repeatable."),
    ] = None,
    weights: Annotated[
        list[str] | None, typer.Option("--weights", help="One per adapter, as 1,0.5; repeatable.")
    ] = None,
    density: Annotated[float, typer.Option("--density", help="Share that TIES and DARE keep.")] = 0.5,
    rank: Annotated[int | None, typer.Option("--rank", help="Rank of the results of SVD modes.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Chooses what DARE drops.")] = 13,
    task: Annotated[str | None, typer.Option("--task", help="What the new adapter is for.")] = None,
    evaluate: Annotated[bool, typer.Option(help="Measure each combination on each task's test set.")] = True,
    output: Annotated[str | None, typer.Option("--output", "-o", help="Else combined/NAME.")] = None,
    repository: Where = None,
) -> None:
    """Combine LoRA adapters, show what each combination does on each task, and keep them all."""
    from tanzim.adapters.recipe import make_recipes
    from tanzim.cli import show

    sets = _numbers(weights or [",".join(["1"] * len(refs))])
    recipes = make_recipes(modes or ["svd"], sets, density=density, rank=rank, seed=seed)  # type: ignore[arg-type]
    from tanzim.pipeline.combine import combine_adapters

    result = combine_adapters(
        refs,
        recipes,
        name=name,
        task=task,
        measure=evaluate,
        repository=repository,
        output=output,
        reporter=show.RichReporter(),
    )
    _combined(result)


@app.command("merge-models")
def merge_models_command(
    models: Annotated[list[str], typer.Argument(help="Whole models of one architecture: names or folders.")],
    output: Annotated[str, typer.Option("--output", "-o", help="The new model's folder.")],
    way: Annotated[str, typer.Option("--way", help="linear, slerp or task_arithmetic.")] = "linear",
    weights: Annotated[
        str | None, typer.Option("--weights", help="One per model, as 1,0.5; for slerp one from 0 to 1.")
    ] = None,
    base: Annotated[
        str | None, typer.Option("--base", help="What they were trained from (task arithmetic).")
    ] = None,
) -> None:
    """Merge whole models, a tensor at a time."""
    from tanzim.cli import show

    given = _numbers([weights])[0] if weights else ()
    from tanzim.pipeline.adapters import merge_models

    made = merge_models(models, output, way=way, weights=given, base=base, reporter=show.RichReporter())  # type: ignore[arg-type]
    show.done(f"merged: {made}", f"tanzim chat {made}")


def _numbers(sets: Sequence[str]) -> list[tuple[float, ...]]:
    from tanzim.core.errors import ConfigError

    try:
        return [tuple(float(number) for number in given.split(",")) for given in sets]
    except ValueError:
        raise ConfigError(
            f"the weights {', '.join(sets)} are not numbers", where="--weights", fix="write them as 1,0.5"
        ) from None


def _entries(entries: Sequence[Entry], state: State) -> None:
    """Print adapters as a table."""
    from rich.markup import escape
    from rich.table import Table

    from tanzim.cli.show import console

    promoted = {(task, history[-1]) for task, history in state.tasks.items() if history}
    table = Table()
    for column in ("adapter", "task", "kind", "base", "scores", "tags", "added"):
        table.add_column(column)
    for entry in entries:
        facts = entry.facts
        stars = [task for task, ref in sorted(promoted) if ref == entry.ref]
        tasks = [f"{task} ★" for task in stars] or [facts.task]
        scores = []
        for task, metrics in facts.scores.items():
            first = [metric for metric in metrics if metric != "perplexity"][:2]
            values = ", ".join(f"{metric} {metrics[metric]:.3g}" for metric in first)
            scores.append(f"{task}: {values}" if len(facts.scores) > 1 else values)
        base = f"{entry.base} {entry.base_hash[:8]}"
        row = (entry.ref, "\n".join(tasks), entry.kind, base, "\n".join(scores), " ".join(facts.tags))
        table.add_row(*map(escape, row), entry.created[:16].replace("T", " "))
    console.print(table)
    console.print(f"{len(entries)} adapters")


def _diff(diff: Diff, one: str, two: str) -> None:
    """Print what differs, and the modules that are furthest apart first."""
    from rich.markup import escape
    from rich.table import Table

    from tanzim.cli.show import console

    table = Table(title="what differs", title_justify="left")
    for column in ("", one, two):
        table.add_column(escape(column))
    for key, (left, right) in [*diff.facts.items(), *diff.config.items()]:
        table.add_row(*(escape(str(value)) for value in (key, left, right)))
    for task, metrics in diff.scores.items():
        for metric, values in metrics.items():
            table.add_row(escape(f"{task}: {metric}"), *("–" if v is None else f"{v:.4g}" for v in values))
    console.print(table)
    modules = sorted(diff.modules, key=lambda m: -(m.distance if m.distance is not None else math.inf))
    title = "distance of the updates (0 the same, 2 opposite; cosine 0 unrelated)"
    table = Table(title=title, title_justify="left")
    for column in ("module", "distance", "cosine", "norms"):
        table.add_column(column, justify="left" if column == "module" else "right")
    for module in modules[:20]:
        cells = ("–" if value is None else f"{value:.3f}" for value in (module.distance, module.cosine))
        norms = " ".join("–" if norm is None else f"{norm:.3g}" for norm in (module.one, module.two))
        table.add_row(escape(module.module), *cells, norms)
    console.print(table)
    if len(modules) > 20:
        console.print(f"{len(modules) - 20} more modules are nearer than these")


def _combined(result: Combined) -> None:
    """Print what every combination does on every task, and what is wrong with it."""
    from rich.markup import escape
    from rich.table import Table

    from tanzim.cli.show import console, done
    from tanzim.pipeline.combine import combined_rows

    header, *rows = combined_rows(result)
    if rows:
        table = Table(title="beside the task's own adapter, on its test set", title_justify="left")
        for number, name in enumerate(header):
            table.add_column(escape(name), justify="left" if number < 2 else "right")
        for row in rows:
            table.add_row(*map(escape, row))
        console.print(table)
    for one in result.short:
        console.print(f"[yellow]![/] {escape(one.text)}")
    for text in result.skipped:
        console.print(f"[yellow]![/] not measured: {escape(text)}")
    for one_way in result.combinations:
        done(f"{one_way.entry.ref}: {one_way.label}")
    console.print(f"  everything is in {escape(str(result.folder))}")
