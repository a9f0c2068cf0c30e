"""From a small table to a proven head that labels, on an encoder and on a causal model."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from seqeval.metrics import f1_score
from sklearn.metrics import accuracy_score
from sklearn.metrics import f1_score as macro_f1_score
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertTokenizerFast,
    pipeline,
)

from tanzim.core.errors import DataError, RunError, TanzimError
from tanzim.data.config import Splits
from tanzim.pipeline.config import Config
from tanzim.pipeline.evaluate import evaluate_run
from tanzim.pipeline.export import export_run
from tanzim.pipeline.init import init
from tanzim.pipeline.opened import open_models
from tanzim.pipeline.run import run
from tanzim.pipeline.workspace import load_config

GOOD = ("lovely", "bright", "sweet", "خوب", "عالی")
BAD = ("awful", "grim", "sour", "بد", "زشت")
PLACES, PEOPLE, OTHER = ("tehran", "paris", "شیراز"), ("ada", "alan", "مریم"), ("saw", "and", "the", "در")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny BERT of masked words: no pooler, no chat template."""
    folder = tmp_path_factory.mktemp("model") / "bert"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *GOOD, *BAD, *PLACES, *PEOPLE, *OTHER]
    words += [str(digit) for digit in range(10)] + [f"##{digit}" for digit in range(10)]
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    tokenizer = BertTokenizerFast(vocab=str(folder / "vocab.txt"), strip_accents=False)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
    BertForMaskedLM(
        BertConfig(vocab_size=len(words), num_hidden_layers=2, max_position_embeddings=256, **sizes)
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a CSV of texts with a mood; one in four is bad."""
    path, draw = tmp_path_factory.mktemp("data") / "reviews.csv", random.Random(2)
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["text", "label"])
        for number in range(120):
            words = BAD if number % 4 == 0 else GOOD
            table.writerow(
                [f"{draw.choice(words)} {draw.choice(words)} {number}", "bad" if words is BAD else "good"]
            )
    return path


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a JSONL of words with the tags of places and people."""
    path, draw = tmp_path_factory.mktemp("data") / "names.jsonl", random.Random(3)
    rows = []
    for number in range(120):
        words, tags = [], []
        for _ in range(draw.randint(2, 6)):
            kind, some = draw.choice((("O", OTHER), ("LOC", PLACES), ("PER", PEOPLE)))
            words.append(draw.choice(some))
            tags.append("O" if kind == "O" else f"I-{kind}" if tags[-1:] == [f"B-{kind}"] else f"B-{kind}")
        rows.append({"tokens": [*words, str(number)], "tags": [*tags, "O"]})
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def configured(data: Path, model: Path, root: Path, **train: Any) -> Config:
    settings = {
        "method": {"type": "lora", "rank": 8, "alpha": 16},
        "tokens_per_step": 128,
        "tokens_per_pass": 128,
        "learning_rate": 2e-2,
        "epochs": 6,
        **train,
    }
    return Config.model_validate(
        {
            "name": "labels",
            "runs_dir": str(root / "runs"),
            "data": {"path": str(data), "split": {"leakage": "allow", "test": 0.25}},
            "model": {"name": str(model), "max_length": 48, "device": "cpu"},
            "train": settings,
        }
    )


def lines(config: Config) -> list[dict[str, Any]]:
    path = Path(config.runs_dir) / config.name / "evaluation" / "items.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("method", ["lora", "full"])
def test_an_encoder_learns_to_classify_a_table(
    tmp_path: Path, encoder: Path, reviews: Path, method: str
) -> None:
    config = configured(
        reviews,
        encoder,
        tmp_path,
        objective={"type": "classification", "class_weights": "balanced"},
        method={"type": "lora", "rank": 8, "alpha": 16} if method == "lora" else {"type": "full"},
        learning_rate=1e-2 if method == "lora" else 5e-3,
        epochs=10,
    )
    ran = run(config)
    report, folder = ran.evaluation, ran.trained.folder
    assert [system.name for system in report.systems] == ["majority", "tuned"]
    assert report.system("tuned").metrics["accuracy"]["all"].value > 0.9
    assert "drawn at random" in report.reason
    assert ran.answer in ("good", "bad")
    assert not ran.talks

    # The figures are scikit-learn's, and the labels those of transformers' own pipeline on the export.
    items = lines(config)
    right = [item["reference"] for item in items]
    for system in ("majority", "tuned"):
        said = [item["systems"][system]["answer"] for item in items]
        found = report.system(system).metrics
        assert found["accuracy"]["all"].value == pytest.approx(accuracy_score(right, said))
        macro = macro_f1_score(right, said, average="macro", zero_division=0)
        assert found["macro_f1"]["all"].value == pytest.approx(macro)
        area = found["average_precision"]["all"].value
        assert area == pytest.approx(0.5) if system == "majority" else area > 0.9
    assert report.comparisons[0].against == "majority"
    page = (folder.path / "report.html").read_text(encoding="utf-8")
    assert "tuned − majority" in page
    if method == "lora":
        exported = export_run(config, merge=True)
        assert "labels of" in exported.proof[0]
        assert export_run(config).path.joinpath("labels.json").is_file()
        whole = exported.path
    else:
        whole = folder.model
    plain = AutoModelForSequenceClassification.from_pretrained(whole)
    classify = pipeline("text-classification", model=plain, tokenizer=AutoTokenizer.from_pretrained(whole))
    theirs = [one["label"] for one in classify([item["messages"][-1]["content"] for item in items])]
    assert theirs == [item["systems"]["tuned"]["answer"] for item in items]

    with pytest.raises(RunError, match="labels texts and writes none"):
        open_models([str(folder.path)])
    if method == "lora":
        with pytest.raises(TanzimError, match="labels texts and writes none"):
            open_models([str(folder.adapter)])
    else:
        with pytest.raises(TanzimError, match="chat template"):
            open_models([str(folder.model)])


def test_an_encoder_learns_to_tag_words(tmp_path: Path, encoder: Path, names: Path) -> None:
    config = configured(names, encoder, tmp_path, objective={"type": "token_classification"}, epochs=8)
    report = run(config).evaluation
    assert report.metrics[0] == "entity_f1"
    items, f1 = lines(config), report.system("tuned").metrics["entity_f1"]["all"]
    assert f1.low <= f1.value <= f1.high
    assert f1.value > 0.6
    assert f1.value > report.system("majority").metrics["entity_f1"]["all"].value == 0
    # The tags are written into the items as word/tag; seqeval counts the same entities in them.
    source = {row + 1: json.loads(line) for row, line in enumerate(names.read_text("utf-8").splitlines())}

    def tags(item: dict[str, Any], said: str) -> list[str]:
        marked, found = said.split(), []
        for word in source[item["provenance"]["row"]]["tokens"]:
            hit = next((one for one in marked[:1] if one.startswith(f"{word}/")), None)
            found.append(marked.pop(0).removeprefix(f"{word}/") if hit else "O")
        return found

    right = [source[item["provenance"]["row"]]["tags"] for item in items]
    said = [tags(item, item["systems"]["tuned"]["answer"]) for item in items]
    hits = np.mean(
        [a == b for one, two in zip(said, right, strict=True) for a, b in zip(one, two, strict=True)]
    )
    assert report.system("tuned").metrics["accuracy"]["all"].value == pytest.approx(hits)
    assert f1.value == pytest.approx(f1_score(right, said))


def test_a_causal_model_with_a_head(tmp_path: Path, tiny_model: Path, reviews: Path) -> None:
    config = configured(
        reviews, tiny_model, tmp_path, objective={"type": "classification"}, balanced_batches=True
    )
    ran = run(config)
    assert ran.evaluation.system("tuned").metrics["accuracy"]["all"].value > 0.8
    events = [line["message"] for line in ran.trained.folder.read_metrics() if line["kind"] == "event"]
    assert any("texts packed" in message and "balanced batches" in message for message in events)
    assert "labels of" in export_run(config, merge=True).proof[0]
    again = evaluate_run(config)
    assert again.system("tuned").metrics == ran.evaluation.system("tuned").metrics


@pytest.mark.slow
@pytest.mark.parametrize("method", ["adalora", "ia3", "spiel", "bottleneck"])
def test_every_method_trains_and_keeps_the_head(
    tmp_path: Path, encoder: Path, reviews: Path, method: str
) -> None:
    config = configured(
        reviews, encoder, tmp_path, objective={"type": "classification"}, method={"type": method}, epochs=2
    )
    ran = run(config)
    assert "labels of" in export_run(config).proof[0]
    if method == "bottleneck":
        with pytest.raises(TanzimError, match="cannot be merged"):
            export_run(config, merge=True)
    else:
        assert "labels of" in export_run(config, merge=True).proof[0]
    assert ran.evaluation.system("tuned").metrics["accuracy"]["all"].items


def test_init_writes_a_config_for_tagged_words(tmp_path: Path, names: Path) -> None:
    path = init(str(names), output=tmp_path / "tanzim.yaml")
    assert load_config(path).train.objective.type == "token_classification"


def test_data_that_does_not_fit_the_objective_is_refused(
    tmp_path: Path, encoder: Path, names: Path, reviews: Path, fruit_rows: Path
) -> None:
    long = tmp_path / "long.csv"
    rows = ["the " * 300 + ",good", *(f"{word} {place},bad" for place, word in enumerate(BAD[:5]))]
    long.write_text("text,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    for number, (data, kind, words) in enumerate(
        [
            (names, "classification", "one label each, and this is of the kind 'tagged'"),
            (reviews, "token_classification", "one tag each, and this is of the kind 'labelled'"),
            (fruit_rows, "classification", "nothing to tell apart"),
            (
                long,
                "classification",
                r"1 of 6 \w+ examples are longer than 256 tokens \(the longest has 302\)",
            ),
        ]
    ):
        config = configured(data, encoder, tmp_path / str(number), objective={"type": kind})
        if data == long:  # longer than the model's positions, whatever model.max_length allows
            config = config.model_copy(
                update={
                    "model": config.model.model_copy(update={"max_length": 2048}),
                    "data": config.data.model_copy(update={"split": Splits(validation=0, test=0)}),
                }
            )
        with pytest.raises(DataError, match=words):
            run(config)
