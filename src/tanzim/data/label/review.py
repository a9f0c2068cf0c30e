"""A review queue: tasks for annotators who do not see one another, and their labels back on the examples.

The file of an annotator holds tasks only, in an order of its own. Formats: plain (JSON Lines, to be filled in
by hand or by a small tool), Label Studio (its basic JSON task format) and Argilla (the JSON of version 2's
``dataset.records.to_json``).
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal
from xml.sax.saxutils import quoteattr

from tanzim.core.errors import DataError
from tanzim.core.files import write_json, write_text
from tanzim.core.records import Example, Json, Provenance
from tanzim.core.seeds import derive
from tanzim.data.label.adjudicate import Verdict
from tanzim.data.label.queue import Annotation, by_origin, checked_name, plain_origin, read_origin
from tanzim.data.texts import read

Format = Literal["plain", "label_studio", "argilla"]
QUESTION = "label"  # what the label is called in Label Studio and Argilla


def export_tasks(
    examples: Iterable[Example],
    folder: Path,
    *,
    annotators: Sequence[str],
    labels: Sequence[str],
    format: Format = "plain",
    seed: int = 13,
) -> list[Path]:
    """Write the tasks of each annotator to a file of their own.

    A task shows the text alone: no label it may have, no other annotator's. Each has another order, so that
    what comes late, and is read in haste, is not the same for all.

    Args:
        examples: to be labelled, of any kind; of conversations what people and assistants say is shown.
        folder: gets NAME.jsonl (plain) or NAME.json; for Label Studio also ``labels.xml``, its labelling
            interface.
        annotators: their names: letters, digits and .+-_@.
        labels: to choose from.
        format: whose files.
        seed: of the orders.

    Returns:
        The files, one for each annotator.

    Raises:
        DataError: a name cannot be a file's, two are the same, or two examples have one origin.

    """
    for name in annotators:
        if list(annotators).count(name) > 1:
            raise DataError(f"annotators must have different names; {name!r} stands twice", where="review")
        checked_name(name)
    tasks = [(example.provenance, read(example) or example.text) for example in examples]
    by_origin(origin for origin, _ in tasks)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name in annotators:
        mine = list(tasks)
        random.Random(derive(seed, "review", name)).shuffle(mine)
        rows = [_WRITERS[format](origin, text, name, labels) for origin, text in mine]
        path = folder / (f"{name}.jsonl" if format == "plain" else f"{name}.json")
        if format == "plain":
            write_text(path, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))
        else:
            write_json(path, rows)
        files.append(path)
    if format == "label_studio":
        write_text(folder / "labels.xml", _interface(labels))
    return files


def read_annotations(
    path: Path, *, annotator: str | None = None, labels: Sequence[str] | None = None
) -> list[Annotation]:
    """Read the labels of a file that annotators filled in; its format is seen from its records.

    Tasks without a label (left open, skipped, discarded) give no annotation.

    Args:
        path: JSON Lines, or a JSON list, in one of the three formats.
        annotator: whose file it is; unset takes whom each record names.
        labels: the labels that are allowed; unset takes any.

    Raises:
        DataError: a record has none of the formats, no origin, or a label that is not allowed.

    """
    found = []
    for number, row in enumerate(_rows(path), 1):
        where = f"{path.name}, record {number}"
        reader = next((_READERS[kind] for kind, mark in _MARKS.items() if mark in row), None)
        if reader is None:
            raise DataError(
                f"this is no task of a review queue: it has {', '.join(list(row)[:8]) or 'no keys'}",
                where=where,
                fix="export from Label Studio as JSON, from Argilla with dataset.records.to_json",
            )
        try:
            origin, said = reader(row)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise DataError(
                f"this record cannot be read ({type(error).__name__}: {error})",
                where=where,
                fix="leave what the task came with (source, row, derived) as it is",
            ) from None
        for name, label in said:
            if labels is not None and label not in labels:
                raise DataError(f"'{label}' is not one of {', '.join(labels)}", where=where)
            found.append(Annotation(origin, annotator or name, label))
    return found


def annotated(examples: Sequence[Example], annotations: Iterable[Annotation]) -> list[dict[str, str]]:
    """Bring annotations back to the examples they are of: annotator → label, for each example, [N].

    Raises:
        DataError: an annotation is of none of the examples, an annotator said two things of one, or two
            examples have the same origin.

    """
    place = by_origin(example.provenance for example in examples)
    votes: list[dict[str, str]] = [{} for _ in examples]
    for one in annotations:
        if one.provenance not in place:
            raise DataError(
                f"{one.annotator} labelled {one.provenance}, which is none of {len(examples):,} examples",
                where="review",
                fix="bring annotations back to the examples that the tasks were made of",
            )
        before = votes[place[one.provenance]].setdefault(one.annotator, one.label)
        if before != one.label:
            raise DataError(
                f"{one.annotator} labelled {one.provenance} twice: '{before}' and '{one.label}'",
                where="review",
            )
    return votes


def settled(examples: Sequence[Example], verdicts: Sequence[Verdict]) -> tuple[list[Example], list[Example]]:
    """Give examples the labels that were decided, with who said what in about.review.

    Conversations, pairs and tagged words keep their kind: the label stands in about.review alone.

    Args:
        examples: N examples.
        verdicts: what `adjudicate` made of each.

    Returns:
        The decided examples, and those that are to be reviewed (again), unchanged.

    """
    done, open_ = [], []
    for example, verdict in zip(examples, verdicts, strict=True):
        if verdict.label is None:
            open_.append(example)
            continue
        review: Json = {
            "label": verdict.label,
            "share": round(verdict.share, 4),
            "votes": dict(verdict.votes),
        }
        if verdict.decided_by:
            review["decided_by"] = verdict.decided_by
        about = {**example.about, "review": review}
        if example.kind in ("text", "labelled"):
            done.append(replace(example, kind="labelled", label=verdict.label, about=about))
        else:
            done.append(replace(example, about=about))
    return done, open_


def _rows(path: Path) -> list[Json]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if text.lstrip().startswith("["):
            rows = json.loads(text)
        else:
            rows = [json.loads(line) for line in text.split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"these annotations cannot be read: {error}", where=str(path)) from None
    if not all(isinstance(row, dict) for row in rows):
        raise DataError("every record must be an object", where=path.name)
    return list(rows)


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


def _interface(labels: Sequence[str]) -> str:
    choices = "\n".join(f"    <Choice value={quoteattr(label)}/>" for label in labels)
    return (
        '<View>\n  <Text name="text" value="$text"/>\n'
        f'  <Choices name="{QUESTION}" toName="text" choice="single">\n{choices}\n  </Choices>\n</View>\n'
    )


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


_WRITERS: dict[Format, Callable[[Provenance, str, str, Sequence[str]], Json]] = {
    "plain": _plain,
    "label_studio": _label_studio,
    "argilla": _argilla,
}
_READERS: dict[Format, Callable[[Json], Said]] = {
    "plain": _read_plain,
    "label_studio": _read_label_studio,
    "argilla": _read_argilla,
}
_MARKS: dict[Format, str] = {"plain": "task", "argilla": "fields", "label_studio": "data"}
