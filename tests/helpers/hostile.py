"""Files that are made to harm whoever reads them. Each function returns the bytes of one."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable

GOOD = [{"prompt": f"What is {n} plus {n}?", "completion": f"It is {2 * n}."} for n in range(30)]
_W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_S = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_R = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_O = "application/vnd.openxmlformats-"
_P = "http://schemas.openxmlformats.org/package/2006"
_BOMB = "<!DOCTYPE x [<!ENTITY a0 'lol'>{}]>".format(
    "".join(f"<!ENTITY a{n} '{f'&a{n - 1};' * 10}'>" for n in range(1, 12))
)


def lines(rows: Iterable[object]) -> bytes:
    """JSON Lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def archive(parts: dict[str, bytes]) -> bytes:
    """A ZIP archive."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in parts.items():
            file.writestr(name, content)
    return out.getvalue()


def docx(body: str, head: str = "", more: dict[str, bytes] | None = None) -> bytes:
    """A Word document with this body, and this before its root."""
    document = f'<?xml version="1.0"?>{head}<w:document xmlns:w="{_W}"><w:body>{body}</w:body></w:document>'
    return archive({"word/document.xml": document.encode(), **(more or {})})


def paragraph(text: str) -> str:
    """A paragraph of a Word document."""
    return f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>"


def xlsx(rows: bytes, strings: bytes | None = None, target: str = "worksheets/sheet1.xml") -> bytes:
    """A workbook of one sheet with these rows."""
    sheet = b'<worksheet xmlns="%s"><sheetData>%s</sheetData></worksheet>' % (_S.encode(), rows)
    types = {"xl/workbook.xml": "sheet.main"} | ({"xl/sharedStrings.xml": "sharedStrings"} if strings else {})
    listed = "".join(
        f'<Override PartName="/{name}" ContentType="{_O}officedocument.spreadsheetml.{kind}+xml"/>'
        for name, kind in types.items()
    )
    plain = '<Default Extension="xml" ContentType="application/xml"/>'
    linked = f'<Default Extension="rels" ContentType="{_O}package.relationships+xml"/>'
    to_book = f'<Relationship Id="r1" Type="{_R}/officeDocument" Target="xl/workbook.xml"/>'
    sheets = '<sheets><sheet name="one" sheetId="1" r:id="r1"/></sheets>'
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{_P}/content-types">{plain}{linked}{listed}</Types>',
        "_rels/.rels": f'<Relationships xmlns="{_P}/relationships">{to_book}</Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{_S}" xmlns:r="{_R}">{sheets}</workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{_P}/relationships"><Relationship Id="r1" '
        f'Type="{_R}/worksheet" Target="{target}"/></Relationships>',
    }
    whole = {name: content.encode() for name, content in parts.items()}
    if strings is not None:
        whole["xl/sharedStrings.xml"] = strings
    return archive({**whole, "xl/worksheets/sheet1.xml": sheet})


def cells(*values: str, row: int = 1) -> bytes:
    """A row of a sheet."""
    inner = "".join(f'<c t="inlineStr"><is><t>{value}</t></is></c>' for value in values)
    return f'<row r="{row}">{inner}</row>'.encode()


def zip_bomb() -> bytes:
    """A workbook of 300 KB whose sheet has 300 MB."""
    return xlsx(cells("prompt", "completion") + b" " * 300_000_000)


def lying_archive() -> bytes:
    """A Word document whose archive says that its 50 MB have 100 bytes."""
    data = bytearray(docx(paragraph("a" * 50_000_000)))
    size = struct.pack("<I", 100)
    at = data.rfind(b"PK\x01\x02")
    data[at + 24 : at + 28] = size
    start = data.find(b"PK\x03\x04")
    data[start + 22 : start + 26] = size
    return bytes(data)


def entity_docx() -> bytes:
    """Ten entities that grow tenfold each."""
    return docx(paragraph("&a11;"), _BOMB)


def external_docx(secret: str) -> bytes:
    """An entity that stands for a file of the reader's machine."""
    return docx(paragraph("&x;"), f'<!DOCTYPE x [<!ENTITY x SYSTEM "file://{secret}">]>')


def entity_xlsx() -> bytes:
    """Entities that grow among the strings of a workbook."""
    strings = f'<?xml version="1.0"?>{_BOMB}<sst xmlns="{_S}"><si><t>&a11;</t></si></sst>'
    return xlsx(b'<row r="1"><c t="s"><v>0</v></c></row>', strings.encode())


def external_xlsx(secret: str) -> bytes:
    """An entity among the strings of a workbook that stands for a file of the reader's machine."""
    declared = f'<!DOCTYPE x [<!ENTITY x SYSTEM "file://{secret}">]>'
    strings = f'<?xml version="1.0"?>{declared}<sst xmlns="{_S}"><si><t>&x;</t></si></sst>'
    return xlsx(b'<row r="1"><c t="s"><v>0</v></c></row>', strings.encode())


def entity_html(secret: str) -> bytes:
    """Both in a page."""
    head = _BOMB.replace("DOCTYPE x [", f'DOCTYPE html [<!ENTITY x SYSTEM "file://{secret}">')
    return f"{head}<html><body><p>Good day to all of you.</p><p>&a11; &x;</p></body></html>".encode()


