"""``search.html``: one offline page that tells what a search tried, made of its log and configs alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tanzim.core.charts import Bar, figure, interval_bars
from tanzim.core.config import Section
from tanzim.core.errors import RunError
from tanzim.core.files import read_json, write_text
from tanzim.core.page import Child, Html, code, link, note, page, path, section, table, tag, word
from tanzim.core.records import Json
from tanzim.core.run import RunFolder, read_lines
from tanzim.core.scatter import Axis, Mark, Shape, scatter, shape
from tanzim.core.units import count, duration, number
from tanzim.tune.config import Entry, Range
from tanzim.tune.importance import importances
from tanzim.tune.space import identity
from tanzim.tune.trials import Trial, read_trials

_SECTIONS = (("best", "The best"), ("values", "Trials"), ("keys", "Keys"), ("table", "Every trial"))


class _Space(Section):
    """The part of the log's first line that says what was searched."""

    space: dict[str, Entry]


def write_search_page(folder: RunFolder) -> Path:
    """Write ``search.html`` into the run directory of a search, and return its path.

    Raises:
        RunError: there is no search in it.

    """
    target = folder.path / "search.html"
    write_text(target, search_page(folder))
    return target


def search_page(folder: RunFolder) -> str:
    """Return the page of a search as one offline HTML document.

    Args:
        folder: its run directory.

    Raises:
        RunError: there is no search in it.

    """
    log = folder.path / "search.jsonl"
    lines = list(read_lines(log)) if log.is_file() else []
    if not lines:
        raise RunError("there is no search here (no search.jsonl)", where=str(folder.path))
    about, trials = lines[0]["about"], read_trials(lines)
    entries = _Space(space=about["space"]).space
    best = _best(trials, about["maximise"])
    contents = tag("nav", [link(name, text) for name, text in _SECTIONS], aria_label="Contents")
    return page(
        f"{folder.name}: Tanzim search",
        tag("header", tag("h1", word(folder.name)), _lead(about, trials, best), contents),
        _tiles(about, trials, best),
        section("The best", "best", _winner(folder, best)),
        section("Trials", "values", _values(about, trials, best), _comparable(folder, trials)),
        section("Keys", "keys", _importances(entries, trials), _by_key(entries, about, trials, best)),
        section("Every trial", "table", _table(entries, about, trials, best)),
    )


def _best(trials: Sequence[Trial], maximise: bool) -> Trial | None:
    complete = [trial for trial in trials if trial.value is not None]
    return min(complete, key=lambda t: (t.value or 0.0) * (-1 if maximise else 1), default=None)


def _lead(about: Json, trials: Sequence[Trial], best: Trial | None) -> Html:
    states = [trial.state for trial in trials]
    parts = [
        f"{states.count(state)} {said}"
        for state, said in (
            ("complete", "complete"),
            ("pruned", "ended early"),
            ("failed", "failed"),
            ("running", "not ended yet"),
        )
        if state in states
    ]
    way = {"grid": "every combination of a grid", "random": "settings drawn at random",
           "bayesian": "settings that TPE proposed from the trials before",
           "halving": "settings drawn at random, of which the best go on at each rung"}  # fmt: skip
    said = f"{count(len(trials), 'trial')} of {way[about['method']]}: {', '.join(parts) or 'none yet'}. "
    if best is None:
        return tag("p", said, "None has come to a value.", class_="lead")
    ends = f"Trial {best.number} is the best, with a validation {about['metric']} of {_value(best)}."
    return tag("p", said, ends, class_="lead")


def _tiles(about: Json, trials: Sequence[Trial], best: Trial | None) -> Html:
    tiles = [(duration(sum(trial.seconds for trial in trials)), "in trials that ended")]
    if best is not None:
        tiles.insert(0, (_value(best), f"best validation {about['metric']}"))
    shown = [tag("div", tag("b", value), tag("span", name), class_="tile") for value, name in tiles]
    return tag("div", shown, class_="tiles")


def _value(trial: Trial) -> str:
    return number(trial.value or 0.0)


def _winner(folder: RunFolder, best: Trial | None) -> list[Child]:
    if best is None:
        return [note("No trial is complete.", kind="missing")]
    rows = [[key, tag("bdi", _show(value))] for key, value in best.params.items()]
    parts: list[Child] = [table(["Key", "Value"], rows)]
    config = folder.path / "best.yaml"
    if config.is_file():
        parts += [tag("p", "Its config, ", path("best.yaml"), ":"), code(config.read_text(encoding="utf-8"))]
    return parts


def _height(about: Json, trial: Trial) -> float | None:
    """Return where a trial stands on the axis of values; a pruned one by its last loss."""
    if trial.value is not None:
        return trial.value
    if about["metric"] == "loss" and trial.reports:
        return trial.reports[max(trial.reports)]
    return None


def _shape(trial: Trial, best: Trial | None) -> Shape:
    if trial is best:
        return "ring"
    return "dot" if trial.state == "complete" else "cross"


def _said(trial: Trial) -> str:
    params = ", ".join(f"{key}={_show(value)}" for key, value in trial.params.items())
    return f"trial {trial.number}: {_end(trial)}\n{params}"


def _end(trial: Trial) -> str:
    if trial.value is not None:
        return number(trial.value)
    if trial.state == "failed":
        return "failed"
    reached = f" at {max(trial.reports)} %" if trial.reports else ""
    return f"ended early{reached}" if trial.state == "pruned" else f"not ended yet{reached}"


