"""The whole of stage 1 on a mess of English and Persian sources, as a user runs it, held to what was planted.

    python bench/real_chain.py PATH [--work FOLDER]

PATH is the folder of public data sets. Writes sources in a dozen formats (see `real_chain_sources`), known
dirt among them, and a ``tanzim.yaml`` with the full list of steps; then runs ``tanzim data prepare``, the
same again under another name (cached), with one step changed, and ``diff``, ``trace`` and ``publish``.
For each kind of dirt it prints how much was found (recall) and how much of what was done was called for
(precision), over planted rows: what others wrote has repeats and dirt of its own. The figures of ``toxicity``
and ``dedup_semantic`` are told and have no goal: their small models know English alone. The last line is
JSON; the exit status is 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from real_chain_sources import COOKIES, ZWNJ, Key, Sources, Sown, words
from real_common import finish, read, work_folder
from tanzim.core.records import Example
from tanzim.data.describe.tally import SPLITS
from tanzim.data.shards import Shard
from tanzim.data.store import ExampleStore
from tanzim.data.texts import words_of

STEPS: list[dict[str, Any]] = [
    {"type": "repair_text"},
    {"type": "html"},
    {"type": "missing"},
    {"type": "persian"},
    {"type": "unicode"},
    {"type": "boilerplate", "min_documents": 8},
    {"type": "language", "keep": ["fa", "en"]},
    {"type": "repetition"},
    {"type": "quality"},
    {"type": "pii", "action": "redact"},
    {"type": "secrets"},
    {"type": "toxicity"},
    {"type": "licence", "deny": ["*-NC-*"]},
    {"type": "dedup_exact"},
    {"type": "dedup_fuzzy", "threshold": 0.8},
    {"type": "dedup_semantic", "by": "prompt", "threshold": 0.85},
    {"type": "contamination", "against": "evaluation/gsm8k.jsonl"},
    {"type": "label_noise"},
    {"type": "oversample", "max_copies": 4},
]
CONFIG: dict[str, Any] = {
    "data": {
        "path": [f"sources/{name}" for name in (
            "mess.jsonl.gz", "mess.csv", "mess.xlsx", "tickets.jsonl", "office/*", "papers/*.pdf",
            "pages/*.html", "hamshahri/*.txt", "lesson_fa.md", "alpaca.json", "sms.tsv", "comments.csv",
        )],
        "sources": [{
            "type": "sql", "url": "sqlite:///sources/shop.db",
            "query": "SELECT review, label FROM reviews ORDER BY id",
        }],
        "encoding": "detect",
        "documents": "auto",
        "labels": {"0": "happy", "1": "sad", "happy": "happy", "sad": "sad", "ham": "ham", "spam": "spam"},
        "steps": STEPS,
        "split": {"method": "stratified"},
        "card": {
            "title": "A mess, put in order",
            "description": "English and Persian rows of a dozen formats, known dirt among them.",
            "purpose": "To hold the preparation of data to what was planted.",
            "licence": "CC-BY-NC-SA-4.0",
            "keywords": ["فارسی", "English", "data preparation"],
        },
    }
}  # fmt: skip
# Kind of dirt → the step that takes such rows out.
OUT = {
    "repetition": "repetition", "junk": "quality", "language": "language", "missing": "missing",
    "licence": "licence", "evaluation item": "contamination", "hate": "toxicity",
    "exact copy": "dedup_exact", "near copy": "dedup_fuzzy", "paraphrase": "dedup_semantic",
}  # fmt: skip
# What each kind of dirt must reach: (recall, precision).
GOALS = {
    "encoding": (0.9, 0.9), "html": (0.9, 0.95), "letters": (0.95, 0.9), "half-spaces": (0.75, 0.85),
    "boilerplate": (0.95, 0.95), "pii": (0.85, 0.85), "secret": (0.85, 0.9), "repetition": (0.9, 0.9),
    "junk": (0.9, 0.8), "language": (0.95, 0.95), "missing": (0.9, 0.9), "licence": (1, 1),
    "evaluation item": (0.95, 0.9), "exact copy": (0.95, 0.95), "near copy": (0.9, 0.9),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("path", type=Path, help="the folder of public data sets")
    parser.add_argument("--work", type=Path, help="keep sources and runs here; must not exist yet")
    given = parser.parse_args()
    started = time.monotonic()
    with work_folder(given.work) as folder:
        sources = Sources(given.path.resolve(), folder / "sources")
        sources.write()
        (folder / "evaluation").mkdir()
        items = (given.path / "gsm8k/test.jsonl").read_text("utf-8")
        (folder / "evaluation/gsm8k.jsonl").write_text(items, "utf-8")
        (folder / "tanzim.yaml").write_text(
            yaml.safe_dump(CONFIG, allow_unicode=True, sort_keys=False), "utf-8"
        )
        result: dict[str, Any] = {"seconds": {}}
        for name in ("first", "again"):
            result["seconds"][name] = tanzim(folder, "data", "prepare", f"name={name}")
        steps = [{**step, "words": 9} if step["type"] == "contamination" else step for step in STEPS]
        changed = {**CONFIG["data"], "steps": steps}
        (folder / "changed.yaml").write_text(yaml.safe_dump({"data": changed}, allow_unicode=True), "utf-8")
        result["seconds"]["one step changed"] = tanzim(
            folder, "data", "prepare", "changed.yaml", "name=changed"
        )
        tanzim(folder, "data", "diff", "runs/first", "runs/changed")
        for example in ("train:1", "train:700", "test:5"):
            tanzim(folder, "data", "trace", "runs/first", example)
        tanzim(folder, "data", "publish", "name=first", "-o", "published")
        chain = Chain(folder, "first")
        result["rows"] = {"read": chain.report["rows_read"], **chain.report["splits"]}
        result["cached"] = sum(
            step["cached"] for step in read(folder / "runs/again/data/report.json")["steps"]
        )
        result["found"] = dict(planted(chain, sources.truth))
        result["documents"] = said(chain, sources)
        result["leaks"] = leaks(folder / "runs/first/data")
        result["croissant"] = croissant(folder / "published")
        result["open questions"] = (folder / "published/DATASHEET.md").read_text("utf-8").count("data.card.")
    result["seconds"]["all"] = round(time.monotonic() - started, 1)
    show(result["found"])
    finish(result, *faults(result))


def tanzim(folder: Path, *arguments: str) -> float:
    """Run ``tanzim``; return its seconds."""
    print("$ tanzim", *arguments, file=sys.stderr, flush=True)
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "tanzim", *arguments], cwd=folder, check=True, stdout=sys.stderr)
    return round(time.monotonic() - started, 1)


class Chain:
    """What a preparation did, step by step."""

    def __init__(self, folder: Path, name: str) -> None:
        self.cache, self.data = folder / "runs/.steps", folder / "runs" / name / "data"
        self.report: dict[str, Any] = read(self.data / "report.json")
        lines = (self.data / "rejected.jsonl").read_text("utf-8").splitlines()
        train = ExampleStore(self.data / "train.arrow")
        self.trained = {_key(one.provenance.source, one.provenance.row) for one in train}
        self.out = {
            _key(line["file"], line["row"]): line.get("step", "reading") for line in map(json.loads, lines)
        }

    def after(self, step: str) -> dict[Key, Example]:
        """Return what a step left, by file and row."""
        found = next(one for one in self.report["steps"] if one["type"] == step)
        folder = self.cache / found["folder"]
        shards = (Shard.from_json(one, folder) for one in read(folder / "done.json")["shards"] if one["rows"])
        return {_key(e.provenance.source, e.provenance.row): e for shard in shards for e in shard}


def _key(source: str, row: int) -> Key:
    return source.removeprefix("sources/"), row


def planted(chain: Chain, truth: dict[Key, Sown]) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield for each kind of dirt how much of it was found, and how much of what was done was called for."""
    yield (
        "encoding",
        mended(
            chain, truth, "encoding", "repair_text", lambda one, text: squeezed(text) == squeezed(one.clean)
        ),
    )
    yield (
        "html",
        mended(chain, truth, "html", "html", lambda one, text: squeezed(text) == squeezed(one.clean)),
    )
    yield "letters", mended(chain, truth, "letters", "persian", lambda one, text: not set(text) & set("يك"))
    yield "half-spaces", half_spaces(chain.after("persian"), truth)
    yield (
        "boilerplate",
        mended(
            chain,
            truth,
            "boilerplate",
            "boilerplate",
            lambda one, text: not any(line in text for line in COOKIES.values()),
        ),
    )
    for kind, step in (("pii", "pii"), ("secret", "secrets")):
        yield kind, hidden(chain, truth, kind, step)
    for kind, step in OUT.items():
        yield kind, taken(chain, truth, kind, step)


