"""A whole project in miniature: a tiny random model on disk, and a data file it can learn."""

import json
import random
from pathlib import Path

import pytest
from tiny_projects import FRUIT, write_tiny_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in Hugging Face layout: two layers, 64 wide, byte-level BPE, ChatML."""
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="session")
def fruit_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a JSONL of 120 short conversations with a learnable answer, English and Persian."""
    path = tmp_path_factory.mktemp("data") / "fruit.jsonl"
    draw = random.Random(5)
    rows = []
    for number in range(120):
        fruit = FRUIT[number % len(FRUIT)]
        asked = f"{draw.randrange(10**6)}: Which colour has {fruit}?"
        answer = "red" if number % len(FRUIT) < 3 else "زرد"
        turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
        rows.append(json.dumps({"messages": turns}, ensure_ascii=False))
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path
