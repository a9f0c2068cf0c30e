"""Report: where the data came from, what was recognised, kept, left out and found twice, and its lengths."""

from __future__ import annotations

from tanzim.core.charts import figure, histogram
from tanzim.core.page import Align, Child, Html, facts, fold, note, path, prose, table, tag, word
from tanzim.core.records import Json
from tanzim.core.units import count, number
from tanzim.pipeline.report_steps import steps_section

_SPLITS = ("train", "validation", "test")
_NUMBERS: list[Align] = ["number"] * 7


def data_section(data: Json | None, tokens: Json | None, *, tokenised: bool = True) -> list[Child]:
    """Return what is known of the data; without tokens, steps and lengths have sections of their own.

    Args:
        data: ``data/report.json``.
        tokens: ``tokens/report.json``.
        tokenised: whether there should be tokens already.

    """
    parts: list[Child] = []
    if data is None:
        parts.append(note("data/report.json is missing: the source is unknown.", kind="missing"))
    else:
        parts += _source(data)
    if tokens is None and tokenised:
        parts.append(note("tokens/report.json is missing: nothing was tokenised.", kind="missing"))
    parts.append(_splits(data or {}, tokens or {}))
    if tokenised:
        parts += lengths(data or {}, tokens or {})
    if data is not None:
        if tokenised:
            parts += steps_section(data.get("steps", []), data.get("cache"))
        parts += _baseline(data)
        parts += _rejected(data)
        parts += _leakage(data)
        parts += _files(data)
    return parts


def _source(data: Json) -> list[Child]:
    columns = ", ".join(f"{name} → {part}" for part, name in data["columns"].items()) or "none"
    rows = number(data["rows_read"])
    pairs: list[tuple[str, Child]] = [
        ("Format", tag("b", data["format"])),
        ("Columns", tag("bdi", columns)),
        ("Rows read", rows),
    ]
    why = tag("p", tag("bdi", data["reason"]))
    return [facts(pairs), why, *(note(tag("bdi", text)) for text in data["notes"])]


def _splits(data: Json, tokens: Json) -> Html:
    """Return counts per split, in examples and in tokens."""
    rows: list[list[Child]] = []
    for name in _SPLITS:
        examples = data.get("splits", {}).get(name)
        split = tokens.get("splits", {}).get(name, {})
        unused = data.get("unused", {}).get(name, 0)
        counts = [examples, unused, *(split.get(key) for key in _TOKENS)]
        rows.append([name, *("–" if one is None else number(one) for one in counts)])
    head = ["Split", "Examples", "Not used", *_TOKENS.values()]
    if not tokens:
        head, rows = head[:3], [row[:3] for row in rows]
    return table(head, rows, ["text", *_NUMBERS[: len(head) - 1]])


_TOKENS = {
    "tokens": "Tokens",
    "trained_tokens": "Trained tokens",
    "longest": "Longest, tokens",
    "dropped": "Overlong, dropped",
    "truncated": "Overlong, cut",
}


def lengths(data: Json, tokens: Json) -> list[Child]:
    """Return the histograms of lengths in characters and in tokens.

    Args:
        data: ``data/report.json``.
        tokens: ``tokens/report.json``.

    """
    figures = []
    found = data.get("lengths", {})
    if sum(found.get("counts", ())):
        counts, edges = found["counts"], found["edges"]
        last = max(index for index, count in enumerate(counts) if count) + 1
        ends = [*edges, max(found["max"] + 1, edges[-1] + 1)][: last + 1]
        typical = f"Median {number(found['median'])}, 95 % up to {number(found['p95'])}, "
        caption = f"{typical}longest {number(found['max'])}. Bins double in width."
        name = "Examples by length in characters"
        figures.append(figure(name, histogram(name, ends, counts[:last], x_name="characters"), caption))
    found = tokens.get("splits", {}).get("train", {})
    made = found.get("histogram", {})
    if sum(made.get("counts", ())):
        last = max(index for index, count in enumerate(made["counts"]) if count) + 1
        name = "Training conversations by length in tokens"
        caption = f"Longest {number(found['longest'])}; the limit is {number(tokens['max_length'])}."
        drawn = histogram(name, made["edges"][: last + 1], made["counts"][:last], x_name="tokens", colour=2)
        figures.append(figure(name, drawn, caption))
    return [tag("div", figures, class_="pair")] if figures else []


