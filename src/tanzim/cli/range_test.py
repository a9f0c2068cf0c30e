"""``tanzim range-test``: the loss at growing learning rates, and the one to take."""

from __future__ import annotations

from typing import Annotated

import typer

BAR = 40  # characters of the longest bar


def range_test_command(
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CONFIG] [KEY=VALUE]...", help="Config file (tanzim.yaml) and overrides of its keys."
        ),
    ] = None,
    steps: Annotated[int, typer.Option("--steps", min=10, help="Optimiser steps of the sweep.")] = 40,
) -> None:
    """Sweep the learning rate upwards in a few steps and suggest one; changes nothing."""
    from tanzim.cli import show

    config = show.config(settings)
    from tanzim.pipeline.range_test import range_test

    found = range_test(config, steps=steps, reporter=show.RichReporter())
    highest = max(found.shares)
    for rate, share in zip(found.rates, found.shares, strict=True):
        bar = "█" * max(1, round(BAR * share / highest))
        show.console.print(f"{rate:8.1e}  {share:7.1%}  {bar}", highlight=False)
    show.console.print("loss of each step's documents, as a share of the base's", style="dim")
    if found.suggested is None:
        show.console.print(f"no rate to suggest: {found.reason}")
    else:
        show.done(
            f"{found.suggested:g}: {found.reason}",
            " ".join(["tanzim train", *(settings or []), f"train.learning_rate={found.suggested:g}"]),
        )
