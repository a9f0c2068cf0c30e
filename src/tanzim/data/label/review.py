"""A review queue: tasks for annotators who do not see one another, and their labels back on the examples.

The file of an annotator holds tasks only, in an order of its own; the formats are in `formats`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from tanzim.core.errors import DataError
from tanzim.core.files import write_json, write_text
from tanzim.core.records import Example, Json
from tanzim.core.seeds import derive
from tanzim.data.label.adjudicate import Verdict
from tanzim.data.label.formats import READERS, WRITERS, Format, argilla_settings, interface
from tanzim.data.label.queue import Annotation, by_origin, checked_name
from tanzim.data.texts import read


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
            interface, for Argilla ``argilla-settings.json``, the settings of a dataset.
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
        rows = [WRITERS[format](origin, text, name, labels) for origin, text in mine]
        path = folder / (f"{name}.jsonl" if format == "plain" else f"{name}.json")
        if format == "plain":
            write_text(path, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))
        else:
            write_json(path, rows)
        files.append(path)
    if format == "label_studio":
        write_text(folder / "labels.xml", interface(labels))
    if format == "argilla":
        write_json(folder / "argilla-settings.json", argilla_settings(labels))
    return files


def read_annotations(
    path: Path, *, annotator: str | None = None, labels: Sequence[str] | None = None
) -> list[Annotation]:
    """Read the labels of a file that annotators filled in; its format is seen from its records.

    Tasks without a label (left open, skipped, discarded) give no annotation.

    Args:
        path: JSON Lines, or a JSON list, in one of the formats.
        annotator: whose file it is; unset takes whom each record names.
        labels: the labels that are allowed; unset takes any.

    Raises:
        DataError: a record has none of the formats, no origin, or a label that is not allowed.

    """
    found = []
    for number, row in enumerate(_rows(path), 1):
        where = f"{path.name}, record {number}"
        reader = next((read_row for mark, read_row in READERS.items() if mark in row), None)
        if reader is None:
            raise DataError(
                f"this is no task of a review queue: it has {', '.join(list(row)[:8]) or 'no keys'}",
                where=where,
                fix="export from Label Studio as JSON or JSON-MIN; from Argilla write json.dumps of "
                "dataset.records.to_list(flatten=True)",
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
    except (OSError, ValueError, RecursionError) as error:  # ValueError: a number of 5,000 digits, too
        raise DataError(f"these annotations cannot be read: {error}", where=str(path)) from None
    if not all(isinstance(row, dict) for row in rows):
        raise DataError("every record must be an object", where=path.name)
    return list(rows)
