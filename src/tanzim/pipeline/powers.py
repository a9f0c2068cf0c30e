"""What steps of stage 1 need of higher rooms, opened by name when a step asks for it."""

from __future__ import annotations

from tanzim.core.powers import Complete, Embed, Judge, Powers


def open_powers() -> Powers:
    """Return the powers; nothing is loaded before it is asked for."""
    return Powers(embed=_embed, complete=_complete, judge=_judge)


def _embed(name: str) -> Embed:
    from tanzim.pipeline.power_embed import open_embed

    return open_embed(name)


def _complete(name: str) -> Complete:
    from tanzim.pipeline.power_complete import open_complete

    return open_complete(name)


def _judge(name: str) -> Judge:
    from tanzim.pipeline.power_judge import open_judge

    return open_judge(name)
