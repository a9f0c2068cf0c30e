"""A data sheet: the questions of "Datasheets for Datasets", answered where the answer is known.

Gebru, Morgenstern, Vecchione, Wortman Vaughan, Wallach, Daumé III, Crawford (2018), arXiv:1803.09010. Its
57 questions, in its seven groups, are drawn together here into some thirty; counts come from the report,
what only people know from ``data.card``, and what nobody has said is marked as open, for the owner.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from tanzim.core.records import Json
from tanzim.core.units import count, number
from tanzim.data.describe.config import CardConfig
from tanzim.data.describe.tally import Tally
from tanzim.data.prepare import DataReport

OPEN = "⚠ To be filled in by the owner: `data.card.{key}`."
_SCREENS = ("pii", "secrets", "toxicity", "licence", "contamination")
_KINDS = {
    "messages": "conversations",
    "text": "texts",
    "labelled": "texts with a label",
    "tagged": "texts with a tag for each word",
    "pair": "pairs of a preferred and another answer",
}

_OPEN = re.compile(re.escape(OPEN).replace(re.escape("{key}"), r"(\w+)"))

Answers = Iterator[tuple[str, str]]
Groups = list[tuple[str, list[tuple[str, str]]]]


def datasheet(report: DataReport, counts: Tally, card: CardConfig, name: str) -> str:
    """Return the data sheet in Markdown.

    Args:
        report: what became of every row.
        counts: what the prepared examples are.
        card: what people have said of it.
        name: of the run.

    """
    groups = questions(report, counts, card)
    parts = [f"# {card.title or name}\n"]
    if card.description:
        parts.append(f"{card.description}\n")
    if said := still_open(groups):
        parts.append(f"> {said}\n")
    for title, answers in groups:
        parts.append(f"## {title}\n")
        parts += [f"**{question}**\n\n{answer}\n" for question, answer in answers]
    return "\n".join(parts)


def questions(report: DataReport, counts: Tally, card: CardConfig) -> Groups:
    """Return the questions of each group with their answers, in Markdown (see `datasheet`)."""
    return [
        ("Motivation", [*_motivation(card)]),
        ("Composition", [*_composition(report, counts, card)]),
        ("Collection", [*_collection(report, card)]),
        ("Preprocessing, cleaning, labelling", [*_preparation(report)]),
        ("Uses", [*_uses(card)]),
        ("Distribution", [*_distribution(report, counts, card)]),
        ("Maintenance", [*_maintenance(report, card)]),
    ]


def still_open(groups: Groups) -> str:
    """Say how many questions are open, and which keys answer them; empty if none is."""
    answers = [answer for _, asked in groups for _, answer in asked]
    keys = list(dict.fromkeys(key for answer in answers for key in _OPEN.findall(answer)))
    if not keys:
        return ""
    count = sum(bool(_OPEN.search(answer)) for answer in answers)
    named = ", ".join(f"`{key}`" for key in keys)
    return f"⚠ {count} of {len(answers)} questions are open, for the owner to answer in `data.card`: {named}."


def _said(card: CardConfig, key: str) -> str:
    value = getattr(card, key)
    return (", ".join(value) if isinstance(value, list) else value) if value else OPEN.format(key=key)


def _shares(counts: Counter[str], most: int = 8) -> str:
    total = counts.total() or 1
    shown = [f"{name} {number(count)} ({count / total:.1%})" for name, count in counts.most_common(most)]
    more = len(counts) - most
    return ", ".join(shown) + (f", and {more} more" if more > 0 else "")


def _motivation(card: CardConfig) -> Answers:
    yield "For what purpose was it made, and which gap does it fill?", _said(card, "purpose")
    yield "Who made it, and for whom?", _said(card, "creators")
    yield "Who paid for it?", _said(card, "funding")
    yield "Anything else?", card.description or "No."


def _composition(report: DataReport, counts: Tally, card: CardConfig) -> Answers:
    yield "What are the instances?", _shares(Counter({_KINDS[k]: n for k, n in counts.kinds.items()})) + "."
    yield "How many are there?", f"{number(counts.rows.total())}: {_splits(report)}."
    rows = f"{number(report.rows_read)} rows were read; {number(sum(report.splits.values()))} are in it."
    yield "Is it a sample of a larger set?", f"{rows} {_left_out(report)}"
    lengths = report.lengths
    size = (
        f" Median length {number(lengths['median'])}, 95th percentile {number(lengths['p95'])}, longest "
        f"{number(lengths['max'])} characters."
        if "median" in lengths
        else ""
    )
    yield "What does each instance consist of?", f"{report.reason}.{size}"
    if report.labels:
        labels = Counter({label: sum(split.values()) for label, split in report.labels.items()})
        yield "Is there a label?", f"Yes: {_shares(labels)}."
    else:
        yield "Is there a label?", "No."
    missing = sum(report.rejected.values())
    reasons = "; ".join(f"{reason}: {number(count)}" for reason, count in report.rejected.items())
    yield (
        "Is anything missing?",
        (
            f"{number(missing)} rows could not be used ({reasons}); `rejected.jsonl` lists each."
            if missing
            else "No row was unusable."
        ),
    )
    groups = "Those that share a context or a group (`about.group`) are marked, and stand in one split."
    yield "Are relations between instances explicit?", groups
    drawn = report.drawn.get("method", "random")
    yield "Are there recommended splits?", f"{_splits(report)}, drawn by the method {drawn}."
    yield "Are there errors, noise, redundancies?", _leaks(report.leakage)
    yield "Is it self-contained?", f"Yes. Sources: {_shares(counts.sources)}."
    yield "In which languages is it?", f"{_languages(counts)}."
    yield "May it hold what is confidential or offensive, or tell of people?", _screened(report, card)


def _splits(report: DataReport) -> str:
    return ", ".join(f"{name} {number(count)}" for name, count in report.splits.items())


def _left_out(report: DataReport) -> str:
    parts = [f"{number(n)} taken out by {step['type']}" for step in report.steps
             if (n := sum(step["removed"].values()))]  # fmt: skip
    parts += [f"{number(step['added'])} made by {step['type']}" for step in report.steps if step["added"]]
    if unused := sum(report.unused.values()):
        parts.append(f"{number(unused)} left out of a seeded sample")
    return f"{'; '.join(parts)}." if parts else ""


def _leaks(leakage: Json) -> str:
    if leakage.get("mode") == "one split":
        return "There is one split; repeats in it were not looked for, unless a step did."
    found = leakage.get("exact", 0) + leakage.get("near", 0)
    dropped = sum(leakage.get("dropped", {}).values())
    return (
        f"{number(found)} duplicates were found across splits, {number(dropped)} of them dropped; "
        f"{number(leakage.get('repeats_in_train', 0))} training examples repeat another one."
    )


def _languages(counts: Tally) -> str:
    told = Counter({k: n for k, n in counts.languages.items() if k != "not told"})
    said = f"By `about.language`: {_shares(told)}. " if told else ""
    share = counts.half_spaces / max(1, counts.rows.total())
    return (
        f"{said}By script: {_shares(counts.scripts)}; {share:.1%} of the instances have half-spaces (U+200C)"
    )


def _screened(report: DataReport, card: CardConfig) -> str:
    found = []
    for step in report.steps:
        if step["type"].startswith(_SCREENS):
            counts = ", ".join(f"{name} {number(count)}" for name, count in step["counts"].items())
            removed = sum(step["removed"].values())
            found.append(f"`{step['type']}` ran (found: {counts or 'nothing'}; taken out: {number(removed)})")
    screened = "; ".join(found) or "No step of `data.steps` looked for personal data, secrets or harm"
    return f"{screened}. {_said(card, 'sensitive')}"


def _collection(report: DataReport, card: CardConfig) -> Answers:
    files = "\n".join(
        f"- `{one['path']}`: {one['container']}, {count(one['rows'], 'row')}"
        + (f", SHA-256 `{one['sha256']}`" if one.get("sha256") else "")
        + (f", fetched {one['fetched']}" if one.get("fetched") else "")
        for one in report.files[:50]
    )
    more = f"\n- and {len(report.files) - 50} more" if len(report.files) > 50 else ""
    yield "How was each instance acquired?", f"Read from:\n\n{files}{more}"
    yield "How, when and by whom was it collected, and how were they paid?", _said(card, "collection")
    yield "Was there an ethical review?", _said(card, "review")
    yield "Do the people in it know and agree, and can they revoke it?", _said(card, "consent")


def _preparation(report: DataReport) -> Answers:
    lines = [
        f"{index}. `{step['type']}`: {number(step['rows_in'])} → {number(step['rows_out'])}"
        + (f", {number(step['changed'])} changed" if step["changed"] else "")
        + "".join(f"; {reason}: {number(count)}" for reason, count in step["removed"].items())
        for index, step in enumerate(report.steps, 1)
    ]
    yield "What was done to it?", "\n".join(lines) or "Nothing, but reading and splitting."
    yield "Was the raw data kept?", "The sources were not touched; their SHA-256 stand above."
    yield "Is the software available?", "Yes: Tanzim; the settings are in the run's `config.yaml`."


def _uses(card: CardConfig) -> Answers:
    yield "Has it been used already?", "The runs that used it name its fingerprints in their manifests."
    yield "For what else could it be used, for what should it not?", _said(card, "uses")


def _distribution(report: DataReport, counts: Tally, card: CardConfig) -> Answers:
    yield "Where is it to be found?", _said(card, "url")
    yield "Under which licence?", _said(card, "licence")
    yield (
        "Under which licences did its sources come?",
        f"By the column of licences: {_shares(counts.licences)}.",
    )
    prints = "\n".join(f"- {name}: `{digest}`" for name, digest in report.fingerprints.items())
    yield (
        "How is it identified?",
        f"Version {card.version}; SHA-256 of each split's examples:\n\n{prints}",
    )
    yield "How is it cited?", _said(card, "citation")


def _maintenance(report: DataReport, card: CardConfig) -> Answers:
    yield "Who keeps it, and how is it updated?", _said(card, "maintenance")
    yield "Whom to ask?", _said(card, "contact")
    yield "How are versions told apart?", "By their fingerprints; `tanzim data diff A B` says what differs."
    notes = "\n".join(f"- {note}" for note in report.notes)
    yield "Is there anything to be aware of?", notes or "No."