def mended(
    chain: Chain, truth: dict[Key, Sown], kind: str, step: str, good: Callable[[Sown, str], bool]
) -> dict[str, float]:
    """Of rows that a step is to mend: how many it did; of others: how many it left alone."""
    steps = ["", *(one["type"] for one in chain.report["steps"])]
    earlier = steps[steps.index(step) - 1]
    after, before = chain.after(step), chain.after(earlier) if earlier else None
    mine = [one for key, one in truth.items() if one.kind == kind and key in after]
    right = sum(
        good(one, words_of(after[key])) for key, one in truth.items() if one.kind == kind and key in after
    )
    others = {key: one for key, one in truth.items() if one.kind in ("clean", "licence ok") and key in after}
    was = {key: words_of(before[key]) if before else one.text for key, one in others.items()}
    touched = (
        sum(squeezed(words_of(after[key])) != squeezed(text) for key, text in was.items())
        if step != "persian"
        else 0
    )
    return rates(right, len(mine), right + touched)


def half_spaces(after: dict[Key, Example], truth: dict[Key, Sown]) -> dict[str, float]:
    """Compare where half-spaces stand with where they stood, character by character."""
    right = wanted = said = 0
    for key, one in truth.items():
        if one.kind == "half-spaces" and key in after:
            places = [_places(text) for text in (one.clean, words_of(after[key]))]
            right += len(places[0] & places[1])
            wanted, said = wanted + len(places[0]), said + len(places[1])
    return rates(right, wanted, said)


