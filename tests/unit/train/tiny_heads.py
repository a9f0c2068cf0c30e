"""A random BERT and a random Llama with heads, and texts of numbers whose labels they can learn."""

from __future__ import annotations

import random
from typing import Any

import torch
from tiny_train import VOCABULARY
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    LlamaForTokenClassification,
)

from tanzim.core.records import Provenance, Rendered
from tanzim.models.kernels.attention import ATTENTION, register

PAD = 0
LABELS = ("even", "odd", "rare")
CLASSES: dict[tuple[str, bool], Any] = {
    ("bert", False): BertForSequenceClassification,
    ("bert", True): BertForTokenClassification,
    ("llama", False): LlamaForSequenceClassification,
    ("llama", True): LlamaForTokenClassification,
}


def headed(
    family: str, *, tagged: bool, dtype: torch.dtype = torch.float32, attention: str = ATTENTION
) -> Any:
    """Make the same random model every time; its head is what has no base weights."""
    register()
    sizes: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 128,
        "pad_token_id": PAD,
        "num_labels": len(LABELS),
        "id2label": dict(enumerate(LABELS)),
        "label2id": {label: number for number, label in enumerate(LABELS)},
        "attn_implementation": attention,
    }
    config: Any
    if family == "bert":
        config = BertConfig(**sizes, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    else:
        config = LlamaConfig(**sizes, num_key_value_heads=2, classifier_dropout=0.0)
    torch.manual_seed(11)
    model = CLASSES[family, tagged](config).to(dtype)
    model.new_modules = ("classifier",) if family == "bert" else ("score",)
    return model


def texts(count: int, *, seed: int = 0, tagged: bool = False) -> list[Rendered]:
    """Rows of numbers, from one of three ranges for each text (one in twelve is rare) or for each word."""
    draw = random.Random(seed)
    made = []
    for row in range(1, count + 1):
        length, label = draw.randint(3, 24), draw.choice((0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2))
        of = [draw.choice((0, 0, 1, 2)) if tagged else label for _ in range(length)]
        ids = tuple(1 + 8 * kind + draw.randrange(8) for kind in of)
        weights = [float(tagged and draw.random() < 0.6) for _ in of]
        weights[0] = 1.0
        targets = tuple(kind for kind, weight in zip(of, weights, strict=True) if weight)
        made.append(Rendered(ids, tuple(weights), (), Provenance(f"texts-{seed}.jsonl", row), (targets,)))
    return made
