"""Every container gives the same rows as the standard library and pyarrow do."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.properties import examples
from tanzim.core.errors import DataError
from tanzim.data.config import DataConfig
from tanzim.data.ingest.encoding import TooLong, lines
from tanzim.data.ingest.rows import Row
from tanzim.data.ingest.sources import find, open_source

ROWS = [
    {"text": f"سطر {n} می‌خواهم", "note": 'a "quoted", word' if n % 3 else "two\nlines"} for n in range(25)
]


def _read(path: Path, **config: object) -> list[dict[str, object]]:
    opened = open_source(find(str(path)).sources[0], DataConfig.model_validate(config))
    rows = list(opened.rows)
    assert all(isinstance(row, Row) for row in rows), rows
    return [row.value for row in rows if isinstance(row, Row)]


def _csv(separator: str) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["text", "note"], delimiter=separator)
    writer.writeheader()
    writer.writerows(ROWS)
    return text.getvalue().encode()


def _parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(ROWS), sink, row_group_size=7)
    return sink.getvalue().to_pybytes()


CONTENTS = {
    "a.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS).encode(),
    "a.ndjson": "".join(json.dumps(row, ensure_ascii=False) + "\r\n" for row in ROWS).encode(),
    "a.json": json.dumps(ROWS, indent=3, ensure_ascii=False).encode(),
    "b.json": json.dumps({"version": 2, "data": ROWS, "about": {"x": [1, 2]}}).encode(),
    "a.csv": _csv(","),
    "b.csv": _csv(";"),
    "a.tsv": _csv("\t"),
    "a.parquet": _parquet(),
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("name", CONTENTS)
def test_containers_hold_the_same_rows(name: str, zipped: bool, tmp_path: Path) -> None:
    content = CONTENTS[name]
    path = tmp_path / (f"{name}.gz" if zipped else name)
    path.write_bytes(gzip.compress(content) if zipped else content)
    assert _read(path) == ROWS


def test_folder_and_glob_mix_containers(tmp_path: Path) -> None:
    for name, content in CONTENTS.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "c.jsonl").write_bytes(CONTENTS["a.jsonl"])
    for other in ("README.md", ".hidden.jsonl", "picture.png"):
        (tmp_path / other).write_bytes(b"x")
    found = find(str(tmp_path))
    assert [Path(s.name).name for s in found.sources] == [*sorted(CONTENTS), "c.jsonl"]
    assert sorted(Path(s).name for s in found.skipped) == ["README.md", "picture.png"]
    assert [Path(s.name).name for s in find(str(tmp_path / "*.csv")).sources] == ["a.csv", "b.csv"]
    both = find([str(tmp_path / "a.csv"), str(tmp_path / "*.csv")]).sources
    assert len(both) == 2, "a file that is named twice is read once"


def test_folder_that_is_written_to_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(CONTENTS["a.jsonl"])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "rejected.jsonl").write_text("{}\n")
    assert [s.name for s in find(str(tmp_path), tmp_path / "out").sources] == [str(tmp_path / "a.jsonl")]


SMS = ['ham\tSay "hello" to', 'spam\tWIN 5" screen now', "ham\tok, fine", 'ham\t"', "spam\tcall 0800"] * 4


def test_tsv_with_stray_quotes_has_literal_quotes_and_no_header(tmp_path: Path) -> None:
    path = tmp_path / "sms.tsv"
    path.write_bytes("".join(line + "\r\n" for line in SMS).encode())
    expected = [dict(zip(("column_1", "column_2"), line.split("\t"), strict=True)) for line in SMS]
    assert _read(path) == expected


@pytest.mark.parametrize(
    ("text", "header"),
    [
        ("comment,label_id\nvery nice food,0\nbad and cold food,1\nnice again today,0\n", True),
        ("ham,Go until the point\nspam,Free entry now\nham,Ok then see you\nham,I know\n", False),
        ("آدرس,متن دیدگاه\nتهران,غذا بسیار خوب بود و گرم رسید\nشیراز,پیک دیر آمد ولی خوب بود\n", True),
        (",sent1,sent2,label\n3,one thing,other thing,c\n4,a b c,d e f,e\n", True),
        ("1,2,3\n4,5,6\n7,8,9\n", False),
    ],
)
def test_header_is_told_from_a_first_row(text: str, header: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    assert len(_read(path)) == text.count("\n") - header
    assert len(_read(path, header=False)) == text.count("\n")
    assert len(_read(path, header=True)) == text.count("\n") - 1


def test_squad_articles_become_one_row_per_question(tmp_path: Path) -> None:
    articles = [
        {
            "title": f"t{a}",
            "paragraphs": [
                {
                    "context": f"c{a}{p}",
                    "qas": [{"id": q, "question": f"q{a}{p}{q}", "answers": []} for q in range(3)],
                }
                for p in range(2)
            ],
        }
        for a in range(4)
    ]
    path = tmp_path / "squad.json"
    path.write_text(json.dumps({"version": "v2.0", "data": articles}))
    expected = [
        {"title": article["title"], "context": paragraph["context"], **question}
        for article in articles
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    ]
    assert _read(path) == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@examples(30)
@given(
    rows=st.lists(st.dictionaries(st.text(), JSON, min_size=1), min_size=1, max_size=8),
    indent=st.sampled_from([None, 2]),
)
def test_json_arrays_are_decoded_as_json_loads_does(
    rows: list[dict[str, object]], indent: int | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("json") / "a.json"
    rows = [row for row in rows if not {"qas", "paragraphs"} & row.keys()]
    text = json.dumps([{"first": 1}, *rows], indent=indent)
    path.write_text(text)
    assert _read(path) == json.loads(text)


def test_json_array_is_decoded_across_pieces(tmp_path: Path) -> None:
    """A file of several pieces, with numbers, escapes and wide characters at their borders."""
    rng = random.Random(3)
    rows = [
        {"n": rng.randrange(10**12), "x": rng.random(), "t": 'نیم‌فاصله \\ " 🙂' * rng.randrange(60)}
        for _ in range(9000)
    ]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(rows, ensure_ascii=False))
    assert path.stat().st_size > 3 << 20
    assert _read(path) == rows


@examples(100)
@given(
    content=st.lists(st.sampled_from([b"a", b"bc", b"\n", b"\r\n", b"longer line"])), cut=st.integers(1, 9)
)
def test_lines_are_split_as_bytes_split_does(content: list[bytes], cut: int) -> None:
    data = b"".join(content)
    chunks = [data[i : i + cut] for i in range(0, len(data), cut)]
    expected = [line.removesuffix(b"\r") for line in data.split(b"\n")]
    if expected and not data.split(b"\n")[-1]:
        expected.pop()
    assert list(lines(chunks, 1000)) == expected
    short = [line.size if isinstance(line, TooLong) else len(line) for line in lines(chunks, 5)]
    raw = data.split(b"\n")
    assert short == [len(r) if len(r) > 5 else len(e) for r, e in zip(raw, expected, strict=False)]


def test_only_line_feeds_end_lines(tmp_path: Path) -> None:
    rows = [{"text": "a\u2028b\u2029c\x85d\x0be\x0cf"}, {"text": "g"}]
    path = tmp_path / "a.jsonl"
    path.write_bytes(
        "".join(json.dumps(row, ensure_ascii=False).replace("\\f", "\x0c") + "\n" for row in rows)
        .encode("utf-8")
        .replace(b"\x0c", b"\\f")
    )
    assert _read(path) == rows


@pytest.mark.parametrize(
    ("text", "documents"),
    [
        ("First paragraph.\n\nSecond paragraph.\n", 1),
        ("hard wrapped text that goes\non in the next line and\nends here.\n", 1),
        ("".join(f"This is sentence {n} of many.\n" for n in range(80)), 80),
        (("word " * 400 + "\n") * 3, 3),
    ],
)
def test_plain_text_is_one_document_or_one_per_line(text: str, documents: int, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(text)
    assert len(_read(path)) == documents
    assert len(_read(path, documents="file")) == 1
    assert len(_read(path, documents="line")) == sum(bool(line.strip()) for line in text.split("\n"))
    assert _read(path, documents="file") == [{"text": text.strip("\n")}]


def test_text_file_above_the_limit_is_read_by_line(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\n\ntwo\n" * 2000)
    assert len(_read(path, max_line_mb=0.01)) == 4000


def test_several_lists_in_one_object_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"train": ROWS, "test": ROWS}))
    with pytest.raises(DataError, match="several lists"):
        _read(path)
