"""Rows of databases: SQLite, and a real PostgreSQL that the tests start."""

from __future__ import annotations

import csv
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers.postgres import PASSWORD, Server, local_postgres
from tanzim.core.errors import ConfigError, DataError
from tanzim.data.config import DataConfig
from tanzim.data.ingest.config import SqlSource
from tanzim.data.ingest.fetch import fetch_all
from tanzim.data.ingest.snapshot import read_snapshot
from tanzim.data.ingest.sql import read_sql
from tanzim.data.prepare import prepare
from tanzim.data.store import ExampleStore

ROWS = [
    (number, f'پرسش شماره‌ی {number}: کتاب‌ها «کجا» هستند؟ it\'s a 100% "test" :name %s', "ab"[number % 2])
    for number in range(1, 61)
]


@pytest.fixture(scope="module")
def postgres():
    with local_postgres() as server:
        server.run(
            "CREATE TABLE tickets (id int PRIMARY KEY, text text, label text, price numeric, at timestamptz,"
            " tags text[], more jsonb, code uuid, picture bytea)",
            "CREATE SEQUENCE counter",
            "CREATE ROLE reader LOGIN PASSWORD 'reader'",
            "GRANT SELECT ON tickets TO reader",
        )
        import psycopg

        known = {"host": "127.0.0.1", "port": server.port, "user": "owner", "dbname": "postgres"}
        with psycopg.connect(**known, password=PASSWORD) as connection:
            connection.cursor().executemany("INSERT INTO tickets (id, text, label) VALUES (%s, %s, %s)", ROWS)
        yield server


@pytest.fixture
def environment(tmp_path, monkeypatch):
    monkeypatch.setenv("TANZIM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PGPASSWORD", raising=False)
    monkeypatch.setenv("DB_PASSWORD", PASSWORD)


@pytest.fixture
def shop(tmp_path, environment):
    path = tmp_path / "shop file.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE tickets (id INTEGER, text TEXT, label TEXT)")
        connection.executemany("INSERT INTO tickets VALUES (?, ?, ?)", ROWS)
    connection.close()
    return path


def _config(url: str, query: str, **more: Any) -> DataConfig:
    source = {"type": "sql", "url": url, "query": query, **more.pop("source", {})}
    return DataConfig.model_validate({"sources": [source], "workers": 1, **more})


def _rows(url: str, query: str) -> list[dict[str, Any]]:
    return list(read_sql(SqlSource(type="sql", url=url, query=query)))


def _fetched(config: DataConfig) -> list[Any]:
    ((source, _),) = fetch_all(config, lambda *_: None)
    return list(read_snapshot(source.path, source.name, 10**6))


def test_the_same_rows_from_both_databases_and_a_file(shop: Path, postgres: Server, tmp_path: Path) -> None:
    """A CSV file of the rows, written by the standard library, is prepared into the same examples."""
    path = tmp_path / "rows.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "text", "label"])
        writer.writerows(ROWS)
    query = "SELECT id, text, label FROM tickets WHERE text LIKE '%test%' ORDER BY id"
    configs = {
        "csv": DataConfig(path=str(path), workers=1),
        "sqlite": _config(f"sqlite:///{shop}", query),
        "postgres": _config(postgres.url("${DB_PASSWORD}"), query),
    }
    found = {}
    for name, config in configs.items():
        report = prepare(config, tmp_path / name, seed=7)
        assert report.rows_read == 60
        splits = [ExampleStore(tmp_path / name / f"{split}.arrow") for split in report.splits]
        found[name] = [[(e.text, e.label, e.provenance.row) for e in split] for split in splits]
        assert PASSWORD not in str(report)
    assert found["csv"] == found["sqlite"] == found["postgres"]
    known = ExampleStore(tmp_path / "postgres" / "train.arrow")[0].provenance.source
    assert known.startswith(f"postgresql+psycopg://127.0.0.1:{postgres.port}/postgres (SELECT id")