def _marks(about: Json, trials: Sequence[Trial], best: Trial | None, x: dict[int, float]) -> list[Mark]:
    heights = [(trial, _height(about, trial)) for trial in trials]
    marks = [
        Mark(x[trial.number], height, _shape(trial, best), _said(trial))
        for trial, height in heights
        if height is not None
    ]
    return sorted(marks, key=lambda mark: ("cross", "dot", "ring").index(mark.shape))  # the best on top


def _legend(marks: Sequence[Mark]) -> Html:
    said: dict[Shape, str] = {"dot": "complete", "ring": "the best", "cross": "ended early, at its last loss"}
    used = [kind for kind in said if any(mark.shape == kind for mark in marks)]
    items = [
        tag("li", tag("svg", shape(kind, 16, 8), viewbox="0 0 32 16", aria_hidden="true"), said[kind])
        for kind in used
    ]
    return tag("ul", items, class_="key")


def _values(about: Json, trials: Sequence[Trial], best: Trial | None) -> list[Child]:
    marks = _marks(about, trials, best, {trial.number: float(trial.number) for trial in trials})
    if not marks:
        return [note("No trial has a value yet.", kind="missing")]
    line: list[tuple[float, float]] = []
    for trial in trials:
        if trial.value is not None:
            values = [trial.value, *(y for _, y in line[-1:])]
            line.append((float(trial.number), max(values) if about["maximise"] else min(values)))
    title = f"Validation {about['metric']} by trial"
    chart = scatter(title, marks, x_name="trial", line=line if len(line) > 1 else ())
    better = "higher" if about["maximise"] else "lower"
    caption = f"The line is the best so far; {better} is better."
    return [figure(title, chart, caption), _legend(marks)]


def _importances(entries: dict[str, Entry], trials: Sequence[Trial]) -> Child:
    found = importances(entries, trials)
    if not found.shares:
        return note("Too few trials can be compared to say which key mattered.", kind="missing")
    bars = [Bar(_short(key, entries), share, None, None, 1) for key, share in found.shares.items()]
    where = "at their ends" if found.step is None else f"at {found.step} % of their steps, which all reached"
    title = "How much each key mattered"
    caption = (
        f"Share of the differences between {count(found.trials, 'trial')}, compared {where}, that a key "
        "explains by itself (fANOVA). Few trials say little: below some 20, take it as a hint."
    )
    return figure(title, interval_bars(title, [("importance", bars)], top=1.0), caption)


def _by_key(
    entries: dict[str, Entry], about: Json, trials: Sequence[Trial], best: Trial | None
) -> list[Child]:
    charts: list[Child] = []
    for key, entry in entries.items():
        names, axis, x = _positions(key, entry, trials)
        marks = _marks(about, trials, best, x)
        if marks:
            title = f"Validation {about['metric']} by {key}"
            chart = scatter(title, marks, x_name=key, axis=axis, names=names)
            charts.append(figure(title, chart))
    return charts


def _positions(key: str, entry: Entry, trials: Sequence[Trial]) -> tuple[list[str], Axis, dict[int, float]]:
    """Return the names under the axis of a key, the axis, and where each trial stands on it."""
    if isinstance(entry, Range):
        at = {trial.number: float(trial.params[key]) for trial in trials}
        return [], "log" if entry.log else "linear", at
    known = [identity(value) for value in entry.values]
    at = {trial.number: float(known.index(identity(trial.params[key]))) for trial in trials}
    return [_clip(_show(value)) for value in entry.values], "names", at


def _clip(name: str, most: int = 24) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _short(key: str, entries: dict[str, Entry]) -> str:
    """Return the last part of a key where no other key ends so."""
    last = key.rpartition(".")[2]
    return last if sum(other.rpartition(".")[2] == last for other in entries) == 1 else key


def _show(value: Any) -> str:  # noqa: ANN401 - any YAML value
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key}={_show(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(_show, value))
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _table(
    entries: dict[str, Entry], about: Json, trials: Sequence[Trial], best: Trial | None
) -> list[Child]:
    sign = -1 if about["maximise"] else 1
    place = {"complete": 0, "pruned": 1, "running": 2, "failed": 3}
    ordered = sorted(
        trials, key=lambda t: (place[t.state], sign * (t.value or 0.0), -max(t.reports, default=0), t.number)
    )
    rows = []
    for trial in ordered:
        end: Child = tag("span", _end(trial), class_="best") if trial is best else _end(trial)
        if trial.state == "failed":
            end = [_end(trial), tag("span", trial.reason, class_="range")]
        settings = [tag("bdi", _show(trial.params[key])) for key in entries]
        rows.append([str(trial.number), end, *settings, duration(trial.seconds) if trial.seconds else "–"])
    head = ["Trial", f"Validation {about['metric']}", *entries, "Time"]
    kinds = ["number" if isinstance(entry, Range) else "text" for entry in entries.values()]
    return [table(head, rows, ["text", "number", *kinds, "number"])]  # type: ignore[list-item]


def _comparable(folder: RunFolder, trials: Sequence[Trial]) -> Child:
    """Warn where trials were measured on different validation sets."""
    seen = set()
    for trial in trials:
        manifest = folder.path / "trials" / str(trial.number) / "manifest.json"
        data = read_json(manifest).get("data", {}) if manifest.is_file() else {}
        seen.add(data.get("fingerprints", {}).get("validation"))
    if len(seen - {None}) < 2:
        return ""
    return note(
        "The searched keys change the validation set: these values are not of the same texts.", kind="bad"
    )
