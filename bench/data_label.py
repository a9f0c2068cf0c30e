"""What labels by rules, and a choice of what to label next, are worth on held-out messages.

    python bench/data_label.py PATH [--seeds 3]

PATH holds ``sms_spam/SMSSpamCollection.tsv`` and ``persian/parsinlu/sentiment_food.jsonl``. Rules: written
for short messages, and for reviews, in general; the label model sees the votes on one half of the texts, no
label. On the other half, of texts that a rule speaks of: accuracy, macro-F1 and log loss (nats) of the model
and of a majority vote, whose ties are broken by lot, or go to the class that is commoner (which it does not
know: an upper bound for it). Active learning: a surrogate learns from 20 labels, then from 20 more a round,
chosen by each strategy or by chance; macro-F1 on held-out messages, the mean over seeds. The last line is
JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import accuracy_score, f1_score
from sklearn.pipeline import make_pipeline

from tanzim.data.balance import surrogate
from tanzim.data.label.active import Strategy, choose
from tanzim.data.label.config import RuleConfig
from tanzim.data.label.functions import rule, votes
from tanzim.data.label.model import majority
from tanzim.data.label.weak import weak_labels

LABELS = ["ham", "spam"]
STRATEGIES: tuple[Strategy, ...] = ("uncertainty", "margin", "diversity")
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


def scores(truth: Codes, shares_NC: npt.NDArray[np.float64]) -> dict[str, float]:
    found = shares_NC.argmax(1)
    sure_N = np.clip(shares_NC[np.arange(len(truth)), truth], 1e-3, 1)
    return {
        "accuracy": round(float(accuracy_score(truth, found)), 4),
        "macro_f1": round(float(f1_score(truth, found, average="macro")), 4),
        "log_loss": round(float(-np.log(sure_N).mean()), 4),
    }


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
        "spoken_of": {"share": round(float(spoken.mean()), 4)},
        "model": scores(truth, found.model(votes_NJ)),
        "majority": scores(truth, heads + 1e-6 * rng.random(heads.shape)),
        "majority_ties_to_commoner": scores(truth, heads + 1e-6 * commoner),
    }


def curve(texts: list[str], codes: Codes, strategy: Strategy | None, seed: int, rounds: int) -> list[float]:
    """Return the macro-F1 after each round; None chooses by chance."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(texts))
    pool, held = order[: len(order) // 2], order[len(order) // 2 :]
    words = surrogate.hashed_words(texts)
    vectors = make_pipeline(TfidfVectorizer(), TruncatedSVD(50, random_state=0)).fit_transform(texts)
    known, rest = pool[:20], pool[20:]
    points = []
    for _ in range(rounds):
        model = surrogate.fit(words[known], codes[known], len(LABELS))
        points.append(float(f1_score(codes[held], model(words[held]).argmax(1), average="macro")))
        if strategy is None:
            picked = rng.permutation(len(rest))[:20]
        else:
            picked = choose(
                model(words[rest]),
                20,
                strategy=strategy,
                vectors_ND=vectors[rest],
                labelled_LD=vectors[known],
            )
        known, rest = np.concatenate([known, rest[picked]]), np.delete(rest, picked)
    return points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=8, help="of active learning; 0 leaves it out")
    args = parser.parse_args()
    texts, codes = read_spam(args.path)
    reviews = read_food(args.path)
    rules = {
        "messages": [weak(texts, codes, RULES, LABELS, seed) for seed in range(args.seeds)],
        "reviews": [weak(*reviews, REVIEW_RULES, OPINIONS, seed) for seed in range(args.seeds)],
    }
    means = {}
    for name, runs in rules.items():
        for how in ("model", "majority", "majority_ties_to_commoner"):
            keys = runs[0][how]
            means[f"{name}.{how}"] = {
                key: round(float(np.mean([r[how][key] for r in runs])), 4) for key in keys
            }
            print(f"{name:9} {how:26}", json.dumps(means[f"{name}.{how}"]))
    curves = {}
    for strategy in (None, *STRATEGIES) if args.rounds else ():
        points = [curve(texts, codes, strategy, seed, args.rounds) for seed in range(args.seeds)]
        curves[strategy or "random"] = np.mean(points, 0).round(4).tolist()
        print(f"{strategy or 'random':12}", *(f"{point:.3f}" for point in curves[strategy or "random"]))
    print(json.dumps({"weak_labels": means, "active_learning_macro_f1": curves, "labels_a_round": 20}))


if __name__ == "__main__":
    main()