def _places(text: str) -> set[tuple[int, str]]:
    """Return after how many letters the half-spaces stand, and between which."""
    found, letters = set(), 0
    for index, character in enumerate(text):
        if character == ZWNJ and text[index - 1] not in "اآدذرزژوأؤ":  # after these it is not seen
            found.add((letters, text[index - 1]))
        letters += unicodedata.category(character) == "Lo"
    return found


def hidden(chain: Chain, truth: dict[Key, Sown], kind: str, step: str) -> dict[str, float]:
    """Of planted values: how many are gone; of rows that were changed: how many held one."""
    after = chain.after(step)
    values = [
        (value, words_of(after[key]))
        for key, one in truth.items()
        if one.kind == kind and key in after
        for value in one.values
    ]
    gone = sum(value not in text for value, text in values)
    masked = [
        one.kind
        for key, one in truth.items()
        if one.kind in (kind, f"no {kind}")
        and key in after
        and "[" in words_of(after[key]).replace("[empty]", "")
    ]
    return rates(gone, len(values)) | {"precision": round(masked.count(kind) / max(1, len(masked)), 3)}


def taken(chain: Chain, truth: dict[Key, Sown], kind: str, step: str) -> dict[str, float]:
    """Of rows that a step is to take out: how many it did; of what it took out: how many were such."""
    mine = {key: one for key, one in truth.items() if one.kind == kind}
    if step == "contamination":  # what is held out is left alone
        mine = {key: one for key, one in mine.items() if key in chain.trained or key in chain.out}
    order = ["reading", *(one["type"] for one in chain.report["steps"])]
    there = {
        k: o
        for k, o in mine.items()
        if order.index(chain.out.get(k, order[-1])) >= order.index(step) or kind == "missing"
    }
    if kind in (
        "exact copy",
        "near copy",
    ):  # of two that are the same, either may go, by this step or the one before
        sought = {"dedup_exact", "dedup_fuzzy"}  # masks of personal data may make the same nearly the same
        there = {
            k: o
            for k, o in there.items()
            if o.of and order.index(chain.out.get(o.of, order[-1])) >= order.index("dedup_exact")
        }
        right = sum(bool({chain.out.get(k), chain.out.get(o.of)} & sought) for k, o in there.items() if o.of)
        kin = {key for k, o in mine.items() for key in (k, o.of)}
        gone = [key for key, one in truth.items() if chain.out.get(key) == step and key[0] != "tickets.jsonl"]
        copies = (
            {k for k, o in truth.items() if o.kind.endswith("copy")}
            | {o.of for o in truth.values() if o.of}
            | kin
        )
        return rates(right, len(there)) | {
            "precision": round(sum(k in copies for k in gone) / max(1, len(gone)), 3)
        }
    right = sum(chain.out.get(key) in (step, "reading" if kind == "missing" else step) for key in there)
    gone = [one.kind for key, one in truth.items() if chain.out.get(key) == step]
    called_for = {kind, "paraphrased"} if kind == "paraphrase" else {kind, "junk"}
    if kind == "junk":
        called_for |= {"repetition", "missing"}
    return rates(right, len(there)) | {
        "precision": round(sum(one in called_for for one in gone) / max(1, len(gone)), 3)
    }


