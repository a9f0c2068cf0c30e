"""Which example goes where: drawn by seed, freed from leakage, sampled down."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tanzim.core.errors import DataError
from tanzim.core.records import Json, Progress
from tanzim.core.seeds import derive
from tanzim.data.columns import BLOCK, Words, frequent, mix, smallest
from tanzim.data.config import DataConfig
from tanzim.data.split.draw import draw_sets
from tanzim.data.split.kin import Joined, join_near
from tanzim.data.split.leakage import Mask, find_leaks, repeats, same_prompts, shown
from tanzim.data.split.spill import Spill

TRAIN, VALIDATION, TEST, LEAKED, UNUSED = range(5)
SPLITS = {"train": TRAIN, "validation": VALIDATION, "test": TEST}


@dataclass(frozen=True, slots=True)
class Division:
    """Where each example goes.

    Args:
        place: TRAIN, VALIDATION, TEST, LEAKED (dropped as a duplicate) or UNUSED (left out of a
            sample) for each example, [N].
        leakage: what was found across the splits, for the report.
        dropped: how many were dropped as duplicates, all in all.
        unused: examples left out by max_train and max_test.
        drawn: how the splits were drawn.

    """

    place: npt.NDArray[np.uint8]
    leakage: Json
    dropped: int
    unused: Json = field(default_factory=dict)
    drawn: Json = field(default_factory=dict)


def compares(config: DataConfig) -> bool:
    """Tell whether there will be more than one split, so that leakage is possible."""
    split = config.split
    apart = config.divided("validation") or config.divided("test")
    return bool(split.validation or split.test or split.by_fold or apart)


def _share(count: int, share: float) -> int:
    """Return how many of ``count`` make a share: at least one, if any are asked for."""
    return min(count, max(1, round(count * share))) if share and count else 0


def divide(spill: Spill, config: DataConfig, seed: int, progress: Progress) -> Division:
    """Draw the splits, keep duplicates from standing on both sides, and sample down.

    Files of their own stay what they are. Otherwise near duplicates and examples with the same prompt, the
    same context or the same group are joined to kin, so that few have to be dropped, and ``split.method``
    decides. By chance: the seed gives each example a rank, kin the same; the lowest make the test set, the
    next validation and the rest training.

    Args:
        spill: all examples.
        config: shares, thresholds and limits.
        seed: the run's seed.
        progress: told while comparing.

    Raises:
        DataError: leakage under ``split.leakage: error``, or nothing is left to train on.

    """
    place = spill.origin()
    count = int((place == TRAIN).sum())
    by_fold = config.split.by_fold
    test = 0 if config.divided("test") or by_fold else _share(count, config.split.test)
    validation = 0 if config.divided("validation") else _share(count, config.split.validation)
    drawn: Json = {}
    if test + validation or by_fold:
        near = config.split.near_duplicate if config.split.leakage != "allow" else None
        most = 0.3 if config.split.method == "group" else 0.05
        joined = Joined(spill)
        if near is not None:
            joined = join_near(spill, place == TRAIN, near, progress, most=most)
        drawn = _drawn(spill, joined, place, config, (test, validation), derive(seed, "data", "split"))
        test, validation = drawn["test"], drawn["validation"]
    unused = {"test": _sample(place, TEST, config.max_test, derive(seed, "data", "max_test"))}
    leakage = _free(spill, place, config, progress) if compares(config) else {"mode": "one split"}
    if not (place == TRAIN).any():
        raise DataError(
            f"nothing is left to train on: {len(place)} examples, {test} drawn for testing, {validation} "
            f"for validation, {int((place == LEAKED).sum())} dropped as duplicates of those",
            where="data.split",
            fix="give more data, smaller shares, or split.leakage: allow",
        )
    unused["train"] = _sample(place, TRAIN, config.max_train, derive(seed, "data", "max_train"))
    return Division(place, leakage, int((place == LEAKED).sum()), unused, drawn)


def divide_again(spill: Spill, first: Division, config: DataConfig, progress: Progress) -> Division:
    """Take out of the splits what leaks after steps have changed the training data.

    Args:
        spill: all examples; their origin is the split they are in.
        first: how they were divided before.
        config: thresholds.
        progress: told while comparing.

    Raises:
        DataError: leakage under ``split.leakage: error``.

    """
    place = spill.origin()
    leakage = first.leakage
    if compares(config):
        again = _free(spill, place, config, progress)
        dropped = {name: count + again["dropped"].get(name, 0) for name, count in leakage["dropped"].items()}
        leakage = {**leakage, "dropped": dropped, "after_steps": again}
    leaked = first.dropped + int((place == LEAKED).sum())
    return Division(place, leakage, leaked, first.unused, first.drawn)


def _drawn(
    spill: Spill,
    joined: Joined,
    place: npt.NDArray[np.uint8],
    config: DataConfig,
    wanted: tuple[int, int],
    seed: int,
) -> Json:
    """Draw the held-out sets by the method of the config; say how, and how many they hold."""
    if config.split.method == "random":
        test, validation = _draw(joined, place, *wanted, seed)
        return {"method": "random", "test": test, "validation": validation}
    rows = np.flatnonzero(place == TRAIN)
    sets, said = draw_sets(spill, joined, place == TRAIN, config, wanted, seed)
    place[rows] = np.array([TRAIN, TEST, VALIDATION], np.uint8)[sets]
    return {**said, "test": int((sets == 1).sum()), "validation": int((sets == 2).sum())}


def _draw(
    joined: Joined, place: npt.NDArray[np.uint8], test: int, validation: int, seed: int
) -> tuple[int, int]:
    """Give each example to be divided a rank by seed, kin the same; the lowest are set aside.

    A kind of row that is more than one in fifty is no kinship (one question asked of all, say):
    its rows are drawn one by one.

    Args:
        joined: the kin of all examples.
        place: where each goes; changed here, [N].
        test: examples of the test set, at least; kin are not parted.
        validation: examples of the validation set, at least.
        seed: chooses the ranks.

    Returns:
        How many were drawn for testing and for validation.

    """
    drawn = place == TRAIN

    def kin() -> Iterator[Words]:
        kin = joined.spill.kin.blocks()
        return (mix(block[drawn[first : first + len(block)]]) for first, block in kin)

    no_kin = frequent(kin, max(2, int(drawn.sum()) // 50))

    def ranked() -> Iterator[tuple[npt.NDArray[np.int64], Words]]:
        for (first, block), (_, own) in zip(joined.blocks(), joined.spill.kin.blocks(), strict=True):
            rows = np.flatnonzero(drawn[first : first + len(block)])
            key = mix(block[rows])
            alone = np.isin(mix(own[rows]), no_kin) & (block[rows] == own[rows])
            key[alone] = mix(_numbers(rows[alone] + first))
            yield rows + first, mix(key ^ np.uint64(seed))

    def ranks() -> Iterator[Words]:
        return (rank for _, rank in ranked())

    counts, done = [], 0
    for split, wanted in ((TEST, test), (VALIDATION, validation)):
        left = min(wanted, int(drawn.sum()) - done)
        if left:
            last = smallest(ranks, done + left)
            for rows, rank in ranked():
                place[rows[(rank <= last) & (place[rows] == TRAIN)]] = split
        counts.append(int((place[drawn] == split).sum()))
        done += counts[-1]
    return counts[0], counts[1]


def _numbers(rows: npt.NDArray[np.int64]) -> Words:
    """Return row numbers as words of another kind than hashes of texts."""
    return rows.astype(np.uint64) + np.uint64(1 << 63)


def _sample(place: npt.NDArray[np.uint8], split: int, most: int | None, seed: int) -> int:
    """Mark all but a seeded sample of a split as unused; return how many."""
    count = int((place == split).sum())
    if most is None or count <= most:
        return 0

    def ranked() -> Iterator[tuple[npt.NDArray[np.int64], Words]]:
        for start in range(0, len(place), BLOCK):
            rows = np.flatnonzero(place[start : start + BLOCK] == split) + start
            yield rows, mix(_numbers(rows) ^ np.uint64(seed))

    last = smallest(lambda: (rank for _, rank in ranked()), most)
    for rows, rank in ranked():
        place[rows[rank > last]] = UNUSED
    return count - most


def _is(place: npt.NDArray[np.uint8], names: list[str]) -> Mask:
    held: Mask = np.isin(place, [SPLITS[name] for name in names])
    return held


def _free(spill: Spill, place: npt.NDArray[np.uint8], config: DataConfig, progress: Progress) -> Json:
    """Find what stands on both sides; drop it from the training side unless told otherwise."""
    mode, threshold = config.split.leakage, config.split.near_duplicate
    found: Json = {
        "mode": mode,
        "near_duplicate": threshold,
        "exact": 0,
        "near": 0,
        "crowded": 0,
        "dropped": {},
        "pairs": [],
    }
    reader = spill.reader()
    for exposed, held in (("validation", ["test"]), ("train", ["validation", "test"])):
        leak = find_leaks(spill, _is(place, held), _is(place, [exposed]), threshold, progress)
        found["exact"] += leak.exact.count
        found["near"] += leak.near.count
        found["crowded"] += leak.crowded
        found["pairs"] += shown(reader, leak.exact) + shown(reader, leak.near)
        if mode == "repair":
            place[leak.rows] = LEAKED
            found["dropped"][exposed] = int(leak.rows.sum())
    found["repeats_in_train"] = repeats(spill, place == TRAIN)
    prompts = same_prompts(spill, _is(place, ["validation", "test"]), place == TRAIN)
    found["same_prompt_other_answer"] = prompts.count
    found["same_prompt_pairs"] = shown(reader, prompts)[:3]
    total = found["exact"] + found["near"]
    if mode == "error" and total:
        pairs = "; ".join(
            f"{p['train_side']} = {p['held_out']} ({p['similarity']})" for p in found["pairs"][:3]
        )
        raise DataError(
            f"{found['exact']} exact and {found['near']} near duplicates stand on both sides of the split: "
            f"{pairs}",
            where="data.split.leakage",
            fix="set split.leakage: repair to drop them from the training side, or remove them",
        )
    return found
