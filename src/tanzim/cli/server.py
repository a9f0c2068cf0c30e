"""``tanzim server``: what the server remembers, saved and restored."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Save and restore what the server remembers.", no_args_is_help=True)


@app.command("backup")
def backup_command(out: Annotated[Path, typer.Argument(help="The file to write.")]) -> None:
    """Write database, files and models into one file; the server may be running."""
    from tanzim.cli import show
    from tanzim.pipeline.server import backup_server

    counts = backup_server(out, reporter=show.RichReporter())
    said = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    show.done(f"{out}: {said or 'nothing was there'}", "")


@app.command("restore")
def restore_command(path: Annotated[Path, typer.Argument(help="What backup wrote.")]) -> None:
    """Fill a new, empty server from a backup; its database may be of another kind."""
    from tanzim.cli import show
    from tanzim.pipeline.server import restore_server

    counts = restore_server(path, reporter=show.RichReporter())
    show.done(", ".join(f"{count} {name}" for name, count in counts.items() if count), "tanzim serve")
