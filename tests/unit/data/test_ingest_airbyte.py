"""Airbyte connectors: a scripted one that speaks the protocol, and a real one from the registry (slow)."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tanzim.core.errors import ConfigError, DataError
from tanzim.core.files import write_json
from tanzim.data.config import DataConfig
from tanzim.data.ingest.fetch import fetch_all
from tanzim.data.ingest.snapshot import read_snapshot
from tanzim.data.prepare import prepare
from tanzim.data.store import ExampleStore

# The scripted connector: "notes" tells what is new by its id, "labels" is sent whole each time. What it holds
# and where it breaks stands in a file that the test writes; what it was told is noted beside it.
CONNECTOR = """#!{python}
import json, os, sys
from pathlib import Path
world = Path("{world}")
says = json.loads((world / "world.json").read_text())
def say(**message): print(json.dumps(message), flush=True)
verb = sys.argv[1]
given = dict(zip(sys.argv[2::2], sys.argv[3::2]))
def load(name): return json.loads(Path(given[name]).read_text())
print("this line is no message")
if verb == "spec":
    secret = {{"type": "string", "airbyte_secret": True}}
    auth = {{"oneOf": [{{"properties": {{"token": secret}}}}, {{"properties": {{"user": {{}}}}}}]}}
    properties = {{"password": secret, "place": {{"type": "string"}}, "auth": auth}}
    say(type="SPEC", spec={{"connectionSpecification": {{"type": "object", "properties": properties}}}})
elif verb == "check":
    config = load("--config")
    (world / "told.json").write_text(json.dumps({{"config": config, "env": dict(os.environ)}}))
    good = config.get("password") == "open sesame"
    say(type="CONNECTION_STATUS", connectionStatus={{"status": "SUCCEEDED" if good else "FAILED",
        "message": "wrong password: " + str(config.get("password"))}})
elif verb == "discover":
    notes = {{"name": "notes", "json_schema": {{}}, "supported_sync_modes": ["full_refresh", "incremental"],
        "source_defined_cursor": True, "default_cursor_field": ["at"],
        "source_defined_primary_key": [["id"]]}}
    labels = {{"name": "labels", "json_schema": {{}}, "supported_sync_modes": ["full_refresh"]}}
    say(type="CATALOG", catalog={{"streams": [notes, labels]}})
elif verb == "read":
    chosen = {{one["stream"]["name"]: one for one in load("--catalog")["streams"]}}
    at = 0
    for state in load("--state"):
        at = state["stream"]["stream_state"]["at"]
    (world / "state.json").write_text(json.dumps(load("--state")))
    for note in says["notes"] if "notes" in chosen else []:
        if note["at"] <= at:
            continue
        say(type="RECORD", record={{"stream": "notes", "data": note, "emitted_at": 1700000000000}})
        if note["at"] % 2 == 0:
            say(type="STATE", state={{"type": "STREAM", "stream": {{"stream_descriptor": {{"name": "notes"}},
                "stream_state": {{"at": note["at"]}}}}}})
        if says.get("breaks") == note["at"]:
            fault = {{"message": "lost open sesame\\nand more"}}
            say(type="TRACE", trace={{"type": "ERROR", "error": fault}})
            sys.exit(1)
    for label in says["labels"] if "labels" in chosen else []:
        say(type="RECORD", record={{"stream": "labels", "data": label, "emitted_at": 1700000000000}})
"""
NAME = "airbyte-source-scripted"
FAKER = "airbyte-source-faker==7.2.1"


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A scripted connector where `installed` looks for it."""
    cache, folder = tmp_path / "cache", tmp_path / "world"
    monkeypatch.setenv("TANZIM_CACHE", str(cache))
    monkeypatch.setenv("SESAME", "open sesame")
    monkeypatch.setenv("ANOTHER_SECRET", "of another program")
    key = hashlib.sha256(f"{NAME} {sys.executable}".encode()).hexdigest()[:12]
    home = cache / "airbyte" / f"{NAME}-{key}"
    (home / "bin").mkdir(parents=True)
    folder.mkdir()
    script = home / "bin" / "source-scripted"
    script.write_text(CONNECTOR.format(python=sys.executable, world=folder))
    script.chmod(0o755)
    write_json(home / "program.json", {"command": "source-scripted", "version": "1.2.3"})
    return folder


def _says(world: Path, notes: list[Any], labels: list[Any] = [], **more: Any) -> None:  # noqa: B006
    write_json(world / "world.json", {"notes": notes, "labels": labels, **more})


