"""What the terminal shows: progress, tables and errors, through rich."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar
from rich.table import Table

from tanzim.core.errors import ConfigError, TanzimError
from tanzim.core.progress import Reporter
from tanzim.core.records import Progress
from tanzim.pipeline.config import Config
from tanzim.pipeline.doctor import Finding
from tanzim.pipeline.workspace import load_config

console = Console(highlight=False)
stderr = Console(stderr=True, highlight=False)
_MARKS = {"ok": "[green]✓[/]", "note": "[yellow]•[/]", "problem": "[red]✗[/]"}


class RichReporter(Reporter):
    """Shows facts as lines and long work as a progress bar with time left."""

    def say(self, text: str) -> None:
        """Print one line."""
        console.print(f"[dim]·[/] {escape(text)}")

    @contextmanager
    def task(self, title: str) -> Iterator[Progress]:
        """Show a bar named ``title`` until the work ends; without a terminal, a line now and then."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
        )
        lines = _Lines(title)
        with Bar(*columns, console=console, disable=not console.is_terminal) as bar:
            task = bar.add_task(title, total=None, note="")

            def update(done: int, total: int | None, note: str) -> None:
                bar.update(task, completed=done, total=total, note=escape(note))
                if not console.is_terminal:
                    lines.update(done, total, note)

            yield update


class _Lines:
    """Progress for logs: a line at every tenth of the work."""

    def __init__(self, title: str) -> None:
        self.title, self.tenth = title, -1

    def update(self, done: int, total: int | None, note: str) -> None:
        tenth = 10 * done // total if total else -1
        if tenth != self.tenth:
            self.tenth = tenth
            console.print(f"{escape(self.title)} {done}/{total} {escape(note)}".rstrip())


def config(settings: Sequence[str] | None) -> Config:
    """Read the config that a verb's arguments name: at most one file, and ``key=value`` overrides."""
    overrides = [setting for setting in settings or () if "=" in setting]
    files = [setting for setting in settings or () if "=" not in setting]
    if len(files) > 1:
        raise ConfigError(f"one config file at a time, not {len(files)}", where=", ".join(files))
    return load_config(files[0] if files else None, overrides)


def error(problem: TanzimError) -> None:
    """Print an error: what, where, what to do next."""
    stderr.print(f"[bold red]error:[/] {escape(problem.what)}")
    if problem.where:
        stderr.print(f"  [dim]where:[/] {escape(problem.where)}")
    if problem.fix:
        stderr.print(f"  [dim]fix:[/]   {escape(problem.fix)}")


def done(text: str, then: str = "") -> None:
    """Print what is finished and the command that comes next."""
    console.print(f"[green]✓[/] {escape(text)}")
    if then:
        console.print(f"  next: [bold]{escape(then)}[/]")


def findings(found: Sequence[Finding]) -> None:
    """Print the doctor's findings, each with its fix."""
    table = Table.grid(padding=(0, 1))
    for finding in found:
        table.add_row(_MARKS[finding.level], f"[bold]{escape(finding.name)}[/]", escape(finding.text))
        if finding.fix:
            table.add_row("", "[dim]fix[/]", f"[cyan]{escape(finding.fix)}[/]")
    console.print(table)
