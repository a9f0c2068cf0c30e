"""Malformed inputs: each gives one clear error, or rejects that are counted with file, row and reason."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tanzim.core.errors import ConfigError, DataError, TanzimError
from tanzim.data.config import DataConfig
from tanzim.data.prepare import DataReport, prepare
from tanzim.data.store import ExampleStore

GOOD = [{"prompt": f"What is {n} plus {n}?", "completion": f"It is {2 * n}."} for n in range(30)]
PERSIAN = [
    {"prompt": f"سلام، حال شما چطور است؟ {n}", "completion": f"خوبم، ممنون از پرسش شما {n}"}
    for n in range(30)
]


def _lines(rows: list[object]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _chat(*turns: tuple[str, object], **more: object) -> dict[str, object]:
    return {"messages": [{"role": role, "content": content} for role, content in turns], **more}


CHATS: list[object] = [
    _chat(("user", f"Hello, number {n}"), ("assistant", f"Good day, {n}")) for n in range(30)
]


def _parquet(rows: list[dict[str, object]]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


@dataclass(frozen=True)
class Refused:
    """The whole file is refused; the error has these words in it."""

    name: str
    content: bytes
    words: tuple[str, ...]
    config: dict[str, object] | None = None


@dataclass(frozen=True)
class Counted:
    """Some rows are refused, each with this reason; the others are kept."""

    name: str
    content: bytes
    rows: tuple[int, ...]
    reason: str
    kept: int


DEEP = "[" * 100_000 + "]" * 100_000

REFUSED = {
    "truncated JSON": Refused("a.json", json.dumps(GOOD).encode()[:-40], ("ends early", "row 30")),
    "broken JSON": Refused(
        "a.json", json.dumps(GOOD).replace('"completion"', "completion", 1).encode(), ("row 1",)
    ),
    "nested JSON document": Refused("a.json", f'[{{"prompt": {DEEP}}}]'.encode(), ("nested too deeply",)),
    "cp1256": Refused("a.jsonl", _lines(PERSIAN).decode().replace("ی", "ي").encode("cp1256"), ("cp1256",)),
    "cp1251": Refused("a.txt", ("Привет, как дела? " * 20).encode("cp1251"), ("cp1251",)),
    "UTF-16 without mark": Refused("a.jsonl", _lines(GOOD).decode().encode("utf-16-le"), ("utf-16-le",)),
    "Persian UTF-16 without mark": Refused(
        "a.jsonl", _lines(PERSIAN).decode().encode("utf-16-be"), ("utf-16-be",)
    ),
    "empty file": Refused("a.jsonl", b"", ("empty",)),
    "blank file": Refused("a.csv", b"\n \n\n", ("empty",)),
    "only a mark": Refused("a.jsonl", b"\xef\xbb\xbf", ("empty",)),
    "empty array": Refused("a.json", b"[]", ("no rows",)),
    "header alone": Refused("a.csv", b"prompt,completion\n", ("no rows",)),
    "binary junk": Refused("a.jsonl", bytes(range(256)) * 50, ("binary",)),
    "picture": Refused("a.txt", b"\x89PNG\r\n\x1a\n" + bytes(100), ("PNG",)),
    "ZIP": Refused("a.csv", b"PK\x03\x04" + bytes(100), ("ZIP",)),
    "truncated gzip": Refused("a.jsonl.gz", gzip.compress(_lines(GOOD))[:-20], ("gzip", "early")),
    "damaged gzip": Refused("a.jsonl.gz", gzip.compress(_lines(GOOD))[:60] + bytes(40), ("gzip",)),
    "missing columns": Refused(
        "a.jsonl", _lines([{"foo": 1, "bar": 2}] * 9), ("no known format", "'foo'", "'bar'")
    ),
    "mapped column missing": Refused(
        "a.jsonl",
        _lines(GOOD),
        ("'ask'", "data.columns.prompt", "'completion'"),
        {"columns": {"prompt": "ask"}},
    ),
    "wrong format named": Refused("a.jsonl", _lines(GOOD), ("alpaca", "'prompt'"), {"format": "alpaca"}),
    "rows that are lists": Refused("a.json", b"[[1, 2], [3, 4]]", ("not an object",)),
    "rows that are numbers": Refused("a.jsonl", b"1\n2\n3\n", ("not an object",)),
    "not JSON at all": Refused("a.jsonl", b"hello\nworld\n" * 5, ("not valid JSON", "max_rejected")),
    "not JSON by name": Refused("a.json", b"hello world", ("not JSON",)),
    "two lists in an object": Refused(
        "a.json", json.dumps({"train": GOOD, "test": GOOD}).encode(), ("'train'", "'test'")
    ),
    "duplicate header": Refused("a.csv", b"prompt,completion,prompt\na,b,c\nd,e,f\n", ("twice", "'prompt'")),
    "damaged Parquet": Refused("a.parquet", _parquet(GOOD)[:-30], ("Parquet",)),
    "Parquet by name only": Refused("a.parquet", _lines(GOOD), ("Parquet",)),
    "unknown encoding": Refused("a.jsonl", _lines(GOOD), ("klingon",), {"encoding": "klingon"}),
    "wrong encoding": Refused("a.jsonl", _lines(PERSIAN), ("ascii",), {"encoding": "ascii"}),
    "all roles wrong": Refused(
        "a.jsonl", _lines([_chat(("narrator", "x"), ("assistant", "y"))] * 5), ("role",)
    ),
    "KTO": Refused(
        "a.jsonl",
        _lines([{**chat, "label": n % 2 == 0} for n, chat in enumerate(CHATS)]),
        ("KTO", "'label'"),
    ),
}

COUNTED = {
    "truncated line": Counted("a.jsonl", _lines(GOOD)[:-30], (30,), "the line is not valid JSON", 29),
    "two objects in a line": Counted(
        "a.jsonl",
        _lines(GOOD) + b'{"prompt": "a"} {"prompt": "b"}\n',
        (31,),
        "the line is not valid JSON",
        30,
    ),
    "NUL bytes": Counted(
        "a.jsonl", _lines(GOOD) + b'{"prompt": "a\0b"}\n', (31,), "the line is not valid JSON", 30
    ),
    "NUL characters": Counted(
        "a.jsonl",
        _lines([*GOOD, {"prompt": "a\0b", "completion": "c"}]),
        (31,),
        "the text holds a NUL character",
        30,
    ),
    "NUL in CSV": Counted(
        "a.csv",
        b"text,label\n" + b"good day,x\nbad day,y\n" * 15 + b"a\0b,x\n",
        (31,),
        "the text holds a NUL character",
        30,
    ),
    "duplicate keys": Counted(
        "a.jsonl",
        _lines(GOOD) + b'{"prompt": "a", "completion": "b", "prompt": "c"}\n',
        (31,),
        "a key stands twice in the row",
        30,
    ),
    "duplicate keys in an array": Counted(
        "a.json",
        json.dumps(GOOD)[:-1].encode() + b', {"prompt": "a", "completion": "b", "prompt": "c"}]',
        (31,),
        "a key stands twice in the row",
        30,
    ),
    "wrong roles": Counted(
        "a.jsonl",
        _lines([*CHATS, _chat(("narrator", "x"), ("assistant", "y"))]),
        (31,),
        "a turn has an unknown role",
        30,
    ),
    "empty messages": Counted(
        "a.jsonl", _lines([*CHATS, {"messages": []}]), (31,), "the conversation is empty", 30
    ),
    "messages of a wrong type": Counted(
        "a.jsonl", _lines([*CHATS, {"messages": {"a": {"b": [1]}}}]), (31,), "a turn has an unknown role", 30
    ),
    "messages that are a number": Counted(
        "a.jsonl", _lines([*CHATS, {"messages": 7}]), (31,), "'messages' is not a list of turns", 30
    ),
    "a turn that is text": Counted(
        "a.jsonl", _lines([*CHATS, {"messages": ["hi"]}]), (31,), "a turn is not an object", 30
    ),
    "content that is an object": Counted(
        "a.jsonl",
        _lines([*CHATS, _chat(("user", {"a": 1}), ("assistant", "b"))]),
        (31,),
        "'content' is not text",
        30,
    ),
    "ends with the user": Counted(
        "a.jsonl",
        _lines([*CHATS, _chat(("user", "a"), ("assistant", "b"), ("user", "c"))]),
        (31,),
        "the conversation does not end with the assistant",
        30,
    ),
    "blank answer": Counted(
        "a.jsonl", _lines([*GOOD, {"prompt": "a", "completion": " \n"}]), (31,), "an answer is blank", 30
    ),
    "null answer": Counted(
        "a.jsonl", _lines([*GOOD, {"prompt": "a", "completion": None}]), (31,), "'completion' is not text", 30
    ),
    "blank answer in a chat": Counted(
        "a.jsonl", _lines([*CHATS, _chat(("user", "a"), ("assistant", ""))]), (31,), "an answer is blank", 30
    ),
    "a missing column": Counted(
        "a.jsonl", _lines([*GOOD, {"prompt": "a"}]), (31,), "the column 'completion' is missing", 30
    ),
    "NaN": Counted(
        "a.jsonl", _lines(GOOD) + b'{"prompt": NaN, "completion": "b"}\n', (31,), "'prompt' is not text", 30
    ),
    "NaN in tool arguments": Counted(
        "a.jsonl",
        _lines(CHATS)
        + b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": '
        b'[{"function": {"name": "f", "arguments": {"x": NaN}}}]}]}\n',
        (31,),
        "a value cannot be written as JSON",
        30,
    ),
    "half a surrogate pair": Counted(
        "a.jsonl",
        _lines(GOOD) + b'{"prompt": "a\\ud83d", "completion": "b"}\n',
        (31,),
        "the text holds half of a surrogate pair",
        30,
    ),
    "nested line": Counted(
        "a.jsonl", _lines(GOOD) + DEEP.encode() + b"\n", (31,), "the JSON is nested too deeply", 30
    ),
    "huge number": Counted(
        "a.jsonl",
        _lines(GOOD) + b'{"prompt": ' + b"9" * 5000 + b', "completion": "b"}\n',
        (31,),
        "the line is not valid JSON",
        30,
    ),
    "one bad byte": Counted(
        "a.jsonl",
        _lines(PERSIAN) + b'{"prompt": "\xff", "completion": "b"}\n',
        (31,),
        "the line is not utf-8 text",
        30,
    ),
    "ragged CSV": Counted(
        "a.csv",
        b"prompt,completion\n" + b"what is it?,a thing\n" * 30 + b"one\n" + b"a,b,c\n",
        (31, 32),
        "the row has another number of columns",
        30,
    ),
    "tools that are no JSON": Counted(
        "a.jsonl",
        _lines([*({**c, "tools": "[]"} for c in CHATS), {**CHATS[0], "tools": "[{"}]),
        (31,),
        "'tools' is not valid JSON",
        30,
    ),
    "tool without a name": Counted(
        "a.jsonl",
        _lines([*CHATS, {**CHATS[0], "tools": [{"type": "function"}]}]),
        (31,),
        "a tool has no function name",
        30,
    ),
    "weight of two": Counted(
        "a.jsonl",
        _lines(
            [
                *CHATS,
                {
                    "messages": [
                        {"role": "user", "content": "a"},
                        {"role": "assistant", "content": "b", "weight": 2},
                    ]
                },
            ]
        ),
        (31,),
        "the weight of a turn is neither 0 nor 1",
        30,
    ),
    "picture in a chat": Counted(
        "a.jsonl",
        _lines(
            [*CHATS, _chat(("user", [{"type": "image_url", "image_url": {"url": "x"}}]), ("assistant", "b"))]
        ),
        (31,),
        "media in a conversation is not supported yet",
        30,
    ),
    "label missing": Counted(
        "a.csv",
        b"text,label\n" + b"good day,x\nbad day,y\n" * 15 + b"what,\n",
        (31,),
        "the label is missing",
        30,
    ),
    "bytes in Parquet": Counted(
        "a.parquet",
        _parquet([*({**row, "tools": None} for row in CHATS), {**CHATS[0], "tools": b"\xff"}]),
        (31,),
        "'tools' is not a list of functions",
        30,
    ),
}


def _run(folder: Path, name: str, content: bytes, **config: object) -> DataReport:
    path = folder / name
    path.write_bytes(content)
    settings = {"path": str(path), "max_rejected": 0.2, **config}
    return prepare(DataConfig.model_validate(settings), folder / "out", seed=1)


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_file_is_refused_with_one_clear_error(case: Refused, tmp_path: Path) -> None:
    with pytest.raises(TanzimError) as caught:
        _run(tmp_path, case.name, case.content, **(case.config or {}))
    message = str(caught.value)
    assert all(word in message for word in case.words), message
    assert "fix:" in message or isinstance(caught.value, ConfigError)
    assert "where:" in message
    assert not (tmp_path / "out" / "train.arrow").exists()
    left = [path.name for path in (tmp_path / "out").glob(".*")]
    assert left in ([], [".steps"]), "temporary files are left behind"  # the cache of steps is to stay


@pytest.mark.parametrize("case", COUNTED.values(), ids=COUNTED.keys())
def test_rows_are_rejected_and_counted(case: Counted, tmp_path: Path) -> None:
    report = _run(tmp_path, case.name, case.content, split={"leakage": "allow"})
    assert report.rejected == {case.reason: len(case.rows)}
    rejects = [json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()]
    assert [(r["file"], r["row"], r["reason"]) for r in rejects] == [
        (str(tmp_path / case.name), row, case.reason) for row in case.rows
    ]
    assert sum(report.splits.values()) == case.kept
    assert report.rows_read == case.kept + len(case.rows)
    stores = [ExampleStore(tmp_path / "out" / f"{name}.arrow") for name in report.splits]
    rows = sorted(example.provenance.row for store in stores for example in store)
    assert rows == [row for row in range(1, report.rows_read + 1) if row not in case.rows]


READ = {
    "UTF-16 with mark": ("a.jsonl", _lines(PERSIAN).decode().encode("utf-16"), {}),
    "UTF-16 big-endian with mark": ("a.json", b"\xfe\xff" + json.dumps(PERSIAN).encode("utf-16-be"), {}),
    "UTF-16 named": ("a.jsonl", _lines(PERSIAN).decode().encode("utf-16-le"), {"encoding": "utf-16-le"}),
    "UTF-8 mark": ("a.jsonl", b"\xef\xbb\xbf" + _lines(PERSIAN), {}),
    "gzip named jsonl": ("a.jsonl", gzip.compress(_lines(PERSIAN)), {}),
    "plain named gz": ("a.jsonl.gz", _lines(PERSIAN), {}),
    "lines named json": ("a.json", _lines(PERSIAN), {}),
    "array named jsonl": ("a.jsonl", json.dumps(PERSIAN, indent=1).encode(), {}),
    "no suffix": ("rows", json.dumps(PERSIAN).encode(), {}),
    "carriage returns": ("a.jsonl", _lines(PERSIAN).replace(b"\n", b"\r\n\r\n"), {}),
    "objects in turn": ("a.json", "\n".join(json.dumps(r, indent=2) for r in PERSIAN).encode(), {}),
}


@pytest.mark.parametrize("case", READ.values(), ids=READ.keys())
def test_odd_but_readable(case: tuple[str, bytes, dict[str, object]], tmp_path: Path) -> None:
    name, content, config = case
    report = _run(tmp_path, name, content, **config, split={"leakage": "allow"})
    assert report.rejected == {}
    stores = [ExampleStore(tmp_path / "out" / f"{split}.arrow") for split in report.splits]
    read = {(e.messages[0].content, e.messages[1].content) for store in stores for e in store}
    assert read == {(row["prompt"], row["completion"]) for row in PERSIAN}


def test_cp1256_works_when_named(tmp_path: Path) -> None:
    arabic = _lines(PERSIAN).decode().replace("ی", "ي")
    report = _run(tmp_path, "a.jsonl", arabic.encode("cp1256"), encoding="cp1256", split={"leakage": "allow"})
    examples = [e for name in report.splits for e in ExampleStore(tmp_path / "out" / f"{name}.arrow")]
    assert {e.messages[0].content for e in examples} == {row["prompt"].replace("ی", "ي") for row in PERSIAN}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: folder, "holds no file"),
        (lambda folder: folder / "missing.jsonl", "no such file"),
        (lambda folder: folder / "*.jsonl", "matches no file"),
    ],
)
def test_nothing_to_read(make: Callable[[Path], Path], words: str, tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(b"x")
    with pytest.raises(DataError, match=words):
        prepare(DataConfig(path=str(make(tmp_path))), tmp_path / "out", seed=1)


def test_lines_lost_to_an_open_quotation_mark_are_counted_one_by_one(tmp_path: Path) -> None:
    good = [f"what is {n},it is {n}" for n in range(40)]
    lines = ["prompt,completion", *good[:20], 'oops,"never closed', *good[20:]]
    report = _run(tmp_path, "a.csv", "\n".join(lines).encode(), max_rejected=0.9, split={"leakage": "allow"})
    assert report.rejected == {"the row is not valid CSV": 21}
    assert sum(report.splits.values()) == 20
    reject = json.loads((tmp_path / "out" / "rejected.jsonl").read_text().splitlines()[0])
    assert "line 22" in reject["detail"]


def test_too_many_rejects_stop_and_name_the_reasons(tmp_path: Path) -> None:
    rows = [*GOOD, *({"prompt": "a", "completion": ""} for _ in range(6)), "junk"]
    with pytest.raises(
        DataError, match=r"7 of 37 rows \(18\.9%\).*an answer is blank \(6\); the row is not an object"
    ):
        _run(tmp_path, "a.jsonl", _lines(rows), max_rejected=0.1)
    assert len((tmp_path / "out" / "rejected.jsonl").read_text().splitlines()) == 7


PEAK = """
import sys
from pathlib import Path
from tanzim.data.config import DataConfig
from tanzim.data.prepare import prepare
r = prepare(DataConfig(path=sys.argv[1], max_line_mb=8), Path(sys.argv[2]), seed=1)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(r.rejected, r.rows_read, sum(r.splits.values()), int(peak.split()[1]) // 1024)
"""


def _peak(path: Path) -> list[str]:
    command = [sys.executable, "-c", PEAK, str(path), str(path.parent / "out")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.rsplit(maxsplit=3)


def test_a_50_mb_line_is_rejected_without_being_read_into_memory(tmp_path: Path) -> None:
    short, long = tmp_path / "short.jsonl", tmp_path / "long.jsonl"
    short.write_bytes(_lines(GOOD))
    with long.open("wb") as file:
        file.write(_lines(GOOD))
        file.write(b'{"prompt": "')
        for _ in range(50):
            file.write(b"x" * 1_000_000)
        file.write(b'", "completion": "y"}\n')
        file.write(_lines(GOOD[:1]))
    *_, usual = _peak(short)
    *counts, peak = _peak(long)
    assert counts == ["{'the line is too long': 1}", "32", "31"]
    assert int(peak) - int(usual) < 25, "MB more than without that line: it was held in memory"
    reject = json.loads((tmp_path / "out" / "rejected.jsonl").read_text())
    assert (reject["row"], reject["detail"]) == (31, "50.0 MB, data.max_line_mb is 8")


def test_a_long_element_of_an_array_is_refused(tmp_path: Path) -> None:
    rows = [*GOOD, {"prompt": "x" * 3_000_000, "completion": "y"}]
    with pytest.raises(DataError, match=r"row 31 is above data\.max_line_mb \(1 MB\)"):
        _run(tmp_path, "a.json", json.dumps(rows).encode(), max_line_mb=1)


def test_open_files_are_closed(tmp_path: Path) -> None:
    """A reader that is left half-way (an error, a look at the first rows) keeps no file open."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(DataError):
        _run(tmp_path, "a.jsonl", b"hello\n" * 100)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
