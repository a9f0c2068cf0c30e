"""Texts with a label, for the benchmarks of steps that learn from labels; and a step run on them.

Each reader takes the folder with the data and returns (text, label) pairs, equal ones once.
"""

from __future__ import annotations

import csv
import gzip
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from tanzim.core.powers import Powers
from tanzim.core.records import Example, Provenance
from tanzim.data.chain import run_steps
from tanzim.data.config import DataConfig
from tanzim.data.executor import Local
from tanzim.data.shards import write_shards

Rows = list[tuple[str, str]]


def _once(rows: Iterable[tuple[str, str]]) -> Rows:
    return list(dict.fromkeys(rows))


def _lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def read_spam(path: Path) -> Rows:
    """English SMS: ham or, one in eight, spam."""
    lines = (path / "sms_spam/SMSSpamCollection.tsv").read_text(encoding="utf-8").splitlines()
    return _once((text, label) for label, text in (line.split("\t", 1) for line in lines if "\t" in line))


def read_food(path: Path) -> Rows:
    """Persian reviews of food: positive or negative."""
    names = {"-2": "negative", "-1": "negative", "1": "positive", "2": "positive"}
    rows = _lines(path / "persian/parsinlu/sentiment_food.jsonl")
    return _once((row["review"], names[row["sentiment"]]) for row in rows if row["sentiment"] in names)


def read_dolly(path: Path) -> Rows:
    """English instructions: which of eight kinds of task they are."""
    rows = json.loads((path / "dolly/dolly_3k.json").read_text(encoding="utf-8"))
    return _once((f"{row['instruction']}\n{row['input']}".strip(), row["category"]) for row in rows)


def read_snappfood(path: Path) -> Rows:
    """Persian comments on deliveries: happy (0) or sad (1)."""
    with (path / "persian/snappfood_test.csv").open(encoding="utf-8", newline="") as file:
        return _once((row["comment"], row["label_id"]) for row in csv.DictReader(file) if row["comment"])


def read_mmlu(path: Path) -> Rows:
    """English examination questions: which of seven subjects they are of."""
    files = sorted((path / "eval/mmlu").glob("*.jsonl"))
    return _once((row["question"], file.stem.rsplit("_", 1)[0]) for file in files for row in _lines(file))


def read_moderation(path: Path) -> Rows:
    """English prompts: harmful in any way, or not."""
    with gzip.open(path / "safety/openai_moderation_samples.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    flags = [any(value for key, value in row.items() if key != "prompt") for row in rows]
    return _once((row["prompt"], "harm" if harm else "none") for row, harm in zip(rows, flags, strict=True))


def read_choice(path: Path) -> Rows:
    """Persian examination questions: literature, common knowledge, or mathematics and logic."""
    files = [path / f"persian/parsinlu/mc_{part}.jsonl" for part in ("train", "valid")]
    return _once((row["question"], row["category"]) for file in files for row in _lines(file))


def read_injections(path: Path) -> Rows:
    """English and German prompts: an injection (1) or not (0)."""
    rows = []
    for part in ("train", "val"):
        with (path / f"safety/prompt_injections_{part}.csv").open(encoding="utf-8", newline="") as file:
            rows += [(row["text"], row["label"]) for row in csv.DictReader(file)]
    return _once(rows)


def step(
    rows: Rows, powers: Powers | None = None, *, seed: int = 1, **config: object
) -> tuple[list[Example], Any]:
    """Run one step on rows; return the examples that come out, and what it found."""
    examples = [
        Example("labelled", Provenance("bench", n), text=t, label=y) for n, (t, y) in enumerate(rows, 1)
    ]
    configs = DataConfig.model_validate({"steps": [config]}).steps
    with tempfile.TemporaryDirectory() as folder:
        dataset = write_shards(Path(folder) / "in", examples)
        (done,) = run_steps(configs, dataset, Path(folder) / "c", seed=seed, powers=powers, executor=Local(1))
        return list(done.dataset), done.report.findings


def mean(found: list[Any]) -> Any:  # noqa: ANN401 - numbers in nests of any depth
    """Return means of numbers in equal nests, rounded."""
    if isinstance(found[0], dict):
        return {key: mean([one[key] for one in found]) for key in found[0]}
    return round(float(np.mean(found)), 4)


def half(values: Iterable[float]) -> float:
    """Return half of the 95 % interval of the mean (Student)."""
    some = np.array(list(values))
    return float(student.ppf(0.975, len(some) - 1) * some.std(ddof=1) / np.sqrt(len(some)))
