"""What differs between two prepared datasets: by what the examples say, and by where they came from."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tanzim.core.records import Json
from tanzim.data.describe.tally import SPLITS
from tanzim.data.ingest.rows import excerpt
from tanzim.data.prepare import DataReport
from tanzim.data.similarity import digest
from tanzim.data.store import ExampleStore, examples_of, read_batches
from tanzim.data.texts import words_of

_SHOWN = 5  # examples of each kind of difference

Hashes = npt.NDArray[np.uint64]


@dataclass(slots=True)
class DataDiff:
    """The differences of B against A.

    Args:
        same: examples that stand in the same split of both.
        moved: examples that stand in both, in different splits: "train → test" and how many.
        only_a: examples that stand in A alone, by split.
        only_b: examples that stand in B alone, by split.
        rewritten: of those alone on one side, how many come from the same source row on the other.
        counts: rows of each split, rows read, rejected, and labels, where A and B differ: (A, B).
        steps: settings of the chain that differ, as lines.
        samples: a few examples of each difference.

    """

    same: int = 0
    moved: dict[str, int] = field(default_factory=dict)
    only_a: dict[str, int] = field(default_factory=dict)
    only_b: dict[str, int] = field(default_factory=dict)
    rewritten: int = 0
    counts: dict[str, tuple[int, int]] = field(default_factory=dict)
    steps: list[str] = field(default_factory=list)
    samples: dict[str, list[Json]] = field(default_factory=dict)

    @property
    def equal(self) -> bool:
        """Whether the examples are the same, in the same splits."""
        return not (self.moved or any(self.only_a.values()) or any(self.only_b.values()))


@dataclass(frozen=True, slots=True)
class _Side:
    """One dataset: for each example the hash of its content, of its provenance, its split and place, [N]."""

    folder: Path
    content: Hashes
    origin: Hashes
    split: npt.NDArray[np.uint8]
    place: npt.NDArray[np.int64]

    def sample(self, indices: npt.NDArray[np.int64]) -> list[Json]:
        shown = []
        for index in indices[:_SHOWN].tolist():
            split = SPLITS[self.split[index]]
            example = ExampleStore(self.folder / f"{split}.arrow")[int(self.place[index])]
            shown.append(
                {"split": split, "from": str(example.provenance), "text": excerpt(words_of(example))}
            )
        return shown


def data_diff(a: Path, b: Path) -> DataDiff:
    """Compare two folders of prepared data, in 25 bytes of memory for each example.

    Args:
        a: the older folder.
        b: the newer one.

    Raises:
        DataError: a folder holds no prepared data.

    """
    diff = DataDiff()
    reports = DataReport.read(a), DataReport.read(b)
    _compare_reports(*reports, diff)
    one, two = _read(a), _read(b)
    alone_a, alone_b = _compare(one, two, diff)
    rewritten = np.isin(one.origin[alone_a], two.origin[alone_b])
    diff.rewritten = int(rewritten.sum())
    for name, side, alone, by in (
        ("only_a", one, alone_a, diff.only_a),
        ("only_b", two, alone_b, diff.only_b),
    ):
        counts = np.bincount(side.split[alone], minlength=len(SPLITS))
        by |= {split: int(count) for split, count in zip(SPLITS, counts, strict=True) if count}
        diff.samples[name] = side.sample(alone)
    return diff


def _read(folder: Path) -> _Side:
    content, origin, splits, places = array("Q"), array("Q"), array("B"), array("q")
    for number, split in enumerate(SPLITS):
        place = 0
        path = folder / f"{split}.arrow"
        for batch in read_batches(path) if path.is_file() else ():
            for example, text in examples_of(batch):
                one = example.provenance
                content.append(digest(text))
                origin.append(digest(f"{one.source}\0{one.row}\0{one.derived}"))
                splits.append(number)
                places.append(place)
                place += 1
    return _Side(
        folder,
        np.frombuffer(content, np.uint64),
        np.frombuffer(origin, np.uint64),
        np.frombuffer(splits, np.uint8),
        np.frombuffer(places, np.int64),
    )


def _compare(one: _Side, two: _Side, diff: DataDiff) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Pair examples of equal content one by one; return those of either side that are left over."""
    orders = [np.lexsort((side.split, side.content)) for side in (one, two)]
    keys = [
        np.stack([side.content[order], _repeat(side.content[order])])
        for side, order in zip((one, two), orders, strict=True)
    ]
    joined = [_key(key) for key in keys]
    _, at_one, at_two = np.intersect1d(joined[0], joined[1], assume_unique=True, return_indices=True)
    pairs = orders[0][at_one], orders[1][at_two]
    before, after = one.split[pairs[0]], two.split[pairs[1]]
    diff.same = int((before == after).sum())
    for old, new in sorted({*zip(before.tolist(), after.tolist(), strict=True)}):
        if old != new:
            count = int(((before == old) & (after == new)).sum())
            diff.moved[f"{SPLITS[old]} → {SPLITS[new]}"] = count
    left = [
        np.setdiff1d(np.arange(len(side.content)), paired)
        for side, paired in zip((one, two), pairs, strict=True)
    ]
    return left[0], left[1]


def _repeat(sorted_content: Hashes) -> Hashes:
    """Number the repeats of each value in a sorted array from 0, so that repeats are told apart."""
    starts = np.flatnonzero(np.concatenate([[True], sorted_content[1:] != sorted_content[:-1]]))
    counts = np.diff(starts, append=len(sorted_content))
    return (np.arange(len(sorted_content)) - np.repeat(starts, counts)).astype(np.uint64)


def _key(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.void]:
    pairs = np.ascontiguousarray(values.T)
    return pairs.view([("content", np.uint64), ("repeat", np.uint64)]).ravel()


def _compare_reports(a: DataReport, b: DataReport, diff: DataDiff) -> None:
    pairs = {
        "rows read": (a.rows_read, b.rows_read),
        "rows rejected": (sum(a.rejected.values()), sum(b.rejected.values())),
        **{name: (a.splits.get(name, 0), b.splits.get(name, 0)) for name in SPLITS},
        **{
            f"label {label}": tuple(sum(report.labels.get(label, {}).values()) for report in (a, b))
            for label in sorted({*a.labels, *b.labels})
        },
    }
    diff.counts = {name: (old, new) for name, (old, new) in pairs.items() if old != new}
    old, new = ([str(step["settings"]) for step in report.steps] for report in (a, b))
    diff.steps = [f"− {step}" for step in old if step not in new] + [
        f"+ {step}" for step in new if step not in old
    ]
