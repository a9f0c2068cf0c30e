"""Uploads made to harm: odd forms, odd names and odd bytes, to both routes."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from helpers.properties import examples
from helpers.serving import Lines, serving
from tanzim.infer.engine import Engine

LONG = 120
ROW = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
LINE = json.dumps(ROW).encode() + b"\n"
# What may stand in a file that is called training data.
FILES: dict[str, bytes] = {
    "one byte": b"\0",
    "nothing but ends of lines": b"\n" * 10_000,
    "not UTF-8": LINE + b"\xff\xfe\x00\xd8" * 50,
    "UTF-16": (LINE * 3).decode().encode("utf-16"),
    "a mark before the first line": b"\xef\xbb\xbf" + LINE * 3,
    "half a character": LINE + b'{"messages": "\\ud800"}\n',
    "packed": gzip.compress(LINE * 1000),
    "a bomb": gzip.compress(bytes(50 << 20)),
    "an archive": b"PK\x03\x04" + bytes(200),
    "a program": b"\x7fELF" + bytes(200),
    "a pickle": b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.",
    "deep": b"[" * 200_000 + b"\n",
    "deep and closed": b'{"messages": ' + b"[" * 900 + b"]" * 900 + b"}\n",
    "a number of many digits": b'{"messages": ' + b"9" * 50_000 + b"}\n",
    "no numbers": b'{"messages": [NaN, Infinity, -Infinity]}\n',
    "a key twice": b'{"messages": 1, "messages": []}\n',
    "one long line": b'{"messages": [{"role": "user", "content": "' + b"x" * 2_000_000 + b'"}]}\n',
    "roles": LINE + b'{"messages": [{"role": "root", "content": "a"}]}\n',
    "no content": LINE + b'{"messages": [{"role": "user"}, {"role": "assistant", "content": null}]}\n',
    "signs of the template": json.dumps(
        {"messages": [{"role": "user", "content": "<|im_end|>{{ 7 * 7 }}{% for a in b %}"},
                      {"role": "assistant", "content": "<|im_start|>system\n"}]}
    ).encode() + b"\n",
    "paths": LINE + b'{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": '
    b'{"url": "file:///etc/passwd"}}]}, {"role": "assistant", "content": "b"}]}\n',
    "a list": b"[1, 2, 3]\n",
    "a table": b"prompt,completion\na,b\n",
}  # fmt: skip
NAMES = [
    "../../../etc/passwd", "..\\..\\boot.ini", "a\0b.jsonl", "a\nb\r\n.jsonl", "\x1b[2J.jsonl",
    "\u202elnosj.a",
    "x" * 10_000, "", ".", "..", "/", "con", "a.jsonl.gz", "سلام\u200cدنیا.jsonl", "%2e%2e%2f", "$(id)",
    "'; --",
]  # fmt: skip


@pytest.fixture
def client(
    tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> Iterator[httpx.Client]:
    engine = Engine(tiny_model, tiny_tokenizer, stop_ids=[2], base_hash="0" * 64)
    place = tmp_path / "server"
    with (
        serving(engine, Lines(tiny_tokenizer), {"tiny": None}, place, max_file_mb=4.0) as url,
        httpx.Client(base_url=f"{url}/v1", timeout=LONG) as made,
    ):
        yield made
    assert {path.name for path in tmp_path.iterdir()} == {"server"}  # nothing lies outside
    assert not list(place.glob(".upload-*"))


def sound(answer: httpx.Response) -> httpx.Response:
    """Return an answer that is one of the API's own."""
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    return answer


def by_file(client: httpx.Client, name: str, content: bytes) -> httpx.Response:
    form = {"files": {"file": (name, content)}, "data": {"purpose": "fine-tune"}}
    return sound(client.post("/files", **form))


def by_parts(client: httpx.Client, name: str, content: bytes) -> httpx.Response:
    begun = {"filename": name, "purpose": "fine-tune", "bytes": len(content), "mime_type": "text/jsonl"}
    upload = sound(client.post("/uploads", json=begun))
    if upload.status_code != 200:
        return upload
    id_, cut, ids = upload.json()["id"], len(content) // 2, []
    for part in filter(None, (content[:cut], content[cut:])):
        ids.append(sound(client.post(f"/uploads/{id_}/parts", files={"data": part})).json()["id"])
    return sound(client.post(f"/uploads/{id_}/complete", json={"part_ids": ids}))


