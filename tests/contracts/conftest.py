"""A server with a tiny base and an adapter, and the unmodified ``openai`` client for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from helpers.serving import Lines, serving
from tanzim.adapters.config import LoraConfig
from tanzim.adapters.lora import attach
from tanzim.infer.engine import Engine


@pytest.fixture
def engine(tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast) -> Engine:
    tuned = attach(tiny_model, LoraConfig(rank=4, alpha=8), seed=1)
    torch.manual_seed(1)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return Engine(tuned, tiny_tokenizer, stop_ids=[2], base_hash="0" * 64)


@pytest.fixture
def url(engine: Engine, tmp_path: Path) -> Iterator[str]:
    names = {"tiny": None, "tuned": "default"}
    with serving(engine, Lines(engine.tokenizer), names, tmp_path, max_new_tokens=24, max_batch=4) as address:
        yield address


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client
