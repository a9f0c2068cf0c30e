"""Prefix, prompt and p-tuning: the weights stay, and learnt vectors stand before the text.

Prompt tuning learns input vectors (Lester et al. 2021, arXiv:2104.08691); p-tuning makes them by a
two-layer network from vectors of its own, which eases their training and is gone when they are saved
(Liu et al. 2021, arXiv:2103.10385). Prefix tuning learns the keys and values of all layers (Li and Liang
2021, arXiv:2101.00190); as the paper advises, they start as those of real tokens. Prefer them where one
model in memory serves many tasks: an adapter is some thousand numbers and requests for different ones
share every weight. They learn slower than LoRA, want a learning rate of 0.01 to 0.3, and take room in
the context. peft's modules compute them and keep them on disk.
"""

from __future__ import annotations

import math
from typing import Any

import peft
import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel

from tanzim.adapters.config import PrefixConfig, PromptConfig, PTuningConfig
from tanzim.adapters.heads import new_modules
from tanzim.adapters.lora import wrap_seeded
from tanzim.adapters.method import Method
from tanzim.core.errors import ModelError

Config = PrefixConfig | PromptConfig | PTuningConfig


def attach(model: PreTrainedModel, config: Config, *, seed: int, base_hash: str, base_name: str) -> Method:
    """Put learnt vectors before the texts that ``model`` reads.

    Args:
        model: the base model; its weights are frozen.
        config: how many vectors, and how they start.
        seed: the run's seed.
        base_hash: SHA-256 of the base model's weights.
        base_name: the base model's id.

    Raises:
        ModelError: the model does not continue texts, keeps no keys and values, or cannot read the words to
            start from.

    """
    _check_generates(model)
    start: Tensor | None = None
    if isinstance(config, PrefixConfig):
        start = _real_prefix(model, _drawn(model, config.tokens, seed))
        settings: Any = peft.PrefixTuningConfig(
            task_type=peft.TaskType.CAUSAL_LM, num_virtual_tokens=config.tokens
        )
    elif isinstance(config, PromptConfig):
        ids = _drawn(model, config.tokens, seed) if config.text is None else _words(model, config)
        start = _weight(model)[ids]
        settings = peft.PromptTuningConfig(
            task_type=peft.TaskType.CAUSAL_LM, num_virtual_tokens=config.tokens
        )
    else:
        settings = peft.PromptEncoderConfig(
            task_type=peft.TaskType.CAUSAL_LM,
            num_virtual_tokens=config.tokens,
            encoder_hidden_size=config.encoder_hidden,
        )
    adapted: Any = wrap_seeded(model, settings, seed)
    if start is not None:
        with torch.no_grad():
            adapted.prompt_encoder["default"].embedding.weight.copy_(start)
    return Method(adapted, base_hash=base_hash, base_name=base_name)


def virtual_tokens(model: Any) -> int:  # noqa: ANN401 - any module
    """Return how many learnt vectors stand before the texts of ``model``; 0 if it is no such model."""
    settings = model.active_peft_config if isinstance(model, peft.PeftModel) else None
    return int(settings.num_virtual_tokens) if settings is not None and settings.is_prompt_learning else 0


def learns_keys(model: peft.PeftModel) -> bool:
    """Tell whether the learnt vectors are keys and values (prefix tuning), not inputs."""
    return bool(model.active_peft_config.peft_type == peft.PeftType.PREFIX_TUNING)


def _check_generates(model: Any) -> None:  # noqa: ANN401 - any transformers model
    """Refuse models that virtual tokens have no place in.

    Raises:
        ModelError: the model has a new head, an encoder, or a state instead of keys and values.

    """
    if new_modules(model) or getattr(model.config, "is_encoder_decoder", False):
        raise ModelError(
            "prefix, prompt and p_tuning work with models that continue a text, not with "
            f"{type(model).__name__}",
            where="train.method.type",
            fix="use train.method.type=lora",
        )
    if getattr(model, "_is_stateful", False):
        raise ModelError(
            f"{type(model).__name__} keeps a state instead of keys and values, where learnt ones could stand",
            where="train.method.type",
            fix="use train.method.type=lora",
        )


def _drawn(model: PreTrainedModel, count: int, seed: int) -> Tensor:
    """Draw tokens of the vocabulary."""
    generator = torch.Generator().manual_seed(seed)
    size = model.config.get_text_config().vocab_size
    return torch.randint(0, size, (count,), generator=generator).to(model.device)


def _weight(model: Any) -> Tensor:  # noqa: ANN401 - any transformers model
    weight: Tensor = model.get_input_embeddings().weight
    return weight


def _words(model: PreTrainedModel, config: PromptConfig) -> Tensor:
    """Return the tokens of the words to start from, repeated or cut to the number of vectors."""
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(
            model.name_or_path, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise ModelError(
            "the words to start from cannot become tokens: the base has no tokenizer",
            where="train.method.text",
            fix="leave it out",
        ) from error
    ids: list[int] = tokenizer(config.text, add_special_tokens=False)["input_ids"]
    if not ids:
        raise ModelError("there is no word to start from", where="train.method.text", fix="leave it out")
    repeated = (ids * math.ceil(config.tokens / len(ids)))[: config.tokens]
    return torch.tensor(repeated, device=model.device)


@torch.no_grad()
def _real_prefix(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """Return keys and values of real tokens in peft's layout, [tokens, layers · 2 · heads · head size]."""
    training = model.training
    model.train(False)
    cache = model(input_ids=ids[None], use_cache=True).past_key_values
    model.train(training)
    parts = [part[0] for layer in cache.layers for part in (layer.keys, layer.values)]
    shapes = {tuple(part.shape) for part in parts}
    if len(shapes) != 1:
        raise ModelError(
            "prefix tuning needs keys and values of one shape in all layers; this model has "
            + ", ".join(map(str, sorted(shapes))),
            where="train.method.type",
            fix="use train.method.type=prompt",
        )
    return torch.stack(parts).permute(2, 0, 1, 3).flatten(1)
