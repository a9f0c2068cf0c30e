"""What choosing training examples is worth on held-out texts, beside as many drawn by chance, and all.

    python bench/data_select.py PATH [--seeds 5] [--sets all] [--flipped 0] [--most 4000]

PATH holds the label sets that `data_labelled` reads. The method was tuned on ``TUNED_ON`` with seeds 0 to 2;
the seeds here are 10 and up, and ``CONFIRMED_ON`` was looked at only once it stood.

Of each set 30 % are held out. Of the rest 5, 10, 20 and 50 % are chosen, as the step ``select`` does: by
reducible loss (the default), influence and effort, each class by the root of its size; by chance, each class
by its share ("random") or by the root ("random, root"). Two learners that the step does not know learn from
what is chosen, scikit-learn's logistic regression on TF-IDF of words and a linear support vector machine on
TF-IDF of characters; their macro-F1 is taken on the held-out texts. ± is half of the 95 % interval (Student)
of the mean gain over "random", of one set over the seeds, of all sets over the sets.

With ``--flipped 0.2`` that share of the training labels is another one: beside the gain stands how many of
them confident learning (what the step holds for doubtful) and the area under the margin find, beside every
text whose unseen prediction differs from its label, and as many by chance. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import train_test_split
from sklearn.svm import LinearSVC

from data_labelled import (
    Rows,
    half,
    mean,
    read_choice,
    read_dolly,
    read_food,
    read_injections,
    read_mmlu,
    read_moderation,
    read_snappfood,
    read_spam,
)
from tanzim.data.balance.labelled import draw_folds
from tanzim.data.balance.noise import find_wrong
from tanzim.data.balance.surrogate import hashed_words
from tanzim.data.select.choose import choose
from tanzim.data.select.config import SelectConfig
from tanzim.data.select.dynamics import watch
from tanzim.data.select.labelled import rank
from tanzim.data.select.learners import Learner, Sample, learn, unseen_shares
from tanzim.data.select.whole import weigher
from tanzim.data.similarity import digest, normalise

SHARES = (0.05, 0.1, 0.2, 0.5)
TUNED_ON = {"sms_spam": read_spam, "sentiment_food (fa)": read_food, "dolly": read_dolly}
CONFIRMED_ON: dict[str, Callable[[Path], Rows]] = {
    "snappfood (fa)": read_snappfood,
    "mmlu": read_mmlu,
    "moderation": read_moderation,
    "multiple choice (fa)": read_choice,
    "injections": read_injections,
}
LEARNERS = ("words", "characters")
WAYS = ("reducible", "influence", "effort", "random", "random, root")

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Split:
    """Training texts with the labels they are given, which of these are flipped, and held-out texts."""

    sample: Sample
    wrong: Array
    train: tuple[Any, Any]
    test: tuple[Any, Any]
    truth: Array


def split(rows: Rows, seed: int, flipped: float, most: int) -> Split:
    """Hold texts out, flip labels, and count words and characters once."""
    rng = np.random.default_rng(seed)
    if len(rows) > most:
        rows = [rows[place] for place in rng.permutation(len(rows))[:most]]
    names = sorted({label for _, label in rows})
    codes = np.array([names.index(label) for _, label in rows])
    train, test = train_test_split(np.arange(len(rows)), test_size=0.3, random_state=seed, stratify=codes)
    labels = codes[train].copy()
    out = rng.permutation(len(train))[: round(flipped * len(train))]
    labels[out] = (labels[out] + rng.integers(1, len(names), len(out))) % len(names)
    texts = [text for text, _ in rows]
    words = hashed_words(texts)
    characters = HashingVectorizer(
        analyzer="char_wb", ngram_range=(2, 4), norm=None, alternate_sign=False, n_features=1 << 18
    ).transform(texts)
    raw = words[train]
    seen = np.array([digest(normalise(texts[place])) for place in train], np.uint64)
    folds = draw_folds(labels, seen, 5, rng)
    sample = Sample(np.arange(len(train)), weigher(raw)(raw), labels, folds, len(names))
    wrong = labels != codes[train]
    return Split(sample, wrong, (raw, characters[train]), (words[test], characters[test]), codes[test])


def worth(data: Split, kept: Array) -> list[float]:
    """Return the macro-F1 of each learner."""
    found = []
    models = (LogisticRegression(C=10, max_iter=300), LinearSVC(C=1))
    for model, train, test in zip(models, data.train, data.test, strict=True):
        part = train[np.flatnonzero(kept)]
        columns = np.unique(part.indices)
        weighting = TfidfTransformer(sublinear_tf=True)
        model.fit(weighting.fit_transform(part[:, columns]), data.sample.labels[kept])
        guesses = model.predict(weighting.transform(test[:, columns]))
        found.append(float(f1_score(data.truth, guesses, average="macro")))
    return found


def chosen(data: Split, learners: dict[str, list[Learner]], way: str, share: float, seed: int) -> Array:
    """Choose a share of the training texts."""
    labels = data.sample.labels
    count = max(round(share * len(labels)), 1)
    if way.startswith("random"):
        scores = np.random.default_rng(seed).random(len(labels))
        return choose(labels, scores, count, classes="root" if "root" in way else "share")
    config = SelectConfig(by=way, share=share)  # type: ignore[arg-type]
    order, last = rank(data.sample, learners[way], config, count)
    return choose(labels, order, count, last, config.classes)


def errors_found(data: Split, learners: Sequence[Learner], seed: int) -> dict[str, dict[str, float]]:
    """Return precision and recall of the ways to find flipped labels."""
    sample, rng = data.sample, np.random.default_rng(seed)
    shares = unseen_shares(learners, sample.x_NF, sample.folds)
    course = watch(sample.x_NF, sample.labels, sample.classes, epochs=10, seed=seed)
    doubtful = find_wrong(sample.labels, shares, min_per_class=5).wrong
    ways = {
        "doubtful (confident learning)": doubtful,
        "area under the margin below 0": course.area < 0,
        "every difference": shares.argmax(1) != sample.labels,
        "chance": rng.permutation(doubtful),
    }
    return {
        name: {
            "precision": float(data.wrong[some].mean()) if some.any() else 0.0,
            "recall": float(some[data.wrong].mean()),
        }
        for name, some in ways.items()
    }


def compare(rows: Rows, seeds: Sequence[int], flipped: float, most: int) -> dict[str, Any]:
    """Return macro-F1 by share, way and learner for each seed; and how flipped labels are found."""
    scores: dict[str, dict[str, list[list[float]]]] = {}
    errors = []
    for seed in seeds:
        data = split(rows, seed, flipped, most)
        sample = data.sample
        fitted = {
            by: learn(sample.x_NF, sample.labels, sample.folds, sample.classes, by)
            for by in ("reducible", "influence")
        }
        fitted["effort"] = fitted["reducible"]
        everything = np.ones(len(sample.labels), bool)
        scores.setdefault("all", {}).setdefault("all", []).append(worth(data, everything))
        for share in SHARES:
            here = scores.setdefault(f"{share:.0%}", {})
            for way in WAYS:
                here.setdefault(way, []).append(worth(data, chosen(data, fitted, way, share, seed)))
        if flipped:
            errors.append(errors_found(data, fitted["reducible"], seed))
    return {"scores": scores, "errors": mean(errors) if errors else {}}


def gains(found: dict[str, Any], share: str, way: str, learner: int, over: str = "random") -> Array:
    """Return the gain over chance, one for each seed."""
    here = found["scores"][share]
    return np.array([a[learner] - b[learner] for a, b in zip(here[way], here[over], strict=True)])


def show(name: str, found: dict[str, Any]) -> None:
    full = np.mean(found["scores"]["all"]["all"], axis=0)
    print(f"\n{name}: all of it " + ", ".join(f"{a} {b:.3f}" for a, b in zip(LEARNERS, full, strict=True)))
    for share in (f"{one:.0%}" for one in SHARES):
        for way in WAYS:
            line = f" {share:>4} {way:14}"
            for number, learner in enumerate(LEARNERS):
                value = np.mean(found["scores"][share][way], axis=0)[number]
                gain = gains(found, share, way, number)
                line += f"  {learner} {value:.3f} ({gain.mean():+.3f} ± {half(gain):.3f})"
            print(line)
    for way, values in found["errors"].items():
        print(f" {way:32}" + "  ".join(f"{key} {value:.3f}" for key, value in values.items()))


def summary(found: dict[str, dict[str, Any]], sets: Sequence[str], over: str) -> dict[str, Any]:
    """Return by share, way and learner the mean gain of the sets, and half of its interval."""
    result: dict[str, Any] = {}
    for share in (f"{one:.0%}" for one in SHARES):
        for way in WAYS:
            for number, learner in enumerate(LEARNERS):
                each = [float(gains(found[name], share, way, number, over).mean()) for name in sets]
                value = [round(float(np.mean(each)), 4), round(half(each), 4) if len(each) > 1 else None]
                result.setdefault(share, {}).setdefault(way, {})[learner] = value
    return result


def _means(scores: dict[str, dict[str, list[list[float]]]]) -> dict[str, dict[str, list[float]]]:
    return {
        share: {
            way: [round(float(one), 4) for one in np.mean(values, axis=0)] for way, values in ways.items()
        }
        for share, ways in scores.items()
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sets", default="all", help="all, tuned, confirmed, or names with commas")
    parser.add_argument("--flipped", type=float, default=0.0, help="share of the training labels")
    parser.add_argument("--most", type=int, default=4000, help="texts of a set, training and held out")
    given = parser.parse_args(arguments)
    groups = {"tuned": list(TUNED_ON), "confirmed": list(CONFIRMED_ON)}
    readers = TUNED_ON | CONFIRMED_ON
    names = list(readers) if given.sets == "all" else groups.get(given.sets) or given.sets.split(",")
    seeds = range(10, 10 + given.seeds)
    found = {}
    for name in names:
        found[name] = compare(readers[name](given.path), seeds, given.flipped, given.most)
        show(name, found[name])
    report: dict[str, Any] = {"seeds": given.seeds, "flipped": given.flipped}
    for group, members in groups.items():
        if sets := [name for name in members if name in found]:
            report[group] = {"sets": sets}
            for over in ("random", "random, root"):
                report[group][f"gain over {over}"] = summary(found, sets, over)
                print(f"\nmean gain over {over} on the sets it was {group} on ({len(sets)})")
                for share, ways in report[group][f"gain over {over}"].items():
                    for way, values in ways.items():
                        said = "  ".join(f"{key} {a:+.3f} ± {b or 0:.3f}" for key, (a, b) in values.items())
                        print(f" {share:>4} {way:14}  {said}")
            if given.flipped:
                report[group]["flipped labels found"] = mean([found[name]["errors"] for name in sets])
    report["macro-F1"] = {name: _means(one["scores"]) for name, one in found.items()}
    print(json.dumps(report, ensure_ascii=False))


if __name__ == "__main__":
    main()
