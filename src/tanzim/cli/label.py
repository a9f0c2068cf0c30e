"""``tanzim data queue``, ``review`` and ``agree``: people label data."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tanzim.data.label.formats import Format
    from tanzim.data.label.session import Progress
    from tanzim.pipeline.data_review import Agreed


class By(StrEnum):
    """How the next texts are chosen."""

    random = "random"
    uncertainty = "uncertainty"
    margin = "margin"
    entropy = "entropy"
    diversity = "diversity"


class Tool(StrEnum):
    """Whose files."""

    plain = "plain"
    argilla = "argilla"
    label_studio = "label-studio"


_FORMATS: dict[Tool, Format] = {
    Tool.plain: "plain",
    Tool.argilla: "argilla",
    Tool.label_studio: "label_studio",
}


class How(StrEnum):
    """How several labels become one."""

    majority = "majority"
    model = "model"
    agreed = "agreed"


QueueFolder = Annotated[str, typer.Argument(metavar="QUEUE", help="Folder of the review queue.")]


def queue_command(
    queue: QueueFolder,
    source: Annotated[
        str | None, typer.Argument(help="Data file, folder, glob, URL, hf:owner/name, or a run folder.")
    ] = None,
    label: Annotated[list[str] | None, typer.Option("--label", "-l", help="A label; once for each.")] = None,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="Tasks to add.")] = 100,
    by: Annotated[
        By | None, typer.Option("--by", help="How to choose; diversity where labels are known.")
    ] = None,
    ordered: Annotated[bool, typer.Option("--ordered", help="The labels run from low to high.")] = False,
    relabel: Annotated[bool, typer.Option("--relabel", help="Ask about texts with a label, too.")] = False,
    seed: Annotated[int, typer.Option("--seed", help="Of every choice.")] = 13,
) -> None:
    """Make a review queue, or add the next batch to one: what teaches most comes first."""
    from tanzim.cli import show
    from tanzim.pipeline.data_queue import queue_data

    done = queue_data(
        queue,
        source,
        labels=label or (),
        count=count,
        by=by.value if by else None,
        ordered=ordered,
        relabel=relabel,
        seed=seed,
        reporter=show.RichReporter(),
    )
    total = len(done.queue.tasks)
    show.done(
        f"{done.added:,} tasks added, {total:,} in all, {done.left:,} texts left: {queue}",
        f"tanzim data review {queue} --annotator NAME",
    )


def review_command(
    queue: QueueFolder,
    annotator: Annotated[str | None, typer.Option("--annotator", "-a", help="Who answers.")] = None,
    disputed: Annotated[bool, typer.Option("--disputed", help="Decide what annotators disagree on.")] = False,
    export: Annotated[
        Tool | None, typer.Option("--export", help="Write the open tasks for another tool instead.")
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Folder to export to; QUEUE/exchange.")
    ] = None,
    answers: Annotated[
        str | None, typer.Option("--import", help="Take over the answers of a file instead.")
    ] = None,
) -> None:
    """Label one example after another, a key each; go on where this annotator stopped."""
    from tanzim.cli import show
    from tanzim.core.errors import ConfigError
    from tanzim.pipeline.data_review import export_review, import_review, open_review

    if answers is not None:
        new = import_review(queue, answers, annotator)
        said = ", ".join(f"{name} {count:,}" for name, count in new.items()) or "none"
        show.done(f"new answers: {said}", f"tanzim data agree {queue}")
        return
    if annotator is None:
        raise ConfigError(
            "nobody is named: each annotator has answers of their own",
            where="command line",
            fix=f"tanzim data review {queue} --annotator NAME",
        )
    if export is not None:
        files = export_review(queue, annotator, output, format=_FORMATS[export])
        then = f"tanzim data review {queue} --import FILE"
        show.done(f"{', '.join(map(str, files))}", then)
        return
    from tanzim.cli.review import review

    with open_review(queue, annotator, disputed=disputed) as (opened, session):
        if session.current is None:
            show.done("nothing to decide" if disputed else f"{annotator} has answered everything")
            return
        progress = review(session, annotator, opened.labels)
    _reviewed(queue, annotator, progress)


def agree_command(
    queue: QueueFolder,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="JSON Lines of the labelled examples.")
    ] = None,
    method: Annotated[How, typer.Option("--method", help="How several labels become one.")] = How.majority,
    least: Annotated[
        float, typer.Option("--least", min=0, max=1, help="Share that a label must exceed.")
    ] = 0.5,
    votes: Annotated[int, typer.Option("--votes", min=1, help="Labels that an example must have.")] = 1,
) -> None:
    """Say how far annotators agree, what is disputed, and write the labelled examples."""
    from tanzim.cli import show
    from tanzim.pipeline.data_review import agree_data

    found = agree_data(queue, output=output, method=method.value, least=least, votes=votes)
    _agreement(found)
    if found.consensus.disputed:
        show.console.print(
            f"{len(found.consensus.disputed):,} disputed; a further person decides: "
            f"tanzim data review {queue} --annotator NAME --disputed",
            markup=False,
        )
    if output is not None:
        show.done(f"{found.labelled:,} labelled examples: {output}", f"tanzim data inspect {output}")


def _reviewed(queue: str, annotator: str, progress: Progress) -> None:
    from tanzim.cli import show

    text = f"{annotator}: {progress.done:,} of {progress.total:,} labelled, {progress.skipped:,} skipped"
    over = progress.done == progress.total
    again = f"tanzim data review {queue} --annotator {annotator}"
    show.done(text, f"tanzim data agree {queue}" if over else again)


def _agreement(found: Agreed) -> None:
    """Print the numbers and what they mean."""
    from rich.markup import escape
    from rich.table import Table

    from tanzim.cli import show
    from tanzim.data.label.consensus import alpha_means, kappa_means

    table = Table(show_edge=False, pad_edge=False)
    for heading, justify in (("agreement", "left"), ("examples", "right"), ("same", "right"), ("", "left")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    agreement = found.agreement
    if agreement is not None:
        if agreement.alpha is not None and agreement.interval is not None:
            low, high = agreement.interval
            value = f"Krippendorff's alpha {agreement.alpha:.2f} ({low:.2f} to {high:.2f})"
            table.add_row(
                value, f"{agreement.items:,}", f"{agreement.same:.0%}", alpha_means(agreement.alpha)
            )
        if agreement.fleiss is not None and len(agreement.pairs) > 1:
            value = f"Fleiss' kappa {agreement.fleiss:.2f}"
            table.add_row(value, f"{agreement.everybody:,}", "", kappa_means(agreement.fleiss))
        for pair in agreement.pairs:
            kappa = "not to be told" if pair.kappa is None else f"{pair.kappa:.2f}"
            means = "" if pair.kappa is None else kappa_means(pair.kappa)
            name = f"Cohen's kappa {kappa}: {pair.one}, {pair.two}"
            table.add_row(escape(name), f"{pair.items:,}", f"{pair.same:.0%}", means)
        show.console.print(table)
        for one, two, count in agreement.confused[:5]:
            show.console.print(f"  {one} and {two} on the same example: {count:,}", markup=False)
        for note in agreement.notes:
            show.console.print(f"  {note}", markup=False)
    else:
        show.console.print("no example has labels of two annotators: agreement cannot be told")
    said = found.consensus.votes
    names = sorted({name for one in said for name in one})
    for name in names:
        own = sum(name in one for one in said)
        show.console.print(f"  {name} labelled {own:,} of {len(said):,}", markup=False)
    show.console.print(
        f"{found.labelled:,} of {len(said):,} examples have a label in the end"
        + (f", {found.single:,} of them from one annotator alone" if found.single else "")
    )
