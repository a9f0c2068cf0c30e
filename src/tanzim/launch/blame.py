"""Who ended a job, and on what: the error of the rank that failed first, or its name and its signal."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

from tanzim.core import errors
from tanzim.core.errors import TanzimError, TrainError
from tanzim.core.records import Json
from tanzim.launch.heartbeat import Beat

KINDS: dict[str, type[TanzimError]] = {
    kind.__name__: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, TanzimError)
}
AGAIN = "run the same command again; it goes on from the last checkpoint"


class LostRank(TrainError):
    """The other ranks cannot be reached: one of them is to blame, not this one."""


def blame(found: Sequence[Beat], failures: Sequence[Json], logs: Path) -> TanzimError:
    """Return the error that ended a job.

    Args:
        found: the last beat of each rank of this machine.
        failures: ``rank`` and ``exitcode`` of ranks that did not end well; it is negative for a signal, and
            None where it is not known.
        logs: where what the ranks printed is to be read.

    Returns:
        What a rank said of itself; else the rank that a signal killed; else one that ended in a crash; a
        rank that only lost the others comes last.

    """
    said = [beat for beat in found if beat.phase == "failed"]
    own = [beat for beat in said if beat.error["kind"] != LostRank.__name__]
    if own:
        return _as_said(min(own, key=lambda beat: beat.at), alike=len(own) == len(found))
    by_rank = {beat.rank: beat for beat in found}
    lost = {beat.rank for beat in said}

    def telling(failure: Json) -> tuple[bool, bool, bool, int]:
        # A signal tells more than a crash, that more than the loss of the others, and least tells SIGTERM,
        # by which torchrun itself ends the ranks that are left.
        code, rank = failure["exitcode"], failure["rank"]
        return code == -signal.SIGTERM, rank in lost, code is not None and code >= 0, rank

    ordered = sorted(failures, key=telling)
    if ordered:
        return _as_ended(ordered[0], by_rank.get(ordered[0]["rank"]), logs)
    if said:
        return _as_said(said[0], alike=False)
    return TrainError("the job ended before its first rank began", where=str(logs), fix=AGAIN)


def hung(guilty: Sequence[Beat], stacks: dict[int, Path | None], now: float) -> TrainError:
    """Return the error for ranks that fell silent.

    Args:
        guilty: their last beats.
        stacks: where the stacks of each rank stand.
        now: the machine's monotonic clock.

    """
    told = "; ".join(f"rank {b.rank} has been silent for {now - b.at:.0f} s {b.doing()}" for b in guilty)
    files = [str(stacks[b.rank] or f"rank {b.rank} wrote no stack: its process is stopped") for b in guilty]
    return TrainError(
        f"the job hung: {told}",
        where="; ".join(files),
        fix="the stacks say what it was in; if a pass takes that long, raise launch.heartbeat_seconds",
    )


def _as_said(beat: Beat, *, alike: bool) -> TanzimError:
    error = beat.error
    # What all say, or what one says while it prepares for all, is no matter of one rank.
    whose = "" if alike or beat.step == 0 else f"rank {beat.rank}: "
    kind = KINDS.get(error["kind"], TrainError)
    return kind(f"{whose}{error['what']}", where=error["where"], fix=error["fix"])


def _as_ended(failure: Json, beat: Beat | None, logs: Path) -> TrainError:
    code, rank = failure["exitcode"], failure["rank"]
    doing = beat.doing() if beat else "before it began"
    if code is None:
        ended, fix = "died", AGAIN
    elif code < 0:
        name = next((s.name for s in signal.Signals if s == -code), f"signal {-code}")
        ended = f"was killed by {name}"
        fix = AGAIN
        if name == "SIGKILL":
            fix = f"if memory ran out, lower train.tokens_per_pass or launch.nproc; {AGAIN}"
    else:
        ended, fix = f"crashed (exit code {code})", "its log says where; please report it"
    return TrainError(f"rank {rank} {ended} {doing}", where=str(logs), fix=fix)
