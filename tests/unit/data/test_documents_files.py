"""Word, Excel and PDF files made by python-docx, openpyxl and reportlab, read back and compared."""

from __future__ import annotations

import datetime
import io
import re
import zipfile
from pathlib import Path

import docx
import openpyxl
import pypdf
import pytest
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls
from reportlab.lib.pagesizes import A4
from reportlab.pdfgen.canvas import Canvas

from helpers import hostile
from tanzim.core.errors import ConfigError
from tanzim.core.records import Example
from tanzim.data.config import DataConfig
from tanzim.data.ingest.documents.pdf import paragraphs
from tanzim.data.ingest.documents.visual import logical
from tanzim.data.ingest.documents.word import read_word
from tanzim.data.ingest.read import ingest
from tanzim.data.ingest.rows import Rejected
from tanzim.data.ingest.sources import Source

LINES = [
    "The river had risen in the night and the bridge was gone; nobody had heard any-",
    "thing but the rain. In the morning the children stood on the bank and looked over.",
    "It was quiet.",
    "Then a boat came round the bend of the river, and the man in it waved to them all.",
]


def items(path: Path, **config: object) -> list[Example | Rejected]:
    settings = DataConfig.model_validate({"path": str(path), **config})
    return list(ingest(Source(path.name, path), settings).items())


def examples(path: Path, **config: object) -> list[Example]:
    return [one for one in items(path, **config) if isinstance(one, Example)]


