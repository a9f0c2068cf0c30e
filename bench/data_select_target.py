"""How well choosing by nearness to a target finds the texts that are like it.

    python bench/data_select_target.py PATH [--seeds 5]

PATH holds the sets that `data_labelled` reads. Of each class in turn 40 texts are the target; from all
others `select` with ``by: influence`` and that target chooses as many as the class still has. The step sees
no label. Precision (here the same as recall) stands beside chance and beside the cosine of TF-IDF vectors to
the target's mean. ± is half of the 95 % interval (Student) over classes and seeds. The smoothing was tuned on
``TUNED_ON`` with seeds 0 and 1; seeds here are 10 and up. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from data_labelled import (
    Rows,
    half,
    read_choice,
    read_dolly,
    read_food,
    read_injections,
    read_mmlu,
    read_moderation,
    read_spam,
    step,
)

TUNED_ON = {"dolly": read_dolly, "mmlu": read_mmlu, "multiple choice (fa)": read_choice}
CONFIRMED_ON = {
    "sms_spam": read_spam,
    "sentiment_food (fa)": read_food,
    "moderation": read_moderation,
    "injections": read_injections,
}
TARGET = 40


def precision(rows: Rows, label: str, seed: int) -> dict[str, float]:
    """Return the share of right ones among what each way chooses."""
    rng = np.random.default_rng(seed)
    members = rng.permutation([n for n, row in enumerate(rows) if row[1] == label])
    target = [rows[n] for n in members[:TARGET]]
    pool = [row for n, row in enumerate(rows) if n not in set(members[:TARGET].tolist())]
    count = len(members) - TARGET
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "target.jsonl"
        lines = [json.dumps({"text": text}, ensure_ascii=False) for text, _ in target]
        path.write_text("\n".join(lines), encoding="utf-8")
        kept, _ = step(pool, seed=seed, type="select", by="influence", target=str(path), count=count)
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit([text for text, _ in pool])
    mean = np.asarray(words.transform([text for text, _ in target]).mean(0)).ravel()
    nearest = np.argsort(-(words.transform([text for text, _ in pool]) @ mean))[:count]
    return {
        "select": float(np.mean([one.label == label for one in kept])),
        "cosine": float(np.mean([pool[n][1] == label for n in nearest])),
        "chance": count / len(pool),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args(arguments)
    report: dict[str, dict[str, list[float]]] = {}
    for name, read in (TUNED_ON | CONFIRMED_ON).items():
        rows = read(given.path)
        labels = [label for label, count in Counter(label for _, label in rows).items() if count > 2 * TARGET]
        found = [precision(rows, label, 10 + seed) for label in labels for seed in range(given.seeds)]
        by_way = {way: [one[way] for one in found] for way in found[0]}
        report[name] = {
            way: [round(float(np.mean(some)), 4), round(half(some), 4)] for way, some in by_way.items()
        }
        said = "  ".join(f"{way} {a:.3f} ± {b:.3f}" for way, (a, b) in report[name].items())
        print(f"{name:22} {len(labels)} classes  {said}")
    print(json.dumps(report, ensure_ascii=False))


if __name__ == "__main__":
    main()
