"""What augmentation is worth where few examples have labels, on held-out texts that no augmenter saw.

    python bench/data_augment.py PATH [--seeds 5] [--part gain,robust,people,meaning]

PATH holds ``sms_spam/SMSSpamCollection.tsv``, ``persian/snappfood_test.csv`` and ``dolly/dolly_3k.json``.

gain: 20 and 100 examples a class (20 of the eight kinds of questions); a small model (logistic regression on
TF-IDF of words or of letters, or on the embeddings of all-MiniLM-L6-v2) is trained on them, on them with two
copies of each by each augmenter, and, the naive baseline, on each of them three times. Macro-F1 on 600
held-out texts, the same for every seed; the gain is over the baseline, the mean of seeds with its 95 %
interval (Student's t of the paired differences). ``neighbour+`` also takes words of texts without labels
(``more_texts``).
robust: the same on held-out texts with slips of the fingers at three times the rate.
people: a sentence that says whether a man or a woman wrote it goes with the label nine times in ten in
training, and against it nine times in ten among the held-out; macro-F1 there, and how many answers change
when the people are exchanged.
meaning: of adversarial edits and of edits by chance within the same distance, the cosine, and how often a
model trained on all other texts (letters, not embeddings) keeps its answer; and of copies with three words
in ten replaced by chance, how many the check of the meaning throws out.
The last line is JSON.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline

from tanzim.core.powers import Embed, Powers
from tanzim.core.records import Example, Provenance
from tanzim.data.apply import apply_step
from tanzim.data.augment.adversarial import candidates, hardest
from tanzim.data.augment.augmenter import bound
from tanzim.data.augment.characters import slip
from tanzim.data.augment.demographic import Swapper
from tanzim.pipeline.power_embed import open_embed

MODEL = "all-minilm-l6-v2"
COPIES, HELD, POOL = 2, 600, 2000
SLIPS = ("keyboard", "ocr", "swap", "delete", "insert")
Texts = list[str]


@dataclass(frozen=True)
class Task:
    """Texts and their labels."""

    name: str
    texts: Texts
    labels: list[str]
    language: str


def read(path: Path) -> list[Task]:
    lines = (path / "sms_spam/SMSSpamCollection.tsv").read_text(encoding="utf-8").splitlines()
    spam = [line.split("\t", 1) for line in lines if "\t" in line]
    with (path / "persian/snappfood_test.csv").open(encoding="utf-8") as file:
        food = [(row["label_id"], row["comment"]) for row in csv.DictReader(file)]
    asked = json.loads((path / "dolly/dolly_3k.json").read_text(encoding="utf-8"))
    kinds = [(row["category"], row["instruction"]) for row in asked]
    tasks = []
    for name, rows, language in (
        ("messages", spam, "en"),
        ("reviews", food, "fa"),
        ("questions", kinds, "en"),
    ):
        unique = {text.strip(): label for label, text in rows if text.strip()}
        tasks.append(Task(name, list(unique), list(unique.values()), language))
    return tasks


class Remembered:
    """An embedder that embeds nothing twice."""

    def __init__(self) -> None:
        self._embed: Embed | None = None
        self._known: dict[str, npt.NDArray[np.float32]] = {}

    def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return the embeddings of texts, [N, E]."""
        new = list(dict.fromkeys(text for text in texts if text not in self._known))
        if new:
            self._embed = self._embed or open_embed(MODEL)
            self._known.update(zip(new, self._embed(new), strict=True))
        return np.stack([self._known[text] for text in texts])


EMBED = Remembered()
POWERS = Powers(embed=lambda name: EMBED)


def steps(pool: Path) -> dict[str, dict[str, Any]]:
    near = {"type": "augment_words", "operations": ["neighbour"], "embedding": MODEL, "rate": 0.3}
    return {
        "characters": {"type": "augment_characters"},
        "characters 0.1": {"type": "augment_characters", "rate": 0.1},
        "words": {"type": "augment_words"},
        "delete": {"type": "augment_words", "operations": ["delete"], "rate": 0.3},
        "neighbour": near,
        "neighbour+": {**near, "more_texts": str(pool)},
        "sentences": {"type": "augment_sentences", "min_sentences": 2},
        "demographic": {"type": "demographic"},
        "adversarial": {"type": "adversarial", "embedding": MODEL},
    }


def grown(examples: list[Example], step: dict[str, Any], seed: int) -> list[Example]:
    settings = {"share": 1.0, "copies": COPIES, **step}
    return apply_step(examples, settings, powers=POWERS, seed=seed, workers=1).examples