def endless_rows() -> bytes:
    """A workbook with a row numbered in the thousands of millions."""
    return xlsx(cells("prompt", "completion") + cells("a", "b", row=4_000_000_000))


def pdf(objects: dict[int, str | bytes], root: int = 1) -> bytes:
    """A PDF of these objects, with a correct table of them."""
    out = io.BytesIO()
    out.write(b"%PDF-1.7\n")
    places = {}
    for number, content in objects.items():
        places[number] = out.tell()
        body = content.encode() if isinstance(content, str) else content
        out.write(b"%d 0 obj\n%s\nendobj\n" % (number, body))
    table = out.tell()
    last = max(objects) + 1
    out.write(b"xref\n0 %d\n0000000000 65535 f \n" % last)
    for number in range(1, last):
        out.write(b"%010d 00000 n \n" % places.get(number, 0))
    out.write(b"trailer\n<</Size %d /Root %d 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (last, root, table))
    return out.getvalue()


_FONT = "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"


def _stream(content: bytes, more: str = "") -> bytes:
    return b"<</Length %d %s>>\nstream\n%s\nendstream" % (len(content), more.encode(), content)


def page_pdf(content: bytes, more: str = "") -> bytes:
    """A PDF of one page."""
    fonts = "<</Font<</F1 5 0 R>>>>"
    return pdf(
        {
            1: "<</Type/Catalog/Pages 2 0 R>>",
            2: "<</Type/Pages/Kids[3 0 R]/Count 1>>",
            3: f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents 4 0 R/Resources{fonts}>>",
            4: _stream(content, more),
            5: _FONT,
        }
    )


def looped_pdf() -> bytes:
    """A page tree that is its own child."""
    tree = "<</Type/Pages/Kids[2 0 R 2 0 R]/Count 2/Parent 2 0 R>>"
    return pdf({1: "<</Type/Catalog/Pages 2 0 R>>", 2: tree})


def bush_pdf() -> bytes:
    """A page tree of thirty levels, each of which names the next ten times: 10³⁰ pages."""
    levels = {n: f"<</Type/Pages/Kids[{f'{n + 1} 0 R ' * 10}]/Count 1000000000>>" for n in range(2, 32)}
    return pdf({1: "<</Type/Catalog/Pages 2 0 R>>", **levels, 32: "<</Type/Page/MediaBox[0 0 9 9]>>"})


def stream_bomb_pdf() -> bytes:
    """A page of 2 GB of spaces in a few MB, packed twice."""
    packer = zlib.compressobj(9)
    once = b"".join(packer.compress(b" " * 10_000_000) for _ in range(200)) + packer.flush()
    return page_pdf(zlib.compress(once, 9), "/Filter[/FlateDecode/FlateDecode]")


def nested_pdf() -> bytes:
    """Two hundred thousand arrays, one in another."""
    return page_pdf(b"BT /F1 12 Tf " + b"[" * 200_000 + b"]" * 200_000 + b" TJ ET")


def form_bomb_pdf() -> bytes:
    """Forms that show the next form ten times, twelve deep."""
    forms: dict[int, str | bytes] = {
        n: _stream(
            b"/X Do " * 10,
            f"/Type/XObject/Subtype/Form/BBox[0 0 9 9]/Resources<</XObject<</X {n + 1} 0 R>>>>",
        )
        for n in range(10, 22)
    }
    page = "<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Contents 4 0 R/Resources<</XObject<</X 10 0 R>>>>>>"
    return pdf(
        {
            1: "<</Type/Catalog/Pages 2 0 R>>",
            2: "<</Type/Pages/Kids[3 0 R]/Count 1>>",
            3: page,
            4: _stream(b"/X Do"),
            **forms,
            22: _stream(b"BT (x) Tj ET", "/Type/XObject/Subtype/Form/BBox[0 0 9 9]"),
        }
    )


def packed(content: bytes, times: int) -> bytes:
    """The same bytes many times, as gzip."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb") as file:
        for _ in range(times):
            file.write(content)
    return out.getvalue()


def lying_gzip() -> bytes:
    """Good rows in a gzip file whose trailer says that it has 4 GB, with a wrong checksum."""
    return gzip.compress(lines(GOOD))[:-8] + b"\0\0\0\0\xff\xff\xff\xff"


def parquet(footer: int) -> bytes:
    """A Parquet file of nothing but a length that its metadata is said to have."""
    return b"PAR1" + bytes(100) + struct.pack("<I", footer) + b"PAR1"


def parquet_of_strings() -> bytes:
    """A Parquet file whose metadata claims more columns than there are bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist(GOOD).replace_schema_metadata({"x": "y" * 20_000_000})
    pq.write_table(table, sink)
    data = bytearray(sink.getvalue().to_pybytes())
    (length,) = struct.unpack("<I", data[-8:-4])
    footer = len(data) - 8 - length
    data[footer : footer + 40] = b"\xff" * 40  # lists of thousands of millions of elements
    return bytes(data)


def parquet_of_one_text() -> bytes:
    """Two thousand rows that point to one text of 2 MB, in some hundred bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 2000, pa.int32()), pa.array(["x" * 2_000_000]))
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": texts}), sink, compression="zstd", store_schema=False)
    return bytes(sink.getvalue().to_pybytes())


Make = Callable[[], bytes]
