"""``tanzim keys``: who may use the server, and what for."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

import typer

app = typer.Typer(help="Make, list and revoke the server's API keys.", no_args_is_help=True)


@app.command("add")
def add_command(
    name: Annotated[str, typer.Argument(help="Whose it is, or what for.")],
    role: Annotated[
        Literal["viewer", "user", "trainer", "admin"],
        typer.Option("--role", help="viewer sees; user also asks; trainer also trains; admin also manages."),
    ] = "user",
    project: Annotated[
        str, typer.Option("--project", help="What it sees; projects do not see one another.")
    ] = "default",
    days: Annotated[float | None, typer.Option("--days", min=0, help="After which it ends.")] = None,
    requests: Annotated[int | None, typer.Option("--requests", min=1, help="Most in a minute.")] = None,
    tokens: Annotated[int | None, typer.Option("--tokens", min=1, help="Most in a minute.")] = None,
) -> None:
    """Make a key and print it: this once, for only its hash is kept."""
    from tanzim.pipeline.server import open_keys

    with open_keys() as keys:
        key = keys.add(
            name,
            role=role,
            project=project,
            days=days,
            requests_per_minute=requests,
            tokens_per_minute=tokens,
        )
    typer.echo(key)
    typer.echo("keep it now: it cannot be shown again", err=True)


@app.command("list")
def list_command() -> None:
    """Show the keys; their secrets are not known."""
    from rich.markup import escape
    from rich.table import Table

    from tanzim.cli import show
    from tanzim.pipeline.server import open_keys

    table = Table("key", "name", "project", "role", "made", "ends", box=None, header_style="bold")
    with open_keys() as keys:
        for row in keys.all():
            ends = "revoked" if row["revoked_at"] else _day(row["expires_at"]) or "never"
            values = (row["id"], row["name"], row["project"], row["role"], _day(row["created_at"]), ends)
            table.add_row(*(escape(value) for value in values))
    show.console.print(table)


@app.command("revoke")
def revoke_command(
    key: Annotated[str, typer.Argument(help="Its id, as `tanzim keys list` shows it.")],
) -> None:
    """End a key at once."""
    from tanzim.cli import show
    from tanzim.core.errors import ConfigError
    from tanzim.pipeline.server import open_keys

    with open_keys() as keys:
        if not keys.revoke(key):
            raise ConfigError(f"there is no key '{key}' that could be revoked", fix="tanzim keys list")
    show.done(f"{key} is revoked")


def _day(seconds: int | None) -> str:
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
