"""``tanzim data …``: look at data, prepare it, run one step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tanzim.cli.label import agree_command, queue_command, review_command

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from tanzim.data.ledger import StepReport

app = typer.Typer(help="Look at data, and prepare it for training.", no_args_is_help=True)

Settings = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[CONFIG] [KEY=VALUE]...", help="Config file (tanzim.yaml) and overrides of its keys."
    ),
]


@app.command("inspect")
def inspect_command(
    file: Annotated[str, typer.Argument(help="Data file, folder, glob, URL or hf:owner/name.")],
) -> None:
    """Say what the data is, why, how long, in which languages, and what is wrong with it."""
    from tanzim.cli import show
    from tanzim.pipeline.prepare import inspect_data

    show.inspection(inspect_data(file))


@app.command("preview")
def preview_command(
    settings: Settings = None,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many examples.")] = 3,
    html: Annotated[str | None, typer.Option("--html", help="Write an offline page here, too.")] = None,
) -> None:
    """Show which tokens are trained and which are ignored, as the model will see them."""
    from tanzim.cli import show

    config = show.config(settings)
    from tanzim.pipeline.preview import preview

    show.preview(preview(config, count=count, html=html), html)


@app.command("prepare")
def prepare_command(
    settings: Settings = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete an existing run of that name first.")
    ] = False,
) -> None:
    """Read the sources, run data.steps, split; what was done before is taken from the cache."""
    from tanzim.cli import show

    config = show.config(settings)
    from tanzim.data.ledger import StepReport
    from tanzim.pipeline.prepare import prepare_data

    reporter = show.RichReporter()
    report = prepare_data(config, overwrite=overwrite, reporter=reporter)
    rejected = sum(report.rejected.values())
    show.console.print(f"[dim]·[/] {report.rows_read:,} rows read, {rejected:,} of them cannot be used")
    _steps([StepReport.from_json(step) for step in report.steps])
    for note in report.notes:
        reporter.say(note)
    splits = ", ".join(f"{name} {count:,}" for name, count in report.splits.items())
    show.done(f"{splits}: {config.runs_dir}/{config.name}/data", " ".join(["tanzim plan", *(settings or [])]))


@app.command("step")
def step_command(
    name: Annotated[str | None, typer.Argument(metavar="[STEP]", help="Without it, all are listed.")] = None,
    file: Annotated[str | None, typer.Argument(help="Data file, folder, glob, URL or hf:owner/name.")] = None,
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings of the step.")
    ] = None,
    output: Annotated[str | None, typer.Option("--output", "-o", help="JSON Lines to write to.")] = None,
) -> None:
    """Run one step on a file, such as: tanzim data step dedup_fuzzy in.jsonl threshold=0.8 -o out.jsonl."""
    from tanzim.cli import show
    from tanzim.core.config import assigned
    from tanzim.core.errors import ConfigError

    if name is None:
        _list()
        return
    if file is None:
        raise ConfigError("no data is named", where="command line", fix=f"tanzim data step {name} FILE")
    from tanzim.pipeline.data_step import data_step

    reporter = show.RichReporter()
    done = data_step(file, {"type": name, **assigned(settings or [])}, output=output, reporter=reporter)
    _steps([done.report])
    for line in done.removed[:5]:
        detail = f" ({line['detail']})" if line["detail"] else ""
        reporter.say(f"removed {line['file']}, row {line['row']}: {line['reason']}{detail}")
    if len(done.removed) > 5:
        reporter.say(f"… and {len(done.removed) - 5:,} more")
    if done.output is not None:
        show.done(f"{done.report.rows_out:,} rows: {done.output}", f"tanzim data inspect {done.output}")


app.command("queue")(queue_command)
app.command("review")(review_command)
app.command("agree")(agree_command)


@app.command("publish")
def publish_command(
    settings: Settings = None,
    output: Annotated[str, typer.Option("--output", "-o", help="Folder to write.")] = "published",
) -> None:
    """Write the prepared data as JSON Lines, with a data sheet and Croissant metadata."""
    from tanzim.cli import show

    config = show.config(settings)
    from tanzim.pipeline.data_record import publish_data

    files = publish_data(config, output, reporter=show.RichReporter())
    show.done(f"{output}: {', '.join(file.name for file in files)}")


@app.command("diff")
def diff_command(
    one: Annotated[str, typer.Argument(help="Run folder, or folder of prepared data.")],
    two: Annotated[str, typer.Argument(help="The newer one.")],
) -> None:
    """Say what differs between two versions of prepared data."""
    from tanzim.cli import show
    from tanzim.pipeline.data_record import diff_data

    diff = diff_data(one, two)
    if diff.equal and not diff.counts and not diff.steps:
        show.done(f"the same {diff.same:,} examples, in the same splits")
        return
    lines = [f"{diff.same:,} examples are the same, in the same split"]
    lines += [f"moved {how}: {count:,}" for how, count in diff.moved.items()]
    for title, counts in ((f"only in {one}", diff.only_a), (f"only in {two}", diff.only_b)):
        lines += [f"{title}, {split}: {count:,}" for split, count in counts.items()]
    if diff.rewritten:
        lines.append(f"{diff.rewritten:,} of these come from the same source row, written otherwise")
    lines += [f"{name}: {old:,} → {new:,}" for name, (old, new) in diff.counts.items()]
    lines += [f"step {step}" for step in diff.steps]
    for title, samples in diff.samples.items():
        sign = "−" if title == "only_a" else "+"
        lines += [f"{sign} {sample['split']}, {sample['from']}: {sample['text'][:160]}" for sample in samples]
    for line in lines:
        show.console.print(line, markup=False)


@app.command("trace")
def trace_command(
    run: Annotated[str, typer.Argument(help="Run folder.")],
    example: Annotated[str, typer.Argument(metavar="SPLIT:NUMBER", help="Such as train:12.")],
) -> None:
    """Lead an example of a run back to the row it came from, step by step."""
    from tanzim.cli import show
    from tanzim.core.errors import ConfigError
    from tanzim.data.ingest.rows import excerpt
    from tanzim.data.texts import words_of
    from tanzim.pipeline.data_record import trace_data

    split, _, number = example.partition(":")
    if not number.isdigit():
        raise ConfigError(f"'{example}' names no example", where="command line", fix="write train:12")
    traced = trace_data(run, split, int(number))
    intact = {True: "unchanged since", False: "CHANGED since", None: "no file to compare"}[traced.intact]
    lines = [f"{split} {number} came from {traced.example.provenance} ({intact})"]
    if traced.source.get("sha256"):
        lines.append(f"  SHA-256 {traced.source['sha256']}, {traced.source['note']}")
    lines.append(
        f"  read as: {words_of(traced.row)}" if traced.row else "  the row is not in the cache any more"
    )
    for passage in traced.passages:
        lines.append(f"  {passage.step}: {excerpt(passage.verdict)}")
        if passage.after:
            lines.append(f"    {excerpt(passage.after)}")
    lines.append(f"  now: {excerpt(words_of(traced.example))}")
    if not traced.whole:
        lines.append("  not every step could be followed")
    for line in lines:
        show.console.print(line, markup=False)


def _default(field: FieldInfo) -> str:
    return "(required)" if field.is_required() else repr(field.get_default(call_default_factory=True))


def _list() -> None:
    """Print every step with its settings."""
    from rich.markup import escape
    from rich.table import Table

    from tanzim.cli import show
    from tanzim.data.config import step_configs

    table = Table(title="steps of data.steps", title_justify="left", show_lines=True)
    table.add_column("type", style="bold", no_wrap=True)
    table.add_column("what it does", ratio=1)
    table.add_column("settings, with their defaults", ratio=1)
    for name, model in sorted(step_configs().items()):
        keys = [f"{key}: {_default(field)}" for key, field in model.model_fields.items() if key != "type"]
        table.add_row(name, escape((model.__doc__ or "").split("\n\n")[0]), escape("\n".join(keys)))
    show.console.print(table)


def _steps(reports: list[StepReport]) -> None:
    """Print what each step did."""
    from rich.markup import escape
    from rich.table import Table

    from tanzim.cli import show

    if not reports:
        return
    table = Table(show_edge=False, pad_edge=False)
    for heading in ("step", "in", "out", "changed", "made", "rows/s", "taken out"):
        table.add_column(heading, justify="left" if heading in ("step", "taken out") else "right")
    for one in reports:
        rate = "cached" if one.cached else f"{one.rows_in / max(one.seconds, 1e-3):,.0f}"
        removed = "; ".join(f"{reason}: {count:,}" for reason, count in one.removed.most_common(4))
        table.add_row(
            one.type,
            f"{one.rows_in:,}",
            f"{one.rows_out:,}",
            f"{one.changed:,}" if one.changed else "",
            f"{one.added:,}" if one.added else "",
            rate,
            escape(removed),
        )
    show.console.print(table)
