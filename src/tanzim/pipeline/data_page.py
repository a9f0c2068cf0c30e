"""The page of prepared data: what came in, what each step did, what is there now. Offline, right-to-left."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tanzim.core.files import write_text
from tanzim.core.page import Child, Html, link, note, page, prose, section, table, tag, word
from tanzim.core.units import number
from tanzim.data.describe.tally import SPLITS, Tally, tally
from tanzim.data.prepare import DataReport
from tanzim.data.texts import words_of
from tanzim.pipeline.report_data import data_section, lengths
from tanzim.pipeline.report_steps import steps_section

LOOK = 20_000  # examples of each split that are looked at for languages and samples


def write_data_page(folder: Path, name: str) -> Path:
    """Write ``report.html`` beside the report of prepared data.

    Args:
        folder: what ``prepare`` wrote to.
        name: of the run.

    """
    report, counts = DataReport.read(folder), tally(folder, LOOK)
    path = folder / "report.html"
    write_text(path, data_page(report, counts, name))
    return path


def data_page(report: DataReport, counts: Tally, name: str) -> str:
    """Return the page.

    Args:
        report: what became of every row.
        counts: what the prepared examples are.
        name: of the run.

    """
    removed = sum(sum(step["removed"].values()) for step in report.steps)
    added = sum(step["added"] for step in report.steps)
    dropped = sum(report.leakage.get("dropped", {}).values())
    unused = sum(report.unused.values())
    tiles = [(report.rows_read, "rows read"), (sum(report.rejected.values()), "could not be used")]
    tiles += [(removed, "taken out by steps")]
    tiles += [(added, "made by steps")] * bool(added)
    tiles += [(dropped, "dropped at the split, as repeats")] * bool(dropped)
    tiles += [(unused, "left out of a sample")] * bool(unused)
    tiles += [(sum(report.splits.values()), "examples ready")]
    sections = [("steps", "What was done")] * bool(report.steps)
    sections += [
        ("languages", "What there is"),
        ("data", "Where it came from"),
        ("samples", "A few examples"),
    ]
    head = tag(
        "header",
        tag("h1", "Data: ", tag("bdi", name)),
        tag("div", [tag("div", tag("b", number(n)), tag("span", what), class_="tile") for n, what in tiles],
            class_="tiles"),
        tag("nav", [link(target, title) for target, title in sections]),
    )  # fmt: skip
    parts: list[Child] = [head]
    if report.steps:
        parts.append(section("What was done", "steps", *steps_section(report.steps, report.cache)))
    parts += [
        section("What there is", "languages", *lengths(report.to_json(), {}), *_languages(counts)),
        section("Where it came from", "data", *data_section(report.to_json(), None, tokenised=False)),
        section("A few examples", "samples", *_samples(counts)),
    ]
    return page(f"Data: {name}", *parts)


def _languages(counts: Tally) -> list[Child]:
    seen = counts.rows.total()
    parts: list[Child] = []
    if seen and any(count >= LOOK for count in counts.rows.values()):
        parts.append(note(f"Counted on the first {number(LOOK)} examples of each split."))
    told = Counter({name: count for name, count in counts.languages.items() if name != "not told"})
    shown = [("Language", told), ("Script of most letters", counts.scripts), ("Kind", counts.kinds)]
    shown += [("Licence", counts.licences), ("Made by", counts.derived), ("Source", counts.sources)]
    tables = [
        _shares(title, counter, seen)
        for title, counter in shown
        if counter and not (title == "Licence" and counter.keys() == {"not told"})
    ]
    parts += [tag("div", tables[:-1], class_="pair"), *tables[-1:]]
    half = counts.half_spaces
    if counts.scripts["persian"] or half:
        parts.append(note(f"{number(half)} examples have half-spaces (U+200C)."))
    return parts


def _shares(title: str, counter: Counter[str], seen: int) -> Html:
    rows: list[list[Child]] = [
        [word(name), number(count), f"{count / seen:.1%}"] for name, count in counter.most_common(12)
    ]
    if (rest := len(counter) - 12) > 0:
        more = counter.total() - sum(count for _, count in counter.most_common(12))
        rows.append([f"{rest} more", number(more), f"{more / seen:.1%}"])
    return table([title, "Examples", "Share"], rows, ["text", "number", "number"])


def _samples(counts: Tally) -> list[Child]:
    parts: list[Child] = []
    for split in SPLITS:
        for example in counts.samples.get(split, []):
            where = f"{split} · {example.provenance}"
            label = f" · {example.label}" if example.label else ""
            text = words_of(example)
            shown = text[:1200] + ("…" if len(text) > 1200 else "")
            parts.append(tag("blockquote", tag("p", word(where), word(label), class_="soft"), prose(shown)))
    return parts
