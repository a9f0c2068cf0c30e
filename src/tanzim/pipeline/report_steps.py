"""Report: what each step of data preparation took out, changed and made, with examples of it."""

from __future__ import annotations

from collections.abc import Sequence

from tanzim.core.charts import Bar, figure, interval_bars
from tanzim.core.page import Align, Child, Html, code, facts, fold, prose, table, tag, word
from tanzim.core.records import Json
from tanzim.core.units import count, duration, number

_NUMBERS: list[Align] = ["number"] * 6
_MOST = 12  # entries of a step's counts and findings that are shown


def steps_section(steps: Sequence[Json]) -> list[Child]:
    """Return the chain of steps: how many examples were left after each, and what it did.

    Args:
        steps: the reports of the steps (see `tanzim.data.ledger.StepReport`), in order.

    """
    if not steps:
        return []
    return [_left(steps), _overview(steps), *(_step(number_, step) for number_, step in enumerate(steps, 1))]


def _left(steps: Sequence[Json]) -> Html:
    bars = [Bar("before", steps[0]["rows_in"], None, None, 0)]
    bars += [
        Bar(f"{place}. {step['type']}", step["rows_out"], None, None, 1)
        for place, step in enumerate(steps, 1)
    ]
    drawn = interval_bars("examples after each step", [("", bars)])
    return figure("Examples left after each step", drawn)


def _overview(steps: Sequence[Json]) -> Html:
    rows: list[list[Child]] = []
    for place, step in enumerate(steps, 1):
        took = "from the cache" if step["cached"] else duration(step["seconds"])
        removed = sum(step["removed"].values())
        figures = (step["rows_in"], removed, step["changed"], step["added"], step["rows_out"])
        rows.append([f"{place}. {step['type']}", *map(number, figures), took])
    head = ["Step", "In", "Taken out", "Changed", "Made", "Out", "Took"]
    return table(head, rows, ["text", *_NUMBERS])


def _step(place: int, step: Json) -> Html:
    settings = {key: value for key, value in step["settings"].items() if key != "type"}
    parts: list[Child] = [code("\n".join(f"{key}: {value}" for key, value in settings.items()))]
    if step["counts"]:
        seen = sorted(step["counts"].items(), key=lambda pair: -pair[1])
        parts.append(facts((tag("bdi", name), number(found)) for name, found in seen[:_MOST]))
        if len(seen) > _MOST:
            parts.append(tag("p", f"… and {len(seen) - _MOST} more kinds", class_="soft"))
    plain = [(key, value) for key, value in step["findings"].items() if isinstance(value, str | int | float)]
    if plain:
        parts.append(facts((key, tag("bdi", _said(value))) for key, value in plain[:_MOST]))
    for reason, found in sorted(step["removed"].items(), key=lambda pair: -pair[1]):
        parts.append(tag("h3", f"Taken out: {count(found, 'example')}, ", tag("bdi", reason)))
        parts += [_removed(line) for line in step["samples"].get(f"removed: {reason}", [])]
    if changed := step["samples"].get("changed"):
        rows = [[prose(one["before"]), prose(one["after"])] for one in changed]
        parts += [tag("h3", "Changed"), table(["Before", "After"], rows)]
    if added := step["samples"].get("added"):
        rows = [[word(one["from"]), prose(one["text"])] for one in added]
        parts += [tag("h3", "Made"), table(["From", "Text"], rows)]
    removed = sum(step["removed"].values())
    title = f"{place}. {step['type']}: {number(step['rows_in'])} → {number(step['rows_out'])}"
    return fold(f"{title}, {count(removed, 'example')} taken out" if removed else title, *parts)


def _said(value: str | float) -> str:
    return value if isinstance(value, str) else number(value)


def _removed(line: Json) -> Html:
    where = f"{line['file']}, row {line['row']}"
    detail = f": {line['detail']}" if line["detail"] else ""
    return tag(
        "blockquote", tag("p", word(where), word(detail), class_="soft"), prose(line.get("content") or "")
    )
