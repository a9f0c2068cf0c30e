"""From any prepared example back to the row it came from, through what each step left in the cache."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.compute as pc

from tanzim.core.errors import DataError
from tanzim.core.files import read_json, sha256
from tanzim.core.records import Example, Json, Provenance
from tanzim.data.describe.tally import SPLITS
from tanzim.data.prepare import DataReport
from tanzim.data.shards import Shard
from tanzim.data.store import ExampleStore, examples_of
from tanzim.data.texts import words_of


@dataclass(frozen=True, slots=True)
class Passage:
    """What one step did to the example, or to the one it was made from.

    Args:
        step: its type.
        verdict: kept, changed, made, or why it cannot be told.
        after: what the example said afterwards, if that changed.

    """

    step: str
    verdict: str
    after: str = ""


@dataclass(slots=True)
class Lineage:
    """The life of one example.

    Args:
        example: as it stands in the split.
        split: train, validation or test.
        source: what the report says of the source it came from.
        intact: whether the source still is the file that was read; None where there is no file.
        row: the source's row as it was read; None where the cache was cleared.
        passages: the steps, in order.
        whole: whether every step was found, and the last left the very example.

    """

    example: Example
    split: str
    source: Json
    intact: bool | None = None
    row: Example | None = None
    passages: list[Passage] = field(default_factory=list)
    whole: bool = False


def lineage(data: Path, cache: Path, split: str, number: int) -> Lineage:
    """Trace one example of prepared data back to its source.

    Args:
        data: the folder that ``prepare`` wrote.
        cache: the folder that keeps what was read and what each step left.
        split: train, validation or test.
        number: which example of the split, counted from 1.

    Raises:
        DataError: there is no such example.

    """
    report = DataReport.read(data)
    if split not in SPLITS or not 1 <= number <= report.splits.get(split, 0):
        counts = ", ".join(f"{name} 1 to {count}" for name, count in report.splits.items() if count)
        raise DataError(f"there is no example {number} in '{split}'", where=str(data), fix=f"take {counts}")
    example = ExampleStore(data / f"{split}.arrow")[number - 1]
    source = next((one for one in report.files if one["path"] == example.provenance.source), {})
    traced = Lineage(example, split, source)
    path = Path(example.provenance.source)
    if source.get("sha256") and path.is_file():
        traced.intact = sha256(path) == source["sha256"]
    before = _read(cache, example.provenance, source)
    traced.row = before.get("")
    for step in report.steps:
        folder = cache / step["folder"]
        if not (folder / "done.json").is_file():
            traced.passages.append(Passage(step["type"], "cannot be told: its result is not in the cache"))
            before = {}
            continue
        after = {one.provenance.derived: one for one in _found(folder, example.provenance)}
        if after or before:  # a step on training data leaves held-out examples alone
            traced.passages.append(_passage(step["type"], before, after, example.provenance.derived))
            before = after or before
    traced.whole = bool(before) and before.get(example.provenance.derived) == example
    return traced


def _read(cache: Path, wanted: Provenance, source: Json) -> dict[str, Example]:
    """Find the row as it was read."""
    for done in cache.glob("read-*/done.json"):
        about = read_json(done)
        if about["about"]["path"] == source.get("path") and about["sha256"] == source.get("sha256"):
            found = {one.provenance.derived: one for one in _found(done.parent, wanted)}
            if found:
                return found
    return {}


def _found(folder: Path, wanted: Provenance) -> Iterator[Example]:
    """Yield the examples of a step's result that come from a row; only its columns are compared."""
    for part in sorted(folder.glob("part-*.json")):
        shard = Shard.from_json(read_json(part)["shard"], folder)
        for batch in shard.batches() if shard.rows else ():
            rows = batch.filter(
                pc.and_(pc.equal(batch["source"], wanted.source), pc.equal(batch["row"], wanted.row))
            )
            for example, _ in examples_of(rows):
                yield example


def _passage(step: str, before: dict[str, Example], after: dict[str, Example], derived: str) -> Passage:
    """Tell what became of an example, or, while it is not made yet, of the one it will be made from."""
    old, now = _ancestor(before, derived), _ancestor(after, derived)
    if now is None:
        return Passage(step, "taken out there, or left to another split")
    if old is None or old.provenance.derived != now.provenance.derived:
        return Passage(step, f"made from {old.provenance}" if old else "made", words_of(now))
    if old == now:
        return Passage(step, "kept")
    said = json.dumps(now.about, ensure_ascii=False) if words_of(old) == words_of(now) else words_of(now)
    return Passage(step, "changed", said)


def _ancestor(examples: dict[str, Example], derived: str) -> Example | None:
    """Return the example whose ``derived`` begins the wanted one's, the longest of them."""
    kin = [name for name in examples if derived == name or derived.startswith(f"{name}, " if name else "")]
    return examples[max(kin, key=len)] if kin else None
