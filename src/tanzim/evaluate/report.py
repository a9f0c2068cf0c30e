"""The record of an evaluation, its JSON form, and its table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from tanzim.core.records import Json
from tanzim.evaluate.stats import Estimate

ALL = "all"
# The systems of a run: what it started from, what came of it, and saying the most frequent label always.
BASE, TUNED, MAJORITY = "base", "tuned", "majority"
# What stands in a table's first column.
TITLES = {
    "exact_match": "exact match",
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "average_precision": "average precision (PR-AUC), mean of labels",
    "scored_accuracy": "accuracy, labels scored",
    "scored_macro_f1": "macro-F1, labels scored",
    "json_valid": "valid JSON",
    "json_fields": "JSON fields right",
    "json_all": "JSON wholly right",
    "number": "final number",
    "rouge_l": "ROUGE-L",
    "chrf": "chrF",
    "entity_f1": "entity F1",
    "recall@1": "recall@1",
    "recall@10": "recall@10",
    "mrr": "MRR",
}


@dataclass(frozen=True, slots=True)
class LabelScore:
    """How one label fared: of those read, of those true, both, and how many are true."""

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, slots=True)
class SystemResult:
    """One system on the test set.

    Args:
        name: base, tuned, or the name of another system.
        fingerprint: hash of the weights (of the answers' file for another system).
        loss: mean cross-entropy per trained token of the whole test set, in nats.
        perplexity: exp(loss).
        tokens: trained tokens behind the loss.
        metrics: metric → script group ("all", "Latin", …) → estimate; values from 0 to 1.
        labels: label → scores of the generated answers, where the task has labels.
        cut_off: answers that were stopped by ``max_new_tokens``.
        unread: answers no label could be read from, where the task has labels.

    """

    name: str
    fingerprint: str
    loss: float | None = None
    perplexity: float | None = None
    tokens: int | None = None
    metrics: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)
    labels: Mapping[str, LabelScore] = field(default_factory=dict)
    cut_off: int = 0
    unread: int = 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """``system`` minus ``against`` on the same items and resamples, and what it means in words."""

    system: str
    against: str
    metric: str
    group: str
    change: Estimate
    verdict: str


@dataclass(frozen=True, slots=True)
class EvalReport:
    """What an evaluation found.

    Args:
        items: items generated for.
        examples: examples in the test set (behind the loss).
        skipped: examples that cannot be generated for: reason → count.
        metrics: the metrics measured, the most telling first.
        reason: why these.
        groups: script of the item's question → items.
        labels: the closed set of labels, if the task has one.
        systems: what was measured, in order.
        comparisons: the tuned model against every other system.
        settings: max_new_tokens, resamples, seed.

    """

    items: int
    examples: int
    skipped: Mapping[str, int]
    metrics: tuple[str, ...]
    reason: str
    groups: Mapping[str, int]
    labels: tuple[str, ...]
    systems: tuple[SystemResult, ...]
    comparisons: tuple[Comparison, ...]
    settings: Json

    @property
    def rival(self) -> str:
        """Whom the tuned model is compared with first: the base, or the most frequent label."""
        return MAJORITY if any(system.name == MAJORITY for system in self.systems) else BASE

    def system(self, name: str) -> SystemResult:
        """Return the result of the system called ``name``.

        Raises:
            KeyError: it was not measured.

        """
        return {system.name: system for system in self.systems}[name]

    def to_json(self) -> Json:
        """Return the record as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Json) -> EvalReport:
        """Make the record from what `to_json` returned."""
        systems = tuple(_system(system) for system in value["systems"])
        comparisons = tuple(
            Comparison(**{**one, "change": Estimate(**one["change"])}) for one in value["comparisons"]
        )
        lists = {key: tuple(value[key]) for key in ("metrics", "labels")}
        return cls(**{**value, **lists, "systems": systems, "comparisons": comparisons})


def _system(value: Json) -> SystemResult:
    metrics = {
        metric: {group: Estimate(**estimate) for group, estimate in groups.items()}
        for metric, groups in value["metrics"].items()
    }
    labels = {name: LabelScore(**score) for name, score in value["labels"].items()}
    return SystemResult(**{**value, "metrics": metrics, "labels": labels})


def title(metric: str) -> str:
    """Name a metric for people; ``json_fields.kind`` is the field ``kind``."""
    name, _, part = metric.partition(".")
    return f"field {part}" if part else TITLES.get(name, name)


def table_rows(report: EvalReport) -> list[list[str]]:
    """Return the table "base vs tuned": a header, then a row per metric and script group.

    Metrics are in percent with their 95 % interval; the last two columns are the change from base to
    tuned (from the most frequent label, for labels) and its verdict, where both were measured.
    """
    names, rival = [system.name for system in report.systems], report.rival
    changes = {(c.metric, c.group): c for c in report.comparisons if (c.system, c.against) == (TUNED, rival)}
    rows = [["measure", *names, *([f"tuned − {rival}", "verdict"] if changes else [])]]
    if any(system.loss is not None for system in report.systems):
        rows += _loss_rows(report, rival if changes else None)
    for metric in report.metrics:
        for group in (ALL, *report.groups):
            estimates = [system.metrics.get(metric, {}).get(group) for system in report.systems]
            if not any(estimates):
                continue
            row = [title(metric) if group == ALL else f"  {group}", *map(_percent, estimates)]
            if changes:
                change = changes.get((metric, group))
                row += [_points(change.change), change.verdict] if change else ["", ""]
            rows.append(row)
    return rows


def _loss_rows(report: EvalReport, rival: str | None) -> list[list[str]]:
    loss = ["held-out loss", *(_number(system.loss, 4) for system in report.systems)]
    perplexity = ["perplexity", *(_number(system.perplexity, 2) for system in report.systems)]
    if rival is not None:
        base, tuned = report.system(rival).loss, report.system(TUNED).loss
        change = "" if base is None or tuned is None else f"{100 * (tuned / base - 1):+.1f} %"
        loss += [change, ""]
        perplexity += ["", ""]
    return [loss, perplexity]


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _percent(estimate: Estimate | None) -> str:
    if estimate is None:
        return "–"
    return f"{100 * estimate.value:.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def _points(change: Estimate) -> str:
    return f"{100 * change.value:+.1f} [{100 * change.low:+.1f}, {100 * change.high:+.1f}]"
