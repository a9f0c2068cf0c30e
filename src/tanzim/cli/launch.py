"""``tanzim launch``: the job that trains a run on a cluster, to be looked at and submitted."""

from __future__ import annotations

from typing import Annotated

import typer

Settings = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[CONFIG] [KEY=VALUE]...", help="Config file (tanzim.yaml) and overrides of its keys."
    ),
]


def launch_command(
    settings: Settings = None,
    show_only: Annotated[
        bool, typer.Option("--print", help="Print the job; write nothing, make no run directory.")
    ] = False,
) -> None:
    """Write the job that trains this run on Slurm, Kubernetes or SkyPilot, and say how to submit it."""
    from tanzim.cli import show

    config = show.config(settings)
    from tanzim.pipeline.launch import launch_job

    written = launch_job(config, write=not show_only)
    if show_only:
        print(written.text, end="")
    else:
        show.done(f"wrote {written.path}", written.submit)
