"""Columns in files and files in stretches: the same numbers and rows as when all is read at once."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import random
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.properties import examples
from tanzim.core.records import Example, Message, Provenance, ToolCall, no_progress
from tanzim.data import columns
from tanzim.data.columns import Column, Piece, frequent, mix, parts_for, quantiles, records, scatter, smallest
from tanzim.data.config import DataConfig
from tanzim.data.executor import Local
from tanzim.data.ingest.ranges import divide_file, read_stretch
from tanzim.data.ingest.read import ingest
from tanzim.data.ingest.sources import Source, open_source
from tanzim.data.prepare import prepare
from tanzim.data.store import ExampleStore

ZWNJ = "می‌خواهم کتاب‌ها را"
U64 = st.integers(0, 2**64 - 1)


@examples(40)
@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=6),
    st.sampled_from([1, 3]),
    st.integers(1, 20),
    st.data(),
)
def test_columns_read_as_arrays(sizes: list[int], width: int, block: int, drawn: st.DataObject) -> None:
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "BLOCK", block)
        whole = rng.integers(0, 1 << 32, (sum(sizes), width), np.uint32)
        pieces, first = [], 0
        for number, size in enumerate(sizes):
            path = Path(folder) / str(number)
            path.write_bytes(b"ab" * number + whole[first : first + size].tobytes())
            pieces.append(Piece(path, 2 * number, size))
            first += size
        whole = whole[:, 0] if width == 1 else whole
        column = Column(pieces, np.uint32, width)
        assert len(column) == len(whole)
        blocks = list(column.blocks())
        assert all(len(values) <= block for _, values in blocks)
        for at, values in blocks:
            assert (values == whole[at : at + len(values)]).all()
        assert sum(len(values) for _, values in blocks) == len(whole)
        if len(whole):
            rows = np.array(drawn.draw(st.lists(st.integers(0, len(whole) - 1), max_size=40)), np.int64)
            assert (column[rows] == whole[rows]).all()


@examples(60)
@given(st.lists(st.one_of(U64, st.integers(0, 3)), min_size=1, max_size=60), st.integers(1, 9))
def test_looks_at_blocks_find_what_sorting_finds(values: list[int], size: int) -> None:
    words = np.array(values, np.uint64)

    def blocks() -> Any:
        return (words[at : at + size] for at in range(0, len(words), size))

    assert [smallest(blocks, n) for n in range(1, len(values) + 1)] == sorted(values)
    for most in (0, 1, 3):
        assert frequent(blocks, most).tolist() == sorted(v for v, n in Counter(values).items() if n > most)
    small = words >> np.uint64(32)

    def small_blocks() -> Any:
        return (small[at : at + size].astype(np.uint32) for at in range(0, len(small), size))

    shares = (0.0, 0.5, 0.95, 1.0)
    assert quantiles(small_blocks, shares, len(small)) == pytest.approx(np.quantile(small, shares).tolist())


@examples(30)
@given(st.lists(U64, max_size=80), st.sampled_from([1, 2, 8]), st.integers(1, 30))
def test_parts_hold_equal_keys_together(keys: list[int], parts: int, size: int) -> None:
    kind = np.dtype([("key", "<u8"), ("row", "<i8")])
    whole = np.array([(key, row) for row, key in enumerate(keys)], kind)
    blocks = (whole[at : at + size] for at in range(0, len(whole), size))
    with tempfile.TemporaryDirectory() as folder:
        paths = scatter(blocks, Path(folder), "part", parts)
        found = [[tuple(r) for block in records(path, kind) for r in block.tolist()] for path in paths]
    assert len(paths) == parts
    assert sorted(r for part in found for r in part) == sorted(map(tuple, whole.tolist()))
    place = {key: number for number, part in enumerate(found) for key, _ in part}
    assert all(place[key] == number for number, part in enumerate(found) for key, _ in part)
    assert all(rows == sorted(rows) for rows in ([row for _, row in part] for part in found))


def test_mixing_keeps_numbers_apart_and_spreads_them() -> None:
    mixed = mix(np.arange(100_000, dtype=np.uint64))
    assert len(np.unique(mixed)) == len(mixed)
    counts = np.bincount((mixed >> np.uint64(60)).astype(int), minlength=16)
    assert abs(counts - 6250).max() < 5 * 6250**0.5
    assert [parts_for(n) for n in (0, 1, columns.BLOCK, columns.BLOCK + 1)] == [1, 1, 1, 2]


def test_examples_as_json_are_those_of_dataclasses() -> None:
    call = ToolCall("f", {"شهر": "یزد"}, "c1")
    example = Example(
        "pair",
        Provenance("a", 3, "made"),
        messages=(Message("user", ZWNJ, weight=0.0), Message("tool", "t", tool_call_id="c1", name="f")),
        chosen=(Message("assistant", thinking="hm", tool_calls=(call,)),),
        rejected=(Message("assistant", "no"),),
        tools=({"type": "function"},),
        about={"group": "g"},
    )
    expected = {k: v for k, v in dataclasses.asdict(example).items() if v not in ((), "", None, {})}
    assert example.to_json() == expected
    assert list(example.to_json()) == [k for k in dataclasses.asdict(example) if k in expected]
    assert Example.from_json(json.loads(json.dumps(example.to_json()))) == example


def _table(rows: list[list[str]], **how: Any) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", **how).writerows(rows)
    return text.getvalue()


def _rows(count: int = 400) -> list[dict[str, str]]:
    rng = random.Random(2)
    words = ["می‌روم", "خانه", "word", "and", "کتاب‌ها", "x" * 30]

    def text(count: int) -> str:
        return " ".join(rng.choices(words, k=count))

    return [{"prompt": text(9), "completion": f"{number} {text(5)}"} for number in range(count)]


def _files(folder: Path) -> dict[str, Path]:
    rows = _rows()
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    lines[5], lines[77], lines[200] = "", "{broken", '{"prompt": "no answer"}'
    cells = [[row["prompt"], row["completion"]] for row in rows]
    several = [[a, f'{b}\nsaid "{n}"\n\nand, more'] for n, (a, b) in enumerate(cells)]
    several[9] = ["only one"]
    broken = _table([["prompt", "completion"], *several]).replace("300 ", '300 "stray" ', 1).encode()
    contents = {
        "plain.jsonl": "\n".join(lines).encode(),
        "mark.jsonl": b"\xef\xbb\xbf" + "\r\n".join(lines).encode() + b"\r\n",
        "bytes.jsonl": "\n".join(lines).encode().replace(b"300 ", b"\xff", 1),
        "quoted.csv": _table([["prompt", "completion"], *several]).encode(),
        "broken.csv": broken,
        "bare.tsv": "\n".join("\t".join(row) for row in cells).encode(),
        "header.csv": _table([["prompt", "completion"], *cells], delimiter=";").encode(),
        "lines.txt": "\n".join(f"{a}." for a, _ in cells).encode(),
    }
    paths = {}
    for name, content in contents.items():
        paths[name] = folder / name
        paths[name].write_bytes(content)
    paths["groups.parquet"] = folder / "groups.parquet"
    pq.write_table(pa.Table.from_pylist(rows), paths["groups.parquet"], row_group_size=37)
    return paths


@pytest.mark.parametrize(
    "name",
    [
        *("plain.jsonl", "mark.jsonl", "bytes.jsonl", "quoted.csv", "broken.csv", "bare.tsv"),
        *("header.csv", "lines.txt", "groups.parquet"),
    ],
)
@pytest.mark.parametrize("size", [700, 5000])
def test_stretches_hold_the_rows_of_the_whole(name: str, size: int, tmp_path: Path) -> None:
    path = _files(tmp_path)[name]
    bare = {"prompt": "column_1", "completion": "column_2"} if name == "bare.tsv" else {}
    config = DataConfig.model_validate({"path": str(path), "documents": "line", "columns": bare})
    source = Source(str(path), path)
    one = ingest(source, config)
    stretches = divide_file(source, one, config, Local(1), no_progress, size)
    whole = list(open_source(source, config).rows)
    if name == "broken.csv":  # where a row ends is not to be seen from outside: read in one go
        assert stretches == []
        return
    assert len(stretches) > 3
    found = [row for stretch in stretches for row in read_stretch(stretch, str(path), config)]
    assert found == whole
    assert one.detection is not None


@pytest.mark.parametrize("kind", ["utf16", "gzip", "json"])
def test_what_cannot_be_cut_is_read_in_one_go(kind: str, tmp_path: Path) -> None:
    import gzip

    text = "\n".join(json.dumps(row) for row in _rows(50))
    path = tmp_path / ("a.json" if kind == "json" else "a.jsonl")
    content = {
        "utf16": text.encode("utf-16"),
        "gzip": gzip.compress(text.encode()),
        "json": json.dumps(_rows(50)).encode(),
    }[kind]
    path.write_bytes(content)
    config, source = DataConfig(path=str(path)), Source(str(path), path)
    assert divide_file(source, ingest(source, config), config, Local(1), no_progress, 500) == []


def test_a_divided_file_gives_the_same_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _files(tmp_path)["plain.jsonl"]
    config = DataConfig(path=str(path), workers=1)
    whole = prepare(config, tmp_path / "whole", seed=1)
    monkeypatch.setattr("tanzim.data.ingest.dataset.SIZE", 5000)
    calls: list[tuple[int, int | None]] = []
    parts = prepare(
        config,
        tmp_path / "parts",
        seed=1,
        progress=lambda done, total, note: calls.append((done, total)) if "reading" in note else None,
    )
    assert len(list((tmp_path / "parts").glob(".steps/read-*/*/part-*.arrow"))) > 5
    assert parts.fingerprints == whole.fingerprints
    assert (parts.rows_read, parts.rejected, parts.files) == (whole.rows_read, whole.rejected, whole.files)
    rejected = [(tmp_path / name / "rejected.jsonl").read_bytes() for name in ("whole", "parts")]
    assert rejected[0] == rejected[1]
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert calls[-1] == (parts.rows_read, parts.rows_read)
    assert list(ExampleStore(tmp_path / "parts" / "train.arrow")) == list(
        ExampleStore(tmp_path / "whole" / "train.arrow")
    )