def _baseline(data: Json) -> list[Child]:
    """Return how small models do on the labels, by measures that rare classes count in."""
    found = data.get("baseline")
    if not found:
        return []
    names = {
        "macro_f1": "Macro-F1",
        "average_precision": "PR-AUC",
        "balanced_accuracy": "Balanced accuracy",
        "kappa": "κ",
        "accuracy": "Accuracy",
    }
    rows: list[list[Child]] = [
        [model, *(f"{values[key]:.3f}" for key in names)] for model, values in found["models"].items()
    ]
    said = (
        f"A mark to beat: small models of words that learnt from {count(found['learnt_from'], 'example')}, "
        f"measured on {number(found['measured_on'])} of the {found['split']} split."
    )
    return [note(said), table(["Small model", *names.values()], rows, ["text", *_NUMBERS[: len(names)]])]


def _rejected(data: Json) -> list[Child]:
    rejected: dict[str, int] = data["rejected"]
    if not rejected:
        return [tag("p", "Every row could be used.")]
    share = 100 * sum(rejected.values()) / max(data["rows_read"], 1)
    text = f"{count(sum(rejected.values()), 'row')} ({share:.2f} %) could not be used; "
    rows = [[tag("bdi", reason), number(times)] for reason, times in rejected.items()]
    return [
        note(
            text,
            "file, row and reason of each are in ",
            tag("code", "data/rejected.jsonl"),
            ".",
            kind="bad",
        ),
        table(["Reason", "Rows"], rows, ["text", "number"]),
    ]


def _leakage(data: Json) -> list[Child]:
    leakage = data["leakage"]
    if "exact" not in leakage:
        return [note("All examples are in one split: there is nothing that could leak.")]
    exact, near = leakage["exact"], leakage["near"]
    parts: list[Child] = []
    if exact or near:
        dropped = leakage["dropped"].items()
        lost = ", ".join(f"{number(lost)} from {name}" for name, lost in dropped if lost) or "none"
        said = f"Duplicates across splits: {number(exact)} exact, {number(near)} near. Dropped: {lost}. "
        parts.append(note(said, f"The rule was {leakage['mode']}."))
    else:
        parts.append(note("No example stands in two splits, exactly or nearly.", kind="good"))
    for name, key in (("Duplicates", "pairs"), ("Same prompts with other answers", "same_prompt_pairs")):
        pairs = leakage.get(key, [])
        if pairs:
            parts.append(fold(f"{name} across splits, {len(pairs)} shown", *map(_pair, pairs)))
    return parts


def _pair(pair: Json) -> Html:
    sides = (("training side", "train_side", "text"), ("held out", "held_out", "other_text"))
    shown = [
        tag("div", tag("h4", f"{name}: ", path(pair[where])), prose(pair[text]), class_="answer")
        for name, where, text in sides
    ]
    similar = f"Similarity {number(pair['similarity'])}"
    return tag("article", tag("h4", similar), tag("div", shown, class_="pair"), class_="item")


def _files(data: Json) -> list[Child]:
    parts: list[Child] = []
    labels: dict[str, dict[str, int]] = data["labels"]
    if labels:
        rows = [[word(label), *(number(of.get(s, 0)) for s in _SPLITS)] for label, of in labels.items()]
        parts.append(fold(f"{len(labels)} labels", table(["Label", *_SPLITS], rows, ["text", *_NUMBERS[:3]])))
    sources = [_file(file) for file in data["files"]]
    head = ["File, SHA-256", "Container", "Encoding", "Format", "Rows", "Rejected"]
    parts.append(fold("Source files", table(head, sources, ["text", "text", "text", "text", *_NUMBERS[:2]])))
    prints = [[name, _hash(value)] for name, value in data["fingerprints"].items()]
    parts.append(fold("Fingerprints of the splits", table(["Split", "SHA-256 over its examples"], prints)))
    if data["skipped"]:
        parts.append(fold("Files left aside", *(tag("p", path(name)) for name in data["skipped"])))
    return parts


def _file(file: Json) -> list[Child]:
    name: list[Child] = [path(str(file["path"])), tag("span", file["sha256"] or "", class_="range hash")]
    if file.get("note"):
        name.append(tag("span", file["note"], class_="range"))
    said = [str(file[key] or "–") for key in ("container", "encoding", "format")]
    words = ["–" if one in ("auto", "detect") else one for one in said]  # not a file of text
    return [name, *words, number(file["rows"]), number(file["rejected"])]


def _hash(value: str | None) -> Child:
    return tag("span", value, class_="hash") if value else "–"
