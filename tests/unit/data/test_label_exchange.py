"""Tasks and answers as Argilla's client and a Label Studio server took, wrote and exported them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tanzim.core.errors import DataError
from tanzim.core.records import Example, Provenance
from tanzim.data.label.queue import Queue
from tanzim.data.label.review import annotated, export_tasks, read_annotations
from tanzim.pipeline.data_review import agree_data, import_review

GOLDEN = Path(__file__).parents[2] / "golden"
TOOLS = {"argilla": "argilla-settings.json", "label_studio": "labels.xml"}


def golden(tool: str) -> dict[str, Any]:
    return json.loads((GOLDEN / f"review_{tool}.json").read_text(encoding="utf-8"))


def examples(texts: list[str]) -> list[Example]:
    """Return the examples of make_review_files.py."""
    return [
        Example("text", Provenance("نظرها.csv", row, "half 1" if row == 4 else ""), text=text)
        for row, text in enumerate(texts, 1)
    ]


@pytest.mark.parametrize("tool", TOOLS)
def test_what_is_written_is_what_the_real_tool_took(tool: Any, tmp_path: Path) -> None:
    real = golden(tool)
    (file,) = export_tasks(
        examples(real["texts"]), tmp_path, annotators=["sara"], labels=real["labels"], format=tool
    )
    assert json.loads(file.read_text(encoding="utf-8")) == real["exported"]
    more = (tmp_path / TOOLS[tool]).read_text(encoding="utf-8")
    assert (json.loads(more) if tool == "argilla" else more) == real[
        "settings" if tool == "argilla" else "interface"
    ]


@pytest.mark.parametrize(
    ("tool", "form"),
    [
        ("label_studio", "JSON"),
        ("label_studio", "JSON_MIN"),
        ("argilla", "to_list_flat"),
        ("argilla", "to_json"),
    ],
)
def test_what_the_real_tool_wrote_is_read(tool: str, form: str, tmp_path: Path) -> None:
    real = golden(tool)
    file = tmp_path / "back.json"
    file.write_text(json.dumps(real[form]), encoding="utf-8")
    votes = annotated(examples(real["texts"]), read_annotations(file, labels=real["labels"]))
    expected: list[dict[str, str]] = [{} for _ in real["texts"]]
    for name, answers in real["answers"].items():
        for one, said in zip(expected, answers, strict=True):
            if said == "skip" and form == "to_json":  # which does not say that it was discarded
                one[name] = real["labels"][0]
            elif said not in (None, "skip"):
                one[name] = said
    assert votes == expected


def test_a_file_of_the_real_tool_goes_into_a_queue(tmp_path: Path) -> None:
    real = golden("label_studio")
    queue = Queue(tmp_path / "queue", tuple(real["labels"]))
    queue.save()
    queue.add(examples(real["texts"]))
    file = tmp_path / "back.json"
    file.write_text(json.dumps(real["JSON"]), encoding="utf-8")
    assert import_review(str(queue.path), str(file)) == {"1": 4, "2": 4}
    assert import_review(str(queue.path), str(file)) == {"1": 0, "2": 0}  # once is enough
    found = agree_data(str(queue.path), method="agreed", votes=2)
    assert [verdict.label for verdict in found.consensus.verdicts] == [real["labels"][0], *[None] * 5]
    assert found.consensus.disputed == [1, 3]


def test_several_labels_of_one_text_are_refused(tmp_path: Path) -> None:
    row = {"annotation_id": 1, "annotator": 1, "source": "s", "row": 1, "label": {"choices": ["a", "b"]}}
    file = tmp_path / "back.json"
    file.write_text(json.dumps([row]), encoding="utf-8")
    with pytest.raises(DataError, match="one label is wanted"):
        read_annotations(file)
