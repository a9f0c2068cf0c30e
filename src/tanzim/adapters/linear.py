"""LoRA as one product: y = x · (W + s·B·A)ᵀ, one pass over the activations instead of two.

The effective matrix is formed when it is needed and thrown away, in the backward pass again, so that
nothing beyond the input is kept. Forming it costs 2·r·O·I operations, a second pass over T rows costs
2·r·T·(O + I): from `pays` rows on, one product is less work, and always fewer passes over memory.

Legend: T rows, I inputs, O outputs, R rank.
"""

from __future__ import annotations

import warnings
from typing import Any

import peft
import torch
from peft.tuners.lora.layer import Linear as PeftLinear
from torch import Tensor, nn
from transformers import PreTrainedModel

# In half precision W + s·B·A would round a small update away; peft's two products keep it.
WIDE_DTYPES = (torch.float32, torch.float64)


def effective(
    weight_OI: Tensor, a_RI: Tensor, b_OR: Tensor, scale: float, out: Tensor | None = None
) -> Tensor:
    """Return W + scale · B·A (Hu et al. 2021, arXiv:2106.09685), written to ``out`` if given."""
    return torch.addmm(weight_OI, b_OR, a_RI, alpha=scale, out=out)


class _OneProduct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's autograd context
        x_TI: Tensor,
        weight_OI: Tensor,
        bias_O: Tensor | None,
        a_RI: Tensor,
        b_OR: Tensor,
        scale: float,
    ) -> Tensor:
        ctx.save_for_backward(x_TI, weight_OI, a_RI, b_OR)
        ctx.scale = scale
        return nn.functional.linear(x_TI, effective(weight_OI, a_RI, b_OR, scale), bias_O)

    @staticmethod
    def backward(ctx: Any, grad_TO: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        x_TI, weight_OI, a_RI, b_OR = ctx.saved_tensors
        grad_x_TI = grad_TO @ effective(weight_OI, a_RI, b_OR, ctx.scale) if ctx.needs_input_grad[0] else None
        grad_a_RI = (grad_TO @ b_OR).T @ x_TI * ctx.scale
        grad_b_OR = grad_TO.T @ (x_TI @ a_RI.T) * ctx.scale
        return grad_x_TI, None, None, grad_a_RI, grad_b_OR, None


class OneProductLinear(PeftLinear):
    """peft's LoRA layer, computed as one product where that is exact and pays."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401 - peft's signature
        """Apply the layer to x [..., I]; falls back on peft's own form wherever `active` says so."""
        name = None if args or kwargs else active(self)
        base: Any = self.base_layer
        if name is None or not torch.is_grad_enabled() or x.dtype != base.weight.dtype:
            return self.two_products(x, *args, **kwargs)
        x_TI = x.reshape(-1, x.shape[-1])
        if not pays(x_TI.shape[0], base):
            return self.two_products(x)
        y_TO: Tensor = _OneProduct.apply(  # type: ignore[no-untyped-call]
            x_TI, base.weight, base.bias, *self.factors(name)
        )
        return y_TO.view(*x.shape[:-1], y_TO.shape[-1])

    def two_products(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
        """Apply the layer to x [..., I] in peft's own form."""
        return super().forward(x, *args, **kwargs)

    def factors(self, name: str) -> tuple[Tensor, Tensor, float]:
        """Return A [R, I], B [O, R] and the scale that the layer computes with."""
        return _factors(self, name)


def factors(layer: PeftLinear, name: str) -> tuple[Tensor, Tensor, float]:
    """Return A [R, I], B [O, R] and the scale that ``layer`` computes with under the adapter ``name``."""
    return layer.factors(name) if isinstance(layer, OneProductLinear) else _factors(layer, name)


def _factors(layer: Any, name: str) -> tuple[Tensor, Tensor, float]:  # noqa: ANN401 - untyped package
    return layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name]


def active(layer: PeftLinear) -> str | None:
    """Return the adapter to train in ``layer`` as one product, or None where peft's own form is needed."""
    name = plain_adapter(layer) if layer.training else None
    base: Any = layer.base_layer
    if name is None or torch.is_autocast_enabled(base.weight.device.type):
        return None
    wide = base.weight.dtype in WIDE_DTYPES and layer.lora_A[name].weight.dtype == base.weight.dtype
    return name if wide and not base.weight.requires_grad else None


def plain_adapter(layer: PeftLinear) -> str | None:
    """Return the one active adapter of ``layer`` if it computes x·Wᵀ + s·(x·Aᵀ)·Bᵀ and nothing else.

    It does not with dropout, when merged, disabled, with several adapters at once, as a LoRA variant,
    or on a base layer other than a plain linear one.
    """
    names = [name for name in layer.active_adapters if name in layer.lora_A]
    if layer.disable_adapters or layer.merged or len(names) != 1:
        return None
    name = names[0]
    if type(layer.base_layer) is not nn.Linear or layer.fan_in_fan_out:
        return None
    if layer.lora_variant.get(name) is not None or layer.lora_bias.get(name, False):
        return None
    return name if isinstance(layer.lora_dropout[name], nn.Identity) else None


def pays(rows: int, base: nn.Linear) -> bool:
    """Whether forming the effective matrix is less work than a second pass over ``rows`` rows."""
    return rows * (base.in_features + base.out_features) > base.in_features * base.out_features


def fuse(model: nn.Module) -> None:
    """Let every plain peft LoRA layer of ``model`` compute as one product (again has no effect)."""
    for module in model.modules():
        if type(module) is PeftLinear:
            module.__class__ = OneProductLinear


def wrap(model: PreTrainedModel, settings: peft.PeftConfig, name: str) -> peft.PeftModel:
    """Put a new adapter on a model without one, in the one-product form."""
    with warnings.catch_warnings():
        # peft 0.21 still asks transformers by the old name.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        # … and looks AdaLoRA's ranks up under the names of LoRA's; they find their layers all the same.
        warnings.filterwarnings("ignore", message="The following rank_pattern keys", category=RuntimeWarning)
        adapted: peft.PeftModel = peft.get_peft_model(model, settings, adapter_name=name)
    fuse(adapted)
    return adapted
