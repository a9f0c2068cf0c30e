"""Continued pre-training on raw text: texts end, long ones are divided, and nothing is lost."""

import random
from pathlib import Path

import numpy as np
import pytest

from tanzim.core.errors import DataError
from tanzim.core.files import read_json
from tanzim.pipeline.config import Config
from tanzim.pipeline.evaluate import evaluate_run
from tanzim.pipeline.finetune import finetune
from tanzim.pipeline.workspace import load_config
from tanzim.train.tokens import TokenStore

WORDS = ("apple", "pear", "plum", "سیب", "گلابی", "می‌خوش", "red", "زرد")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of texts, one a file, of 3 to 300 words."""
    draw, folder = random.Random(3), tmp_path_factory.mktemp("texts")
    for number in range(40):
        words = [draw.choice(WORDS) for _ in range(draw.choice((3, 20, 300)))]
        (folder / f"{number:02}.txt").write_text(f"{number} " + " ".join(words), encoding="utf-8")
    return folder


def config(root: Path, data: Path, model: Path, *more: str) -> Config:
    places = [f"runs_dir={root / 'runs'}", "name=text", f"data.path={data}", f"model.name={model}"]
    settings = [
        "data.format=text",
        "data.documents=file",
        "model.max_length=64",
        "data.split.leakage=allow",  # texts of few words are all alike
        "model.device=cpu",
        "train.max_steps=12",
        "train.tokens_per_step=512",
        "train.tokens_per_pass=512",
        "train.learning_rate=1e-2",
    ]
    return load_config(None, [*places, *settings, *more])


@pytest.mark.slow
def test_every_token_of_every_text_is_trained_once(tmp_path: Path, tiny_model: Path, texts: Path) -> None:
    from transformers import AutoTokenizer

    wanted = config(tmp_path, texts, tiny_model, "model.overlong=split")
    folder = finetune(wanted).folder
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    trained: dict[str, list[int]] = {}
    first: dict[str, int] = {}
    for split in ("train", "validation", "test"):
        for document in TokenStore(folder.tokens / f"{split}.arrow"):
            assert len(document.ids) <= 64
            first.setdefault(document.provenance.source, int(document.ids[0]))
            assert document.weights[0] == 0
            counted = np.flatnonzero(document.weights)
            trained.setdefault(document.provenance.source, []).extend(document.ids[counted].tolist())
    assert len(trained) == 40
    for source, ids in trained.items():
        text = (texts / Path(source).name).read_text(encoding="utf-8")
        want = [*tokenizer(text, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
        assert [first[source], *ids] == want
    report = read_json(folder.tokens / "report.json")["splits"]
    assert (
        sum(split["divided"] for split in report.values())
        == sum(len(ids) > 63 for ids in trained.values())
        > 5
    )
    assert sum(split["trained_tokens"] for split in report.values()) == sum(map(len, trained.values()))
    losses = {system.name: system.loss for system in evaluate_run(wanted).systems}
    assert losses["tuned"] < losses["base"]


def test_a_long_text_is_refused_with_the_way_out(tmp_path: Path, tiny_model: Path, texts: Path) -> None:
    with pytest.raises(DataError, match="longer than 64 tokens") as refused:
        finetune(config(tmp_path, texts, tiny_model))
    assert "(raw text) split" in str(refused.value)


def test_a_conversation_is_never_divided(tmp_path: Path, tiny_model: Path, fruit_rows: Path) -> None:
    short = config(tmp_path, fruit_rows, tiny_model, "model.overlong=split", "model.max_length=8")
    more = short.model_copy(
        update={"data": short.data.model_copy(update={"format": "auto", "documents": "auto"})}
    )
    with pytest.raises(DataError, match="longer than 8 tokens"):
        finetune(more)
