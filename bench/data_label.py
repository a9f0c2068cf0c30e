"""What labels by rules, and a choice of what to label next, are worth on held-out messages.

    python bench/data_label.py PATH [--seeds 3]

PATH holds ``sms_spam/SMSSpamCollection.tsv``. Rules: written for short messages in general; the label model
sees the votes on one half of the messages, no label; accuracy and macro-F1 are taken on the other half,
beside a majority vote (ties are lost to the commoner class), on the messages that a rule speaks of, and on
all (where none speaks: ham). Active learning: a surrogate learns from 20 labels, then from 20 more a round,
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

Codes = npt.NDArray[np.int64]


def read_spam(path: Path) -> tuple[list[str], Codes]:
    lines = (path / "sms_spam/SMSSpamCollection.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t", 1) for line in lines if "\t" in line]
    return [text for _, text in rows], np.array([LABELS.index(label) for label, _ in rows])


def scores(truth: Codes, found: Codes) -> dict[str, float]:
    return {
        "accuracy": round(float(accuracy_score(truth, found)), 4),
        "macro_f1": round(float(f1_score(truth, found, average="macro")), 4),
    }


def weak(texts: list[str], codes: Codes, seed: int) -> dict[str, object]:
    """Learn on half of the texts, without labels; measure on the other half."""
    order = np.random.default_rng(seed).permutation(len(texts))
    seen, held = order[: len(order) // 2], order[len(order) // 2 :]
    functions = [rule(one) for one in RULES]
    found = weak_labels([texts[i] for i in seen], functions, LABELS)
    votes_NJ = votes([texts[i] for i in held], functions, LABELS)
    spoken = (votes_NJ < len(LABELS)).any(1)
    result: dict[str, object] = {"spoken_of": round(float(spoken.mean()), 4)}
    for name, shares in (("model", found.model(votes_NJ)), ("majority", majority(votes_NJ, len(LABELS)))):
        guess = np.where(spoken, shares.argmax(1), 0)
        result[name] = {
            "where a rule speaks": scores(codes[held][spoken], guess[spoken]),
            "all": scores(codes[held], guess),
        }
    return result


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
    parser.add_argument("--rounds", type=int, default=8)
    args = parser.parse_args()
    texts, codes = read_spam(args.path)
    rules = [weak(texts, codes, seed) for seed in range(args.seeds)]
    for one in rules:
        print("weak labels", json.dumps(one))
    curves = {}
    for strategy in (None, *STRATEGIES):
        runs = [curve(texts, codes, strategy, seed, args.rounds) for seed in range(args.seeds)]
        curves[strategy or "random"] = np.mean(runs, 0).round(4).tolist()
        print(f"{strategy or 'random':12}", *(f"{point:.3f}" for point in curves[strategy or "random"]))
    print(json.dumps({"weak_labels": rules, "active_learning_macro_f1": curves, "labels_a_round": 20}))


if __name__ == "__main__":
    main()