def test_every_file_comes_back_as_it_went_under_a_harmless_name(client: httpx.Client) -> None:
    for number, (kind, content) in enumerate(FILES.items()):
        name = NAMES[number % len(NAMES)]
        for send in (by_file, by_parts):
            made = send(client, name, content)
            if made.status_code != 200:
                assert made.status_code == 400, kind
                assert not 0 < len(name) < 1000, kind  # without a name it is no file; heads are bounded
                continue
            file = made.json().get("file") or made.json()
            assert client.get(f"/files/{file['id']}/content").content == content, kind
            shown = file["filename"]
            assert 0 < len(shown) <= 255
            assert not set(shown) & set("/\\\0\n\r\x1b\u202e")


@examples(40)
@given(name=st.text(max_size=40), content=st.binary(min_size=1, max_size=2000), twice=st.booleans())
def test_any_name_and_any_bytes(client: httpx.Client, name: str, content: bytes, twice: bool) -> None:
    encoded = name.encode("utf-8", "replace").decode()
    for send in (by_file, by_parts) if twice else (by_parts,):
        made = send(client, encoded, content)
        if made.status_code == 200:
            file = made.json().get("file") or made.json()
            assert client.get(f"/files/{file['id']}/content").content == content


HEAD = b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
FILE = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nbytes\r\n'
FORMS: dict[str, tuple[bytes, bytes]] = {
    "no end": (b"multipart/form-data; boundary=x", HEAD + FILE),
    "cut in a head": (b"multipart/form-data; boundary=x", HEAD + FILE[:30]),
    "no boundary": (b"multipart/form-data", HEAD + FILE + b"--x--\r\n"),
    "another boundary": (b"multipart/form-data; boundary=y", HEAD + FILE + b"--x--\r\n"),
    "a long boundary": (b"multipart/form-data; boundary=" + b"x" * 5000, HEAD),
    "no file": (b"multipart/form-data; boundary=x", HEAD + b"--x--\r\n"),
    "a text for a file": (
        b"multipart/form-data; boundary=x",
        HEAD + FILE.replace(b'; filename="a"', b"") + b"--x--",
    ),
    "two files": (b"multipart/form-data; boundary=x", HEAD + FILE + FILE + b"--x--\r\n"),
    "many texts": (b"multipart/form-data; boundary=x", HEAD * 5000 + FILE + b"--x--\r\n"),
    "a large text": (
        b"multipart/form-data; boundary=x",
        HEAD.replace(b"fine-tune", b"x" * 200_000) + FILE + b"--x--",
    ),
    "many heads": (
        b"multipart/form-data; boundary=x",
        HEAD + b"--x\r\n" + b"A: b\r\n" * 20_000 + b"\r\n\r\n--x--\r\n",
    ),
    "a long head": (
        b"multipart/form-data; boundary=x",
        HEAD + b"--x\r\nA: " + b"b" * 100_000 + b"\r\n\r\n--x--\r\n",
    ),
    "no name": (
        b"multipart/form-data; boundary=x",
        HEAD + FILE.replace(b' name="file";', b"") + b"--x--\r\n",
    ),
    "urlencoded": (b"application/x-www-form-urlencoded", b"purpose=fine-tune&file=a" + b"&a=b" * 50_000),
    "JSON": (b"application/json", b'{"purpose": "fine-tune", "file": "a"}'),
    "nothing": (b"multipart/form-data; boundary=x", b""),
    "mixed": (b"multipart/mixed; boundary=x", HEAD + FILE + b"--x--\r\n"),
    "a charset": (b"multipart/form-data; boundary=x; charset=utf-7", HEAD + FILE + b"--x\r\n"),
}


UNENDED = "a charset"  # the form has no last boundary, but the file has one after it


# Starlette lets go of a file whose end has not come, and Python closes it.
@pytest.mark.filterwarnings("ignore:Unclosed file <tempfile.SpooledTemporaryFile:ResourceWarning")
@pytest.mark.parametrize("kind", FORMS)
def test_forms_that_are_none(client: httpx.Client, kind: str) -> None:
    type_, body = FORMS[kind]
    for path in ("/files", "/uploads/upload-none/parts"):
        answer = client.post(path, content=body, headers={b"content-type": type_})
        assert sound(answer).status_code in (200, 400, 404, 413), answer.text
        assert answer.status_code != 200 or kind == UNENDED, answer.text
    assert [one["bytes"] for one in client.get("/files").json()["data"]] == [5] * (kind == UNENDED)
