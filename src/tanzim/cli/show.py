"""What the terminal shows: progress, tables and errors, through rich."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
)
from rich.progress import Progress as Bar
from rich.table import Table

from tanzim.core.errors import ConfigError, TanzimError
from tanzim.core.progress import Reporter
from tanzim.core.records import Progress
from tanzim.pipeline.config import Config
from tanzim.pipeline.doctor import Finding
from tanzim.pipeline.workspace import load_config

if TYPE_CHECKING:
    from tanzim.data.inspect import Inspection
    from tanzim.evaluate.report import EvalReport
    from tanzim.pipeline.export import Exported
    from tanzim.pipeline.finetune import Finetuned
    from tanzim.pipeline.preview import Preview
    from tanzim.pipeline.run import Ran
    from tanzim.train.plan import Plan

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
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TextColumn("[dim]{task.fields[pace]}"),
            TextColumn("{task.fields[note]}"),
        )
        pace = _Pace()
        lines = _Lines(title)
        with Bar(*columns, console=console, disable=not console.is_terminal) as bar:
            task = bar.add_task(title, total=None, note="", pace="")

            def update(done: int, total: int | None, note: str) -> None:
                pace.update(done, total, note)
                bar.update(task, completed=done, total=total, note=escape(note), pace=str(pace))
                if not console.is_terminal:
                    lines.update(done, total, note, str(pace))

            yield update


class _Pace:
    """How many a second since the present work began, and the time left.

    Rich has columns for it, which begin anew with every change of the total, and totals are estimates here.
    """

    def __init__(self) -> None:
        self._note, self._done, self._total = "", 0, 0
        self._start, self._before = time.monotonic(), 0

    def update(self, done: int, total: int | None, note: str) -> None:
        if note != self._note and done < self._done:  # other work begins
            self._start, self._before = time.monotonic(), done
        self._note, self._done, self._total = note, done, total or 0

    def __str__(self) -> str:
        seconds = time.monotonic() - self._start
        made = self._done - self._before
        if seconds < 1 or made <= 0:
            return ""
        rate = made / seconds
        shown = f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s"
        left = max(0, self._total - self._done) / rate
        return f"{shown}, {timedelta(seconds=round(left))} left" if left else shown


class _Lines:
    """Progress for logs: a line at every tenth of the work that took a second, and one at the end of each."""

    def __init__(self, title: str) -> None:
        self.title, self.tenth, self.note, self.done = title, -1, "", 0
        self.last = time.monotonic()

    def update(self, done: int, total: int | None, note: str, pace: str) -> None:
        if note != self.note and done < self.done:  # other work begins
            self.tenth = -1
        self.note, self.done = note, done
        tenth = 10 * done // total if total else -1
        now = time.monotonic()
        if tenth != self.tenth and (tenth == 10 or now - self.last >= 1):
            self.tenth, self.last = tenth, now
            shown = f" ({pace})" if pace else ""
            console.print(f"{escape(self.title)} {done}/{total} {escape(note)}{shown}".rstrip())


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


def inspection(found: Inspection) -> None:
    """Print what a data file holds, with a few of its rows."""
    from tanzim.pipeline.init import summary

    for line in summary(found):
        console.print(f"[dim]·[/] {escape(line)}")
    table = Table(title="first rows", title_justify="left", show_lines=True)
    table.add_column("from", style="dim", no_wrap=True)
    table.add_column("row")
    for sample in found.samples[:3]:
        source = sample.pop("provenance", {})
        text = json.dumps(sample, ensure_ascii=False)
        table.add_row(f"row {source.get('row', '?')}", escape(text[:400] + ("…" if len(text) > 400 else "")))
    if found.samples:
        console.print(table)


def trained(result: Finetuned) -> None:
    """Print what a training came to."""
    facts = result.result
    if facts.get("loss") is not None:
        best = ""
        if facts["best_loss"] is not None:
            best = f", best validation loss {facts['best_loss']:.4f} at step {facts['best_step']}"
        console.print(
            f"{facts['step']} steps, last loss {facts['loss']:.4f}{best}, "
            f"{facts['tokens_per_s']:.0f} tokens/s, peak memory {facts['peak_memory'] / 2**30:.2f} GiB"
        )
    done(f"trained: {result.output}", "tanzim evaluate")


def evaluation(report: EvalReport) -> None:
    """Print the table "base vs tuned"."""
    from tanzim.evaluate.report import table_rows

    header, *rows = table_rows(report)
    table = Table(title=f"{report.items} held-out items, 95 % intervals", title_justify="left")
    for number, name in enumerate(header):
        table.add_column(escape(name), justify="left" if number in (0, len(header) - 1) else "right")
    single = False  # single fields of JSON answers are in the report page
    for row in rows:
        single = row[0].startswith("field ") or (single and row[0].startswith(" "))
        if not single:
            table.add_row(*map(escape, row))
    console.print(table)


def ran(result: Ran) -> None:
    """Print the end of a whole run: the table, one answer, and where everything is."""
    trained(result.trained)
    evaluation(result.evaluation)
    if result.question:
        console.print(f"[bold cyan]asked[/]    {escape(result.question)}")
        console.print(f"[bold green]answered[/] {escape(result.answer)}")
    console.print(f"adapter  {escape(str(result.trained.output))}")
    console.print(f"report   {escape(str(result.report))}")
    if result.talks:
        console.print(f"  next: [bold]tanzim chat {escape(str(result.trained.folder.path))}[/]")
    else:
        console.print("  next: [bold]tanzim export --merge[/]")


def exported(result: Exported) -> None:
    """Print where an export is, and how far it is from what was trained."""
    for line in result.proof:
        console.print(f"[dim]·[/] {escape(line)}")
    done(f"exported: {result.path}")


def preview(shown: Preview, html: str | None) -> None:
    """Print examples with their trained and ignored tokens."""
    from tanzim.pipeline.preview_page import preview_lines

    for line in preview_lines(shown.samples, special_ids=shown.special_ids):
        console.print(line)
    if html is not None:
        done(f"wrote {html}")


def plan(predicted: Plan) -> None:
    """Print a plan: what it takes, part by part, and the numbers behind it."""
    from tanzim.core.units import number, size
    from tanzim.pipeline.plan import summary

    table = Table(title="plan", title_justify="left")
    table.add_column("takes")
    table.add_column("", justify="right")
    for name, amount in predicted.memory.items():
        table.add_row(f"memory: {name}", size(amount))
    table.add_row("[bold]memory at the peak[/]", f"[bold]{size(predicted.peak_memory)}[/]")
    table.add_row("memory free here", size(predicted.machine.memory + predicted.machine.held))
    for name, amount in predicted.disk.items():
        table.add_row(f"disk: {name}", size(amount))
    table.add_row("disk free here", size(predicted.machine.disk))
    for name, value in predicted.numbers.items():
        shown = number(value) if isinstance(value, int | float) else str(value)
        table.add_row(f"[dim]{escape(name.replace('_', ' '))}[/]", f"[dim]{escape(shown)}[/]")
    console.print(table)
    done(summary(predicted), "tanzim train")
