"""Give the decoder layers of the Llama family a faster forward and backward pass, proven equal first.

Only packed rows (``cu_seq_lens_q``) on the CPU without a KV cache take the fast path; generation,
padded batches and everything else run the model's own code. An architecture that is not recognised
stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora.layer import Linear as PeftLinear
from torch import Tensor, nn
from torch.nn import functional

from tanzim.adapters import rows
from tanzim.adapters.heads import new_modules
from tanzim.adapters.layer import NAMES, DecoderLayer, Layer, Norm, Projection
from tanzim.adapters.linear import WIDE_DTYPES, factors, plain_adapter
from tanzim.adapters.method import trainable
from tanzim.adapters.soft_prompts import learns_keys, virtual_tokens

# Layers whose code this path was written from; anything else may differ in a detail.
KNOWN = ("LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer", "Qwen3DecoderLayer")
TOLERANCE = 1e-4
SAMPLE = (7, 23, 2)  # tokens of the documents of the trial
Reading = tuple[Layer, list[Tensor | None]]


def accelerate(model: nn.Module) -> list[str]:
    """Put the fast path under the decoder layers of ``model`` if it proves equal to the plain one.

    Args:
        model: a model with a LoRA adapter, ready to be trained.

    Returns:
        What was done, in sentences for the log: how many layers are fast, or why none is; nothing where
        it was done before.

    """
    if any(isinstance(module, FastLayer) for module in model.modules()):
        return []
    if isinstance(model, PeftModel) and virtual_tokens(model) and learns_keys(model):
        return ["Training runs the model's own layers: learnt keys and values stand in a cache."]
    layers = [module for module in model.modules() if type(module).__name__ in KNOWN]
    if not layers:
        return ["Training runs the model's own layers: this architecture has no faster ones."]
    reason = next((reason for layer in layers if isinstance(reason := read(layer), str)), None)
    if reason is not None:
        return [f"Training runs the model's own layers: {reason}."]
    originals = [type(layer) for layer in layers]
    with trial(model) as run:
        want = run()
        for layer, original in zip(layers, originals, strict=True):
            layer.__class__ = _fast_class(original)
        got = run()
    difference = max(distance(ours, theirs) for ours, theirs in zip(got, want, strict=True))
    if not difference <= TOLERANCE:
        for layer, original in zip(layers, originals, strict=True):
            layer.__class__ = original
        return [
            "Training runs the model's own layers: the faster ones differed by "
            f"{difference:.1e} on a trial, more than {TOLERANCE:.0e}."
        ]
    return [f"{len(layers)} layers train on the fast path (equal to the plain one within {difference:.1e})."]


class FastLayer(nn.Module):
    """The forward pass of a recognised decoder layer; stands before the layer's own class."""

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:  # noqa: ANN401 - the layer's interface
        """Take a packed row through `DecoderLayer`, anything else through the layer's own code."""
        borders, past = kwargs.get("cu_seq_lens_q"), kwargs.get("past_key_values")
        rotary = kwargs.get("position_embeddings")
        # `DecoderLayer` keeps activations out of sight of checkpointing, which could not free them.
        recomputed = self.training and getattr(self, "gradient_checkpointing", False)
        packed = past is None and hidden_states.shape[0] == 1 and not recomputed
        if packed and borders is not None and rotary is not None:
            reading = read(self)
            window = _window(self)
            if not isinstance(reading, str) and (window is None or kwargs["max_length_q"] <= window):
                rotation_T1P = rows.rotations(rotary[0][0], rotary[1][0])
                result_1TD: Tensor = DecoderLayer.apply(  # type: ignore[no-untyped-call]
                    hidden_states, rotation_T1P, reading[0], borders.tolist(), *reading[1]
                )
                return result_1TD
        plain: Tensor = super().forward(hidden_states, **kwargs)
        return plain


def read(layer: Any) -> Reading | str:  # noqa: ANN401 - any decoder layer
    """Return what the fast path needs of ``layer``, or in words why it cannot be used."""
    attention = layer.self_attn
    if attention.config.hidden_act != "silu":
        return f"its activation is {attention.config.hidden_act}, not silu"
    if attention.attention_dropout and layer.training:
        return "it drops attention weights"
    projections: list[Projection] = []
    lora: list[Tensor | None] = []
    for name in NAMES:
        part = _projection(name, layer)
        if isinstance(part, str):
            return part
        projections.append(part[0])
        lora += part[1:]
    norms = _norm(layer.input_layernorm), _norm(layer.post_attention_layernorm)
    heads = _head_norms(attention)
    if any(norm.weight_D.requires_grad for norm in (*norms, *(heads or ()))):
        return "its norms are trained"
    return Layer(tuple(projections), *norms, heads, attention.head_dim, attention.scaling), lora


