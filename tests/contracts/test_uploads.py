"""``/v1/uploads`` with the unmodified ``openai`` client, and what goes wrong with parts."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from helpers.serving import Lines, serving
from tanzim.infer.engine import Engine
from tanzim.serve.config import ServeConfig
from tanzim.serve.store import uploads as kept
from tanzim.serve.store.store import open_store

BYTES = random.Random(3).randbytes(300_000)
MIB = 1 << 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def client(engine: Engine, folder: Path) -> Iterator[openai.OpenAI]:
    bounds = {"max_file_mb": 1.0, "max_project_mb": 1.5}
    with (
        serving(engine, Lines(engine.tokenizer), {"tiny": None}, folder, **bounds) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as made,
    ):
        yield made


def begin(client: openai.OpenAI, size: int = len(BYTES)) -> str:
    upload = client.uploads.create(
        bytes=size, filename="../rows.jsonl", purpose="fine-tune", mime_type="text/jsonl"
    )
    assert (upload.status, upload.filename, upload.bytes) == ("pending", "rows.jsonl", size)
    assert upload.expires_at - upload.created_at == 3600
    return upload.id


def left(folder: Path) -> list[Path]:
    return [*(folder / "parts").glob("*"), *folder.glob(".upload-*")]


def test_parts_in_another_order_make_the_file(client: openai.OpenAI, folder: Path) -> None:
    upload = begin(client)
    second = client.uploads.parts.create(upload, data=BYTES[100_000:])
    first = client.uploads.parts.create(upload, data=BYTES[:100_000])
    assert (first.object, first.upload_id) == ("upload.part", upload)
    md5 = hashlib.md5(BYTES).hexdigest()
    done = client.uploads.complete(upload, part_ids=[first.id, second.id], md5=md5)
    assert done.status == "completed"
    assert done.file is not None
    assert client.files.content(done.file.id).read() == BYTES
    assert [(f.id, f.filename, f.bytes) for f in client.files.list()] == [
        (done.file.id, "rows.jsonl", len(BYTES))
    ]
    assert left(folder) == []
    with pytest.raises(openai.BadRequestError, match="completed"):
        client.uploads.complete(upload, part_ids=[first.id, second.id])


def test_the_clients_own_upload_in_chunks(client: openai.OpenAI) -> None:
    made = client.uploads.upload_file_chunked(
        file=BYTES,
        filename="rows.jsonl",
        bytes=len(BYTES),
        mime_type="text/jsonl",
        purpose="fine-tune",
        part_size=65_536,
    )
    assert made.file is not None
    assert client.files.content(made.file.id).read() == BYTES


def test_what_does_not_fit_together_is_refused_and_can_be_mended(client: openai.OpenAI, folder: Path) -> None:
    upload, other = begin(client), begin(client, 10)
    part = client.uploads.parts.create(upload, data=BYTES[:-1]).id
    foreign = client.uploads.parts.create(other, data=b"x").id
    for parts, why in (
        ([part], "299999 bytes together"),
        ([part, part], "there twice"),
        ([part, foreign], "has no part"),
        (["part-none"], "has no part"),
    ):
        with pytest.raises(openai.BadRequestError, match=why) as caught:
            client.uploads.complete(upload, part_ids=parts)
        assert caught.value.param == "part_ids"
    with pytest.raises(openai.BadRequestError, match="declared"):
        client.uploads.parts.create(upload, data=b"xy")
    with pytest.raises(openai.BadRequestError, match="empty"):
        client.uploads.parts.create(upload, data=b"")
    last = client.uploads.parts.create(upload, data=BYTES[-1:]).id
    with pytest.raises(openai.BadRequestError) as caught:
        client.uploads.complete(upload, part_ids=[last, part], md5=hashlib.md5(BYTES).hexdigest())
    assert caught.value.param == "md5"
    assert list(client.files.list()) == []
    done = client.uploads.complete(upload, part_ids=[part, last], md5=hashlib.md5(BYTES).hexdigest().upper())
    assert done.status == "completed"
    assert client.uploads.cancel(other).status == "cancelled"
    assert left(folder) == []
    with pytest.raises(openai.BadRequestError, match="cancelled"):
        client.uploads.parts.create(other, data=b"x")
    with pytest.raises(openai.NotFoundError):
        client.uploads.cancel("upload-none")


def test_quotas_hold_for_what_is_declared_and_for_what_comes(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        begin(client, MIB + 1)
    assert caught.value.code == "file_too_large"
    upload = begin(client, MIB)
    with pytest.raises(openai.BadRequestError) as caught:
        begin(client, MIB)
    assert caught.value.code == "storage_full"
    with pytest.raises(openai.BadRequestError) as caught:
        client.files.create(file=("x.jsonl", b"x" * (MIB // 2 + 1)), purpose="fine-tune")
    assert caught.value.code == "storage_full"
    with pytest.raises(openai.APIStatusError) as sent:
        client.uploads.parts.create(upload, data=b"x" * (2 * MIB))
    assert sent.value.status_code == 413
    client.uploads.cancel(upload)
    begin(client, MIB)


def test_an_hour_ends_an_upload(client: openai.OpenAI, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = begin(client)
    client.uploads.parts.create(upload, data=b"x")
    now = time.time()
    monkeypatch.setattr(kept.time, "time", lambda: now + 3601)
    with pytest.raises(openai.BadRequestError, match="expired"):
        client.uploads.parts.create(upload, data=b"x")
    assert left(folder) == []


def test_two_servers_agree_on_who_completes(tmp_path: Path) -> None:
    config = ServeConfig(folder=str(tmp_path))
    one, two = open_store(config), open_store(config)
    row = one.uploads.add("a", "x", "fine-tune", 1, 10)
    assert [store.uploads.end(row["id"], "completed") for store in (one, two)] == [True, False]
    one.close()
    two.close()
