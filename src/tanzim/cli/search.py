"""``tanzim search``: try settings, show the best, say what mattered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tanzim.pipeline.search import Searched


def search_command(
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CONFIG] [KEY=VALUE]...", help="Config file (tanzim.yaml) and overrides of its keys."
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete an existing run of that name first.")
    ] = False,
) -> None:
    """Try settings (search.space); go on where an interrupted search stopped."""
    from tanzim.cli import show

    config = show.config(settings)
    from tanzim.pipeline.search import search

    _searched(search(config, overwrite=overwrite, reporter=show.RichReporter()))


def _searched(result: Searched) -> None:
    """Print the winner, what each key explains, and where everything is."""
    from rich.markup import escape
    from rich.table import Table

    from tanzim.cli.show import console, done, trained
    from tanzim.core.units import number

    states = [trial.state for trial in result.trials]
    ended = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    title = f"trial {result.best.number} of {len(states)} is the best: {number(result.best.value or 0.0)}"
    table = Table(title=f"{title} ({ended})", title_justify="left")
    for name in ("key", "value", "importance"):
        table.add_column(name)
    for key, value in result.best.params.items():
        share = result.importances.shares.get(key)
        table.add_row(escape(key), escape(str(value)), "–" if share is None else f"{share:.0%}")
    console.print(table)
    console.print(f"page     {escape(str(result.report))}")
    if result.finished is not None:
        trained(result.finished)
    else:
        done(f"the winner's config: {result.config}", f"tanzim run {result.config}")
