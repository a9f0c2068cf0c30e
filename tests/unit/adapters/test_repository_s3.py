"""The adapter repository on S3: a real client (s3fs) against a server that speaks S3 (moto)."""

from pathlib import Path

import pytest
from repository_race import check_race, content, race, small

from tanzim.adapters.repository import Repository
from tanzim.adapters.repository_state import Facts
from tanzim.core.errors import RunError


def test_add_promote_fetch_and_delete(bucket, tmp_path, monkeypatch):
    repository = Repository(f"s3://{bucket}/adapters")
    assert repository.entries() == []
    for seed in range(2):
        folder = small(tmp_path / str(seed), seed=seed)
        (folder / "sub").mkdir()
        (folder / "sub" / "note.txt").write_text("یادداشت")
        repository.add(folder, Facts("fa", "persian", text=f"number {seed}"))
        repository.promote("fa")
    other = Repository(f"s3://{bucket}/adapters/")
    assert [entry.ref for entry in other.search("number")] == ["fa@1", "fa@2"]
    entry, copy = other.fetch("persian")
    assert entry.ref == "fa@2"
    assert content(copy) == content(tmp_path / "1")
    assert copy == tmp_path / "cache" / "adapters" / entry.content
    assert repository.roll_back("persian").ref == "fa@1"
    assert content(other.fetch("persian")[1]) == content(tmp_path / "0")
    gone = repository.delete("fa@2")
    assert gone.entry.ref == "fa@2"
    assert not repository._store._fs.exists(f"{bucket}/adapters/objects/{entry.id}")
    assert [event["event"] for event in other.log()] == [
        "add",
        "promote",
        "add",
        "promote",
        "roll back",
        "delete",
    ]


def test_files_travel_once_and_are_checked(bucket, tmp_path, monkeypatch):
    repository = Repository(f"s3://{bucket}")
    entry = repository.add(small(tmp_path / "one"), Facts("fa", "persian"))
    fs = repository._store._fs
    travelled = []
    original = fs.get_file
    monkeypatch.setattr(fs, "get_file", lambda *args: travelled.append(args[0]) or original(*args))
    first = repository.folder(entry)
    assert len(travelled) == 3
    assert repository.folder(entry) == first
    assert len(travelled) == 3
    (first / "tanzim.json").unlink()
    assert content(repository.folder(entry)) == content(tmp_path / "one")
    for path in first.iterdir():
        path.unlink()
    key = f"{bucket}/objects/{entry.id}/adapter_model.safetensors"
    good = fs.cat_file(key)
    fs.pipe_file(key, good[:-1] + b"?")
    with pytest.raises(RunError, match=r"adapter_model\.safetensors is not the one that was recorded"):
        repository.folder(entry)
    fs.rm(key)
    with pytest.raises(RunError, match=r"has lost the file adapter_model\.safetensors"):
        repository.folder(entry)
    assert [path.name for path in (tmp_path / "cache" / "adapters").iterdir()] == [entry.content]


def test_a_key_is_created_once(bucket):
    store = Repository(f"s3://{bucket}/x")._store
    assert store.create("log/00000001.json", b"first")
    assert not store.create("log/00000001.json", b"second")
    assert store.read("log/00000001.json") == b"first"
    assert store.read("log/00000002.json") is None


def test_a_storage_that_overwrites_is_refused(bucket, tmp_path, monkeypatch):
    repository = Repository(f"s3://{bucket}/x")
    fs = repository._store._fs
    original = fs.pipe_file
    monkeypatch.setattr(fs, "pipe_file", lambda path, value, mode="overwrite": original(path, value))
    with pytest.raises(RunError, match="ignores the condition If-None-Match"):
        repository.add(small(tmp_path / "one"), Facts("fa", "persian"))
    assert repository.entries() == []


def test_processes_at_once_lose_nothing(bucket, tmp_path):
    folder = small(tmp_path / "one")
    check_race(race(f"s3://{bucket}/race", folder, 2, 4), 2, 4)


def test_what_cannot_be_reached_is_one_clear_error(s3, tmp_path, monkeypatch):
    folder = small(tmp_path / "one")
    with pytest.raises(RunError, match="the repository cannot be used") as error:
        Repository("s3://no-such-bucket/x").add(folder, Facts("fa", "persian"))
    assert "secret-of-the-test" not in str(error.value)
    with pytest.raises(RunError, match="names no bucket"):
        Repository("s3://")
    with pytest.raises(RunError, match="cannot be opened"):
        Repository("nosuchprotocol://bucket/x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(RunError, match="the repository cannot be used"):
        Repository("s3://bucket/x").entries()


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    import sys

    from tanzim.core.errors import MissingExtra

    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(MissingExtra) as error:
        Repository("s3://bucket/x")
    assert 'pip install "tanzim[s3]"' in str(error.value)
    assert Path(Repository(f"file://{tmp_path}/local").url) == tmp_path / "local"