def test_it_is_fetched_once(shop: Path) -> None:
    config = _config(f"sqlite:///{shop}", "SELECT * FROM tickets", source={"name": "tickets"})
    assert len(_fetched(config)) == 60
    with sqlite3.connect(shop) as connection:
        connection.execute("DELETE FROM tickets WHERE id > 10")
    connection.close()
    assert len(_fetched(config)) == 60
    again = config.model_copy(update={"refresh": True})
    (folder,) = (Path(os.environ["TANZIM_CACHE"]) / "sources").iterdir()
    assert folder.stat().st_mode & 0o077 == 0  # what a database holds is for its reader alone
    (folder / ".rows.jsonl.half").write_text("of a run that was killed")
    rows = _fetched(again)
    assert {path.name for path in folder.iterdir()} == {".lock", "fetched.json", "rows.jsonl"}
    assert [row.value["id"] for row in rows] == list(range(1, 11))
    assert {row.source for row in rows} == {"tickets"}


def test_examples_for_one_use_alone(shop: Path, tmp_path: Path) -> None:
    url, out = f"sqlite:///{shop}", tmp_path / "out"
    sources = [
        {"type": "sql", "url": url, "query": "SELECT * FROM tickets WHERE id <= 40"},
        {"type": "sql", "url": url, "query": "SELECT * FROM tickets WHERE id > 50", "use": "test"},
    ]
    config = {"sources": sources, "workers": 1, "split": {"validation": 0, "test": 0.3, "leakage": "allow"}}
    prepare(DataConfig.model_validate(config), out, seed=1)
    held = list(ExampleStore(out / "test.arrow"))
    assert {e.text for e in held} == {text for number, text, _ in ROWS if number > 50}
    assert len(ExampleStore(out / "train.arrow")) == 40


def test_kinds_of_columns(postgres: Server, environment: None) -> None:
    query = (
        "SELECT 12.50::numeric AS price, 3::numeric AS whole, true AS yes, NULL AS nothing, 1.5::float8 AS f,"
        " TIMESTAMPTZ '2026-03-21 00:00:00+03:30' AT TIME ZONE 'UTC' AS at, DATE '2026-03-21' AS day,"
        " ARRAY['الف', 'ب'] AS tags, '{\"a\": [1, \"می‌شود\"]}'::jsonb AS more,"
        " '00000000-0000-0000-0000-000000000001'::uuid AS code, 'سلام'::text::bytea AS bytes,"
        " '10.0.0.1'::inet AS host, INTERVAL '90 minutes' AS span"
    )
    (row,) = _fetched(_config(postgres.url("${DB_PASSWORD}"), query))
    assert row.value == {
        "price": "12.50", "whole": 3, "yes": True, "nothing": None, "f": 1.5, "at": "2026-03-20T20:30:00",
        "day": "2026-03-21", "tags": ["الف", "ب"], "more": {"a": [1, "می‌شود"]},
        "code": "00000000-0000-0000-0000-000000000001", "bytes": "سلام", "host": "10.0.0.1",
        "span": "1:30:00",
    }  # fmt: skip
    (row,) = _fetched(_config(postgres.url("${DB_PASSWORD}"), r"SELECT '\xff00'::bytea AS picture"))
    assert row.reason == "a column holds bytes that are not UTF-8 text"


def test_the_cursor_is_the_servers_and_nothing_can_be_written(postgres: Server, environment: None) -> None:
    url = postgres.url("${DB_PASSWORD}")
    (row,) = _rows(
        url, "SELECT count(*) AS cursors, current_setting('transaction_read_only') FROM pg_cursors"
    )
    assert row == {"cursors": 1, "current_setting": "on"}
    for query in (
        "SELECT nextval('counter')",
        "WITH gone AS (DELETE FROM tickets RETURNING id) SELECT * FROM gone",
        "SELECT 1; DROP TABLE tickets",
    ):
        with pytest.raises(DataError, match="refuses"):
            _rows(url, query)
    assert len(_rows(url, "SELECT id FROM tickets")) == 60


