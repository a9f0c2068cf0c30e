"""Answers to scores: per item for people, and per item as sums for the statistics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tanzim.core.records import Json, Score
from tanzim.evaluate.answers import Answer
from tanzim.evaluate.items import Item
from tanzim.evaluate.report import LabelScore
from tanzim.evaluate.stats import Floats, OfItems, Value, label_rows, macro_f1, mean
from tanzim.score import metrics
from tanzim.score.text import normalise

_TEXT: dict[str, Callable[[str, str], Score]] = {
    "exact_match": metrics.exact_match,
    "json_valid": metrics.json_valid,
    "json_fields": metrics.json_fields,
    "number": metrics.number,
    "rouge_l": metrics.rouge_l,
    "chrf": metrics.chrf,
}
MOST_FIELDS = 20


@dataclass(frozen=True, slots=True)
class Column:
    """One metric of one system over the items it fits.

    Args:
        items: their places, N integers in ascending order.
        rows: what is summed over items, or known of each, [N, S].
        value: from that to the metric.

    """

    items: tuple[int, ...]
    rows: Floats
    value: Value | OfItems

    def only(self, chosen: Sequence[bool]) -> Column:
        """Keep the items that are ``chosen`` (one flag per item of the evaluation)."""
        kept = [place for place, item in enumerate(self.items) if chosen[item]]
        return Column(tuple(self.items[place] for place in kept), self.rows[kept], self.value)


@dataclass(slots=True)
class Judged:
    """One system's scores: ``columns`` by metric, ``scores`` per item, and its labels."""

    columns: dict[str, Column] = field(default_factory=dict)
    scores: list[Json] = field(default_factory=list)
    labels: dict[str, LabelScore] = field(default_factory=dict)
    unread: int = 0


def judge(
    items: Sequence[Item], answers: Sequence[Answer], chosen: Sequence[str], labels: Sequence[str]
) -> Judged:
    """Score every answer by every metric that fits its reference.

    Args:
        items: N items.
        answers: N answers, in the same order.
        chosen: names of metrics.
        labels: the closed set, for accuracy and macro-F1.

    """
    judged = Judged(scores=[{} for _ in items])
    for name in chosen:
        if name in _TEXT:
            _judge_text(name, items, answers, judged)
    if {"accuracy", "macro_f1"} & set(chosen):
        read = [metrics.find_label(answer.text, labels) for answer in answers]
        right = [_nearest(item.reference, labels) for item in items]
        judge_labels("", read, right, labels, chosen, judged)
        judged.labels = label_table(read, right, labels)
        judged.unread = read.count(None)
        if all(answer.label_logprobs for answer in answers):
            best = [labels[int(np.argmax(answer.label_logprobs))] for answer in answers]
            judge_labels("scored_", best, right, labels, chosen, judged)
    return judged


def _nearest(reference: str, labels: Sequence[str]) -> str:
    """Return the label as it is spelled in the closed set."""
    same = (label for label in labels if normalise(label) == normalise(reference))
    return next(same, reference)


def _means(items: Sequence[int], values: Sequence[float]) -> Column:
    rows = np.array([(value, 1.0) for value in values], dtype=np.float64).reshape(-1, 2)
    return Column(tuple(items), rows, mean)


def _judge_text(name: str, items: Sequence[Item], answers: Sequence[Answer], judged: Judged) -> None:
    places = [place for place, item in enumerate(items) if metrics.fits(name, item.reference)]
    scores = {place: _TEXT[name](answers[place].text, items[place].reference) for place in places}
    for place, score in scores.items():
        judged.scores[place][name] = score.value
        if score.details:
            judged.scores[place][f"{name}_details"] = dict(score.details)
    judged.columns[name] = _means(places, [scores[place].value for place in places])
    if name != "json_fields":
        return
    judged.columns["json_all"] = _means(places, [float(scores[place].details["all"]) for place in places])
    counts = Counter(key for score in scores.values() for key in score.details["fields"])
    for key, _ in counts.most_common(MOST_FIELDS):
        having = [place for place in places if key in scores[place].details["fields"]]
        right = [float(scores[place].details["fields"][key]) for place in having]
        judged.columns[f"json_fields.{key}"] = _means(having, right)


def judge_labels(
    prefix: str,
    read: Sequence[str | None],
    right: Sequence[str],
    labels: Sequence[str],
    chosen: Sequence[str],
    judged: Judged,
) -> None:
    """Add accuracy and macro-F1 of labels to ``judged``, their names after ``prefix``."""
    everywhere = range(len(right))
    hits = [float(a == b) for a, b in zip(read, right, strict=True)]
    for place, label in enumerate(read):
        judged.scores[place][f"{prefix}accuracy"] = hits[place]
        judged.scores[place][f"{prefix}label"] = label
    if "accuracy" in chosen:
        judged.columns[f"{prefix}accuracy"] = _means(everywhere, hits)
    if "macro_f1" in chosen:
        rows = label_rows(read, right, labels)
        judged.columns[f"{prefix}macro_f1"] = Column(tuple(everywhere), rows, macro_f1)


def label_table(
    read: Sequence[str | None], right: Sequence[str], labels: Sequence[str]
) -> dict[str, LabelScore]:
    """Return precision, recall, F1 and support of each label (0 where a ratio has no ground)."""
    table = {}
    sums = label_rows(read, right, labels).sum(0).reshape(-1, 3)
    for label, (hits, predicted, true) in zip(labels, sums.tolist(), strict=True):
        precision, recall = hits / max(predicted, 1), hits / max(true, 1)
        table[label] = LabelScore(precision, recall, 2 * hits / max(predicted + true, 1), int(true))
    return table


def order(columns: Mapping[str, Column]) -> tuple[str, ...]:
    """Name the metrics, a JSON object's single fields last."""
    return tuple(sorted(columns, key=lambda name: "." in name))
