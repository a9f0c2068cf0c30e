"""Report: base next to tuned, in numbers and item by item."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal

from tanzim.core.charts import Bar, figure, interval_bars
from tanzim.core.page import Align, Child, Html, code, fold, note, path, prose, table, tag, word
from tanzim.core.records import Json
from tanzim.core.units import number
from tanzim.evaluate.report import ALL, BASE, MAJORITY, TUNED, EvalReport, SystemResult, title
from tanzim.evaluate.stats import Estimate

_SHOWN = 10
_COLOURS = {BASE: 0, MAJORITY: 0, TUNED: 1}
_KINDS: dict[str, Literal["good", "bad"]] = {"better": "good", "worse": "bad"}


def _colour(report: EvalReport, name: str) -> int:
    others = [system.name for system in report.systems if system.name not in _COLOURS]
    return _COLOURS[name] if name in _COLOURS else 2 + others.index(name) % 4


def _script(group: str) -> str:
    return f"{group} script"


def results_section(report: EvalReport | None) -> list[Child]:
    """Return the table of systems and metrics, bars with intervals, and what was left out."""
    if report is None:
        missing = "evaluation/report.json is missing: nothing has been measured. "
        return [note(missing, tag("code", "tanzim evaluate"), " measures it.", kind="missing")]
    parts: list[Child] = [_counts(report), _verdicts(report)]
    whole = [metric for metric in report.metrics if "." not in metric]
    fields = [metric for metric in report.metrics if "." in metric]
    parts.append(_table(report, whole, with_loss=True))
    if fields:
        parts.append(fold("Single fields of the JSON answers", _table(report, fields, with_loss=False)))
    parts += _charts(report, whole)
    if report.labels:
        parts.append(fold("Label by label", *_labels(report)))
    return parts


def _counts(report: EvalReport) -> Html:
    settings = report.settings
    said = f"{number(report.items)} items of {number(report.examples)} test examples"
    if "max_new_tokens" in settings:
        said += f", greedy answers of at most {settings['max_new_tokens']} tokens"
    said += f". Measured because: {report.reason}." if report.reason else "."
    if "resamples" in settings:
        said += f" Intervals: 95 %, bootstrap over items, {number(settings['resamples'])} resamples."
    return tag("p", said, class_="soft")


def _verdicts(report: EvalReport) -> list[Html]:
    notes = []
    for system in dict.fromkeys(one.against for one in report.comparisons):
        rows = [c for c in report.comparisons if c.against == system and "." not in c.metric]
        first = [c for c in rows if c.metric == rows[0].metric] if rows else []
        if not first:
            continue
        said: list[Child] = [tag("b", word(first[0].system), " against ", word(system)), ": "]
        for index, one in enumerate(first):
            where = "" if one.group == ALL else f"{_script(one.group)}: "
            change = f"{_signed(one.change.value)} [{_signed(one.change.low)}, {_signed(one.change.high)}]"
            said.append(f"{'; ' if index else ''}{where}{title(one.metric)} {change} points, {one.verdict}")
        notes.append(note(*said, ".", kind=_KINDS.get(first[0].verdict, "info")))
    for result in report.systems:
        if result.cut_off:
            notes.append(
                note(
                    f"{number(result.cut_off)} of {number(report.items)} answers of ",
                    word(result.name),
                    " were cut off at the longest length.",
                )
            )
        if result.unread:
            notes.append(
                note(
                    "No label could be read from ",
                    number(result.unread),
                    " answers of ",
                    word(result.name),
                    ".",
                )
            )
    for reason, count in report.skipped.items():
        notes.append(note(f"{number(count)} test examples were left out: {reason}."))
    return notes


def _signed(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "−")


def _table(report: EvalReport, metrics: Sequence[str], *, with_loss: bool) -> Html:
    systems, rival = report.systems, report.rival
    compared = {(c.metric, c.group): c for c in report.comparisons if (c.system, c.against) == (TUNED, rival)}
    rows: list[list[Child]] = []
    if with_loss and any(system.loss is not None for system in systems):
        rows.append(["held-out loss", *(_loss(system) for system in systems)])
        rows.append(["perplexity", *(_plain(system.perplexity) for system in systems)])
        if compared:
            losses = {system.name: system.loss for system in systems}
            base, tuned = losses.get(rival), losses.get(TUNED)
            change = f"{100 * (tuned / base - 1):+.1f} %".replace("-", "−") if base and tuned else "–"
            rows[0] += [change, ""]
            rows[1] += ["", ""]
    for metric in metrics:
        for group in (ALL, *report.groups):
            found = [system.metrics.get(metric, {}).get(group) for system in systems]
            if not any(found):
                continue
            best = max(one.value for one in found if one)
            name = title(metric) if group == ALL else tag("span", _script(group), class_="sub")
            row: list[Child] = [name, *(_estimate(one, best) for one in found)]
            if compared:
                change_ = compared.get((metric, group))
                row += [_change(change_.change), change_.verdict] if change_ else ["–", ""]
            rows.append(row)
    head: list[Child] = ["Measure", *(word(system.name) for system in systems)]
    head += [f"tuned − {rival}", "Verdict"] if compared else []
    numbers: list[Align] = ["number"] * (len(systems) + bool(compared))
    return table(head, rows, ["text", *numbers])


def _loss(system: SystemResult) -> Child:
    return "–" if system.loss is None else f"{system.loss:.4f}"


def _plain(value: float | None) -> str:
    return "–" if value is None else f"{value:,.2f}"


def _estimate(one: Estimate | None, best: float) -> Child:
    if one is None:
        return "–"
    value = tag("span", f"{100 * one.value:.1f} %", class_="best" if one.value == best > 0 else None)
    return [value, tag("span", f"{100 * one.low:.1f} to {100 * one.high:.1f}", class_="range")]


def _change(change: Estimate) -> Child:
    span = tag("span", f"{_signed(change.low)} to {_signed(change.high)}", class_="range")
    return [_signed(change.value), span]


def _charts(report: EvalReport, metrics: Sequence[str]) -> list[Html]:
    if not metrics:
        return []
    by_metric = [(title(metric), _bars(report, metric, ALL)) for metric in metrics]
    charts = [("All items, %", by_metric)]
    if report.groups:
        first = metrics[0]
        by_group = [
            (f"{_script(group)} ({count})", _bars(report, first, group))
            for group, count in report.groups.items()
        ]
        charts.append((f"{title(first)} by script of the question (items), %", by_group))
    caption = "Bars: value; whiskers: 95 % interval."
    return [
        figure(name, interval_bars(name, [g for g in groups if g[1]], top=100), caption)
        for name, groups in charts
        if any(bars for _, bars in groups)
    ]


def _bars(report: EvalReport, metric: str, group: str) -> list[Bar]:
    found = [(system.name, system.metrics.get(metric, {}).get(group)) for system in report.systems]
    return [
        Bar(name, 100 * one.value, 100 * one.low, 100 * one.high, _colour(report, name))
        for name, one in found
        if one
    ]


def _labels(report: EvalReport) -> list[Child]:
    parts: list[Child] = []
    for system in report.systems:
        if system.labels:
            rows = [
                [word(name), *(f"{100 * v:.1f} %" for v in (s.precision, s.recall, s.f1)), number(s.support)]
                for name, s in system.labels.items()
            ]
            kinds: list[Align] = ["text", "number", "number", "number", "number"]
            head = ["Label", "Precision", "Recall", "F1", "Items"]
            parts += [tag("h3", word(system.name)), table(head, rows, kinds)]
    return parts


def items_section(report: EvalReport | None, items: Sequence[Json]) -> list[Child]:
    """Return the ten items the tuned model did worst on, and the ten best, every system side by side."""
    if report is None or not items:
        return [note("evaluation/items.jsonl is missing: there are no answers to show.", kind="missing")]
    names = [system.name for system in report.systems]
    judged = TUNED if TUNED in names else names[0]
    ranked = sorted(items, key=lambda item: (_score(report, item, judged), _gain(report, item, judged)))
    few = min(_SHOWN, (len(ranked) + 1) // 2)
    worst = ranked[:few]
    best = ranked[::-1][: min(_SHOWN, len(ranked) - few)]
    rival = "the base" if report.rival == BASE else report.rival
    basis = f"Ranked by the mean of the scores of {judged}; among equals, by its lead over {rival}."
    parts: list[Child] = [tag("p", basis, class_="soft")]
    for name, chosen in (("Worst", worst), ("Best", best)):
        heading = f"{name} {len(chosen)} of {number(len(items))}"
        parts += [tag("h3", heading), *(_item(report, item) for item in chosen)]
    return parts


def _score(report: EvalReport, item: Json, name: str) -> float:
    scores = item["systems"].get(name, {}).get("scores", {})
    values = [float(scores[metric]) for metric in report.metrics if metric in scores]
    return sum(values) / len(values) if values else 0.0


def _gain(report: EvalReport, item: Json, name: str) -> float:
    return _score(report, item, name) - _score(report, item, report.rival)


def _item(report: EvalReport, item: Json) -> Html:
    where = item["provenance"]
    name = tag("h4", path(where["source"]), f", row {where['row']} · {_script(item['group'])}")
    messages = item["messages"]
    parts: list[Child] = [name]
    if len(messages) > 1:
        earlier = [tag("div", tag("h4", m["role"]), *_message(m)) for m in messages[:-1]]
        parts.append(fold(f"{len(messages) - 1} earlier message{'s' if len(messages) > 2 else ''}", *earlier))
    parts += _message(messages[-1])
    answers = [tag("div", tag("h4", "reference"), prose(item["reference"]), class_="answer")]
    for system, entry in item["systems"].items():
        answers.append(_answer(report, system, entry))
    return tag("article", *parts, tag("div", *answers, class_="pair"), class_="item")


def _message(message: Json) -> list[Child]:
    """Show what a turn says, and the functions it calls."""
    calls = message.get("tool_calls") or []
    parts: list[Child] = [prose(message["content"])] if message["content"] or not calls else []
    return [*parts, *(code(json.dumps(call, ensure_ascii=False)) for call in calls)]


def _answer(report: EvalReport, system: str, entry: Json) -> Html:
    text = entry["answer"]
    shown = prose(text) if text.strip() else tag("p", "(an empty answer)", class_="soft")
    scores = entry["scores"]
    said = [f"{title(m)} {100 * float(scores[m]):.0f}\u00a0%" for m in report.metrics if m in scores]
    if entry.get("finish_reason") == "length":
        said.append("cut off")
    colour = f"k{_colour(report, system)}"
    line = tag("div", " · ".join(said), class_="scores")
    return tag("div", tag("h4", word(system)), shown, line, class_=f"answer {colour}")
