"""Learnt vectors before the text, as the keys and values that a sequence's cache begins with.

Shapes: P learnt vectors, D hidden size.
"""

from __future__ import annotations

from typing import Any

import torch

from tanzim.adapters.soft_prompts import learns_keys
from tanzim.core.errors import ModelError
from tanzim.infer.cache import KVCache, cache_of
from tanzim.infer.forward import Forward


@torch.inference_mode()
def start_cache(adapted: Any) -> KVCache:  # noqa: ANN401 - a PEFT model of prefix, prompt or p-tuning
    """Return the keys and values of the learnt vectors of ``adapted``, one row.

    Prefix tuning learnt them; the vectors of the others go through the model once, as peft puts them
    before every text.

    Raises:
        ModelError: the model keeps a state instead of keys and values.

    """
    model = adapted.get_base_model()
    if Forward(model).single_row:
        raise ModelError(
            f"{type(model).__name__} keeps a state instead of keys and values: an adapter of learnt vectors "
            "cannot be served on it"
        )
    if learns_keys(adapted):
        return cache_of((layer.keys, layer.values) for layer in adapted.get_prompt(1).layers)
    prompts_1PD = adapted.get_prompt(1).to(model.get_input_embeddings().weight.dtype)
    cache = KVCache()
    model.eval()(inputs_embeds=prompts_1PD, past_key_values=cache, use_cache=True)
    return cache
