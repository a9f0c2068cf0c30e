"""What labels by rules, and a choice of what to label next, are worth on texts whose labels they did not see.

    python bench/data_label.py PATH [--seeds 10] [--rounds 8]

PATH holds ``sms_spam/SMSSpamCollection.tsv`` and ``persian/``: ``parsinlu/sentiment_food.jsonl`` and
``snappfood_test.csv`` (4,000 of its comments). Rules: written for short messages, and for reviews of food, in
general; comments on deliveries get the same rules as reviews. The label model sees the votes on one half of
the texts, no label. On the other half, of texts that a rule speaks of: accuracy, macro-averaged precision,
recall and F1, and log loss (nats) of the model and of a majority vote, whose ties are broken by lot, or go to
the class that is commoner (which it does not know: an upper bound for it). Active learning: a surrogate
learns from 20 labels, then from 20 more a round, chosen by each strategy or by chance; macro-F1 on the other
half, and the area under the ROC curve, for which no threshold matters. A gain is the mean difference over
seeds, each seed's halves being the same for both sides, with its 95 % interval (Student's t over seeds;
halves of different seeds share texts: a little too narrow). The last line is JSON.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import t
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support, roc_auc_score

from tanzim.data.balance import surrogate
from tanzim.data.label.active import Strategy, choose
from tanzim.data.label.config import RuleConfig
from tanzim.data.label.functions import rule, votes
from tanzim.data.label.model import majority
from tanzim.data.label.pick import meanings
from tanzim.data.label.weak import weak_labels

LABELS = ["ham", "spam"]
STRATEGIES: tuple[Strategy, ...] = ("uncertainty", "margin", "entropy", "diversity")
RULES = [
    RuleConfig(label="spam", keywords=["win", "winner", "won", "prize", "award", "awarded", "claim"]),
    RuleConfig(label="spam", keywords=["free", "offer", "discount", "guaranteed", "bonus"]),
    RuleConfig(label="spam", patterns=[r"£ ?\d", r"\$\d", r"\d+ ?p(?:pm|er| |/)"]),
    RuleConfig(label="spam", patterns=[r"\b\d{5,}\b"]),
    RuleConfig(label="spam", patterns=[r"www\.|https?://|\.com|\.co\.uk"]),
    RuleConfig(label="spam", keywords=["txt", "text stop", "reply stop", "unsubscribe", "subscription"]),
    RuleConfig(label="spam", keywords=["call now", "urgent", "customer", "mobile", "ringtone", "camera"]),
    RuleConfig(label="ham", keywords=["lol", "haha", "hey", "ok", "oh", "yeah", "yup", "sorry"]),
    RuleConfig(label="ham", keywords=["i'm", "im", "i'll", "i've", "i am", "i was", "my", "me", "i"]),
    RuleConfig(label="ham", keywords=["home", "later", "tomorrow", "tonight", "dinner", "lunch", "sleep"]),
    RuleConfig(label="ham", keywords=["love", "dear", "miss", "mom", "mum", "dad", "he", "she", "him"]),
]
OPINIONS = ["negative", "positive"]
REVIEW_RULES = [
    RuleConfig(label="positive", keywords=["عالی", "عالیه", "عالی بود", "بی نظیر", "فوق العاده", "بهترین"]),
    RuleConfig(label="positive", keywords=["خوب", "خوبه", "خوب بود", "خوبی"]),
    RuleConfig(label="positive", keywords=["خوشمزه", "خوشمزه بود", "لذیذ", "خوش طعم", "خوشمزست"]),
    RuleConfig(label="positive", keywords=["ممنون", "مرسی", "تشکر", "متشکرم", "سپاس"]),
    RuleConfig(label="positive", keywords=["تازه", "با کیفیت", "راضی", "پیشنهاد میکنم", "دوست داشتم"]),
    RuleConfig(label="negative", keywords=["بد", "بدی", "بد بود", "افتضاح", "مزخرف", "بی کیفیت"]),
    RuleConfig(label="negative", keywords=["خراب", "له شده", "کپک", "فاسد", "شکسته", "کهنه", "مانده"]),
    RuleConfig(label="negative", keywords=["نبود", "نداشت", "نیست", "نداره", "اصلا"]),
    RuleConfig(label="negative", keywords=["گران", "گرون", "کم", "متاسفانه", "ولی", "اما"]),
    RuleConfig(label="negative", keywords=["بی مزه", "بدمزه", "تلخ", "ترش", "شور", "سفت"]),
    RuleConfig(label="negative", keywords=["نخرید", "نمیخرم", "پشیمان", "پشیمون", "حیف", "مرجوع"]),
]

Codes = npt.NDArray[np.int64]


def read_spam(path: Path) -> tuple[list[str], Codes]:
    lines = (path / "sms_spam/SMSSpamCollection.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t", 1) for line in lines if "\t" in line]
    return [text for _, text in rows], np.array([LABELS.index(label) for label, _ in rows])


def read_food(path: Path) -> tuple[list[str], Codes]:
    lines = (path / "persian/parsinlu/sentiment_food.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    codes = {"-2": 0, "-1": 0, "1": 1, "2": 1}
    rows = [row for row in rows if row["sentiment"] in codes]
    return [row["review"] for row in rows], np.array([codes[row["sentiment"]] for row in rows])


def read_comments(path: Path) -> tuple[list[str], Codes]:
    with (path / "persian/snappfood_test.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["comment"].strip()]
    kept = np.random.default_rng(0).permutation(len(rows))[:4000]
    return [rows[i]["comment"] for i in kept], np.array([1 - int(rows[i]["label_id"]) for i in kept])


def scores(truth: Codes, shares_NC: npt.NDArray[np.float64]) -> dict[str, float]:
    found = shares_NC.argmax(1)
    sure_N = np.clip(shares_NC[np.arange(len(truth)), truth], 1e-3, 1)
    precision, recall, f1, _ = precision_recall_fscore_support(truth, found, average="macro", zero_division=0)
    return {
        "accuracy": float(accuracy_score(truth, found)),
        "precision": float(precision),
        "recall": float(recall),
        "macro_f1": float(f1),
        "log_loss": float(-np.log(sure_N).mean()),
    }


def gain(one: list[float], other: list[float]) -> list[float]:
    """Return the mean of one less the other, and its 95 % interval."""
    differences = np.array(one) - np.array(other)
    half = t.ppf(0.975, len(differences) - 1) * differences.std(ddof=1) / np.sqrt(len(differences))
    return [
        round(float(value), 4)
        for value in (differences.mean(), differences.mean() - half, differences.mean() + half)
    ]


def weak(
    texts: list[str], codes: Codes, rules: list[RuleConfig], labels: list[str], seed: int
) -> dict[str, dict[str, float]]:
    """Learn on half of the texts, without labels; measure on the other half."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(texts))
    seen, held = order[: len(order) // 2], order[len(order) // 2 :]
    functions = [rule(one) for one in rules]
    found = weak_labels([texts[i] for i in seen], functions, labels)
    votes_NJ = votes([texts[i] for i in held], functions, labels)
    spoken = (votes_NJ < len(labels)).any(1)
    truth, votes_NJ = codes[held][spoken], votes_NJ[spoken]
    heads = majority(votes_NJ, len(labels))
    commoner = np.eye(len(labels))[np.bincount(codes).argmax()]
    return {
        "spoken_of": {"share": float(spoken.mean())},
        "model": scores(truth, found.model(votes_NJ)),
        "majority": scores(truth, heads + 1e-6 * rng.random(heads.shape)),
        "majority_ties_to_commoner": scores(truth, heads + 1e-6 * commoner),
    }


def curve(
    features: tuple[Any, Any], codes: Codes, strategy: Strategy | None, seed: int, rounds: int
) -> list[tuple[float, float]]:
    """Return macro-F1 and the area under the ROC curve after each round; None chooses by chance."""
    words, vectors = features
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(codes))
    pool, held = order[: len(order) // 2], order[len(order) // 2 :]
    known, rest = pool[:20], pool[20:]
    points = []
    for _ in range(rounds):
        present, seen = np.unique(codes[known], return_inverse=True)
        if len(present) < 2:  # nothing to learn yet: all get the one label
            guess, area, shares = np.full(len(held), present[0]), 0.5, None
        else:
            model = surrogate.fit(words[known], seen, len(present))
            sure, shares = model(words[held]), model(words[rest])
            guess, area = present[sure.argmax(1)], float(roc_auc_score(codes[held], sure[:, 1]))
        points.append((float(f1_score(codes[held], guess, average="macro")), area))
        if strategy is None or shares is None:
            picked = rng.permutation(len(rest))[:20]
        else:
            picked = choose(
                shares, 20, strategy=strategy, vectors_ND=vectors[rest], labelled_LD=vectors[known]
            )
        known, rest = np.concatenate([known, rest[picked]]), np.delete(rest, picked)
    return points


def by_rules(data: dict[str, Any], seeds: int) -> dict[str, Any]:
    """Print and return what rules are worth, by data set."""
    found: dict[str, Any] = {}
    for name, (texts, codes, rules, labels) in data.items():
        runs = [weak(texts, codes, rules, labels, seed) for seed in range(seeds)]
        found[name] = {
            how: {key: round(float(np.mean([run[how][key] for run in runs])), 4) for key in runs[0][how]}
            for how in runs[0]
        }
        for rival in ("majority", "majority_ties_to_commoner"):
            found[name][f"gain_over_{rival}"] = {
                key: gain([run["model"][key] for run in runs], [run[rival][key] for run in runs])
                for key in ("accuracy", "macro_f1", "log_loss")
            }
        for how, numbers in found[name].items():
            print(f"{name:9} {how:38}", json.dumps(numbers))
    return found


def by_choice(data: dict[str, Any], seeds: int, rounds: int) -> dict[str, Any]:
    """Print and return what the choice of texts is worth, by data set."""
    found: dict[str, Any] = {}
    for name, (texts, codes, *_) in data.items():
        words = surrogate.hashed_words(texts)
        features = (words, meanings(words))
        curves = {
            strategy or "random": np.array(
                [curve(features, codes, strategy, seed, rounds) for seed in range(seeds)]
            )
            for strategy in (None, *STRATEGIES)
        }
        chance = curves["random"]
        found[name] = {}
        for strategy, points in curves.items():
            numbers = {
                measure: {
                    "rounds": points[:, :, place].mean(0).round(4).tolist(),
                    "gain_at_the_end": gain(points[:, -1, place], chance[:, -1, place]),
                    "gain_of_all_rounds": gain(points[:, 1:, place].mean(1), chance[:, 1:, place].mean(1)),
                }
                for place, measure in enumerate(("macro_f1", "roc_auc"))
            }
            found[name][strategy] = numbers
            print(f"{name:9} {strategy:12}", json.dumps(numbers))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=8, help="of active learning; 0 leaves it out")
    args = parser.parse_args()
    data = {
        "messages": (*read_spam(args.path), RULES, LABELS),
        "reviews": (*read_food(args.path), REVIEW_RULES, OPINIONS),
        "comments": (*read_comments(args.path), REVIEW_RULES, OPINIONS),
    }
    rules = by_rules(data, args.seeds)
    choice = by_choice(data, args.seeds, args.rounds) if args.rounds else {}
    print(json.dumps({"weak_labels": rules, "active_learning": choice, "labels_a_round": 20}))


if __name__ == "__main__":
    main()
