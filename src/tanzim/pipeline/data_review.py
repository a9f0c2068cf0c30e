"""People label data: tasks are answered, handed out, brought back, and what people agree on is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tanzim.core.errors import DataError
from tanzim.core.files import write_json
from tanzim.data.describe.rows import write_rows
from tanzim.data.label.adjudicate import Method
from tanzim.data.label.consensus import Agreement, Consensus, consensus, measure, shown
from tanzim.data.label.formats import Format
from tanzim.data.label.log import Log, answers
from tanzim.data.label.queue import Annotation, Queue, writing
from tanzim.data.label.review import annotated, export_tasks, read_annotations, settled
from tanzim.data.label.session import Session


@contextmanager
def open_review(folder: str, annotator: str, *, disputed: bool = False) -> Iterator[tuple[Queue, Session]]:
    """Open an annotator's review, or that of one who decides what annotators disagree on.

    Args:
        folder: the queue.
        annotator: who answers.
        disputed: show what annotators disagree on, with their labels but not their names.

    Raises:
        DataError: this is no queue, it is open elsewhere, or one who labelled is to decide.

    """
    queue = Queue.open(Path(folder))
    if not disputed:
        with Log(queue, annotator) as log:
            yield queue, Session(queue.order(annotator), log)
        return
    if annotator in queue.names():
        raise DataError(
            f"{annotator} labelled this queue, and cannot decide where labels differ",
            where=folder,
            fix="let a further person decide, or take the majority: tanzim data agree",
        )
    found = consensus(queue, method="agreed")
    open_ = {queue.tasks[number].provenance for number in found.disputed}
    with Log(queue, annotator, "decisions") as log:
        mine = [
            one for one in queue.order(annotator) if one.provenance in open_ or one.provenance in log.said
        ]
        votes = zip(queue.tasks, found.votes, strict=True)
        said = {example.provenance: Counter(one.values()) for example, one in votes}
        yield queue, Session(mine, log, said)


def export_review(
    folder: str, annotator: str, output: str | None = None, *, format: Format = "plain"
) -> list[Path]:
    """Write the tasks that an annotator has not answered for another tool.

    Args:
        folder: the queue.
        annotator: whose tasks.
        output: the folder to write to; unset takes ``exchange`` in the queue.
        format: plain, argilla or label_studio.

    Raises:
        DataError: this is no queue, all is answered, or the folder cannot be written.

    """
    queue = Queue.open(Path(folder))
    said = answers(queue, annotator)
    left = [example for example in queue.order(annotator) if example.provenance not in said]
    if not left:
        raise DataError(f"{annotator} has answered everything", where=folder)
    target = Path(output) if output else queue.path / "exchange"
    with writing(target):
        return export_tasks(
            left, target, annotators=[annotator], labels=queue.labels, format=format, seed=queue.seed
        )


def import_review(folder: str, file: str, annotator: str | None = None) -> dict[str, int]:
    """Take over the answers of a file that annotators filled in; return how many are new, by annotator.

    Answers that are known are left as they are; one that differs takes the place of the older one.

    Args:
        folder: the queue.
        file: in one of the three formats.
        annotator: whose answers they are; unset takes whom the file names.

    Raises:
        DataError: the file has none of the formats, or an answer does not fit the queue.

    """
    queue = Queue.open(Path(folder))
    found = read_annotations(Path(file), annotator=annotator, labels=queue.labels)
    annotated(queue.tasks, found)
    by_name: dict[str, list[Annotation]] = {}
    for one in found:
        by_name.setdefault(one.annotator, []).append(one)
    new = {}
    for name, given in sorted(by_name.items()):
        with Log(queue, name) as log:
            fresh = [one for one in given if log.said.get(one.provenance) != one.label]
            for one in fresh:
                log.answer(one.provenance, one.label)
        new[name] = len(fresh)
    return new


@dataclass(frozen=True, slots=True)
class Agreed:
    """What annotators agree on.

    Args:
        queue: the queue.
        consensus: the label of each task.
        agreement: numbers; None where no example has two labels.
        labelled: examples with a label in the end.
        single: of those, how many one annotator alone labelled.

    """

    queue: Queue
    consensus: Consensus
    agreement: Agreement | None
    labelled: int
    single: int


def agree_data(
    folder: str,
    *,
    output: str | None = None,
    method: Method = "majority",
    least: float = 0.5,
    votes: int = 1,
) -> Agreed:
    """Measure how far annotators agree, and write the examples with the labels that were decided.

    The numbers go to ``agreement.json`` in the queue.

    Args:
        folder: the queue.
        output: JSON Lines to write the labelled examples to, which ``data.path`` reads.
        method: majority, model (annotators weighed by how they agree) or agreed (all must say the same).
        least: the share that a label must exceed.
        votes: labels that an example must have.

    Raises:
        DataError: this is no queue, nobody has labelled anything, or a file cannot be written.

    """
    queue = Queue.open(Path(folder))
    found = consensus(queue, method=method, least=least, votes=votes)
    agreement = None
    if any(len(one) > 1 for one in found.votes):
        agreement = measure(found.votes, queue.labels, ordered=queue.ordered)
        with writing(queue.path):
            write_json(queue.path / "agreement.json", shown(agreement))
    done, _ = settled(queue.tasks, found.verdicts)
    if output is not None:
        with writing(Path(output)):
            write_rows(Path(output), done)
    single = sum(one.label is not None and len(one.votes) == 1 for one in found.verdicts)
    return Agreed(queue, found, agreement, len(done), single)
