"""Precision and recall of the three layers of deduplication on planted and on known duplicates.

    python bench/data_dedup.py PATH

PATH is a folder with the data sets (dedup/, persian/). English news with known near-duplicates; English and
Persian articles with copies of a known edit distance; paraphrases in English (our own) and Persian
(ParsiNLU). Beside each stands the naive baseline: the same normalised text. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tanzim.data.dedup.plain import near_duplicates
from tanzim.data.similarity import normalise
from tanzim.pipeline.power_embed import open_embed

RATES = (0.0, 0.002, 0.005, 0.01, 0.02, 0.04)  # edited characters of a copy
SAME = [  # the same said twice
    ("How can I lose weight quickly?", "What is the fastest way to lose weight?"),
    ("The company fired two hundred workers.", "Two hundred employees were laid off by the firm."),
    ("She bought a red car last week.", "Last week she purchased a red automobile."),
    ("What is the capital of Australia?", "Which city is Australia's capital?"),
    ("The meeting was postponed until Monday.", "They put the meeting off to Monday."),
    ("How do I reset my password?", "What are the steps to reset my password?"),
    ("The doctor told him to stop smoking.", "His physician advised him to quit smoking."),
    ("It rained heavily all night.", "There was heavy rain throughout the night."),
    ("Why is the sky blue?", "What makes the sky look blue?"),
    ("Give three tips for staying healthy.", "List three pieces of advice for good health."),
    ("Translate this sentence into French.", "Put this sentence into French."),
    ("The bridge was closed for repairs.", "For repair work, the bridge was shut."),
]
OTHER = [  # near in words, not in meaning
    ("How can I lose weight quickly?", "How can I gain weight quickly?"),
    ("What is the capital of Australia?", "What is the population of Australia?"),
    ("She bought a red car last week.", "She sold a red car last week."),
    ("How do I reset my password?", "How do I delete my account?"),
    ("The meeting was postponed until Monday.", "The meeting was a success on Monday."),
    ("Why is the sky blue?", "Why is the sea salty?"),
    ("Give three tips for staying healthy.", "Give three tips for learning the guitar."),
    ("The bridge was closed for repairs.", "The bridge was built in 1932."),
    ("The doctor told him to stop smoking.", "The doctor told him to take a walk."),
    ("It rained heavily all night.", "It snowed lightly all morning."),
    ("Translate this sentence into French.", "Translate this sentence into German."),
    ("The company fired two hundred workers.", "The company hired two hundred workers."),
]
Pairs = set[tuple[int, int]]
Numbers = dict[str, Any]


def measured(found: Pairs, true: Pairs) -> Numbers:
    right = len(found & true)
    return {
        "precision": round(right / len(found), 4) if found else None,
        "recall": round(right / len(true), 4),
        "found": len(found),
    }


def pairs_of(stands: Sequence[Any]) -> Pairs:
    groups: dict[Any, list[int]] = {}
    for index, one in enumerate(stands):
        groups.setdefault(one, []).append(index)
    return {(a, b) for members in groups.values() for i, a in enumerate(members) for b in members[i + 1 :]}


def layers(texts: list[str], threshold: float = 0.8) -> dict[str, Pairs]:
    with tempfile.TemporaryDirectory() as folder:
        near = near_duplicates([texts], Path(folder), threshold=threshold).tolist()
    return {"exact": pairs_of([normalise(text) for text in texts]), "fuzzy": pairs_of(near)}


def articles(path: Path) -> list[tuple[str, str]]:
    lines = (path / "dedup/articles_1000.train.txt").read_text("utf-8").splitlines()
    return [(name, text) for name, _, text in (line.partition(" ") for line in lines)]


def hamshahri(path: Path) -> list[str]:
    files = sorted((path / "persian/hamshahri").glob("*.txt"))
    return [file.read_text("utf-8", errors="replace").strip() for file in files]


def edited(rng: random.Random, text: str, count: int, letters: str) -> str:
    found = list(text)
    for _ in range(count):
        place, way = rng.randrange(len(found)), rng.randrange(3)
        found[place : place + (way != 1)] = [] if way == 0 else [rng.choice(letters)]
    return "".join(found)


def planted(texts: list[str], letters: str, seed: int) -> Numbers:
    """Plant one copy of each text, and look for all of them."""
    rng = random.Random(seed)
    everything, true = list(texts), {}
    for index, text in enumerate(texts):
        rate = RATES[index % len(RATES)]
        true[index, len(everything)] = rate
        copy = edited(rng, text, round(rate * len(text)), letters)
        # What a copy looks like that came another way: other code points for the same letters, other spaces.
        everything.append(copy.replace("ی", "ي").replace("ک", "ك").replace("\u200c", " ").replace("\n", "  "))
    result: Numbers = {}
    for name, found in layers(everything).items():
        result[name] = measured(found, set(true))
        result[name]["recall by edits"] = {
            f"{rate:.1%}": round(np.mean([pair in found for pair, one in true.items() if one == rate]), 3)
            for rate in RATES
        }
    return result


def paraphrases(pairs: list[tuple[str, str, bool]], threshold: float) -> Numbers:
    """Judge pairs by cosine, at the step's default and at a threshold chosen on half of the pairs."""
    embed = open_embed("all-minilm-l6-v2")
    cosine = np.sum(embed([a for a, _, _ in pairs]) * embed([b for _, b, _ in pairs]), axis=1)
    same = np.array([same for _, _, same in pairs])
    texts = [text for a, b, _ in pairs for text in (a, b)]
    result: Numbers = {"pairs": len(pairs), "the same": int(same.sum())}
    for name, found in layers(texts).items():
        hits = np.array([(2 * i, 2 * i + 1) in found for i in range(len(pairs))])
        result[name] = scores(hits, same)
    result[f"semantic at {threshold}"] = scores(cosine >= threshold, same)
    half = np.arange(len(pairs)) % 2 == 0
    options = np.arange(0.5, 0.99, 0.01)
    chosen = max(options, key=lambda cut: scores(cosine[half] >= cut, same[half])["f1"])
    result[f"semantic at {chosen:.2f}, chosen on half"] = scores(cosine[~half] >= chosen, same[~half])
    return result


