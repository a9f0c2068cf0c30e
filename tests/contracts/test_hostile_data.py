"""Inputs made to do harm: each is refused or contained with a clear word, in bounded memory and time.

Every one is read in a process of its own that the system stops at 3 GB of address space or 60 s of computing.
"""

from __future__ import annotations

import gzip
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from helpers import hostile
from helpers.hostile import GOOD, Make, lines

pytestmark = pytest.mark.slow

SECRET = "the-secret-of-this-machine"
READ = """
import json, resource, sys
config, source = json.loads(sys.argv[1]), json.loads(sys.argv[2])
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
from pathlib import Path
from tanzim.core.errors import TanzimError
from tanzim.core.powers import Powers
from tanzim.core.records import no_progress
from tanzim.data.config import DataConfig
from tanzim.data.ingest.fetch import fetch_all
from tanzim.data.ingest.read import ingest
from tanzim.data.ingest.rows import Rejected
from tanzim.data.ingest.sources import find
from tanzim.data.steps import make_step
said = {"kept": 0, "rejected": [], "texts": [], "error": None}
try:
    config = DataConfig.model_validate(config)
    found = [one for one, _ in fetch_all(config, no_progress)] if source else find(
        config.path, None, config.allow_hosts).sources
    for one in found:
        examples = []
        for item in ingest(one, config).items():
            if isinstance(item, Rejected):
                said["rejected"].append(item.reason + " " + item.detail)
            else:
                examples.append(item)
        for step in config.steps:
            examples = list(make_step(step, Powers(), 1).apply(examples))
        said["kept"] += len(examples)
        said["texts"] += [example.text[:2000] for example in examples[:50]]
except TanzimError as error:
    said["error"] = str(error)
status = open("/proc/self/status").read()
said["mb"] = int(status.split("VmHWM:")[1].split()[0]) / 1024
print(json.dumps(said))
"""


@dataclass(frozen=True)
class Case:
    """A file, and what is to be said of it.

    Args:
        name: of the file; None if the source is no file.
        make: its bytes.
        words: that the error or a reason holds; none if it is read.
        kept: examples that are read.
        config: settings.

    """

    name: str
    make: Make
    words: tuple[str, ...] = ()
    kept: int = 0
    config: dict[str, Any] = field(default_factory=dict)


def mixed() -> bytes:
    """Good lines, lines in Windows-1256 and Latin-1, and one in UTF-16, whose line end spoils the next."""
    good = lines([{"prompt": f"سلام {n}", "completion": "خوبم"} for n in range(30)])
    arabic = '{"prompt": "سلام", "completion": "خوبم"}\n'.encode("cp1256")
    western = '{"prompt": "café", "completion": "x"}\n'.encode("latin-1")
    return good + arabic + western + '{"prompt": "ab"}\n'.encode("utf-16-le") + good


def lines_packed() -> bytes:
    """Good rows, then ten million empty lines."""
    return gzip.compress(lines(GOOD)) + hostile.packed(b"\n" * 1_000_000, 10)