def _config(refresh: bool = False, **more: Any) -> DataConfig:
    settings = {"password": "${SESAME}", "place": "تهران", **more.pop("config", {})}
    source = {"type": "airbyte", "connector": NAME, "config": settings, **more}
    return DataConfig.model_validate({"sources": [source], "refresh": refresh, "workers": 1})


def _read(config: DataConfig) -> dict[str, list[Any]]:
    return {
        source.name: [row.value for row in read_snapshot(source.path, source.name, 10**6)]
        for source, _ in fetch_all(config, lambda *_: None)
    }


def _note(number: int, at: int, text: str) -> dict[str, Any]:
    return {"id": number, "at": at, "text": text}


def test_streams_become_sources(world: Path, tmp_path: Path) -> None:
    notes = [_note(n, n, f"یادداشت شماره‌ی {n} دربارهٔ کتاب‌ها و نویسنده‌های آن‌ها") for n in range(1, 31)]
    _says(world, notes, [{"text": f"label text {n}", "label": "ab"[n % 2]} for n in range(30)])
    report = prepare(_config(streams=["notes"], name="our notes"), tmp_path / "out", seed=3)
    assert report.rows_read == 30
    (known,) = report.files
    assert known["fetched"]["connector"] == f"{NAME}==1.2.3"
    assert known["fetched"]["sync"] == "incremental"
    example = ExampleStore(tmp_path / "out" / "train.arrow")[0]
    assert example.provenance.source == "our notes/notes"
    assert example.text == notes[example.provenance.row - 1]["text"]
    assert example.about["fetched"] == "2023-11-14T22:13:20+00:00"
    assert set(_read(_config())) == {f"{NAME}/notes", f"{NAME}/labels"}


def test_an_incremental_stream_goes_on(world: Path) -> None:
    labels = [{"text": "one", "label": "a"}]
    _says(world, [_note(1, 1, "first"), _note(2, 2, "second"), _note(3, 3, "third, without a state")], labels)
    first = _read(_config())
    assert [note["text"] for note in first[f"{NAME}/notes"]] == ["first", "second", "third, without a state"]
    assert json.loads((world / "state.json").read_text()) == []
    # Not asked again, until it is wanted; then from the last state on, and of each key the latest.
    _says(world, [_note(3, 3, "third"), _note(1, 4, "first, changed"), _note(4, 5, "fourth")], labels)
    assert _read(_config()) == first
    second = _read(_config(refresh=True))
    state = json.loads((world / "state.json").read_text())
    assert state[0]["stream"]["stream_state"] == {"at": 2}
    texts = [note["text"] for note in second[f"{NAME}/notes"]]
    assert texts == ["second", "third", "first, changed", "fourth"]
    assert second[f"{NAME}/labels"] == labels  # sent whole, taken once
    gone = {**_note(2, 6, ""), "_ab_cdc_deleted_at": "2026-01-01"}
    _says(world, [_note(4, 5, "fourth"), gone])
    third = _read(_config(refresh=True))
    assert [note["text"] for note in third[f"{NAME}/notes"]] == ["third", "first, changed", "fourth"]
    assert third[f"{NAME}/labels"] == []


def test_what_breaks_off_goes_on_without_loss_or_repeat(world: Path) -> None:
    notes = [_note(n, n, f"note {n}") for n in range(1, 8)]
    _says(world, notes, breaks=5)
    with pytest.raises(DataError, match="lost") as caught:
        _read(_config())
    assert "open sesame" not in str(caught.value)
    assert "***" in str(caught.value)
    assert caught.value.where == f"{NAME} 1.2.3"
    _says(world, notes)
    found = _read(_config())[f"{NAME}/notes"]
    assert found == notes
    # The first state was written down; at which one it broke off depends on nothing but the protocol.
    assert json.loads((world / "state.json").read_text())[0]["stream"]["stream_state"]["at"] == 2


