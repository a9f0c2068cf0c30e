"""``report.html``: one offline page that tells what a run did, made of the run directory's files alone.

Each section says which file is missing instead of leaving something out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tanzim.core.errors import RunError
from tanzim.core.files import read_json, write_text
from tanzim.core.page import Child, Html, code, facts, fold, link, note, page, path, section, table, tag, word
from tanzim.core.records import Json
from tanzim.core.run import RunFolder, RunManifest, read_lines
from tanzim.core.units import count, duration, number, size
from tanzim.evaluate.report import ALL, EvalReport, title
from tanzim.pipeline.report_data import data_section
from tanzim.pipeline.report_results import items_section, results_section
from tanzim.pipeline.report_training import moved_section, plan_section, training_section

_SECTIONS = (
    ("results", "Before and after"),
    ("training", "Training"),
    ("data", "Data"),
    ("plan", "Plan and measurement"),
    ("items", "Items, side by side"),
    ("environment", "Environment"),
)


@dataclass(frozen=True, slots=True)
class _Files:
    """What the run directory holds; None or empty where a file is missing."""

    manifest: RunManifest | None
    data: Json | None
    tokens: Json | None
    plan: Json | None
    metrics: list[Json]
    moved: Json | None
    evaluation: EvalReport | None
    items: list[Json]
    config: str | None


def _read(folder: RunFolder) -> _Files:
    try:
        evaluation = _json(folder.evaluation / "report.json")
        items = folder.evaluation / "items.jsonl"
        return _Files(
            manifest=folder.read_manifest() if (folder.path / "manifest.json").is_file() else None,
            data=_json(folder.data / "report.json"),
            tokens=_json(folder.tokens / "report.json"),
            plan=_json(folder.plan),
            moved=_json(folder.moved),
            metrics=folder.read_metrics(),
            evaluation=EvalReport.from_json(evaluation) if evaluation else None,
            items=list(read_lines(items)) if items.is_file() else [],
            config=folder.config.read_text(encoding="utf-8") if folder.config.is_file() else None,
        )
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise RunError(
            f"a file of this run cannot be read: {error}",
            where=str(folder.path),
            fix="run the stage that writes it again",
        ) from error


def _json(path: Path) -> Any:  # noqa: ANN401 - any JSON value
    return read_json(path) if path.is_file() else None


def report_page(folder: RunFolder) -> str:
    """Return the report of a run as one offline HTML document.

    Args:
        folder: the run directory; whatever it does not hold is named on the page.

    Raises:
        RunError: there is no such directory, or a file in it is damaged.

    """
    if not folder.path.is_dir():
        raise RunError("there is no such run directory", where=str(folder.path))
    files = _read(folder)
    contents = tag("nav", [link(name, text) for name, text in _SECTIONS], aria_label="Contents")
    return page(
        f"{folder.name}: Tanzim report",
        tag("header", tag("h1", word(folder.name)), _summary(files), contents),
        _tiles(files),
        section("Before and after", "results", results_section(files.evaluation)),
        section(
            "Training",
            "training",
            [*training_section(files.metrics, _result(files)), *moved_section(files.moved)],
        ),
        section("Data", "data", data_section(files.data, files.tokens)),
        section("Plan and measurement", "plan", plan_section(files.plan)),
        section("Items, side by side", "items", items_section(files.evaluation, files.items)),
        section("Environment", "environment", _environment(files)),
    )


def write_report(folder: RunFolder) -> Path:
    """Write ``report.html`` into the run directory, whole or not at all, and return its path.

    Raises:
        RunError: there is no such directory, or a file in it is damaged.

    """
    write_text(folder.report, report_page(folder))
    return folder.report


def _result(files: _Files) -> Json:
    return files.manifest.result if files.manifest else {}


def _summary(files: _Files) -> Html:
    """Say in two sentences what was done and what came of it."""
    return tag("p", _done(files), " ", _outcome(files.evaluation), class_="lead")


def _done(files: _Files) -> list[Child]:
    if files.manifest is None:
        return ["Nothing is known of the base model, because manifest.json is missing."]
    base, result = files.manifest.base.get("name"), files.manifest.result
    said: list[Child] = ["The base model ", path(str(base or "(not chosen yet)"))]
    if not result:
        return [*said, f" has not been trained: the run is only {files.manifest.status}."]
    said.append(f" was trained for {count(result['step'], 'step')}")
    counts = (files.tokens or {}).get("splits", {}).get("train", {})
    if counts:
        said.append(f" on {count(counts['examples'], 'example')}")
    if files.data:
        said.append(f" ({files.data.get('format', 'unknown format')})")
    return [*said, "."]


def _outcome(report: EvalReport | None) -> str:
    if report is None:
        return "It has not been evaluated."
    main = _main(report)
    if main is None:
        return f"It was evaluated by its loss on {count(report.examples, 'held-out example')}."
    metric, base, tuned, verdict = main
    items = count(report.items, "held-out item")
    if base is None:
        return f"On {items}, {title(metric)} is {_percent(tuned)}."
    return f"On {items}, {title(metric)} went from {_percent(base)} to {_percent(tuned)}: {verdict}."


def _main(report: EvalReport) -> tuple[str, float | None, float, str] | None:
    """Return the most telling metric, its value before and after, and the verdict."""
    systems = {system.name: system.metrics for system in report.systems}
    for metric in report.metrics:
        tuned = systems.get("tuned", {}).get(metric, {}).get(ALL)
        base = systems.get(report.rival, {}).get(metric, {}).get(ALL)
        if tuned is not None:
            verdict = next(
                (
                    one.verdict
                    for one in report.comparisons
                    if (one.against, one.metric, one.group) == (report.rival, metric, ALL)
                ),
                "not compared",
            )
            return metric, base.value if base else None, tuned.value, verdict
    return None


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _tiles(files: _Files) -> Html:
    tiles: list[tuple[str, str]] = []
    report, result = files.evaluation, _result(files)
    if report:
        main = _main(report)
        if main:
            metric, base, tuned, _ = main
            before = f"{100 * base:.1f} → " if base is not None else ""
            tiles.append((f"{before}{_percent(tuned)}", title(metric)))
        losses = {system.name: system.loss for system in report.systems}
        before_loss, after_loss = losses.get(report.rival), losses.get("tuned")
        if before_loss is not None and after_loss is not None:
            tiles.append((f"{before_loss:.3f} → {after_loss:.3f}", "held-out loss"))
    for key, name, show in (
        ("seconds", "training time", duration),
        ("tokens_per_s", "tokens per second", number),
        ("peak_memory", "peak memory", size),
    ):
        if result.get(key) is not None:
            value = round(result[key]) if key == "tokens_per_s" else result[key]
            tiles.append((show(value), name))
    shown = [tag("div", tag("b", value), tag("span", name), class_="tile") for value, name in tiles]
    return tag("div", shown, class_="tiles") if shown else Html("")


def _environment(files: _Files) -> list[Child]:
    parts: list[Child] = []
    if files.manifest is None:
        parts.append(note("manifest.json is missing: base, seed and versions are unknown.", kind="missing"))
    else:
        manifest = files.manifest
        known = dict(manifest.environment)
        packages, choices = known.pop("packages", {}), known.pop("choices", [])
        pairs = [("Status", manifest.status), ("Seed", str(manifest.seed))]
        pairs += [(f"Base: {key}", _plain(value)) for key, value in manifest.base.items()]
        pairs += [(key, _plain(value)) for key, value in known.items()]
        parts.append(facts((name, tag("bdi", value)) for name, value in pairs))
        if choices:
            rows = [[one["key"], tag("bdi", one["value"]), tag("bdi", one["why"])] for one in choices]
            parts.append(fold("What was chosen automatically", table(["Key", "Value", "Why"], rows)))
        if packages:
            parts.append(fold("Package versions", table(["Package", "Version"], sorted(packages.items()))))
        if manifest.template:
            parts.append(fold("Chat template and stop strings", *_values(manifest.template)))
        if manifest.data:
            parts.append(fold("Data fingerprints", *_values(manifest.data)))
        if manifest.result:
            parts.append(fold("Result, as recorded", *_values(manifest.result)))
    if files.config is None:
        parts.append(note("config.yaml is missing: the resolved config is unknown.", kind="missing"))
    else:
        parts.append(fold("Resolved config", code(files.config)))
    return parts


def _values(values: Mapping[str, Any]) -> list[Child]:
    """Show short values as facts and long ones as blocks."""
    short = [(key, tag("bdi", _plain(value))) for key, value in values.items() if len(_plain(value)) <= 80]
    long = [(key, _plain(value)) for key, value in values.items() if len(_plain(value)) > 80]
    return [facts(short), *(part for key, value in long for part in (tag("h3", key), code(value)))]


def _plain(value: Any) -> str:  # noqa: ANN401 - any JSON value
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping | list):
        return json.dumps(value, ensure_ascii=False, indent=2 if len(str(value)) > 80 else None)
    return "none" if value is None else str(value)