STEPS = {"steps": [{"type": "repair_text"}], "documents": "line"}
CASES = {
    "zip bomb": Case("a.xlsx", hostile.zip_bomb, ("300 MB once unpacked", "max_document_mb")),
    "archive that lies about sizes": Case("a.docx", hostile.lying_archive, ("damaged",)),
    "entity bomb in DOCX": Case("a.docx", hostile.entity_docx, ("document type",)),
    "entity bomb in XLSX": Case("a.xlsx", hostile.entity_xlsx, ("document type",)),
    "DOCX nested 100,000 deep": Case(
        "a.docx", lambda: hostile.docx("<w:sdt>" * 100_000 + "</w:sdt>" * 100_000), ("nested too deeply",)
    ),
    "path traversal in an archive": Case(
        "a.docx",
        lambda: hostile.docx(
            hostile.paragraph("Good day."), more={"../../../../escaped.txt": b"x", "/escaped.txt": b"x"}
        ),
        kept=1,
    ),
    "path traversal in a workbook": Case(
        "a.xlsx",
        lambda: hostile.xlsx(hostile.cells("a", "b"), target="../../../../../../etc/passwd"),
        ("the workbook has no rows",),
    ),
    "ZIP of data": Case("a.zip", lambda: hostile.archive({"../a.jsonl": lines(GOOD)}), ("ZIP archive",)),
    "workbook with thousands of millions of rows": Case(
        "a.xlsx", hostile.endless_rows, ("takes more than 3 s",), config={"max_document_seconds": 3}
    ),
    "PDF with a loop in its page tree": Case("a.pdf", hostile.looped_pdf, ("damaged", "cyclic")),
    "PDF with 10^30 pages": Case(
        "a.pdf", hostile.bush_pdf, ("the PDF",), config={"max_document_seconds": 20}
    ),
    "PDF with a stream of 2 GB": Case("a.pdf", hostile.stream_bomb_pdf, ("damaged", "Limit")),
    "PDF nested 200,000 deep": Case("a.pdf", hostile.nested_pdf, ("damaged", "recursion")),
    "PDF with forms that multiply": Case(
        "a.pdf", hostile.form_bomb_pdf, ("the PDF",), config={"max_document_seconds": 20}
    ),
    "HTML nested 300,000 deep": Case("a.html", lambda: b"<div>" * 300_000 + b"hello there", ("no text",)),
    "endless line": Case("a.jsonl.gz", lambda: hostile.packed(b"a" * 1_000_000, 300), ("line is too long",)),
    "endless JSON string": Case(
        "a.json.gz", lambda: hostile.packed(b'["' + b"a" * 1_000_000, 100), ("not valid",)
    ),
    "endless cell": Case(
        "a.csv",
        lambda: b"prompt,completion\n" + b"a,b\n" * 30 + b'a,"' + b"x" * 40_000_000,
        ("too long",),
        kept=30,
    ),
    "empty lines by the million": Case("a.jsonl.gz", lines_packed, kept=30, config={"max_rejected": 0}),
    "gzip that lies about its size": Case("a.jsonl.gz", hostile.lying_gzip, ("gzip data is damaged",)),
    "mixed encodings": Case("a.jsonl", mixed, ("not utf-8 text", "not valid JSON"), kept=59),
    "NUL bytes": Case("a.txt", lambda: bytes(1_000_000), ("binary",)),
    "JSON nested a million deep": Case("a.json", lambda: b"[" * 1_000_000, ("nested too deeply",)),
    "line nested 300,000 deep": Case(
        "a.jsonl", lambda: lines(GOOD) + b'{"prompt":' * 300_000 + b"\n", ("nested too deeply",), kept=30
    ),
    "Parquet with 2 GB of metadata": Case(
        "a.parquet", lambda: hostile.parquet(0x7FFFFFFF), ("Parquet file is damaged",)
    ),
    "Parquet with damaged metadata": Case(
        "a.parquet", hostile.parquet_of_strings, ("Parquet file is damaged",)
    ),
    "table of 100,000 columns": Case(
        "a.csv",
        lambda: b",".join(b"c%d" % n for n in range(100_000)) + b"\n" + b"x," * 99_999 + b"x\n",
        ("no known format", "99988 more"),
    ),
    "number of 5,000 digits": Case(
        "a.jsonl",
        lambda: lines(GOOD) + b'{"prompt":' + b"1" * 5000 + b',"completion":"x"}\n',
        ("not valid JSON", "4300 digits"),
        kept=30,
    ),
    "Markdown against patterns": Case(
        "a.md", lambda: b"# a" + b" " * 500_000 + b"b\n\n" + b"#" * 500_000 + b"\n" + b"a\n=" * 99_000, kept=1
    ),
    "sentence ends against patterns": Case(
        "b.md",
        lambda: (b"." * 300_000 + b"a") * 2,
        kept=7,
        config={"chunks": {"by": "paragraph", "max_characters": 100_000}},
    ),
    "text against repair": Case(
        "a.txt",
        lambda: "\n".join(("Ã" * 100_000, "ط§" * 100_000 + "a", "é " * 100_000, "â€" * 100_000)).encode(),
        kept=4,
        config=STEPS,
    ),
}


