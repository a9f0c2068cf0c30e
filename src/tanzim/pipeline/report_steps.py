"""Report: what each step of data preparation took out, changed and made, with examples of it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import pairwise

from tanzim.core.charts import Bar, figure, interval_bars
from tanzim.core.page import Align, Child, Html, code, facts, fold, language, note, prose, table, tag, word
from tanzim.core.records import Json
from tanzim.core.units import count, duration, number, size
from tanzim.data.ledger import HIDDEN
from tanzim.data.steps import STEPS, step_class

_NUMBERS: list[Align] = ["number"] * 6
_MOST = 12  # entries of a step's counts and findings that are shown


def steps_section(steps: Sequence[Json], cache: Json | None = None) -> list[Child]:
    """Return the chain of steps: how many examples were left after each, and what it did.

    Args:
        steps: the reports of the steps (see `tanzim.data.ledger.StepReport`), in order.
        cache: where the results are kept (see `DataReport.cache`).

    """
    if not steps:
        return []
    parts: list[Child] = [_left(steps), _overview(steps), note(_times(steps, cache or {}))]
    parts += _seen_before(steps, cache or {})
    return [*parts, *(_step(number_, step) for number_, step in enumerate(steps, 1))]


def _left(steps: Sequence[Json]) -> Html:
    left = steps[0]["rows_in"]
    bars = [Bar("before", left, None, None, 0)]
    for place, step in enumerate(steps, 1):
        if step["rows_in"] != left:
            bars.append(Bar("to train on", step["rows_in"], None, None, 0))
        left = step["rows_out"]
        bars.append(Bar(f"{place}. {step['type']}", left, None, None, 1))
    drawn = interval_bars("examples after each step", [("", bars)])
    return figure("Examples left after each step", drawn)


def _overview(steps: Sequence[Json]) -> Html:
    rows: list[list[Child]] = []
    left = steps[0]["rows_in"]
    for place, step in enumerate(steps, 1):
        if step["rows_in"] != left:
            said = f"split: {number(left - step['rows_in'])} set aside"
            rows.append([said, number(left), "", "", "", number(step["rows_in"]), ""])
        left = step["rows_out"]
        took = duration(step["seconds"])
        figures = (step["rows_in"], sum(step["removed"].values()), step["changed"], step["added"])
        shown = ["–" if not value and index else number(value) for index, value in enumerate(figures)]
        cached = f"cached ({took})" if step["cached"] else took
        rows.append([f"{place}. {step['type']}", *shown, number(left), cached])
    head = ["Step", "In", "Taken out", "Changed", "Made", "Out", "Took"]
    return table(head, rows, ["text", *_NUMBERS])


def _times(steps: Sequence[Json], cache: Json) -> str:
    """Say how long it took, what came from the cache, and what the split did."""
    fresh = [step for step in steps if not step["cached"]]
    said = f"{len(fresh)} of {count(len(steps), 'step')} ran, in {duration(sum(s['seconds'] for s in fresh))}"
    if not fresh:
        said = f"{count(len(steps), 'step')} came from the cache, with the time they had taken"
    elif len(fresh) < len(steps):
        said += "; the others came from the cache, with the time they had taken"
    if cache:
        said += f". Results are kept in {cache['folder']} ({size(cache['bytes'])}); {cache['rule']}"
    if any(one["rows_out"] != two["rows_in"] for one, two in pairwise(steps)):
        said += ". What is set aside is for validation and test: later steps leave it alone"
    return f"{said}."


def _seen_before(steps: Sequence[Json], cache: Json) -> list[Child]:
    """Say where what a step hides can still be read: with the steps before it."""
    kinds = [step["type"] for step in steps]
    private = [place for place, kind in enumerate(kinds) if kind in STEPS and step_class(kind).private]
    if not private or not private[0]:
        return []
    first = private[0]
    folder = f", and the cache ({cache['folder']})" if cache else ""
    said = (
        f"{kinds[first]} hides what it finds from step {first + 1} on. The steps before it saw the texts as "
        f"they came: their examples on this page, their lines in rejected.jsonl{folder} still hold it. "
        "Delete those before you hand this folder on."
    )
    return [note(said, kind="bad")]


def _step(place: int, step: Json) -> Html:
    settings = {key: value for key, value in step["settings"].items() if key != "type"}
    lines = [
        f"{key}: {value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)}"
        for key, value in settings.items()
    ]
    parts: list[Child] = [code("\n".join(lines))]
    if step["counts"]:
        seen = sorted(step["counts"].items(), key=lambda pair: -pair[1])
        parts.append(facts((tag("bdi", name), number(found)) for name, found in seen[:_MOST]))
        if len(seen) > _MOST:
            parts.append(tag("p", f"… and {len(seen) - _MOST} more kinds", class_="soft"))
    plain = [(key, value) for key, value in step["findings"].items() if isinstance(value, str | int | float)]
    if plain:
        parts.append(facts((key.replace("_", " "), tag("bdi", _said(value))) for key, value in plain[:_MOST]))
    for reason, found in sorted(step["removed"].items(), key=lambda pair: -pair[1]):
        parts.append(tag("h3", f"Taken out: {count(found, 'example')}, ", tag("bdi", reason)))
        parts += [_removed(line) for line in step["samples"].get(f"removed: {reason}", [])]
    if changed := step["samples"].get("changed"):
        parts.append(tag("h3", "Changed: before, and after"))
        parts += [_compared(one["before"], one["after"]) for one in changed]
    if added := step["samples"].get("added"):
        rows = [[word(one["from"]), prose(one["text"])] for one in added]
        parts += [tag("h3", "Made"), table(["From", "Text"], rows)]
    title = f"{place}. {step['type']}: {number(step['rows_in'])} → {number(step['rows_out'])}"
    removed = sum(step["removed"].values())
    did = [f"{number(n)} {what}" for n, what in (
        (removed, "taken out"), (step["changed"], "changed"), (step["added"], "made")) if n]  # fmt: skip
    return fold(f"{title} ({', '.join(did)})" if did else title, *parts)


def _compared(before: str, after: str) -> Html:
    """Return two texts side by side, the words that differ marked."""
    if before == HIDDEN:
        return tag("div", prose(before, "soft"), prose(after), class_="change shown")
    old, new = (re.split(r"(\s+)", text) for text in (before, after))
    left: list[Child] = []
    right: list[Child] = []
    for kind, a, b, c, d in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        one, two = "".join(old[a:b]), "".join(new[c:d])
        # Both are cut at the same length: where they end is no difference.
        same = kind == "equal" or (
            b == len(old) and d == len(new) and one.endswith("…") and two.endswith("…")
        )
        left.append(one if same or not one else tag("del", one))
        right.append(two if same or not two else tag("mark", two))
    sides = [
        tag("div", side, class_="text", dir="auto", lang=language(text))
        for side, text in ((left, before), (right, after))
    ]
    return tag("div", sides, class_="change shown")


def _said(value: str | float) -> str:
    return value if isinstance(value, str) else number(value)


def _removed(line: Json) -> Html:
    where: list[Child] = [word(f"{line['file']}, row {line['row']}")]
    if line["detail"]:
        where += [": ", word(line["detail"])]
    return tag("blockquote", tag("p", where, class_="soft"), prose(line.get("content") or ""), class_="shown")
