"""Every prepared example leads back to its row: what was done to it, done again, ends in the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tanzim.core.errors import DataError
from tanzim.data.config import DataConfig
from tanzim.data.describe.lineage import lineage
from tanzim.data.prepare import prepare
from tanzim.data.store import ExampleStore

ROWS = [f"كتاب شمارهٔ {n} را مي خواهم و تا {n * n} مي شمارم" for n in range(40)]


@pytest.fixture
def prepared(tmp_path: Path) -> tuple[Path, Path]:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"text": row}) for row in [*ROWS, ROWS[3]]), encoding="utf-8")
    steps = [{"type": "persian"}, {"type": "dedup_exact"}, {"type": "length", "min_characters": 5}]
    config = DataConfig.model_validate({"path": str(path), "steps": steps})
    prepare(config, tmp_path / "data", seed=5, cache=tmp_path / "cache")
    return tmp_path / "data", tmp_path / "cache"


def test_each_example_leads_back_to_the_row_that_the_test_wrote(prepared: tuple[Path, Path]) -> None:
    data, cache = prepared
    for split in ("train", "validation", "test"):
        store = ExampleStore(data / f"{split}.arrow")
        for number in range(1, len(store) + 1, 7):
            traced = lineage(data, cache, split, number)
            assert traced.example == store[number - 1]
            assert traced.intact
            assert traced.whole
            assert traced.row is not None
            assert traced.row.text == ROWS[traced.example.provenance.row - 1]
            assert [passage.step for passage in traced.passages] == ["persian", "dedup_exact", "length"]
            persian, exact, length = traced.passages
            assert persian.verdict == "changed"
            assert persian.after == traced.example.text != traced.row.text
            assert exact.verdict == length.verdict == "kept"


def test_a_source_that_changed_is_not_intact(prepared: tuple[Path, Path]) -> None:
    data, cache = prepared
    (data.parent / "rows.jsonl").write_text(json.dumps({"text": "دیگر"}), encoding="utf-8")
    traced = lineage(data, cache, "train", 1)
    assert traced.intact is False
    assert traced.whole


def test_without_the_cache_what_is_lost_is_said(prepared: tuple[Path, Path]) -> None:
    data, cache = prepared
    shutil.rmtree(next(cache.glob("dedup_exact-*")))
    traced = lineage(data, cache, "train", 1)
    assert "not in the cache" in traced.passages[1].verdict
    assert traced.row is not None
    shutil.rmtree(cache)
    traced = lineage(data, cache, "train", 1)
    assert traced.row is None
    assert not traced.whole
    assert traced.source["sha256"]


def test_a_copy_leads_back_through_the_step_that_made_it(tmp_path: Path) -> None:
    rows = [{"text": f"{ROWS[n]}", "label": "rare" if n < 8 else "common"} for n in range(40)]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    steps = [{"type": "persian"}, {"type": "oversample"}]
    config = DataConfig.model_validate({"path": str(path), "steps": steps})
    prepare(config, tmp_path / "data", seed=5, cache=tmp_path / "cache")
    store = ExampleStore(tmp_path / "data" / "train.arrow")
    copies = [n for n in range(len(store)) if store[n].provenance.derived]
    assert copies
    traced = lineage(tmp_path / "data", tmp_path / "cache", "train", copies[0] + 1)
    assert traced.whole
    assert traced.row is not None
    assert traced.row.text == rows[traced.example.provenance.row - 1]["text"]
    persian, oversample = traced.passages
    assert persian.verdict == "changed"
    assert oversample.verdict.startswith("made from")


def test_an_example_that_is_not_there_is_one_clear_error(prepared: tuple[Path, Path]) -> None:
    with pytest.raises(DataError, match="no example 9999 in 'train'") as raised:
        lineage(*prepared, "train", 9999)
    assert "train 1 to" in str(raised.value.fix)


def test_what_two_steps_of_one_type_made_is_told_apart(tmp_path: Path) -> None:
    """Each draws otherwise, gives a name of its own, and what one made out of the other's leads back, too."""
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"text": row}) for row in ROWS), encoding="utf-8")
    twice = [{"type": "augment_words", "share": 0.6}] * 2
    config = DataConfig.model_validate({"path": str(path), "steps": [*twice, {"type": "augment_characters"}]})
    report = prepare(config, tmp_path / "data", seed=5, cache=tmp_path / "cache")
    store = list(ExampleStore(tmp_path / "data" / "train.arrow"))
    names = [str(example.provenance) for example in store]
    assert len(set(names)) == len(names) == report.splits["train"]
    of = {
        how: {example.provenance.row for example in store if example.provenance.derived == how}
        for how in ("augment_words 1", "augment_words#2 1", "augment_words 1, augment_words#2 1")
    }
    assert len(of["augment_words 1"]) == report.steps[0]["added"]
    assert of["augment_words#2 1"] != of["augment_words 1"]
    chain = "augment_words 1, augment_words#2 1"
    both = next(n for n, one in enumerate(store, 1) if one.provenance.derived == chain)
    traced = lineage(tmp_path / "data", tmp_path / "cache", "train", both)
    assert traced.whole
    assert [passage.verdict.split()[0] for passage in traced.passages] == ["made", "made", "kept"]
