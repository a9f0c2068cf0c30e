"""A random Llama of a few thousand weights, documents to train it on, and a run of the engine."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from tanzim.adapters.attach import attach
from tanzim.adapters.config import MethodConfig
from tanzim.adapters.method import Method
from tanzim.core.records import Json, Provenance, Rendered
from tanzim.core.run import RunFolder
from tanzim.models.kernels.attention import ATTENTION, register
from tanzim.train.config import TrainConfig
from tanzim.train.engine import TrainResult, train
from tanzim.train.objectives.distillation import Teacher
from tanzim.train.ranks import Ranks
from tanzim.train.tokens import TokenStore, write_tokens

VOCABULARY = 97


def documents(count: int, *, seed: int = 0, weighted: bool = False) -> list[Rendered]:
    """Number rows that a model can learn to continue, of 4 to 40 tokens; the first 2 untrained."""
    draw = random.Random(seed)
    made = []
    for row in range(1, count + 1):
        length = draw.randint(4, 40)
        start, stride = draw.randrange(VOCABULARY), draw.choice((1, 2, 3))
        ids = tuple((start + stride * i) % VOCABULARY for i in range(length))
        weights = [0.0, 0.0] + [draw.choice((0.0, 0.5, 1.0)) if weighted else 1.0] * (length - 3) + [1.0]
        made.append(Rendered(ids, tuple(weights), (), Provenance(f"rows-{seed}.jsonl", row)))
    return made


def store(path: Path, rendered: list[Rendered]) -> TokenStore:
    """Write and open a token store."""
    write_tokens(path, rendered)
    return TokenStore(path)


def tiny_llama(dtype: torch.dtype = torch.float32, **changes: Any) -> LlamaForCausalLM:
    """Make the same random Llama every time."""
    register()
    settings = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "attn_implementation": ATTENTION,
        "tie_word_embeddings": True,
    }
    torch.manual_seed(7)
    model: LlamaForCausalLM = LlamaForCausalLM(LlamaConfig(**(settings | changes))).to(dtype)
    return model


def tiny_method(model: nn.Module | None = None, *, base_hash: str = "b" * 64, **config: Any) -> Method:
    """Prepare a model (the random Llama) by the method of ``config`` (LoRA of rank 4 on all layers)."""
    settings: Any = TypeAdapter(MethodConfig).validate_python(config or {"type": "lora", "rank": 4})
    return attach(model or tiny_llama(), settings, seed=3, base_hash=base_hash, base_name="tiny")


def tiny_lora(*, dropout: float = 0.0, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Make the random Llama with LoRA of rank 4 on all linear layers."""
    return tiny_method(tiny_llama(dtype), type="lora", rank=4, dropout=dropout).model


def fit(
    root: Path,
    *,
    model: nn.Module | None = None,
    prepared: Method | None = None,
    train_documents: list[Rendered] | None = None,
    validation_documents: list[Rendered] | None = None,
    resume: bool = True,
    base_hash: str = "b" * 64,
    seed: int = 5,
    autocast: torch.dtype | None = None,
    teacher: Teacher | None = None,
    on_line: Callable[[Json], None] = lambda line: None,
    ranks: Ranks | None = None,
    **config: Any,
) -> TrainResult:
    """Train in ``root/run`` with small defaults."""
    folder = RunFolder(root / "run")
    settings: Json = {"tokens_per_step": 256, "tokens_per_pass": 128, "learning_rate": 1e-2, **config}
    if prepared is None and hasattr(model, "peft_config"):
        prepared = Method(model, base_hash=base_hash, base_name="tiny")
    settings.setdefault("method", {"type": "lora", "rank": 4})
    held_out = documents(8, seed=1) if validation_documents is None else validation_documents
    return train(
        prepared or tiny_method(model, base_hash=base_hash, **settings["method"]),
        store(root / "train.arrow", documents(60) if train_documents is None else train_documents),
        store(root / "validation.arrow", held_out),
        TrainConfig.model_validate(settings),
        folder,
        seed=seed,
        autocast=autocast,
        teacher=teacher,
        on_line=on_line,
        resume=resume,
        ranks=ranks,
    )


def lines(root: Path, kind: str) -> list[Json]:
    """Return the metrics of one kind, without what a clock says."""
    clock = ("seconds", "tokens_per_s")
    metrics = RunFolder(root / "run").read_metrics()
    return [{k: v for k, v in m.items() if k not in clock} for m in metrics if m["kind"] == kind]