def rates(right: int, wanted: int, said: int | None = None) -> dict[str, float]:
    found = {"rows": wanted, "recall": round(right / max(1, wanted), 3)}
    return found if said is None else {**found, "precision": round(right / max(1, said), 3)}


def squeezed(text: str) -> str:
    """Return a text without what no reader sees the difference of: spaces, forms of Unicode, curly marks."""
    plain = unicodedata.normalize("NFKC", text).translate(str.maketrans("’‘“”", "''\"\""))
    return " ".join(plain.split())


def said(chain: Chain, sources: Sources) -> dict[str, float]:
    """Return the share of the words of each document that were read out of it."""
    rows = chain.after(STEPS[4]["type"])
    found = {}
    for name, texts in sources.said.items():
        read_out = Counter(
            word for key, e in rows.items() if key[0].endswith(name) for word in words(words_of(e))
        )
        wanted = Counter(word for text in texts for word in words(text))
        found[name] = round((read_out & wanted).total() / wanted.total(), 3)
    return found


def leaks(data: Path) -> int:
    """Count held-out examples that say just what a training example says."""
    texts = [
        {" ".join(words(words_of(e))) for e in ExampleStore(data / f"{split}.arrow")} for split in SPLITS
    ]
    return len((texts[1] | texts[2]) & texts[0]) + len(texts[1] & texts[2])


def croissant(folder: Path) -> dict[str, int]:
    """Let mlcroissant judge the metadata, and read the rows by it."""
    from mlcroissant import Dataset

    dataset = Dataset(jsonld=folder / "croissant.json")
    if dataset.metadata.ctx.issues.errors:
        sys.exit(f"mlcroissant: {dataset.metadata.ctx.issues.report()}")
    return {split.name: sum(1 for _ in dataset.records(split.name)) for split in dataset.metadata.record_sets}


def show(found: dict[str, dict[str, float]]) -> None:
    """Print the table."""
    print(f"{'planted':18}{'rows':>6}{'recall':>9}{'precision':>11}   goal")
    for kind, one in found.items():
        goal = " / ".join(map(str, GOALS.get(kind, ("told", "told"))))
        print(f"{kind:18}{one['rows']:6}{one['recall']:9.3f}{one['precision']:11.3f}   {goal}")


def faults(result: dict[str, Any]) -> Iterator[str]:
    """Yield what missed its goal."""
    for kind, goal in GOALS.items():
        one = result["found"][kind]
        if one["recall"] < goal[0] or one["precision"] < goal[1]:
            yield f"{kind}: recall {one['recall']}, precision {one['precision']}, wanted {goal}"
    seconds = result["seconds"]
    if seconds["again"] > seconds["first"] / 5:
        yield f"the second run took {seconds['again']} s of {seconds['first']} s"
    if result["leaks"]:
        yield f"{result['leaks']} held-out examples stand in the training split"
    if seconds["all"] > 600:
        yield f"{seconds['all']} s is above ten minutes"


if __name__ == "__main__":
    main()
