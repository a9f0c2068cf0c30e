"""What choosing training examples is worth on held-out data, beside as many drawn by chance, and all.

    python bench/data_select.py PATH [--seeds 5]

PATH holds ``sms_spam/SMSSpamCollection.tsv`` (English) and ``persian/parsinlu/sentiment_food.jsonl``.

Of each set 30 % are held out. The step ``select`` runs through the chain on the rest and keeps 10, 20 or
40 %; a TF-IDF logistic regression of scikit-learn (not the step's own surrogate) learns from what is kept,
and its macro-F1 is taken on the held-out texts; means over the seeds. "random" is the step's own, which
keeps the share of each class. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

from tanzim.core.records import Example, Provenance
from tanzim.data.chain import run_steps
from tanzim.data.config import DataConfig
from tanzim.data.executor import Local
from tanzim.data.shards import write_shards

SHARES = (0.1, 0.2, 0.4)
Rows = list[tuple[str, str]]


def read_spam(path: Path) -> Rows:
    lines = (path / "sms_spam/SMSSpamCollection.tsv").read_text(encoding="utf-8").splitlines()
    return [(text, label) for label, text in (line.split("\t", 1) for line in lines if "\t" in line)]


def read_food(path: Path) -> Rows:
    lines = (path / "persian/parsinlu/sentiment_food.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    names = {"-2": "negative", "-1": "negative", "1": "positive", "2": "positive"}
    return [(row["review"], names[row["sentiment"]]) for row in rows if row["sentiment"] in names]


def kept(rows: Rows, seed: int, **settings: object) -> Rows:
    """Run the step on rows."""
    steps = DataConfig.model_validate({"steps": [{"type": "select", **settings}]}).steps
    examples = [
        Example("labelled", Provenance("bench", n), text=t, label=y) for n, (t, y) in enumerate(rows, 1)
    ]
    with tempfile.TemporaryDirectory() as folder:
        dataset = write_shards(Path(folder) / "in", examples)
        (done,) = run_steps(steps, dataset, Path(folder) / "c", seed=seed, executor=Local(1))
        return [(one.text, one.label) for one in done.dataset]


def worth(train: Rows, test: Rows) -> float:
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=10, max_iter=300)
    )
    model.fit([text for text, _ in train], [label for _, label in train])
    guesses = model.predict([text for text, _ in test])
    return float(f1_score([label for _, label in test], guesses, average="macro"))


def compare(rows: Rows, seeds: int) -> dict[str, dict[str, float]]:
    """Return the mean macro-F1 by share and way of choosing."""
    found: dict[str, dict[str, list[float]]] = {}
    for seed in range(seeds):
        labels = [label for _, label in rows]
        train, test = train_test_split(rows, test_size=0.3, random_state=seed, stratify=labels)
        found.setdefault("full", {}).setdefault("full", []).append(worth(train, test))
        for share in SHARES:
            here = found.setdefault(f"{share:.0%}", {})
            for by in ("influence", "effort", "random"):
                here.setdefault(by, []).append(worth(kept(train, seed, by=by, share=share), test))
            as_others = kept(train, seed, by="effort", share=share, doubtful="as_others")
            here.setdefault("effort, doubtful as others", []).append(worth(as_others, test))
    return {
        share: {by: round(float(np.mean(values)), 4) for by, values in ways.items()}
        | {f"{by} sd": round(float(np.std(values)), 4) for by, values in ways.items()}
        for share, ways in found.items()
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args(arguments)
    report = {}
    for name, read in (("sms_spam", read_spam), ("sentiment_food", read_food)):
        report[name] = compare(read(given.path), given.seeds)
        for share, ways in report[name].items():
            print(f"{name:<15} {share:>5}  " + "  ".join(f"{by} {v:.3f}" for by, v in ways.items()))
    print(json.dumps(report, ensure_ascii=False))


if __name__ == "__main__":
    main()
