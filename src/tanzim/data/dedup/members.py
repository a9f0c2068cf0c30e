"""What the three layers of deduplication share: groups of like examples, and which of each is kept."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from tanzim.core.errors import DataError
from tanzim.core.records import Example, Json, Progress
from tanzim.data.dedup.columns import Array, Columns, Rows, Table, pack_texts, write_columns
from tanzim.data.dedup.config import DedupConfig
from tanzim.data.similarity import parts
from tanzim.data.step import Outcome, Removed, Survey, WholeStep

ConfigT = TypeVar("ConfigT", bound=DedupConfig)
# The number of the example that each stands under, [N].
Parents = npt.NDArray[np.uint32]

_BLOCK = 1 << 18  # rows looked at together
_SHOWN, _OTHERS = 5, 3  # groups in the report, and members of each
_FIRST, _BY_VALUE, _HELD_OUT = range(3)  # why one is kept
_SIZES = {"2": 2, "3 to 5": 5, "6 to 20": 20, "more": 1 << 62}


class GroupStep(WholeStep[ConfigT]):
    """Of each group of like examples keep one: a held-out one before others, then as ``keep`` says.

    Groups are the connected components of pairs that are alike, so that two of one group may be less alike
    than the threshold; how alike a removed one and the kept one are is said of each.

    Attributes:
        reason: of a removal.
        said: its detail, with places for ``where`` (of the kept one), ``why`` and ``similarity``.

    """

    reason: ClassVar[str]
    said: ClassVar[str]

    def survey(self, examples: Iterable[Example], path: Path) -> None:
        """Write what the examples are compared by, where they come from, and what they are worth."""
        wheres: list[str] = []
        texts: list[str] = []
        values: list[float] = []
        for example in examples:
            prompt, answer = parts(example)
            texts.append(f"{prompt}\n{answer}" if self.config.by == "example" and answer else prompt)
            wheres.append(str(example.provenance))
            if self.config.keep != "first":
                values.append(self._value(example, texts[-1]))
        where, where_places = pack_texts(wheres)
        columns: dict[str, Array] = {"where": where, "where_places": where_places}
        if values:
            columns["value"] = np.array(values)
        write_columns(path, columns | self.look(texts))

    def _value(self, example: Example, text: str) -> float:
        if self.config.keep == "longest":
            return float(len(text))
        value = example.about.get(self.config.score)
        if not isinstance(value, int | float):
            raise DataError(
                f"keep is 'best', but the example's about has no number named '{self.config.score}'",
                where=str(example.provenance),
                fix="put a step that scores before this one, set score, or keep: longest",
            )
        return float(value)

    def look(self, texts: Sequence[str]) -> dict[str, Array]:
        """Return columns of what the texts of a shard are compared by."""
        raise NotImplementedError

    def link(self, table: Table, parents: Parents, progress: Progress) -> Json:
        """Put each example under the least number of its group, in ``parents``.

        Returns:
            What the report says of it.

        """
        raise NotImplementedError

    def alike(self, table: Table, rows: Rows, kept: Rows) -> Array:
        """Return how alike pairs of examples are, [M]."""
        return np.ones(len(rows))

    def decide(self, surveys: Sequence[Survey], path: Path, progress: Progress) -> Json:
        """Find the groups, choose whom to keep, and write for each shard who goes for whom."""
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        table = Table(surveys)
        parents: Parents = np.arange(len(table), dtype=np.uint32)
        findings = self.link(table, parents, progress)
        groups = _choose(table, parents, self.config.keep)
        self._write(table, groups, path, progress)
        return findings | self._report(table, groups)

    def _write(self, table: Table, groups: _Groups, path: Path, progress: Progress) -> None:
        """Write for each shard the rows that go, for which ones, and how alike they are."""
        done, kept = 0, groups.kept
        while done < len(table.starts) - 1:
            last = max(done + 1, int(np.searchsorted(table.starts, table.starts[done] + _BLOCK, "right")) - 1)
            first, stop = int(table.starts[done]), int(table.starts[last])
            rows = first + np.flatnonzero(kept[first:stop] != np.arange(first, stop, dtype=np.uint32))
            instead = kept[rows].astype(np.int64)
            similarity = self.alike(table, rows, instead)
            whose, back = np.unique(instead, return_inverse=True)
            where, places = table.texts("where", whose)
            for shard in range(done, last):
                mine = slice(*np.searchsorted(rows, table.starts[shard : shard + 2]))
                if mine.start == mine.stop:
                    continue
                columns = {
                    "row": rows[mine] - table.starts[shard],
                    "similarity": similarity[mine],
                    "why": groups.why[whose[back[mine]]],
                }
                texts = [bytes(where[places[i] : places[i + 1]]).decode() for i in back[mine]]
                columns["where"], columns["where_places"] = pack_texts(texts)
                write_columns(path / str(table.starts[shard]), columns)
            done = last
            progress(stop, len(table), "writing")

    def _report(self, table: Table, groups: _Groups) -> Json:
        largest = []
        for kept, size in groups.largest:
            others = np.flatnonzero(groups.kept == kept)
            others = others[others != kept][:_OTHERS]
            alike = self.alike(table, others, np.full(len(others), kept))
            data, places = table.texts("where", np.sort(np.append(others, kept)))
            names = [bytes(data[places[i] : places[i + 1]]).decode() for i in range(len(others) + 1)]
            own = names.pop(int(np.searchsorted(others, kept)))
            listed = [f"{name} ({value:.2f})" for name, value in zip(names, alike, strict=True)]
            why = groups.words[groups.why[kept]]
            largest.append({"kept": own, "why": why, "size": size, "others": listed})
        reasons = {groups.words[why]: count for why, count in enumerate(groups.reasons) if count}
        return {
            "groups": sum(groups.sizes.values()),
            "sizes": {name: count for name, count in groups.sizes.items() if count},
            "kept because it is": reasons,
            "largest": largest,
        }

    def judge(self, examples: Iterable[Example], path: Path, first: int) -> Iterator[Outcome]:
        """Take out what another example stands for."""
        part = path / str(first)
        gone = iter(self._gone(part) if part.is_file() else ())
        number, detail = next(gone, (-1, ""))
        for index, example in enumerate(examples):
            if index == number:
                yield Removed(example, self.reason, detail)
                number, detail = next(gone, (-1, ""))
            else:
                yield example

    def _gone(self, part: Path) -> Iterator[tuple[int, str]]:
        """Yield the rows of a shard that go, and what is said of each."""
        columns, words = Columns(part), _Groups(np.empty(0, np.uint32), self.config.keep).words
        where, places = bytes(columns.read("where")), columns.read("where_places").tolist()
        rows = zip(*(columns.read(name).tolist() for name in ("row", "similarity", "why")), strict=True)
        for index, (row, similarity, why) in enumerate(rows):
            name = where[places[index] : places[index + 1]].decode()
            yield row, self.said.format(where=name, similarity=similarity, why=words[why])


class _Groups:
    """Who is kept of each group.

    Attributes:
        kept: the number of the example that stands for each, [N].
        why: of each kept one of a group, [N].
        words: what each reason is called.
        reasons: how often each was the reason.
        sizes: groups by how many they hold.
        largest: (kept example, size) of a few.

    """

    def __init__(self, kept: Parents, keep: str) -> None:
        self.kept = kept
        self.why = np.zeros(len(kept), np.uint8)
        self.words = {_FIRST: "the first", _BY_VALUE: f"the {keep}", _HELD_OUT: "held out"}
        self.reasons = [0, 0, 0]
        self.sizes = dict.fromkeys(_SIZES, 0)
        self.largest: list[tuple[int, int]] = []

    def add(self, kept: Rows, sizes: Rows, why: Array) -> None:
        self.why[kept] = why
        for reason in range(3):
            self.reasons[reason] += int((why == reason).sum())
        below = 1
        for name, most in _SIZES.items():
            self.sizes[name] += int(((sizes > below) & (sizes <= most)).sum())
            below = most
        top = np.argsort(-sizes, kind="stable")[:_SHOWN]
        found = [*self.largest, *zip(kept[top].tolist(), sizes[top].tolist(), strict=True)]
        self.largest = sorted(found, key=lambda pair: (-pair[1], pair[0]))[:_SHOWN]


def _choose(table: Table, parents: Parents, keep: str) -> _Groups:
    """Pick whom to keep of each group; afterwards its members stand under that one in ``parents``."""
    groups = _Groups(parents, keep)
    # From the last groups to the first: who is kept never stands before its group's least number, so
    # that what is done is not mistaken for what is left.
    for low in range((len(parents) - 1) // _BLOCK * _BLOCK, -1, -_BLOCK):
        tail = parents[low:]
        rows = low + np.flatnonzero(tail - np.uint32(low) < _BLOCK)  # tail ≥ low, or it wraps around
        roots = parents[rows].astype(np.int64) - low
        several = np.bincount(roots, minlength=1)[roots] > 1
        rows, roots = rows[several], roots[several]
        if not len(rows):
            continue
        origin = table.origin(rows)
        value = table.at("value", rows) if keep != "first" else np.zeros(len(rows))
        order = np.lexsort((rows, -value, -origin, roots))
        rows, roots, origin, value = rows[order], roots[order], origin[order], value[order]
        firsts = np.flatnonzero(np.concatenate([[True], roots[1:] != roots[:-1]]))
        sizes = np.diff(np.append(firsts, len(rows)))
        parents[rows] = np.repeat(rows[firsts], sizes)
        why = np.full(len(firsts), _FIRST, np.uint8)
        why[value[firsts] > np.minimum.reduceat(value, firsts)] = _BY_VALUE
        why[origin[firsts] > np.minimum.reduceat(origin, firsts)] = _HELD_OUT
        groups.add(rows[firsts], sizes, why)
    return groups
