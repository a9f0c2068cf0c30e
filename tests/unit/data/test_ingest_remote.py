"""Files elsewhere: on a server that speaks S3 (moto), behind web addresses, on other storages of fsspec."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs
import yaml
from local_site import Site, local_site

from tanzim.core.errors import ConfigError, DataError
from tanzim.data.config import DataConfig
from tanzim.data.ingest.guard import Guard
from tanzim.data.ingest.read import ingest
from tanzim.data.ingest.remote import RemoteFile, find_remote, on_disk
from tanzim.data.ingest.sources import find
from tanzim.data.inspect import inspect
from tanzim.data.prepare import prepare
from tanzim.data.store import ExampleStore

ROWS = [{"text": f"سطر شماره‌ی {n} از میان ردیف‌ها، با نیم‌فاصله", "label": "ab"[n % 2]} for n in range(40)]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
WHOLE = {"split": {"validation": 0, "test": 0, "leakage": "allow"}, "workers": 1}


def _parquet() -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), stream)
    return stream.getvalue()


def _csv() -> bytes:
    return ("text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in ROWS)).encode("utf-16")


FILES = {
    "lines.jsonl": LINES,
    "packed.jsonl.gz": gzip.compress(LINES),
    "table.parquet": _parquet(),
    "table.csv": _csv(),
    "array.json": json.dumps(ROWS, ensure_ascii=False).encode(),
}


@pytest.fixture
def bucket(bucket: str) -> str:
    for file, data in FILES.items():
        _put(bucket, f"in/{file}", data)
    _put(bucket, "in/README.md", b"about")
    _put(bucket, "in/deep/er/more.jsonl", LINES)
    return bucket


def _put(bucket: str, key: str, data: bytes) -> None:
    import boto3

    client = boto3.client("s3")
    client.put_object(Bucket=bucket, Key=key, Body=data)
    client.close()


@pytest.fixture
def site():
    with local_site() as one:
        yield one


def _texts(out: Path) -> list[Any]:
    return [(e.text, e.label, e.provenance.row) for e in ExampleStore(out / "train.arrow")]


@pytest.mark.parametrize("name", FILES)
def test_a_file_on_s3_gives_what_the_same_file_gives_here(bucket: str, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(FILES[name])
    url = f"s3://{bucket}/in/{name}"
    here = prepare(DataConfig(path=str(tmp_path / name), **WHOLE), tmp_path / "here", seed=1)
    there = prepare(DataConfig(path=url, **WHOLE), tmp_path / "there", seed=1)
    assert there.rows_read == 40
    assert _texts(tmp_path / "there") == _texts(tmp_path / "here")
    (known,) = there.files
    assert known["path"] == url
    assert known["bytes"] == len(FILES[name]) == here.files[0]["bytes"]
    assert known["version"] == f'"{hashlib.md5(FILES[name], usedforsecurity=False).hexdigest()}"'
    assert ExampleStore(tmp_path / "there" / "train.arrow")[0].provenance.source == url


def test_folders_and_patterns(bucket: str) -> None:
    def names(path: str) -> list[str]:
        return [one.name.removeprefix(f"s3://{bucket}/") for one in find(path).sources]

    assert names(f"s3://{bucket}/in/*.jsonl") == ["in/lines.jsonl"]
    assert names(f"s3://{bucket}/in/**/*.jsonl") == ["in/deep/er/more.jsonl", "in/lines.jsonl"]
    every = [f"in/{name}" for name in sorted([*FILES, "deep/er/more.jsonl"])]
    assert names(f"s3://{bucket}/in") == names(f"s3://{bucket}/in/") == every
    assert find(f"s3://{bucket}/in").skipped == [f"s3://{bucket}/in/README.md"]
    for path in (f"s3://{bucket}/none.csv", f"s3://{bucket}/none/*.csv", "s3://no-such-bucket-here/a.csv"):
        with pytest.raises(DataError, match=r"no such|no file") as caught:
            find(path)
        assert caught.value.where == path


def test_it_is_read_again_when_it_changed_and_only_then(bucket: str, tmp_path: Path) -> None:
    config = DataConfig(path=f"s3://{bucket}/in/lines.jsonl", **WHOLE)
    cache = tmp_path / "steps"

    def run(name: str) -> int:
        return prepare(config, tmp_path / name, seed=1, cache=cache).rows_read

    assert run("one") == 40
    (kept,) = [path for path in cache.glob("read-*") if (path / "done.json").is_file()]
    before = (kept / "done.json").stat().st_mtime_ns
    assert run("two") == 40
    assert (kept / "done.json").stat().st_mtime_ns == before
    _put(bucket, "in/lines.jsonl", LINES.replace("سطر".encode(), "خط".encode()))
    assert run("three") == 40
    assert _texts(tmp_path / "three")[0][0].startswith("خط")


def test_a_change_while_it_is_read_is_seen(bucket: str) -> None:
    (file,) = find_remote(f"s3://{bucket}/in/lines.jsonl", Guard())
    assert file.unchanged()
    _put(bucket, "in/lines.jsonl", LINES + b"{}\n")
    assert not file.unchanged()


def test_it_is_not_read_into_memory(bucket: str, monkeypatch) -> None:
    """The first rows of a file of 24 MB are there before a third of it was asked for."""
    from s3fs.core import S3File

    line = json.dumps({"text": "word " * 200}) + "\n"
    _put(bucket, "large.jsonl", line.encode() * 24_000)
    asked = []
    real = S3File._fetch_range
    monkeypatch.setattr(S3File, "_fetch_range", lambda self, a, b: asked.append(b - a) or real(self, a, b))
    (source,) = find(f"s3://{bucket}/large.jsonl").sources
    one = ingest(source, DataConfig())
    rows = one.items()
    assert next(rows).text.startswith("word")
    assert sum(asked) < 16_000_000
    assert max(asked) < 9_000_000
    assert sum(1 for _ in rows) == 23_999


def test_wrong_credentials_are_one_line(s3: str, monkeypatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(DataError, match="credentials") as caught:
        find("s3://bucket-without/in/lines.jsonl")
    assert "\n" not in caught.value.what
    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "other")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-test")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(DataError, match=r"127\.0\.0\.1:9") as caught:
        find("s3://bucket-elsewhere/in/lines.jsonl")
    assert "secret-of-the-test" not in str(caught.value)


def test_urls_that_are_refused(s3: str) -> None:
    for url in ("zip://a.csv::https://10.0.0.1/x.zip", "klingon://host/a.csv"):
        with pytest.raises(ConfigError):
            find(url)
    for url in ("sftp://me:secret@host/a.csv", "https://me:secret@host/a.csv"):
        with pytest.raises(ValueError, match="password does not belong"):
            DataConfig(path=url)


def test_any_storage_that_fsspec_knows(s3: str) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/place/a.jsonl", LINES)
    try:
        (source,) = find("memory://place/*.jsonl").sources
        assert source.name == "memory://place/a.jsonl"
        assert [e.text for e in ingest(source, DataConfig()).items()] == [row["text"] for row in ROWS]
        assert source.path.unchanged()
    finally:
        memory.rm("/place", recursive=True)


@pytest.mark.parametrize("name", FILES)
def test_a_file_behind_a_web_address(site: Site, s3: str, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(FILES[name])
    site.pages[f"/{name}?key=1"] = (200, {"ETag": '"v1"'}, FILES[name])
    site.pages["/moved"] = (302, {"Location": f"/{name}?key=1"}, b"")
    url = f"{site.url}/{name}?key=1"
    allowed = {**WHOLE, "allow_hosts": ["127.0.0.0/8"]}
    prepare(DataConfig(path=str(tmp_path / name), **WHOLE), tmp_path / "here", seed=1)
    there = prepare(DataConfig(path=url, **allowed), tmp_path / "there", seed=1)
    assert _texts(tmp_path / "there") == _texts(tmp_path / "here")
    assert there.files[0]["version"] == '"v1"'
    with pytest.raises(DataError, match="not public"):
        prepare(DataConfig(path=url, **WHOLE), tmp_path / "refused", seed=1)


def test_a_password_for_a_web_address_comes_from_the_environment(site: Site, monkeypatch) -> None:
    wanted = "Basic " + base64.b64encode("من:p@ss/word".encode()).decode()

    def page(handler: Any) -> Any:
        good = handler.headers.get("Authorization") == wanted
        return (200, {}, LINES) if good else (401, {}, b"who are you")

    site.pages["/a.jsonl"] = page
    monkeypatch.setenv("SITE_PASSWORD", "p@ss/word")
    url = site.url.replace("//", "//%D9%85%D9%86:${SITE_PASSWORD}@") + "/a.jsonl"
    (source,) = find(url, allow=["127.0.0.1"]).sources
    assert "p@ss" not in source.name
    assert len(list(ingest(source, DataConfig()).items())) == 40
    monkeypatch.setenv("SITE_PASSWORD", "wrong-one")
    with pytest.raises(DataError, match="401 Unauthorized") as caught:
        find(url, allow=["127.0.0.1"])
    assert "wrong-one" not in str(caught.value)


def test_a_web_file_that_redirects_to_this_machine(site: Site) -> None:
    site.pages["/a.jsonl"] = (302, {"Location": "http://127.0.0.2/secret"}, b"")
    with pytest.raises(DataError, match="not public"):
        find(f"{site.url}/a.jsonl", allow=["127.0.0.1"])


def test_a_web_file_that_is_cut_short(site: Site, s3: str, tmp_path: Path) -> None:
    config = DataConfig(path=f"{site.url}/a.jsonl", allow_hosts=["127.0.0.1"], **WHOLE)

    def short(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(LINES)))
        handler.end_headers()
        handler.wfile.write(LINES[:-100])

    site.pages["/a.jsonl"] = short
    with pytest.raises(DataError, match="ended early"):
        prepare(config, tmp_path / "out", seed=1)


def test_a_document_elsewhere(bucket: str, tmp_path: Path) -> None:
    text = "<p>این رودخانه از کوه‌های پشت شهر سرچشمه می‌گیرد و پس از نود کیلومتر به دریا می‌رسد.</p>" * 5
    page = f"<html><head><meta charset=utf-8></head><body><article>{text}</article></body></html>".encode()
    _put(bucket, "in/page.html", page)
    (tmp_path / "page.html").write_bytes(page)
    found = []
    for path in (f"s3://{bucket}/in/page.html", str(tmp_path / "page.html")):
        (source,) = find(path).sources
        found.append([example.text for example in ingest(source, DataConfig()).items()])
    assert found[0] == found[1]
    assert "کوه‌های" in found[0][0]


def test_the_example_of_the_guide_is_a_config() -> None:
    guide = (Path(__file__).parents[3] / "docs" / "sources.md").read_text(encoding="utf-8")
    example = yaml.safe_load(guide.partition("```yaml\n")[2].partition("```")[0])
    config = DataConfig.model_validate(example["data"])
    assert [source.type for source in config.sources] == ["sql", "web", "airbyte"]


def test_inspect_looks_at_remote_files(bucket: str) -> None:
    found = inspect(f"s3://{bucket}/in/packed.jsonl.gz", DataConfig())
    assert (found.format, found.rows) == ("labelled", 40)


def test_a_copy_for_readers_that_need_a_file(bucket: str) -> None:
    (file,) = find_remote(f"s3://{bucket}/in/table.parquet", Guard())
    with on_disk(file) as path:
        assert path.name == "table.parquet"
        assert path.read_bytes() == FILES["table.parquet"]
    assert not path.exists()
    assert isinstance(file, RemoteFile)
    with file.open() as stream:
        stream.seek(-4, 2)
        assert stream.read() == b"PAR1"