def model(kind: str) -> tuple[Callable[[Texts], Any], Any]:
    if kind == "embedding":
        return EMBED, LogisticRegression(C=10, max_iter=1000)
    if kind == "letters":
        words = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True)
    else:
        words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    return lambda texts: texts, make_pipeline(words, LogisticRegression(C=10, max_iter=1000))


def trained(kind: str, examples: Sequence[Example]) -> Callable[[Texts], list[str]]:
    seen, fitted = model(kind)
    fitted.fit(seen([one.text for one in examples]), [one.label for one in examples])
    return lambda texts: list(fitted.predict(seen(texts)))


def drawn(task: Task, each: int, seed: int) -> tuple[list[Example], Texts, list[str], Texts]:
    """Return ``each`` examples of every class, the held-out texts and labels, and texts without labels."""
    order = np.random.default_rng(0).permutation(len(task.texts))
    held, rest = order[:HELD], np.random.default_rng(seed).permutation(order[HELD:])
    chosen = [[i for i in rest if task.labels[i] == label][:each] for label in sorted(set(task.labels))]
    few = sorted(i for group in chosen for i in group)
    train = [
        Example("labelled", Provenance(task.name, int(i) + 1), text=task.texts[i], label=task.labels[i])
        for i in few
    ]
    left = set(rest.tolist()) - set(few)
    pool = [task.texts[i] for i in sorted(left)[:POOL]]
    return train, [task.texts[i] for i in held], [task.labels[i] for i in held], pool


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the half width of its 95 % interval."""
    width = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
    return round(float(np.mean(values)), 4), round(float(width), 4)


def f1(truth: list[str], found: list[str]) -> float:
    return float(f1_score(truth, found, average="macro"))


def compare(
    tasks: list[Task], seeds: int, folder: Path, kinds: Callable[[Task], list[str]], *, noisy: bool
) -> dict[str, Any]:
    """Measure every augmenter against the naive baseline; with ``noisy`` on texts with slips."""
    found: dict[str, dict[str, list[float]]] = {}
    for task in tasks:
        for each in (20, 100) if len(set(task.labels)) == 2 else (20,):
            for seed in range(seeds):
                train, texts, truth, pool = drawn(task, each, seed)
                if noisy:
                    rng = Random(seed + 1000)
                    texts = [slip(text, rng, rate=0.09, operations=SLIPS) for text in texts]
                (folder / "pool.txt").write_text("\n".join(" ".join(t.split()) for t in pool), "utf-8")
                sets = {"original": train, "repeated": [*train] * (1 + COPIES)}
                for name, step in steps(folder / "pool.txt").items():
                    if noisy and name in ("neighbour", "sentences", "demographic", "delete"):
                        continue
                    if task.language != "en" and "embedding" in step:
                        continue  # the model understands English only
                    if name == "adversarial" and "embedding" not in kinds(task):
                        continue
                    sets[name] = grown(train, step, seed)
                for kind in kinds(task):
                    row = found.setdefault(f"{task.name} {each} {kind}", {})
                    for name, examples in sets.items():
                        row.setdefault(name, []).append(f1(truth, trained(kind, examples)(texts)))
    return {key: summary(key, row) for key, row in found.items()}


def summary(key: str, row: dict[str, list[float]]) -> dict[str, Any]:
    print(f"\n{key}: repeated {np.mean(row['repeated']):.3f}; gain over it")
    result: dict[str, Any] = {"repeated": round(float(np.mean(row["repeated"])), 4)}
    for name, values in row.items():
        if name != "repeated":
            mean, width = interval([a - b for a, b in zip(values, row["repeated"], strict=True)])
            mark = "gains" if mean > width else "loses" if mean < -width else ""
            print(f"  {name:14} {mean:+.3f} ± {width:.3f} {mark}", flush=True)
            result[name] = [mean, width]
    return result


WROTE = {"en": ("He wrote this. ", "She wrote this. "), "fa": ("آقای نویسنده گفت: ", "خانم نویسنده گفت: ")}


def people(task: Task, seeds: int) -> dict[str, Any]:
    """Plant who wrote a text, with the label in training and against it in the test."""
    first = min(task.labels)
    rows: dict[str, dict[str, list[float]]] = {}
    for seed in range(seeds):
        rng = Random(seed)

        def said(text: str, label: str, share: float, rng: Random = rng) -> str:
            return WROTE[task.language][(label == first) ^ (rng.random() >= share)] + text

        train, texts, truth, _ = drawn(task, 100, seed)
        train = [replace(one, text=said(one.text, one.label, 0.9)) for one in train]
        texts = [said(text, label, 0.1) for text, label in zip(texts, truth, strict=True)]
        swap = Swapper(["pronouns"], Random(seed))
        others = [swap(text) for text in texts]
        step = {"type": "demographic", "swap": ["pronouns"], "copies": 1}
        sets = {"original": train, "repeated": [*train] * 2, "demographic": grown(train, step, seed)}
        for name, examples in sets.items():
            answer = trained("words", examples)
            one, two = answer(texts), answer(others)
            row = rows.setdefault(name, {"f1": [], "changed": []})
            row["f1"].append(f1(truth, one))
            row["changed"].append(float(np.mean([a != b for a, b in zip(one, two, strict=True)])))
    print(f"\npeople, {task.name}: macro-F1 where who wrote it goes against the label; answers that change")
    result = {}
    for name, row in rows.items():
        result[name] = {key: interval(values) for key, values in row.items()}
        print(f"  {name:12}", *(f"{key} {m:.3f} ± {w:.3f}" for key, (m, w) in result[name].items()))
    return result


def meaning(task: Task, count: int = 150) -> dict[str, Any]:
    """Compare adversarial edits with edits by chance, and see what the check of the meaning throws out."""
    order = np.random.default_rng(5).permutation(len(task.texts)).tolist()
    judge = trained(
        "letters",
        [
            Example("labelled", Provenance("j", i + 1), text=task.texts[i], label=task.labels[i])
            for i in order[count:]
        ],
    )
    texts = [task.texts[i] for i in order[:count]]
    right = judge(texts)
    vocabulary = [word for i in order[count:1000] for word in task.texts[i].split()]
    made: dict[str, list[tuple[str, str, str]]] = {
        "chance": [],
        "hardest, unchecked": [],
        "adversarial": [],
        "three words in ten": [],
    }
    for number, (text, label) in enumerate(zip(texts, right, strict=True)):
        others = candidates(text, number, tries=8, most=bound(0.05, len(text)))
        if not others:
            continue
        made["chance"].append((text, others[0], label))
        for name, least in (("hardest, unchecked", -1.0), ("adversarial", 0.8)):
            if found := hardest(text, others, EMBED, least):
                made[name].append((text, found[0], label))
        rng = Random(number)
        words = [rng.choice(vocabulary) if rng.random() < 0.3 else word for word in text.split()]
        made["three words in ten"].append((text, " ".join(words), label))
    result = {}
    print(f"\nmeaning, {task.name}: {count} texts")
    for name, rows in made.items():
        old, new = EMBED([row[0] for row in rows]), EMBED([row[1] for row in rows])
        cosine = (old * new).sum(1)
        same = [a == row[2] for a, row in zip(judge([row[1] for row in rows]), rows, strict=True)]
        kept = cosine >= 0.8
        result[name] = {
            "texts": len(rows),
            "cosine": round(float(cosine.mean()), 3),
            "passes_check": round(float(kept.mean()), 3),
            "label_kept": round(float(np.mean(same)), 3),
        }
        print(f"  {name:20}", json.dumps(result[name]))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--part", default="gain,robust,people,meaning")
    parser.add_argument(
        "--light",
        action="store_true",
        help="without adversarial edits, and without a classifier of embeddings",
    )
    parser.add_argument("--tasks", default="messages,reviews,questions")
    args = parser.parse_args()
    tasks = [task for task in read(args.path) if task.name in args.tasks.split(",")]
    parts = args.part.split(",")
    result: dict[str, Any] = {"seeds": args.seeds, "copies": COPIES}

    def kinds(task: Task) -> list[str]:
        return ["words", "letters", *(["embedding"] if not args.light and task.language == "en" else [])]

    with tempfile.TemporaryDirectory() as folder:
        if "gain" in parts:
            result["gain"] = compare(tasks, args.seeds, Path(folder), kinds, noisy=False)
        if "robust" in parts:
            noisy = [task for task in tasks if task.name != "questions"]
            result["robust"] = compare(noisy, args.seeds, Path(folder), kinds, noisy=True)
    if "people" in parts:
        result["people"] = {task.name: people(task, args.seeds) for task in tasks if task.name != "questions"}
    if "meaning" in parts:
        result["meaning"] = {task.name: meaning(task) for task in tasks if task.language == "en"}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