def _projection(name: str, layer: Any) -> tuple[Projection, Tensor | None, Tensor | None] | str:  # noqa: ANN401
    """Return a projection with its A and B, or in words why the fast path cannot compute it."""
    attention = layer.self_attn
    module: Any = getattr(attention if hasattr(attention, name) else layer.mlp, name)
    base = module.base_layer if isinstance(module, PeftLinear) else module
    if type(base) is not nn.Linear or any(value.requires_grad for value in base.parameters()):
        return f"{name} is not a frozen plain linear layer"
    if base.weight.device.type != "cpu" or base.weight.dtype not in WIDE_DTYPES:
        return "it is not in float32 on the CPU"
    order = None
    if name in ("q_proj", "k_proj"):
        order = rows.interleaved(base.out_features // attention.head_dim, attention.head_dim)
    if not isinstance(module, PeftLinear):
        return Projection(base.weight, base.bias, 1.0, order), None, None
    adapter = plain_adapter(module)
    if adapter is None:
        return f"the adapter of {name} needs peft's own form (dropout, several adapters, merged…)"
    a_RI, b_OR, scale = factors(module, adapter)
    if not a_RI.dtype == b_OR.dtype == base.weight.dtype:
        return f"the adapter of {name} has another precision than its layer"
    return Projection(base.weight, base.bias, scale, order), a_RI, b_OR


def _norm(module: Any) -> Norm:  # noqa: ANN401 - any RMSNorm
    return Norm(module.weight, module.variance_epsilon)


def _head_norms(attention: Any) -> tuple[Norm, Norm] | None:  # noqa: ANN401 - any attention module
    if getattr(attention, "q_norm", None) is None:
        return None
    order = rows.interleaved(1, attention.head_dim)
    query, key = (_norm(norm) for norm in (attention.q_norm, attention.k_norm))
    return Norm(query.weight_D[order], query.epsilon), Norm(key.weight_D[order], key.epsilon)


def _window(layer: Any) -> int | None:  # noqa: ANN401 - any decoder layer
    """Return how far a token of this layer looks back, if there is a limit (Mistral, Qwen)."""
    attention = layer.self_attn
    if hasattr(attention, "sliding_window"):
        window: int | None = attention.sliding_window
        return window
    return getattr(attention.config, "sliding_window", None)


_CLASSES: dict[type, type] = {}


def _fast_class(original: type) -> type:
    """Return the fast class of a layer's class; transformers wraps its forward as that of any layer."""
    if original not in _CLASSES:
        _CLASSES[original] = type(f"Fast{original.__name__}", (FastLayer, original), {})
    return _CLASSES[original]


@contextmanager
def trial(model: Any, within: nn.Module | None = None) -> Iterator[Any]:  # noqa: ANN401 - a causal language model
    """Yield a function that returns the loss of a small packed row and its gradients.

    Meanwhile B, which starts at zero and would hide every error in A's gradient, has small values.

    Args:
        model: ready to be trained.
        within: return the gradients of what is trained in here alone, if anything is.

    """
    parameters = trainable(model)
    inside = [] if within is None else list(trainable(within).values())
    generator, device = torch.Generator().manual_seed(0), next(model.parameters()).device
    kept = {name: value.detach().clone() for name, value in parameters.items() if "lora_B" in name}
    training = model.training
    try:
        with torch.no_grad():
            for name, value in kept.items():
                noise = torch.randn(value.shape, generator=generator, dtype=value.dtype)
                parameters[name].add_(noise.to(device), alpha=0.02)
        ids_1T = torch.randint(0, model.config.vocab_size, (1, sum(SAMPLE)), generator=generator).to(device)
        model.train()
        if virtual_tokens(model):
            # Learnt input vectors are trained through the gradients of the layers' input.
            inner = model.get_base_model()
            inputs_1TD = inner.get_input_embeddings()(ids_1T).detach().requires_grad_(True)
            yield lambda: _loss_and_gradients(inner, ids_1T, [inputs_1TD], inputs_embeds=inputs_1TD)
        else:
            looked_at = inside or list(parameters.values())
            yield lambda: _loss_and_gradients(model, ids_1T, looked_at, input_ids=ids_1T)
    finally:
        model.train(training)
        with torch.no_grad():
            for name, value in kept.items():
                parameters[name].copy_(value)


def _loss_and_gradients(
    model: Any,  # noqa: ANN401 - a causal language model
    ids_1T: Tensor,
    parameters: Sequence[Tensor],
    **inputs: Tensor,
) -> list[Tensor]:
    device = ids_1T.device
    borders = functional.pad(torch.tensor(SAMPLE).cumsum(0), (1, 0)).to(device, torch.int32)
    packed: dict[str, Any] = {
        **inputs,
        "position_ids": torch.cat([torch.arange(length) for length in SAMPLE])[None].to(device),
        "cu_seq_lens_q": borders,
        "cu_seq_lens_k": borders,
        "max_length_q": max(SAMPLE),
        "max_length_k": max(SAMPLE),
        "use_cache": False,
    }
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    if new_modules(inner):  # its head looks at few of the tokens
        hidden_TD = inner.base_model(**packed).last_hidden_state[0]
        loss = (hidden_TD * torch.linspace(-1, 1, hidden_TD.numel(), device=device).view_as(hidden_TD)).mean()
    else:
        logits_TV = model(**packed).logits[0]
        loss = functional.cross_entropy(logits_TV[:-1], ids_1T[0, 1:])
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    return [loss.detach(), *(gradient for gradient in gradients if gradient is not None)]


def distance(ours: Tensor, theirs: Tensor) -> float:
    """Return |ours - theirs| / |theirs| in the L2 norm."""
    norm = theirs.norm().clamp(min=torch.finfo(theirs.dtype).tiny)
    return float((ours - theirs).norm() / norm)
