"""A vLLM that answers as our engine would: the same tokens in, the same ends, and nothing from outside."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tanzim.serve.config import ServeConfig
from tanzim.serve.engine_config import VllmEngineConfig
from tanzim.serve.vllm.backend import VllmBackend
from tanzim.serve.vllm.watch import Watch

# As our own engine: no spaces that a small model might go on writing, and parsed by llguidance.
_FORMS = {"backend": "guidance", "disable_any_whitespace": True}
_MOST_LOGPROBS = 20  # alternatives to a token, as the API has it


def open_vllm(
    model: Path,
    tokenizer: Any,  # noqa: ANN401 - any transformers tokenizer
    config: ServeConfig,
    engine: VllmEngineConfig,
    *,
    stop_ids: Sequence[int],
    base_hash: str,
    dtype: str,
    say: Callable[[str], None],
) -> VllmBackend:
    """Return vLLM with a model, to be launched.

    Args:
        model: its folder.
        tokenizer: its tokenizer.
        config: the ``serve`` section.
        engine: its ``engine``.
        stop_ids: tokens that end an answer.
        base_hash: of the model's weights, which adapters are checked against.
        dtype: as vLLM calls it.
        say: told when it dies and lives again.

    Raises:
        ConfigError: this is not Linux.

    """
    arguments = [
        *("--dtype", dtype),
        *("--generation-config", "vllm"),  # nothing about sampling from the model's folder
        *("--max-num-seqs", str(config.max_batch)),
        "--enable-lora",
        *("--max-loras", str(engine.max_adapters)),
        *("--max-lora-rank", str(engine.max_rank)),
        *("--max-logprobs", str(_MOST_LOGPROBS)),
        *("--structured-outputs-config", json.dumps(_FORMS)),
        "--disable-uvicorn-access-log",
        *engine.arguments,
    ]
    watch = Watch(
        [*engine.command, str(model)],
        arguments,
        Path(config.folder) / "vllm",
        start_seconds=engine.start_seconds,
        restarts=engine.restarts,
        say=say,
    )
    return VllmBackend(watch, tokenizer, stop_ids=stop_ids, base_hash=base_hash, max_rank=engine.max_rank)
