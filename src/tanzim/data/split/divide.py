"""Which example goes where: drawn by seed, freed from leakage, sampled down."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tanzim.core.errors import DataError
from tanzim.core.records import Json, Progress
from tanzim.core.seeds import derive
from tanzim.data.config import DataConfig
from tanzim.data.similarity import Words
from tanzim.data.split.leakage import Indices, find_leaks, same_prompts, shown
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

    """

    place: npt.NDArray[np.uint8]
    leakage: Json
    dropped: int
    unused: Json = field(default_factory=dict)


def compares(config: DataConfig) -> bool:
    """Tell whether there will be more than one split, so that leakage is possible."""
    split = config.split
    return bool(split.validation or split.test or config.validation_path or config.test_path)


def _share(count: int, share: float) -> int:
    """Return how many of ``count`` make a share: at least one, if any are asked for."""
    return min(count, max(1, round(count * share))) if share and count else 0


def divide(spill: Spill, config: DataConfig, seed: int, progress: Progress) -> Division:
    """Draw the splits, keep duplicates from standing on both sides, and sample down.

    Files of their own stay what they are. Otherwise a seeded permutation gives the first examples
    to the test set, the next to validation and the rest to training; examples with the same prompt
    or the same context stay together, so that few have to be dropped as duplicates.

    Args:
        spill: all examples.
        config: shares, thresholds and limits.
        seed: the run's seed.
        progress: told while comparing.

    Raises:
        DataError: leakage under ``split.leakage: error``, or nothing is left to train on.

    """
    place = np.frombuffer(spill.origin, np.uint8).copy()
    rows = np.flatnonzero(place == TRAIN)
    test = 0 if config.test_path else _share(len(rows), config.split.test)
    validation = 0 if config.validation_path else _share(len(rows), config.split.validation)
    if test + validation:
        drawn, ends = _draw(spill.kin[rows], derive(seed, "data", "split"))
        test = _whole(ends, test)
        validation = _whole(ends, test + validation) - test if validation else 0
        place[rows[drawn[:test]]] = TEST
        place[rows[drawn[test : test + validation]]] = VALIDATION
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
    return Division(place, leakage, int((place == LEAKED).sum()), unused)


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
    place = np.frombuffer(spill.origin, np.uint8).copy()
    leakage = first.leakage
    if compares(config):
        again = _free(spill, place, config, progress)
        dropped = {name: count + again["dropped"].get(name, 0) for name, count in leakage["dropped"].items()}
        leakage = {**leakage, "dropped": dropped, "after_steps": again}
    return Division(place, leakage, first.dropped + int((place == LEAKED).sum()), first.unused)


def _draw(kin: Words, seed: int) -> tuple[Indices, Indices]:
    """Permute rows with kin side by side.

    A kind of row that is more than one in fifty is no kinship (one question asked of all, say):
    its rows are drawn one by one.

    Args:
        kin: equal values for rows that belong together, [N].
        seed: chooses the permutation.

    Returns:
        The permutation, [N], and the positions at which it may be cut, [G + 1].

    """
    rng = np.random.default_rng(seed)
    order = np.argsort(kin, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], kin[order][1:] != kin[order][:-1]]))
    counts = np.diff(starts, append=len(kin))
    kind = np.empty(len(kin), np.uint32)
    kind[order] = np.repeat(np.arange(len(counts), dtype=np.uint32), counts)
    del order
    alone = np.flatnonzero(counts[kind] > max(2, len(kin) // 50))
    kinds = len(counts) + len(alone)
    kind[alone] = np.arange(len(counts), kinds, dtype=np.uint32)
    rank = rng.permutation(np.arange(kinds, dtype=np.uint32))[kind]
    drawn = np.argsort(rank, kind="stable")
    cuts = np.flatnonzero(rank[drawn][1:] != rank[drawn][:-1]) + 1
    return drawn, np.concatenate([[0], cuts, [len(kin)]])


def _whole(ends: Indices, wanted: int) -> int:
    """Return the first allowed cut that gives at least ``wanted`` rows."""
    return int(ends[np.searchsorted(ends, wanted)])


def _sample(place: npt.NDArray[np.uint8], split: int, most: int | None, seed: int) -> int:
    rows = np.flatnonzero(place == split)
    if most is None or len(rows) <= most:
        return 0
    left_out = np.random.default_rng(seed).permutation(rows)[most:]
    place[left_out] = UNUSED
    return len(left_out)


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
    for exposed_name, held_names in (("validation", ["test"]), ("train", ["validation", "test"])):
        exposed = np.flatnonzero(place == SPLITS[exposed_name])
        held: Indices = np.flatnonzero(np.isin(place, [SPLITS[name] for name in held_names]))
        leak = find_leaks(spill, held, exposed, threshold, progress)
        found["exact"] += leak.exact.shape[1]
        found["near"] += leak.near.shape[1]
        found["crowded"] += leak.crowded
        found["pairs"] += shown(reader, leak.exact) + shown(reader, leak.near, leak.similarity)
        if mode == "repair":
            place[leak.rows] = LEAKED
            found["dropped"][exposed_name] = len(leak.rows)
    texts = spill.full[place == TRAIN]
    found["repeats_in_train"] = len(texts) - len(np.unique(texts))
    held = np.flatnonzero(np.isin(place, [VALIDATION, TEST]))
    prompts = same_prompts(spill, held, np.flatnonzero(place == TRAIN))
    found["same_prompt_other_answer"] = prompts.shape[1]
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