def test_word_reads_what_python_docx_reads_and_what_it_leaves_out(tmp_path: Path) -> None:
    document = docx.Document()
    document.add_heading("کتاب‌ها", 1)
    document.add_paragraph("می‌خواهم بخوانم.").add_run(" Good day.").bold = True
    document.add_heading("Second", 2)
    document.add_paragraph("one", style="List Bullet")
    table = document.add_table(2, 2)
    for place, text in enumerate(("نام", "سن", "مینا", "۳۰")):
        table.cell(place // 2, place % 2).text = text
    marked = document.add_paragraph("Kept ")
    marked._p.append(parse_xml(f"<w:ins {nsdecls('w')}><w:r><w:t>inserted</w:t></w:r></w:ins>"))
    marked._p.append(parse_xml(f"<w:del {nsdecls('w')}><w:r><w:delText>gone</w:delText></w:r></w:del>"))
    path = tmp_path / "a.docx"
    document.save(path)
    blocks = list(read_word(path, 10**8))
    texts = [block.text for block in blocks]
    theirs = [one.text for one in docx.Document(path).paragraphs]
    assert [text.removeprefix("- ") for text in texts if " | " not in text][:4] == theirs[:4]
    assert [(block.level, block.text) for block in blocks if block.level] == [(1, "کتاب‌ها"), (2, "Second")]
    assert "نام | سن\nمینا | ۳۰" in texts
    assert texts[-1] == "Kept inserted"
    assert theirs[-1] == "Kept "  # what python-docx makes of it
    found = examples(path)
    assert [one.about["section"] for one in found] == ["کتاب‌ها", "کتاب‌ها > Second"]


def workbook(path: Path, **sheets: list[list[object]]) -> None:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save(path)


def test_a_sheet_is_a_table_of_labelled_text(tmp_path: Path) -> None:
    path = tmp_path / "a.xlsx"
    good = [[f"غذا خوب بود و می‌آیم {n}", n % 2] for n in range(20)]
    more = [[f"another review {n}", n % 2] for n in range(5)]
    workbook(
        path,
        one=[["text", "label"], *good],
        two=[["text", "label"], *more],
        notes=[["x", "y", "z"], [1, 2, 3]],
    )
    found = items(path)
    kept = [one for one in found if isinstance(one, Example)]
    assert [(one.kind, one.text, one.label) for one in kept] == [
        ("labelled", str(text), str(label)) for text, label in [*good, *more]
    ]
    assert {one.about["sheet"] for one in kept} == {"one", "two"}
    (lost,) = (one for one in found if isinstance(one, Rejected))
    assert lost.reason == "the sheet has other columns than the first"
    assert "notes" in lost.detail
    assert [one.provenance.row for one in kept] == list(range(1, 26))
    assert len(examples(path, sheets=["two"])) == 5
    with pytest.raises(ConfigError, match=r"'three'.*one, two, notes"):
        items(path, sheets=["three"])


def test_formulas_are_read_as_computed_or_rejected_and_blank_rows_count(tmp_path: Path) -> None:
    """openpyxl takes a text that begins with = for a formula, and computes none."""
    path = tmp_path / "a.xlsx"
    rows = [["first text", 1], ["= a heading =", 0], [None, None], ["چهارم", 1], ["fifth text", "=A1"]]
    workbook(path, one=[["text", "label"], *rows], two=[["text", "label"], ["sixth text", 0]])
    found = items(path)
    assert [(one.text, one.provenance.row) for one in found if isinstance(one, Example)] == [
        ("first text", 1), ("چهارم", 4), ("sixth text", 6)
    ]  # fmt: skip
    lost = [one for one in found if isinstance(one, Rejected)]
    assert [(one.row, one.reason, one.detail[:7]) for one in lost] == [
        (2, "a formula was never computed", "cell A3"), (5, "a formula was never computed", "cell B6")
    ]  # fmt: skip
    assert "= a heading =" in lost[0].content

    computed = tmp_path / "computed.xlsx"  # as Excel saves it: one formula came to 7, one to an empty text
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(computed, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "xl/worksheets/sheet1.xml":
                head, cell, tail = content.partition(b'<c r="B6"')
                head = head.replace(b'<c r="A3"', b'<c r="A3" t="str"')
                content = head + cell + re.sub(rb"</f><v ?/?>(</v>)?", b"</f><v>7</v>", tail)
            new.writestr(name, content)
    kept = [one for one in items(computed) if isinstance(one, Example)]
    assert [(one.text, one.label, one.provenance.row) for one in kept][-2:] == [
        ("fifth text", "7", 5), ("sixth text", "0", 6)
    ]  # fmt: skip
    assert not [one for one in items(computed) if isinstance(one, Rejected) and "formula" in one.reason]


def test_cells_of_every_kind(tmp_path: Path) -> None:
    path = tmp_path / "a.xlsx"
    day = datetime.datetime(2024, 3, 20, 12, 30)
    workbook(
        path, one=[["prompt", "completion"], ["When?", day], [7, 2.5], ["Is it?", True], ["Blank", None]]
    )
    found = items(path)
    kept = [one for one in found if isinstance(one, Example)]
    assert [one.messages[1].content for one in kept] == ["2024-03-20T12:30:00", "2.5"]
    assert [one.reason for one in found if isinstance(one, Rejected)] == ["'completion' is not text"] * 2


def test_lines_become_paragraphs() -> None:
    assert paragraphs(LINES) == [
        f"{LINES[0][:-1]}{LINES[1]} It was quiet.",
        LINES[3],
    ]
    assert paragraphs(["نخستین", "دومین"]) == ["نخستین\nدومین"]


NAMES = ("Anna", "Parviz", "Maryam", "John")


def story(number: int) -> list[str]:
    """The lines of a page, unlike those of any other page."""
    first = f"{NAMES[number]} woke up early. {LINES[0]}"
    return [
        first,
        *LINES[1:],
        f"It was the boat that {NAMES[number]} had seen on the river in all of those dreams.",
    ]


def book(path: Path, pages: int) -> None:
    canvas = Canvas(str(path), pagesize=A4)
    for number in range(pages):
        canvas.drawString(60, 810, f"A History of the River, page {number + 1}")
        for row, line in enumerate(story(number)):
            canvas.drawString(60, 760 - 15 * row, line)
        canvas.drawString(300, 20, str(number + 1))
        canvas.showPage()
    canvas.save()


def test_pages_of_a_pdf_without_running_heads(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    book(path, 4)
    found = examples(path)
    assert [one.about for one in found] == [{"page": number} for number in range(1, 5)]
    for number, one in enumerate(found):
        lines = story(number)
        assert one.text == f"{lines[0][:-1]}{lines[1]} {lines[2]}\n\n{lines[3]} {lines[4]}"
    (whole,) = examples(path, chunks={"by": "document"})
    assert whole.about == {"pages": [1, 4]}
    assert whole.text.count("It was quiet.") == 4


def test_a_pdf_with_a_password_and_one_that_only_forbids_printing(tmp_path: Path) -> None:
    book(tmp_path / "a.pdf", 1)
    for name, password in (("locked", "secret"), ("open", "")):
        writer = pypdf.PdfWriter(tmp_path / "a.pdf")
        writer.encrypt(user_password=password, owner_password="owner", algorithm="AES-256")
        writer.write(tmp_path / f"{name}.pdf")
    (locked,) = items(tmp_path / "locked.pdf")
    assert isinstance(locked, Rejected)
    assert locked.reason == "the PDF is protected by a password"
    assert len(examples(tmp_path / "open.pdf")) == 1


def test_a_scanned_pdf_and_a_damaged_one(tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "a.pdf"
    Image.new("L", (50, 50)).save(path)
    (scanned,) = items(path)
    assert isinstance(scanned, Rejected)
    assert "scanned" in scanned.reason
    assert "ocr" in scanned.detail
    path.write_bytes(hostile.page_pdf(b"BT (x) Tj ET")[:200])
    (damaged,) = items(path)
    assert isinstance(damaged, Rejected)
    assert "damaged" in damaged.reason or "no text" in damaged.reason


def test_a_locked_office_file_and_a_zip_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.docx"
    path.write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(1000))
    (locked,) = items(path)
    assert isinstance(locked, Rejected)
    path.write_bytes(hostile.archive({"x.txt": b"hello"}))
    (other,) = items(path)
    assert isinstance(other, Rejected)
    assert "no Word document" in other.reason


# What a page shows from left to right, and how it is read (UAX 9, worked by hand).
VISUAL = [
    ("مالس", "سلام"),
    (".تسا 12.5 تمیق", "قیمت 12.5 است."),
    ("version 2.5 زا", "از version 2.5"),
    ("۱۴۰۳ و ۱۴۰۲ لاس", "سال ۱۴۰۲ و ۱۴۰۳"),
    ("(باتک) «مان»", "«نام» (کتاب)"),
    ("دش GPT-4 Turbo لدم", "مدل GPT-4 Turbo شد"),
]


@pytest.mark.parametrize(("seen", "read"), VISUAL)
def test_right_to_left_lines_come_back_into_reading_order(seen: str, read: str) -> None:
    assert logical(seen) == read


def test_documents_of_every_kind_in_gzip(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    docx.Document().save(buffer)
    path = tmp_path / "a.md.gz"
    path.write_bytes(hostile.packed("# عنوان\n\nمتن می‌آید.".encode(), 1))
    (one,) = examples(path)
    assert one.text == "# عنوان\n\nمتن می‌آید."
    path = tmp_path / "b.pdf.gz"
    book(tmp_path / "b.pdf", 1)
    path.write_bytes(hostile.packed((tmp_path / "b.pdf").read_bytes(), 1))
    assert len(examples(path)) == 1
