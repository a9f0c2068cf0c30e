"""VeRA and (IA)³: a few vectors per layer are all that is trained; peft's modules compute them.

VeRA: y = x·Wᵀ + b ∘ (d ∘ (x·Aᵀ))·Bᵀ, where A and B are random, frozen and shared by all layers (layers
of different shapes use their upper left parts), and the vectors b and d are trained (Kopiczko et al.
2023, arXiv:2310.11454). Prefer it where thousands of adapters must be kept: each is the vectors, about a
tenth of LoRA's size; the matrices are saved with them, so that other machines draw no others.

(IA)³: keys, values and the inputs of the second feed-forward matrix are multiplied by learnt vectors
that start at one (Liu et al. 2022, arXiv:2205.05638). Prefer it for a few dozen examples; it has the
fewest parameters, wants a learning rate some ten times LoRA's, and merges without a trace.
"""

from __future__ import annotations

import peft
from peft.utils.constants import (
    TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING,
    TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING,
)
from transformers import PreTrainedModel

from tanzim.adapters.config import Ia3Config, VeraConfig
from tanzim.adapters.heads import task_settings
from tanzim.adapters.lora import targets, transposed, wrap_seeded
from tanzim.adapters.method import Method
from tanzim.core.errors import ModelError
from tanzim.core.seeds import derive

# Names of keys, values and the second feed-forward matrix where peft does not know the architecture.
USUAL = (["k_proj", "v_proj", "down_proj"], ["down_proj"])


def attach_vera(
    model: PreTrainedModel, config: VeraConfig, *, seed: int, base_hash: str, base_name: str
) -> Method:
    """Add a VeRA adapter to ``model``.

    Args:
        model: the base model; its modules are replaced in place.
        config: rank, first scale, dropout and which layers.
        seed: the run's seed; the shared matrices are drawn from the seed derived as "vera".
        base_hash: SHA-256 of the base model's weights.
        base_name: the base model's id.

    Raises:
        ModelError: a named layer does not exist, or cannot be adapted.

    """
    settings = peft.VeraConfig(
        **task_settings(model),
        r=config.rank,
        target_modules=targets(model, config.target_modules),
        vera_dropout=config.dropout,
        d_initial=config.initial_scale,
        projection_prng_key=derive(seed, "vera"),
        fan_in_fan_out=transposed(model),
    )
    return Method(wrap_seeded(model, settings, seed), base_hash=base_hash, base_name=base_name)


def attach_ia3(
    model: PreTrainedModel, config: Ia3Config, *, seed: int, base_hash: str, base_name: str
) -> Method:
    """Add an (IA)³ adapter to ``model``.

    Args:
        model: the base model; its modules are replaced in place.
        config: which layers, if not the usual ones.
        seed: unused: the vectors start at one.
        base_hash: SHA-256 of the base model's weights.
        base_name: the base model's id.

    Raises:
        ModelError: the architecture's layers are not known, or a named one does not exist.

    """
    layers, feed_forward = _ia3_layers(model, config)
    settings = peft.IA3Config(
        **task_settings(model),
        target_modules=layers,
        feedforward_modules=feed_forward,
        fan_in_fan_out=transposed(model),
    )
    return Method(wrap_seeded(model, settings, seed), base_hash=base_hash, base_name=base_name)


def _ia3_layers(model: PreTrainedModel, config: Ia3Config) -> tuple[list[str], list[str]]:
    """Return the layers whose outputs, and of these the ones whose inputs, are multiplied."""
    kind = model.config.get_text_config().model_type
    known = (
        TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING.get(kind, USUAL[0]),
        TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING.get(kind, USUAL[1]),
    )
    layers = config.target_modules or known[0]
    feed_forward = known[1] if config.feedforward_modules is None else config.feedforward_modules
    try:
        targets(model, layers)
    except ModelError as error:
        raise ModelError(error.what, where=error.where, fix=f"name them; {error.fix}") from error
    return layers, [name for name in feed_forward if name in layers]
