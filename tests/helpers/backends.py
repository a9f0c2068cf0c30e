"""One tiny model behind each kind of backend, and a server before any of them."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from helpers.adapters import HASH, save_changed
from tanzim.infer.engine import Engine
from tanzim.serve.backend import Backend
from tanzim.serve.config import ServeConfig
from tanzim.serve.engine_config import VllmEngineConfig
from tanzim.serve.vllm.backend import VllmBackend
from tanzim.serve.vllm.open import open_vllm
from tanzim.serve.worker import Worker

FAKE = [sys.executable, str(Path(__file__).with_name("fake_vllm.py"))]
REAL = os.environ.get("TANZIM_VLLM_PYTHON")  # of an environment in which vLLM for the CPU is installed
BATCH = 4


@dataclass(frozen=True)
class Tiny:
    """A random model on disk and in memory, with two adapters.

    Its heads are as small as vLLM's attention on the CPU takes them.
    """

    model: LlamaForCausalLM
    tokenizer: PreTrainedTokenizerFast
    folder: Path
    adapters: Mapping[str, Path]


def make_tiny(tokenizer: PreTrainedTokenizerFast, folder: Path) -> Tiny:
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(3)
    model = LlamaForCausalLM(config).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    adapters = {
        "first": save_changed(model, folder / "first", 5, type="lora", rank=4, alpha=8),
        "second": save_changed(model, folder / "second", 6, type="rslora", rank=8, alpha=8),
    }
    return Tiny(model, tokenizer, folder / "model", adapters)


def vllm_settings(kind: str, **more: Any) -> dict[str, Any]:
    """Return ``serve.engine`` for the fake, or for the real one."""
    if kind == "fake":
        return {"type": "vllm", "command": FAKE, "start_seconds": 300, **more}
    command = [str(REAL), "-m", "vllm.entrypoints.openai.api_server", "--model"]
    return {
        "type": "vllm",
        "command": command,
        "arguments": ["--enforce-eager", "--kv-cache-memory-bytes", "200000000"],
        "start_seconds": 600,
        **more,
    }


def make_vllm(
    kind: str, tiny: Tiny, folder: Path, say: Callable[[str], None] = print, **more: Any
) -> VllmBackend:
    """Return vLLM with the tiny model, not launched."""
    engine = VllmEngineConfig(**vllm_settings(kind, **more))
    config = ServeConfig(folder=str(folder), max_batch=BATCH, engine=engine)
    return open_vllm(
        tiny.folder, tiny.tokenizer, config, engine, stop_ids=[2], base_hash=HASH, dtype="float32", say=say
    )


def make_backend(kind: str, tiny: Tiny, folder: Path) -> Backend:
    """Return a backend with the tiny model and its adapters, not started."""
    if kind == "tanzim":
        engine = Engine(copy.deepcopy(tiny.model), tiny.tokenizer, stop_ids=[2], base_hash=HASH)
        for name, path in tiny.adapters.items():
            engine.add_adapter(name, path)
        return Worker(engine, BATCH)
    backend = make_vllm(kind, tiny, folder)
    backend.launch(tiny.adapters)
    return backend
