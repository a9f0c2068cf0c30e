"""The splits drawn by the method that the config names (all but random, which needs no column in memory)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from tanzim.core.errors import DataError
from tanzim.core.records import Json
from tanzim.data.columns import Indices, Words, mix
from tanzim.data.config import DataConfig
from tanzim.data.split import methods
from tanzim.data.split.kin import Joined
from tanzim.data.split.spill import Spill
from tanzim.data.split.times import seconds
from tanzim.data.store import from_text

_MOST = 50  # kin that are more than one in so many are drawn one by one, unless a group is named

Mask = npt.NDArray[np.bool_]


def draw_sets(
    spill: Spill, joined: Joined, drawn: Mask, config: DataConfig, wanted: tuple[int, int], seed: int
) -> tuple[Indices, Json]:
    """Draw the held-out sets by ``split.method``; memory is some 60 bytes an example.

    Args:
        spill: all examples.
        joined: their kin.
        drawn: which are to be divided, [N].
        config: the method and its keys.
        wanted: examples of the test and of the validation set.
        seed: decides.

    Returns:
        For each example that is divided 0 (training), 1 (test) or 2 (validation); and what the report says.

    Raises:
        DataError: what the method goes by is not known of the examples, or there is no such fold.

    """
    split = config.split
    grouped = np.concatenate([*_about(spill, lambda about: "group" in about)]).astype(bool)[drawn]
    keys, own = (
        np.concatenate([np.empty(0, np.uint64), *(block for _, block in column.blocks())])[drawn]
        for column in (joined, spill.kin)
    )
    if split.method == "group" and not grouped.any():
        raise _unknown("group", int(drawn.sum()), int(drawn.sum()), "random")
    units = methods.Units.by(_apart(keys, own, grouped))
    labels = np.concatenate([np.empty(0, np.int64), *(block for _, block in spill.label.blocks())])[drawn]
    said: Json = {"method": split.method, "units": len(units.sizes)}
    if split.method in ("stratified", "group"):
        classes = labels if split.method == "stratified" else np.zeros_like(labels)
        if split.method == "stratified" and not (labels >= 0).any():
            raise _unknown("label", len(labels), len(labels), "random")
        return methods.stratified(units, classes, wanted, seed), said
    if split.method == "time":
        times = _times(spill)[drawn]
        if missing := int(np.isnan(times).sum()):
            raise _unknown("time", missing, len(times), "random")
        return methods.latest(units, times, wanted, seed), said
    sets = _fold(units, labels, config, seed)
    return _with_validation(sets, units, labels, wanted[1], seed), {
        **said,
        "fold": split.fold,
        "folds": split.folds if split.method == "k_fold" else len(units.sizes),
    }


def _fold(units: methods.Units, labels: Indices, config: DataConfig, seed: int) -> Indices:
    """Return 1 for the examples of the fold, [N]."""
    split = config.split
    if split.method == "k_fold":
        if len(units.sizes) < split.folds:
            raise DataError(
                f"{len(units.sizes)} groups of kin cannot make {split.folds} folds",
                where="data.split.folds",
                fix="take fewer folds",
            )
        return np.asarray(methods.folds(units, labels, split.folds, seed) == split.fold, np.int64)
    try:
        return methods.leave_one_out(units, split.fold)
    except ValueError as error:
        raise DataError(
            str(error), where="data.split.fold", fix=f"take one from 1 to {len(units.sizes)}"
        ) from None


def _with_validation(sets: Indices, units: methods.Units, labels: Indices, wanted: int, seed: int) -> Indices:
    """Draw the validation set from what the fold leaves, classes in proportion."""
    rest = np.flatnonzero(sets == methods.REST)
    if wanted and len(rest):
        inside = methods.Units.by(units.of[rest].astype(np.uint64))
        sets[rest] = 2 * methods.stratified(inside, labels[rest], (min(wanted, len(rest)),), seed)
    return sets


def _apart(keys: Words, own: Words, grouped: Mask) -> Words:
    """Give rows of too large a kinship, unless it is a group that was named, a key each."""
    _, place, counts = np.unique(own, return_inverse=True, return_counts=True)
    alone = np.flatnonzero((counts[place] > max(2, len(keys) // _MOST)) & ~grouped & (keys == own))
    apart = keys.copy()
    apart[alone] = mix(alone.astype(np.uint64) + np.uint64(1 << 63))
    return apart


def _about(spill: Spill, read: Callable[[Json], object]) -> Iterator[npt.NDArray[np.float64]]:
    """Yield a number of what is known about each example, batch by batch."""
    yield np.empty(0)
    for batch in spill.batches():
        texts = batch.column(1).to_pylist()
        about = ({} if '"about"' not in text else from_text(text, "", 0).about for text in texts)
        yield np.array([read(one) for one in about], np.float64)


def _times(spill: Spill) -> npt.NDArray[np.float64]:
    """Return the time of each example in seconds, NaN where it is not known, [N]."""

    def read(about: Json) -> float:
        try:
            return seconds(about["time"]) if "time" in about else np.nan
        except ValueError:
            return np.nan

    return np.concatenate([*_about(spill, read)])


def _unknown(what: str, missing: int, total: int, instead: str) -> DataError:
    where = "data.columns.label" if what == "label" else f"data.columns.{what}"
    return DataError(
        f"{missing:,} of {total:,} examples have no {what} that can be read, and the split goes by it",
        where="data.split.method",
        fix=f"name its column in {where}, or take data.split.method={instead}",
    )
