"""How tasks are handed to Label Studio and Argilla, and what comes back: one row for each task.

Written: plain (JSON Lines, to be filled in by hand or by a small tool), Label Studio's tasks, Argilla's
records. Read as well: Label Studio's JSON and JSON-MIN, Argilla's ``records.to_json`` and
``records.to_list(flatten=True)``. Only the latter says which answers were submitted: in the former a
draft or a discarded answer looks the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal
from xml.sax.saxutils import quoteattr

from tanzim.core.records import Json, Provenance
from tanzim.data.label.queue import plain_origin, read_origin

Format = Literal["plain", "label_studio", "argilla"]
QUESTION = "label"  # what the label is called in Label Studio and Argilla


def _plain(origin: Provenance, text: str, annotator: str, labels: Sequence[str]) -> Json:
    task = {"task": plain_origin(origin), "text": text}
    return {**task, "annotator": annotator, "options": list(labels), "label": None}


def _label_studio(origin: Provenance, text: str, annotator: str, labels: Sequence[str]) -> Json:
    del annotator, labels  # it names its annotators itself, and takes the labels from labels.xml
    return {"data": {"text": text, **plain_origin(origin)}}


def _argilla(origin: Provenance, text: str, annotator: str, labels: Sequence[str]) -> Json:
    del annotator, labels  # it names its users itself, and takes the labels from the settings of the dataset
    return {
        "id": str(origin),
        "fields": {"text": text},
        "metadata": plain_origin(origin),
        "suggestions": {},
        "responses": {},
        "vectors": {},
        "status": "pending",
    }


def interface(labels: Sequence[str]) -> str:
    """Return the labelling interface of a Label Studio project."""
    choices = "\n".join(f"    <Choice value={quoteattr(label)}/>" for label in labels)
    return (
        '<View>\n  <Text name="text" value="$text"/>\n'
        f'  <Choices name="{QUESTION}" toName="text" choice="single">\n{choices}\n  </Choices>\n</View>\n'
    )


def argilla_settings(labels: Sequence[str]) -> Json:
    """Return the settings of an Argilla dataset, as ``rg.Settings.from_json`` reads them."""
    options = [{"value": label, "text": label} for label in labels]
    choice = {"type": "label_selection", "options": options}
    return {
        "guidelines": None,
        "questions": [{"name": QUESTION, "title": "Label", "required": True, "settings": choice}],
        "fields": [{"name": "text", "title": "Text", "required": True, "settings": {"type": "text"}}],
        "vectors": [],
        "metadata": [],
        "allow_extra_metadata": True,
        "distribution": {"strategy": "overlap", "min_submitted": 1},
        "mapping": None,
    }


Said = tuple[Provenance, list[tuple[str, str]]]


def _read_plain(row: Json) -> Said:
    label = row["label"]
    return read_origin(row["task"]), [] if label in (None, "") else [(str(row["annotator"]), str(label))]


def _read_label_studio(row: Json) -> Said:
    said = []
    for annotation in row.get("annotations") or []:
        choices = [
            choice
            for result in annotation["result"]
            if result["type"] == "choices" and result["from_name"] == QUESTION
            for choice in result["value"]["choices"]
        ]
        if annotation.get("was_cancelled") or not choices:
            continue
        if len(choices) > 1:
            raise ValueError(f"one label is wanted, found {choices}")
        said.append((_who(annotation["completed_by"]), str(choices[0])))
    return read_origin(row["data"]), said


def _who(value: Any) -> str:  # noqa: ANN401 - a number, or an object
    if isinstance(value, dict):
        return str(value.get("email") or value["id"])
    return str(value)


def _read_argilla(row: Json) -> Said:
    answers = (row.get("responses") or {}).get(QUESTION) or []
    said = [(str(one["user_id"]), str(one["value"])) for one in answers if one.get("value") is not None]
    return read_origin(row["metadata"]), said


def _read_argilla_flat(row: Json) -> Said:
    parts = (row.get(f"{QUESTION}.responses{part}") or [] for part in ("", ".users", ".status"))
    answers = zip(*parts, strict=True)
    said = [(str(user), str(label)) for label, user, status in answers if status == "submitted"]
    return read_origin(row), said


def _read_label_studio_flat(row: Json) -> Said:
    label = row.get(QUESTION)
    return read_origin(row), [] if label in (None, "") else [(_who(row["annotator"]), _one(label))]


def _one(label: Any) -> str:  # noqa: ANN401 - a text, or several
    if not isinstance(label, str):
        raise ValueError(f"one label is wanted, found {label}")
    return label


WRITERS: dict[Format, Callable[[Provenance, str, str, Sequence[str]], Json]] = {
    "plain": _plain,
    "label_studio": _label_studio,
    "argilla": _argilla,
}
# By a key that no other format has, the first that is found.
READERS: Mapping[str, Callable[[Json], Said]] = {
    "task": _read_plain,
    "fields": _read_argilla,
    "data": _read_label_studio,
    "annotation_id": _read_label_studio_flat,
    "_server_id": _read_argilla_flat,
}