def scores(found: np.ndarray, same: np.ndarray) -> Numbers:
    right = int((found & same).sum())
    return {
        "precision": round(right / int(found.sum()), 3) if found.any() else None,
        "recall": round(right / int(same.sum()), 3),
        "f1": round(2 * right / int(found.sum() + same.sum()), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", type=Path)
    path = parser.parse_args().path
    known = articles(path)
    place = {name: index for index, (name, _) in enumerate(known)}
    truth = (path / "dedup/articles_1000.truth.txt").read_text("utf-8").split()
    true = {tuple(sorted((place[a], place[b]))) for a, b in zip(truth[::2], truth[1::2], strict=True)}
    english = [text for _, text in known]
    result: Numbers = {"articles with known duplicates": {}}
    for threshold in (0.8, 0.5):
        found = layers(english, threshold)
        result["articles with known duplicates"] |= {
            "exact": measured(found["exact"], true),  # type: ignore[arg-type]
            f"fuzzy at {threshold}": measured(found["fuzzy"], true),  # type: ignore[arg-type]
        }
    alone = [text for index, text in enumerate(english) if not any(index in pair for pair in true)]
    result["planted, English"] = planted(alone[:600], "abcdefghijklmnopqrstuvwxyz ", 1)
    result["planted, Persian"] = planted(hamshahri(path), "اآبپتثجچحخدذرزژسشصضطظعغفقکگلمنوهی ", 2)
    own = [(a, b, True) for a, b in SAME] + [(a, b, False) for a, b in OTHER]
    random.Random(3).shuffle(own)
    result["paraphrases, English"] = paraphrases(own, 0.9)
    lines = (path / "persian/parsinlu/qqp_train.jsonl").read_text("utf-8").splitlines()[:300]
    rows = [json.loads(line) for line in lines]
    result["paraphrases, Persian (a model that knows none)"] = paraphrases(
        [(row["q1"], row["q2"], str(row["label"]) == "1") for row in rows], 0.9
    )
    for name, found in result.items():
        print(name)
        for layer, numbers in found.items():
            print(f"  {layer}: {numbers}")
    print(json.dumps(result, ensure_ascii=False))


if __name__ == "__main__":
    main()