def read(folder: Path, config: dict[str, Any], fetched: bool = False, **env: str) -> dict[str, Any]:
    """Read a source in a process of its own; return what came of it."""
    command = [sys.executable, "-c", READ, json.dumps(config), json.dumps(fetched)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=240,
        env={**os.environ, **env},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_it_is_refused_or_contained(case: Case, tmp_path: Path) -> None:
    inside = tmp_path / "a" / "b" / "c"
    inside.mkdir(parents=True)
    path = inside / case.name
    path.write_bytes(case.make())
    said = read(inside, {"path": str(path), **case.config})
    spoken = " ".join([said["error"] or "", *said["rejected"]])
    assert all(word in spoken for word in case.words), said
    assert said["kept"] == case.kept, said
    assert bool(spoken) == bool(case.words), said
    assert said["mb"] < 700
    assert [one for one in tmp_path.rglob("*") if one.is_file()] == [path], "something was written"


def test_files_of_this_machine_stay_unread(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text(SECRET)
    (tmp_path / "a.docx").write_bytes(hostile.external_docx(str(secret)))
    (tmp_path / "a.xlsx").write_bytes(hostile.external_xlsx(str(secret)))
    (tmp_path / "a.html").write_bytes(hostile.entity_html(str(secret)))
    paths = [str(tmp_path / name) for name in ("a.docx", "a.xlsx", "a.html")]
    said = read(tmp_path, {"path": paths, "html": "all"})
    assert len(said["rejected"]) == 2
    assert all("document type" in line for line in said["rejected"])
    assert "Good day to all of you." in said["texts"][0]
    assert len(said["texts"][0]) < 1000
    assert SECRET not in json.dumps(said)


ROWS = """
import json, sys
from pathlib import Path
from tanzim.data.ingest.tables import read_parquet
found = [len(row.value["text"]) for row in read_parquet(Path(sys.argv[1]), "a")]
high = open("/proc/self/status").read().split("VmHWM:")[1]
print(json.dumps([len(found), sorted(set(found)), int(high.split()[0]) / 1024]))
"""


def test_texts_that_a_parquet_file_holds_once(tmp_path: Path) -> None:
    """4 GB in some hundred bytes: the rows are good ones, and pass one after another."""
    path = tmp_path / "a.parquet"
    path.write_bytes(hostile.parquet_of_one_text())
    assert path.stat().st_size < 1000
    done = subprocess.run([sys.executable, "-c", ROWS, path], capture_output=True, text=True, check=True)
    rows, sizes, mb = json.loads(done.stdout)
    assert (rows, sizes) == (2000, [2_000_000])
    assert mb < 500


@pytest.mark.parametrize("kind", ["pipe", "device", "link to itself"])
def test_what_is_no_file_is_not_opened(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero" if kind == "device" else path)
    said = read(tmp_path, {"path": str(path)})
    assert "there is no such file" in said["error"]


def test_a_folder_within_itself_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines(GOOD))
    (tmp_path / "again").symlink_to(tmp_path)
    assert read(tmp_path, {"path": str(tmp_path)})["kept"] == 30


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """Serve on every loopback address; give the port."""
    server = ThreadingHTTPServer(("0.0.0.0", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def test_a_redirect_to_a_local_address_is_refused(tmp_path: Path) -> None:
    asked: list[str] = []

    class Redirect(BaseHTTPRequestHandler):
        def answer(self) -> None:
            asked.append(f"{self.headers['Host']}{self.path}")
            local = self.headers["Host"].startswith("127.0.0.2")
            self.send_response(200 if local else 302)
            if not local:
                self.send_header("Location", f"http://127.0.0.2:{self.server.server_address[1]}/b.jsonl")
            self.end_headers()
            self.wfile.write(lines(GOOD) if local and self.command == "GET" else b"")

        do_GET = do_HEAD = answer

        def log_message(self, *_: object) -> None:
            pass

    with serving(Redirect) as port:
        config = {"path": f"http://127.0.0.1:{port}/a.jsonl", "allow_hosts": ["127.0.0.1"]}
        said = read(tmp_path, config)
    assert "127.0.0.2" in said["error"]
    assert "not a public address" in said["error"]
    assert said["kept"] == 0
    assert not any(one.startswith("127.0.0.2") for one in asked)


def test_a_database_that_refuses_the_password(tmp_path: Path) -> None:
    """A server that speaks PostgreSQL's protocol as far as its refusal (manual, chapter 55)."""
    server = socket.create_server(("127.0.0.1", 0))

    def refuse() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                while connection.recv(4096)[4:8] == b"\x04\xd2\x16\x2f":  # asks for TLS
                    connection.sendall(b"N")
                connection.sendall(b"R\x00\x00\x00\x08\x00\x00\x00\x03")
                connection.recv(4096)
                text = b'SFATAL\0C28P01\0Mpassword authentication failed for user "reader"\0\0'
                connection.sendall(b"E" + (len(text) + 4).to_bytes(4, "big") + text)

    threading.Thread(target=refuse, daemon=True).start()
    with server:
        url = f"postgresql+psycopg://reader:${{SHOP_PASSWORD}}@127.0.0.1:{server.getsockname()[1]}/shop"
        config = {"sources": [{"type": "sql", "url": url, "query": "SELECT 1"}], "allow_hosts": ["127.0.0.1"]}
        said = read(tmp_path, config, fetched=True, SHOP_PASSWORD=SECRET)
    assert "password authentication failed" in said["error"]
    assert SECRET not in json.dumps(said)
