"""Embeddings by name, against plain transformers one text at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, BertTokenizerFast

from tanzim.core.errors import ModelError
from tanzim.pipeline.data_step import data_step
from tanzim.pipeline.power_embed import batches, open_embed

TEXTS = ["a cat", "the cat sat on the mat", "", "کتاب خوب است", "the " * 90, "a cat"]


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "a",
        "the",
        "cat",
        "sat",
        "on",
        "mat",
        "کتاب",
        "خوب",
        "است",
    ]
    (tmp_path / "vocab.txt").write_text("\n".join(words), "utf-8")
    tokenizer = BertTokenizerFast(str(tmp_path / "vocab.txt"))
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.5,
    )
    BertModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


def plain(folder: Path, text: str) -> np.ndarray:
    """Masked mean of the last hidden states, length 1."""
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=64)
    with torch.no_grad():
        mean = model(**inputs).last_hidden_state[0].mean(0)
    return (mean / mean.norm()).numpy()


def test_vectors_are_those_of_plain_transformers(encoder: Path) -> None:
    vectors = open_embed(str(encoder))(TEXTS)
    assert vectors.dtype == np.float32
    for text, vector in zip(TEXTS, vectors, strict=True):
        assert vector == pytest.approx(plain(encoder, text), abs=2e-5)


def test_groups_hold_texts_of_like_length_and_no_more_than_fits() -> None:
    lengths = [3, 50, 0, 7, 7, 100, 2]
    groups = batches(lengths, 20)
    assert sorted(place for group in groups for place in group) == [0, 1, 3, 4, 5, 6]
    assert all(len(group) == 1 or len(group) * max(lengths[p] for p in group) <= 20 for group in groups)
    assert groups == [[5], [1], [3, 4], [0, 6]]


def test_a_name_that_is_none_is_an_error() -> None:
    with pytest.raises(ModelError, match="there is no model 'nothing of the kind'"):
        open_embed("nothing of the kind")


@pytest.mark.slow
def test_the_embedded_model_knows_what_says_the_same() -> None:
    same, other, far = open_embed("all-minilm-l6-v2")(
        ["A man is eating food.", "Somebody eats a meal.", "The stock market fell sharply."]
    )
    assert float(same @ other) > 0.5 > float(same @ far) + 0.3


def test_a_step_on_a_file_opens_the_model_that_it_names(encoder: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "the cat sat"}\n{"text": "کتاب خوب است"}\n{"text": "the cat  sat"}\n', "utf-8")
    done = data_step(str(rows), {"type": "dedup_semantic", "model": str(encoder), "threshold": 0.99})
    assert [line["row"] for line in done.removed] == [3]
