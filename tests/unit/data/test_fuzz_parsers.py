"""Any bytes under any name give rows, rejects or a TanzimError, never another exception."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import docx
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import hostile
from helpers.properties import examples, soon
from tanzim.core.errors import TanzimError
from tanzim.core.records import Example
from tanzim.data.config import DataConfig
from tanzim.data.ingest import read as reading
from tanzim.data.ingest.documents import read as documents
from tanzim.data.ingest.documents.parts import read_parts
from tanzim.data.ingest.rows import Rejected
from tanzim.data.ingest.sources import Source

pytestmark = [pytest.mark.slow, pytest.mark.hypothesis]  # some thousand files, by properties within tests

ROWS = [{"text": f"می‌روم و {n} café", "label": "آ" if n % 2 else "b"} for n in range(12)]
FUZZ = examples(25)


def table(rows: list[list[str]]) -> bytes:
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def document() -> bytes:
    whole = docx.Document()
    whole.add_heading("عنوان", 1)
    whole.add_paragraph("می‌روم. Good day.")
    whole.add_table(2, 2).cell(0, 0).text = "x"
    out = io.BytesIO()
    whole.save(out)
    return out.getvalue()


def parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(ROWS), sink)
    return sink.getvalue().to_pybytes()


def page() -> bytes:
    return hostile.page_pdf(b"BT /F1 12 Tf 50 700 Td (Good day to you all.) Tj T* [(a) -300 (b)] TJ ET")


COMMAS = "text,label\n" + "".join(f'"{row["text"]}",{row["label"]}\n' for row in ROWS)
SEEDS: dict[str, Callable[[], bytes]] = {
    "a.jsonl": lambda: hostile.lines(ROWS),
    "a.json": lambda: json.dumps(ROWS).encode(),
    "a.csv": COMMAS.encode,
    "a.tsv": lambda: COMMAS.replace(",", "\t").encode(),
    "a.parquet": parquet,
    "a.txt": lambda: "\n".join(row["text"] for row in ROWS).encode(),
    "a.pdf": page,
    "a.docx": document,
    "a.xlsx": lambda: table([["text", "label"], *([row["text"], row["label"]] for row in ROWS)]),
    "a.html": lambda: "<html><head><meta charset=cp1256></head><body><h1>a</h1><p>سلام".encode("cp1256"),
    "a.md": "# عنوان\n\nمی‌روم\n===\n```x\n# no\n```\n- a\n- b\n".encode,
    "a.jsonl.gz": lambda: hostile.packed(hostile.lines(ROWS), 1),
    "a": lambda: hostile.lines(ROWS),
}

Edit = tuple[str, float, bytes]
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["put", "cut", "copy", "end"]),
        st.floats(0, 1),
        st.one_of(
            st.binary(min_size=1, max_size=8),
            st.sampled_from(
                [b"\0", b"\xff\xfe", b'"', b"{", b"]", b"<", b"<!--", b"&a;", b"\n", b"999999999"]
            ),
        ),
    ),
    min_size=1,
    max_size=6,
)


def edited(data: bytes, edits: list[Edit]) -> bytes:
    for kind, share, new in edits:
        at = int(share * len(data))
        if kind == "put":
            data = data[:at] + new + data[at + len(new) :]
        elif kind == "cut":
            data = data[:at] + data[at + 1 + 3 * len(new) :]
        elif kind == "copy":
            data = data[:at] + new + data[max(0, at - 40) : at] + data[at:]
        else:
            data = data[: max(1, at)]
    return data


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read documents here, so that no exception of a parser is hidden by the process around it."""
    monkeypatch.setattr(
        documents, "contained", lambda path, kind, options, _: read_parts(path, kind, options)
    )


def take(path: Path, **config: object) -> Iterator[Example | Rejected]:
    settings = DataConfig.model_validate({"path": str(path), **config})
    return reading.ingest(Source(str(path), path), settings).items()


def check(path: Path, data: bytes, encoding: str) -> None:
    path.write_bytes(data)
    with soon(), suppress(TanzimError):
        for item in take(path, encoding=encoding):
            assert isinstance(item, Example | Rejected)


ENCODINGS = st.sampled_from(["auto", "detect", "cp1256"])


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("name", SEEDS)
def test_any_bytes(name: str, tmp_path: Path) -> None:
    @FUZZ
    @given(data=st.binary(max_size=400), encoding=ENCODINGS, head=st.booleans())
    def run(data: bytes, encoding: str, head: bool) -> None:
        check(tmp_path / name, SEEDS[name]()[:12] + data if head else data, encoding)

    run()


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("name", SEEDS)
def test_good_files_gone_wrong(name: str, tmp_path: Path) -> None:
    seed = SEEDS[name]()
    kept = sum(isinstance(item, Example) for item in _kept(tmp_path / name, seed))
    assert kept, "the file is good to begin with"

    @FUZZ
    @given(edits=EDITS, encoding=ENCODINGS)
    def run(edits: list[Edit], encoding: str) -> None:
        check(tmp_path / name, edited(seed, edits), encoding)

    run()


def _kept(path: Path, data: bytes) -> Iterator[Example | Rejected]:
    path.write_bytes(data)
    return take(path)


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("name", ["a.docx", "a.xlsx"])
def test_good_archives_with_parts_gone_wrong(name: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(SEEDS[name]())) as archive:
        parts = {one: archive.read(one) for one in archive.namelist() if one.endswith((".xml", ".rels"))}

    @FUZZ
    @given(which=st.sampled_from(sorted(parts)), edits=EDITS)
    def run(which: str, edits: list[Edit]) -> None:
        changed = {**parts, which: edited(parts[which], edits)}
        check(tmp_path / name, hostile.archive(changed), "auto")

    run()


XML = st.recursive(
    st.sampled_from(["<w:r><w:t>a</w:t></w:r>", "<w:t/>", "سلام", "<w:br/>"]),
    lambda inner: st.tuples(
        st.sampled_from(
            ["p", "tbl", "tr", "tc", "sdt", "sdtContent", "pPr", "pStyle", "del", "ins", "txbxContent"]
        ),
        st.lists(inner, max_size=4),
    ).map(lambda pair: f"<w:{pair[0]}>{''.join(pair[1])}</w:{pair[0]}>"),
    max_leaves=20,
)


@pytest.mark.usefixtures("in_process")
def test_word_documents_of_any_shape(tmp_path: Path) -> None:
    @FUZZ
    @given(body=XML)
    def run(body: str) -> None:
        check(tmp_path / "a.docx", hostile.docx(body), "auto")

    run()
