"""Which adapters vLLM can answer with: plain LoRA in peft's layout, and nothing that would be passed over."""

from __future__ import annotations

from pathlib import Path

from tanzim.adapters.folder import CONFIG, check_base, own_type
from tanzim.core.errors import ConfigError
from tanzim.core.files import read_json
from tanzim.core.records import Json

_FIX = "serve.engine.type: tanzim serves every kind; tanzim export merges an adapter into its base"
# What vLLM's reader refuses, or does not look at (vllm/lora/peft_helper.py).
_EXTRAS = {
    "use_dora": "DoRA",
    "lora_bias": "biases beside the products",
    "modules_to_save": "whole modules beside the products",
    "trainable_token_indices": "rows of the embedding",
    "layer_replication": "repeated layers",
    "alora_invocation_tokens": "activated LoRA",
    "use_qalora": "QALoRA",
    "use_bdlora": "block-diagonal LoRA",
}


def check_adapter(folder: Path, *, base_hash: str, max_rank: int) -> None:
    """Refuse an adapter that vLLM would not load, or would load as something else.

    Args:
        folder: where it lies.
        base_hash: of the base weights that are served.
        max_rank: the largest rank that vLLM was started for.

    Raises:
        ConfigError: it is of another kind, or larger than this vLLM takes.
        ModelError: it is for another base.

    """
    check_base(folder, base_hash)
    config: Json = read_json(folder / CONFIG)
    kind = own_type(folder) or str(config.get("peft_type", "unknown")).upper()
    if kind != "LORA":
        raise ConfigError(f"vLLM serves LoRA alone; this adapter is {kind}", where=str(folder), fix=_FIX)
    more = [name for key, name in _EXTRAS.items() if config.get(key)]
    if config.get("bias", "none") != "none":
        more.append("biases")
    if more:
        raise ConfigError(
            f"vLLM serves plain LoRA; this adapter has {', '.join(more)}", where=str(folder), fix=_FIX
        )
    rank = max([int(config.get("r") or 0), *(config.get("rank_pattern") or {}).values()])
    if rank > max_rank:
        raise ConfigError(
            f"the adapter's rank is {rank}; vLLM was started for {max_rank} at most",
            where=str(folder),
            fix="raise serve.engine.max_rank",
        )
