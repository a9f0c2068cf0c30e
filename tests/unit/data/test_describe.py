"""Rows that read back, a data sheet, Croissant metadata that its own library accepts and reads."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from tanzim.core.errors import DataError
from tanzim.core.records import Example, Message, Provenance, ToolCall
from tanzim.data.config import DataConfig
from tanzim.data.describe.config import CardConfig
from tanzim.data.describe.publish import publish
from tanzim.data.describe.rows import to_row, write_rows
from tanzim.data.executor import Local
from tanzim.data.ingest.dataset import read_data
from tanzim.data.prepare import prepare

WHERE = Provenance("a.jsonl", 7)
ASKED = Message("user", "کتاب‌ها کجاست؟")
EXAMPLES = {
    "messages": Example(
        "messages",
        WHERE,
        messages=(
            Message("system", "Be brief."),
            ASKED,
            Message("assistant", "", tool_calls=(ToolCall("find", {"what": "کتاب", "n": 2}, "c1"),)),
            Message("tool", "در قفسه", tool_call_id="c1"),
            Message("assistant", "In the shelf.", weight=1.0),
        ),
        tools=({"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}},),
    ),
    "text": Example("text", WHERE, text="یک متن کوتاه\nin two lines"),
    "labelled": Example("labelled", WHERE, text="good", label="positive", about={"group": "g1"}),
    "tagged": Example("tagged", WHERE, text="علی رفت", words=("علی", "رفت"), tags=("B-PER", "O")),
    "pair": Example(
        "pair",
        WHERE,
        messages=(ASKED,),
        chosen=(Message("assistant", "در قفسه"),),
        rejected=(Message("assistant", "I do not know"),),
    ),
}


@pytest.mark.parametrize("kind", EXAMPLES)
def test_a_written_row_reads_back_as_the_same_example(kind: str, tmp_path: Path) -> None:
    example = EXAMPLES[kind]
    path = tmp_path / "rows.jsonl"
    assert write_rows(path, [example] * 3) == 3
    columns = {"group": "group"} if kind == "labelled" else {}
    config = DataConfig.model_validate({"path": str(path), "columns": columns})
    reading = read_data(config, tmp_path / "c", tmp_path / "o", Local(1), lambda *_: None)
    read = list(reading.dataset)
    assert not reading.faults
    assert len(read) == 3
    for got in read:
        assert got.kind == example.kind
        assert got.about == example.about
        for part in ("messages", "tools", "text", "label", "words", "tags", "chosen", "rejected"):
            assert getattr(got, part) == getattr(example, part), part


@pytest.fixture
def published(tmp_path: Path) -> Path:
    rows = [
        {"text": f"این متن شمارهٔ {n} است و می‌گوید {n * n}", "label": "اول" if n % 3 else "دوم"}
        for n in range(60)
    ]
    (tmp_path / "rows.jsonl").write_text(
        "\n".join(json.dumps(row, ensure_ascii=False) for row in [*rows, {"label": "تنها"}]), encoding="utf-8"
    )
    config = DataConfig.model_validate(
        {"path": str(tmp_path / "rows.jsonl"), "steps": [{"type": "length", "max_characters": 32}]}
    )
    prepare(config, tmp_path / "data", seed=1)
    card = CardConfig(
        title="متن‌های شماره‌دار", licence="CC-BY-4.0", creators=["Somebody"], purpose="To count."
    )
    publish(tmp_path / "data", tmp_path / "out", card, "run")
    return tmp_path / "out"


def _lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.filterwarnings("ignore:ConjunctiveGraph is deprecated:DeprecationWarning")  # in mlcroissant
def test_croissant_is_accepted_and_read_by_its_own_library(published: Path) -> None:
    import mlcroissant

    dataset = mlcroissant.Dataset(jsonld=str(published / "croissant.json"))
    assert dataset.metadata.ctx.issues.errors == set()
    lines = _lines(published / "train.jsonl")
    records = list(dataset.records("train"))
    assert len(records) == len(lines)
    for record, line in zip(records, lines, strict=True):
        assert record["train/text"].decode() == line["text"]
        assert record["train/label"].decode() == line["label"]


@pytest.mark.filterwarnings("ignore:ConjunctiveGraph is deprecated:DeprecationWarning")  # in mlcroissant
def test_croissant_of_conversations_beside_texts_can_be_read(tmp_path: Path) -> None:
    import mlcroissant

    turns = [{"role": "user", "content": "سلام، چطوری؟"}, {"role": "assistant", "content": "خوبم."}]
    (tmp_path / "a.jsonl").write_text(
        "\n".join(
            json.dumps({"messages": [*turns, {"role": "user", "content": f"{n}"}, turns[1]]})
            for n in range(9)
        )
    )
    (tmp_path / "b.jsonl").write_text(
        "\n".join(json.dumps({"text": f"متن شمارهٔ {n * 977}"}) for n in range(9))
    )
    prepare(
        DataConfig(path=[str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]), tmp_path / "data", seed=1
    )
    publish(tmp_path / "data", tmp_path / "out", CardConfig(), "run")
    dataset = mlcroissant.Dataset(jsonld=str(tmp_path / "out" / "croissant.json"))
    found = list(dataset.records("train"))
    assert [one["train/provenance"].decode() for one in found] == [
        line["provenance"] for line in _lines(tmp_path / "out" / "train.jsonl")
    ]
    assert {one["train/text"] is None for one in found} == {True, False}


def test_croissant_names_the_very_files(published: Path) -> None:
    value = json.loads((published / "croissant.json").read_text(encoding="utf-8"))
    for file in value["distribution"]:
        content = (published / file["contentUrl"]).read_bytes()
        assert file["sha256"] == hashlib.sha256(content).hexdigest()
        assert file["contentSize"] == f"{len(content)} B"


def test_the_data_sheet_answers_from_the_report_and_leaves_the_rest_open(published: Path) -> None:
    sheet = (published / "DATASHEET.md").read_text(encoding="utf-8")
    rows = sum(len(_lines(path)) for path in published.glob("*.jsonl"))
    assert sheet.startswith("# متن‌های شماره‌دار")
    assert f"texts with a label {rows} (100.0%)" in sheet
    assert "the text is blank" in sheet or "missing" in sheet  # the unusable row, with its reason
    assert "too long" in sheet  # the step's removals
    assert "To count." in sheet
    assert "⚠ To be filled in by the owner: `data.card.funding`." in sheet
    keys = re.findall(r"owner: `data\.card\.(\w+)`", sheet)
    assert f"⚠ {len(keys)} of " in sheet.split("##")[0]
    assert all(f"`{key}`" in sheet.split("##")[0] for key in keys)
    assert {"purpose", "licence", "creators"}.isdisjoint(keys)
    page = (published / "DATASHEET.html").read_text(encoding="utf-8")
    assert page.count("note bad") == len(keys) + 1
    assert "متن‌های شماره‌دار" in page
    assert "persian" in sheet


def test_a_folder_of_other_files_is_not_replaced(published: Path) -> None:
    data = published.parent / "data"
    publish(data, published, CardConfig(), "again")
    assert (published / "DATASHEET.md").read_text(encoding="utf-8").startswith("# again")
    (published / "thesis.txt").write_text("mine")
    for out, said in ((published, "thesis.txt"), (published / "thesis.txt", "not a folder")):
        with pytest.raises(DataError, match=said):
            publish(data, out, CardConfig(), "third")
    assert (published / "DATASHEET.md").read_text(encoding="utf-8").startswith("# again")


def test_provenance_stands_in_every_row() -> None:
    assert to_row(EXAMPLES["text"])["provenance"] == "a.jsonl, row 7"