def test_sqlite_is_opened_for_reading_alone(shop: Path) -> None:
    before = shop.read_bytes()
    with pytest.raises(DataError, match="one statement at a time"):
        _rows(f"sqlite:///{shop}", "SELECT 1; DROP TABLE tickets")
    with pytest.raises(DataError, match="readonly database"):
        _rows(f"sqlite:///{shop}", "WITH x AS (SELECT 1) INSERT INTO tickets SELECT 1, 'a', 'b'")
    assert shop.read_bytes() == before
    for query in ("DROP TABLE tickets", "PRAGMA journal_mode=wal", "-- SELECT\nDELETE FROM tickets", "", "("):
        with pytest.raises(ValueError, match="query"):
            _config(f"sqlite:///{shop}", query)
    assert _config("sqlite:///x.db", " -- why\n /* SELECT */ (select 1)").sources


def _one_line(error: DataError) -> str:
    assert "\n" not in error.what
    assert PASSWORD not in str(error)
    assert "wrong-one" not in str(error)
    return error.what


def test_what_the_database_refuses_is_said_in_one_line(
    postgres: Server, environment: None, monkeypatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DB_PASSWORD", "wrong-one")
    cases = [
        (postgres.url("${DB_PASSWORD}"), "password authentication failed"),
        (postgres.url(), "no password supplied"),
        (postgres.url().replace(str(postgres.port), "1"), "refused"),
        (postgres.url().replace("127.0.0.1", "no-such-host.invalid"), "no-such-host.invalid"),
        (postgres.url().replace("/postgres", "/nothing"), "no password supplied"),
    ]
    for url, words in cases:
        with pytest.raises(DataError, match=words) as caught:
            _rows(url, "SELECT 1")
        _one_line(caught.value)
        assert "environment" in str(caught.value.fix)
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    assert _rows(postgres.url(), "SELECT 1 AS a") == [{"a": 1}]
    for query, words in (("SELECT * FROM nothing", "does not exist"), ("SELECT SELECT", "syntax error")):
        with pytest.raises(DataError, match=words) as caught:
            _rows(postgres.url(), query)
        assert "refuses the query" in _one_line(caught.value)
    with pytest.raises(DataError, match="permission denied"):
        monkeypatch.setenv("PGPASSWORD", "reader")
        _rows(postgres.url(user="reader"), "SELECT * FROM pg_authid")
    with pytest.raises(DataError, match="no such database file"):
        _rows(f"sqlite:///{tmp_path}/none.db", "SELECT 1")
    with pytest.raises(DataError, match="two columns the name 'a'"):
        monkeypatch.setenv("PGPASSWORD", PASSWORD)
        _rows(postgres.url(), "SELECT 1 AS a, 2 AS a")


def test_urls_that_are_refused(environment: None, monkeypatch) -> None:
    for url in (
        "postgresql://me:secret@host/db",
        "mysql+pymysql://me:secret@host/db",
        "postgresql://me:a${DB_PASSWORD}@host/db",
    ):
        with pytest.raises(ValueError, match=r"write (postgresql|mysql\+pymysql)://me:\$\{MY_PASSWORD\}@"):
            _config(url, "SELECT 1")
    with pytest.raises(ConfigError, match="URL of a database"):
        _rows("klingon://host/db", "SELECT 1")
    with pytest.raises(ConfigError, match="driver"):
        _rows("mssql+pymssql://host/db", "SELECT 1")
    monkeypatch.delenv("DB_PASSWORD")
    with pytest.raises(ConfigError, match="DB_PASSWORD is not set"):
        _rows("postgresql://me:${DB_PASSWORD}@host/db", "SELECT 1")


MEASURE = """
import resource, sys
from tanzim.data.ingest.config import SqlSource
from tanzim.data.ingest.sql import read_sql
rows = sum(1 for _ in read_sql(SqlSource(type="sql", url=sys.argv[1], query=sys.argv[2])))
print(rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_stays_flat(postgres: Server, environment: None) -> None:
    """Ten times the rows take no more memory; a cursor of the client would hold 200 MB of them."""
    peaks = []
    for rows in (20_000, 200_000):
        query = f"SELECT repeat(md5(i::text), 32) AS text FROM generate_series(1, {rows}) AS i"
        result = subprocess.run(
            [sys.executable, "-c", MEASURE, postgres.url("${DB_PASSWORD}"), query],
            capture_output=True, text=True, check=True, env=dict(os.environ),
        )  # fmt: skip
        found, peak = map(int, result.stdout.split())
        assert found == rows
        peaks.append(peak)
    assert peaks[1] < 1.1 * peaks[0]
