"""What is kept for the next preparation, and what goes: results of other code, sources that nobody uses."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

import tanzim
from tanzim.data.cache import alone, prune_shared, share
from tanzim.data.config import DataConfig
from tanzim.data.ingest.fetch import sources_folder
from tanzim.data.prepare import DataReport, prepare
from tanzim.data.store import ExampleStore

PREPARE = """
import sys
from pathlib import Path
from tanzim.data.config import DataConfig
from tanzim.data.prepare import prepare
STEPS = [{"type": "length", "min_characters": 5}]
config = DataConfig.model_validate({"path": "a.jsonl", "workers": 1, "steps": STEPS})
prepare(config, Path("out"), seed=1, cache=Path("cache"))
"""


def test_changed_code_never_takes_an_old_result(tmp_path: Path) -> None:
    """A copy of the package in which a step's reason, then the reading of a row, is written otherwise."""
    package = Path(tanzim.__file__).parent
    for room in ("core", "data"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(package / room, tmp_path / "lib" / "tanzim" / room, ignore=ignored)
    shutil.copy(package / "__init__.py", tmp_path / "lib" / "tanzim")
    rows = [{"text": " ".join(str(n * k * 7919 % 9973) for k in range(1, 30))} for n in range(1, 31)]
    rows.append({"text": "x"})
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def prepared() -> tuple[bool, list[str], set[str]]:
        subprocess.run(
            [sys.executable, "-c", PREPARE],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path / "lib")}, check=True,
        )  # fmt: skip
        (step,) = DataReport.read(tmp_path / "out").steps
        read = {folder.name for folder in (tmp_path / "cache").glob("read-*")}
        return step["cached"], list(step["removed"]), read

    def rewrite(file: str, old: str, new: str) -> None:
        path = tmp_path / "lib" / "tanzim" / "data" / file
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")

    def longest() -> int:
        return max(len(example.text) for example in ExampleStore(tmp_path / "out" / "train.arrow"))

    cached, (reason,), read = prepared()
    assert not cached
    assert longest() > 50
    assert prepared() == (True, [reason], read)
    rewrite("clean/length.py", reason, "nearly nothing")
    assert prepared() == (False, ["nearly nothing"], ANY)
    rewrite(
        "ingest/convert.py",
        'Example("text", provenance, text=text)',
        'Example("text", provenance, text=text[:50])',
    )
    assert not prepared()[0]
    assert longest() <= 50


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database of two tables, and a cache folder of its own for what is fetched."""
    monkeypatch.setenv("TANZIM_CACHE", str(tmp_path / "fetched"))
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as shop:
        for table in ("one", "two"):
            shop.execute(f"CREATE TABLE {table} (text TEXT)")
            rows = [(f"The {table} note with number {n} is about {'tea ' * n}.",) for n in range(40)]
            shop.executemany(f"INSERT INTO {table} VALUES (?)", rows)
    shop.close()
    return path


def _prepared(shop: Path, table: str | None, project: Path, seed: int = 1) -> DataReport:
    source = {"type": "sql", "url": f"sqlite:///{shop}", "query": f"SELECT text FROM {table}"}
    plain = shop.with_name("plain.jsonl")
    plain.write_text(
        "".join(json.dumps({"text": f"Text {n} of a file {'x' * n}."}) + "\n" for n in range(40))
    )
    config: dict[str, Any] = {"sources": [source]} if table else {"path": str(plain)}
    settings = DataConfig.model_validate({**config, "workers": 1, "kept_preparations": 2})
    return prepare(settings, project / "out", seed=seed, cache=project / "cache")


def test_a_source_goes_with_the_last_preparation_that_used_it(shop: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    assert _prepared(shop, "one", project).cache["sources"]["deleted"] == 0
    (one,) = sources_folder().glob("sql-*")
    size = sum(path.stat().st_size for path in one.iterdir())
    assert _prepared(shop, "two", project).cache["sources"]["deleted"] == 0
    assert _prepared(shop, "two", project, seed=2).cache["sources"]["deleted"] == 1  # two preparations count
    assert not one.exists()
    (two,) = sources_folder().glob("sql-*")
    last = _prepared(shop, None, project).cache
    assert last["sources"] == {
        "folder": str(sources_folder()),
        "bytes": sum(path.stat().st_size for path in two.iterdir()),
        "deleted": 0,
        "deleted_bytes": 0,
    }
    gone = _prepared(shop, None, project, seed=2).cache["sources"]
    assert (gone["deleted"], gone["bytes"]) == (1, 0)
    assert gone["deleted_bytes"] == last["sources"]["bytes"] >= size
    assert not two.exists()


def test_what_another_project_uses_stays_until_the_project_is_gone(shop: Path, tmp_path: Path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    _prepared(shop, "one", other)
    _prepared(shop, "one", mine)
    (one,) = sources_folder().glob("sql-*")
    for seed in (1, 2, 3):
        assert _prepared(shop, None, mine, seed).cache["sources"]["deleted"] == 0
    shop.unlink()  # it cannot be fetched again
    assert _prepared(shop, "one", other, seed=2).rows_read == 40
    shutil.rmtree(other)
    assert _prepared(shop, None, mine, seed=4).cache["sources"]["deleted"] == 1
    assert not one.exists()


def test_a_folder_that_nobody_is_known_to_use_counts_as_used_now(tmp_path: Path) -> None:
    """Such as one of an earlier version, or of a record that was damaged."""
    store, cache = tmp_path / "sources", tmp_path / "cache"
    (store / "web-0").mkdir(parents=True)
    (store / "web-0" / "seen.jsonl").write_text("x" * 100)
    (store / "used.json").write_text("{ damaged")
    with alone(cache, "first", lambda *_: None):
        assert prune_shared(store, cache)["deleted"] == 0
    (cache / "preparations.json").unlink()
    with alone(cache, "second", lambda *_: None):
        share(store / "web-1", cache)
        assert prune_shared(store, cache) == {
            "folder": str(store), "bytes": 0, "deleted": 1, "deleted_bytes": 100
        }  # fmt: skip
    assert [path.name for path in store.iterdir() if path.is_dir()] == ["web-1"]