def test_secrets(world: Path, monkeypatch) -> None:
    _says(world, [_note(1, 1, "x")])
    for settings in ({"password": "open sesame"}, {"auth": {"token": "abc"}}):
        with pytest.raises(ConfigError, match="is a secret"):
            _read(_config(config=settings))
    assert not (world / "told.json").exists()
    monkeypatch.setenv("SESAME", "let me in")
    with pytest.raises(DataError, match="wrong password") as caught:
        _read(_config())
    assert "let me in" not in str(caught.value)
    monkeypatch.setenv("SESAME", "open sesame")
    _read(_config())
    told = json.loads((world / "told.json").read_text())
    assert told["config"] == {"password": "open sesame", "place": "تهران"}
    assert "ANOTHER_SECRET" not in told["env"]
    assert told["env"]["DO_NOT_TRACK"] == "1"
    home = Path(told["env"]["HOME"])
    assert not home.exists()  # the file with the password is gone
    cache = Path(os.environ["TANZIM_CACHE"])
    kept = [path for path in cache.rglob("*") if path.is_file() and "sources" in path.parts]
    assert kept
    assert not any(b"sesame" in path.read_bytes() for path in kept)
    monkeypatch.delenv("SESAME")
    with pytest.raises(ConfigError, match="SESAME is not set"):
        _read(_config(refresh=True))


def test_wrong_settings(world: Path) -> None:
    _says(world, [])
    with pytest.raises(ConfigError, match="no stream 'note'") as caught:
        _read(_config(streams=["note"]))
    assert "labels, notes" in str(caught.value)
    for name in ("../x", "pkg @ https://x.example/p.whl", "-r requirements.txt", "a b"):
        with pytest.raises(ValueError, match="connector"):
            DataConfig.model_validate({"sources": [{"type": "airbyte", "connector": name}]})
    with pytest.raises(DataError, match="make an environment"):
        _read(_config(python="/no/such/python"))


def test_a_message_without_end(world: Path) -> None:
    _says(world, [_note(1, 1, "x" * 2_000_000)])
    config = _config().model_copy(update={"max_line_mb": 1.0})
    with pytest.raises(DataError, match=r"above data\.max_line_mb"):
        _read(config)


@pytest.mark.slow
def test_a_connector_from_the_registry(tmp_path: Path, monkeypatch) -> None:
    """Installed by pip into an environment of its own; what it sends is what it sends when called by hand."""
    monkeypatch.setenv("TANZIM_CACHE", str(tmp_path / "cache"))
    settings = {"count": 40, "seed": 5, "records_per_slice": 10, "parallelism": 1, "always_updated": False}
    source = {"type": "airbyte", "connector": FAKER, "streams": ["users"], "config": settings}
    config = DataConfig.model_validate({"sources": [source], "columns": {"text": "name", "label": "gender"}})
    report = prepare(config, tmp_path / "out", seed=1)
    assert report.rows_read == 40
    assert report.files[0]["fetched"]["connector"] == FAKER
    (rows,) = _read(config).values()
    (home,) = (tmp_path / "cache" / "airbyte").iterdir()
    packages = subprocess.run(
        [sys.executable, "-m", "pip", "list"], capture_output=True, text=True, check=True
    ).stdout
    assert "airbyte" not in packages
    # By hand, as the protocol's documentation has it.
    program = [str(home / "bin" / "source-faker")]
    (tmp_path / "config.json").write_text(json.dumps(settings))
    given = ["--config", str(tmp_path / "config.json")]
    found = _by_hand([*program, "discover", *given], "CATALOG")[0]["catalog"]["streams"]
    users = next(one for one in found if one["name"] == "users")
    catalog = {"stream": users, "sync_mode": "full_refresh", "destination_sync_mode": "append"}
    (tmp_path / "catalog.json").write_text(json.dumps({"streams": [catalog]}))
    more = ["--catalog", str(tmp_path / "catalog.json")]
    expected = [one["record"]["data"] for one in _by_hand([*program, "read", *given, *more], "RECORD")]
    times = ("updated_at", "created_at")
    strip = [{k: v for k, v in one.items() if k not in times} for one in expected]
    assert [{k: v for k, v in one.items() if k not in times} for one in rows] == strip
    # What is new since the last state: nothing, so the same rows stand.
    again = DataConfig.model_validate({**config.model_dump(exclude_unset=True), "refresh": True})
    assert list(_read(again).values()) == [rows]


def _by_hand(command: list[str], kind: str) -> list[Any]:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    messages = [json.loads(line) for line in done.stdout.splitlines()]
    return [message for message in messages if message["type"] == kind]


@pytest.mark.slow
def test_a_connector_that_is_not_there(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TANZIM_CACHE", str(tmp_path))
    source = {"type": "airbyte", "connector": "airbyte-source-faker==0.0.0.1"}
    config = DataConfig.model_validate({"sources": [source]})
    with pytest.raises(DataError, match="cannot install the connector") as caught:
        list(fetch_all(config, lambda *_: None))
    assert "0.0.0.1" in str(caught.value)
