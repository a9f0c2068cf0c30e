"""Which adapters go to vLLM, and what is said of the others; and what can be served through it at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tanzim.core.errors import ConfigError, WrongBaseError
from tanzim.core.progress import Reporter
from tanzim.pipeline.answering import open_backend
from tanzim.serve.config import ServeConfig
from tanzim.serve.vllm.lora import check_adapter

HASH = "0" * 64


def write(folder: Path, own: str | None = None, **config: Any) -> Path:
    folder.mkdir()
    whole = {"peft_type": "LORA", "r": 8, "bias": "none", "modules_to_save": None, **config}
    (folder / "adapter_config.json").write_text(json.dumps(whole))
    (folder / "adapter_model.safetensors").write_bytes(b"")
    record: dict[str, Any] = {"base": "tiny", "base_hash": HASH}
    (folder / "tanzim.json").write_text(json.dumps(record | ({"method": {"type": own}} if own else {})))
    return folder


@pytest.mark.parametrize("config", [{}, {"use_rslora": True}, {"rank_pattern": {"q_proj": 64}}, {"r": 64}])
def test_plain_lora_is_taken(tmp_path: Path, config: dict[str, Any]) -> None:
    check_adapter(write(tmp_path / "a", **config), base_hash=HASH, max_rank=64)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"peft_type": "IA3"}, "this adapter is IA3"),
        ({"peft_type": "ADALORA"}, "this adapter is ADALORA"),
        ({"own": "spiel"}, "this adapter is spiel"),
        ({"use_dora": True}, "has DoRA"),
        ({"bias": "all"}, "has biases"),
        ({"lora_bias": True}, "has biases beside the products"),
        ({"modules_to_save": ["lm_head"]}, "has whole modules"),
        ({"trainable_token_indices": [3]}, "has rows of the embedding"),
        ({"r": 65}, "rank is 65; vLLM was started for 64"),
        ({"rank_pattern": {"q_proj": 128}}, "rank is 128"),
    ],
)
def test_others_are_named(tmp_path: Path, config: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_adapter(write(tmp_path / "a", **config), base_hash=HASH, max_rank=64)


def test_of_another_base(tmp_path: Path) -> None:
    with pytest.raises(WrongBaseError):
        check_adapter(write(tmp_path / "a"), base_hash="1" * 64, max_rank=64)


def test_the_memory_of_adapters_is_not_for_vllm_to_bound() -> None:
    config = ServeConfig.model_validate({"engine": {"type": "vllm"}, "adapter_memory_mb": 100})
    with pytest.raises(ConfigError, match="by their number") as raised:
        open_backend([], config, reporter=Reporter())
    assert raised.value.where == "serve.adapter_memory_mb"
