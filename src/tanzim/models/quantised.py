"""A base kept in few bits: in 4 for training, bitsandbytes (QLoRA, Dettmers et al. 2023, arXiv:2305.14314),
or as integers for serving (`integers`).
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from tanzim.core.optional import need
from tanzim.models.integers import Integer

EXTRA = "quant"
LARGE_BLOCK = 2 << 20  # bytes
_M_MMAP_THRESHOLD = -3  # in malloc.h
M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class Quantised:
    """How the weights of the linear layers are kept; norms stay as they are.

    Args:
        quant_type: nf4 has the quantiles of a normal distribution as its 16 numbers, fp4 a sign, two bits of
            exponent and one of mantissa; int8 and int4 have evenly spaced ones. In these embeddings and the
            output are in 8 bits, in nf4 and fp4 they stay as they are.
        double_quant: for nf4 and fp4: each block of 64 has a scale; keep these in 8 bits, too.

    """

    quant_type: Literal["nf4", "fp4", "int8", "int4"] = "nf4"
    double_quant: bool = True

    @property
    def integer(self) -> Integer | None:
        """The kind of integers, if it is one."""
        return self.quant_type if self.quant_type in ("int8", "int4") else None

    def __str__(self) -> str:
        if self.integer is not None:
            return f"{self.integer.removeprefix('int')} bits ({self.integer})"
        return f"4 bits ({self.quant_type}{', double quantisation' if self.double_quant else ''})"


def loading(quantised: Quantised | None, *, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """Return what transformers' ``from_pretrained`` must be told to load a base so.

    Args:
        quantised: the form; None for none. Integers are made afterwards.
        dtype: precision of the products.
        device: where the weights go.

    Raises:
        MissingExtra: bitsandbytes is not installed.

    """
    if quantised is None or quantised.integer is not None:
        return {}
    need("bitsandbytes", EXTRA)
    from transformers import BitsAndBytesConfig

    settings: Any = BitsAndBytesConfig
    return {
        "quantization_config": settings(
            load_in_4bit=True,
            bnb_4bit_quant_type=quantised.quant_type,
            bnb_4bit_use_double_quant=quantised.double_quant,
            bnb_4bit_compute_dtype=dtype,
        ),
        "device_map": {"": str(device)},
    }


def quantise(model: Any, quantised: Quantised, *, dtype: torch.dtype) -> None:  # noqa: ANN401
    """Bring the linear layers of a model in memory into 4 bits, all but the output.

    Args:
        model: a transformers model, on its device.
        quantised: the form.
        dtype: precision of the products.

    Raises:
        MissingExtra: bitsandbytes is not installed.

    """
    bnb: Any = need("bitsandbytes", EXTRA)
    head, settings = model.get_output_embeddings(), {"quant_type": quantised.quant_type}
    for path, linear in list(model.named_modules()):
        if type(linear) is nn.Linear and linear is not head:
            sizes = linear.in_features, linear.out_features
            layer = bnb.nn.Linear4bit(
                *sizes,
                bias=False,
                compute_dtype=dtype,
                compress_statistics=quantised.double_quant,
                **settings,
            )
            layer.weight = bnb.nn.Params4bit(
                linear.weight.data,
                requires_grad=False,
                compress_statistics=quantised.double_quant,
                module=layer,
                **settings,
            )
            layer.bias = linear.bias
            model.set_submodule(path, layer.to(linear.weight.device))
    model.is_loaded_in_4bit = True
    keep_exact(model)


def keep_exact(model: nn.Module) -> None:
    """Let layers in 4 bits compute the same in training and evaluation.

    On CPUs with bfloat16 instructions bitsandbytes rounds the scales of a layer to bfloat16, for good, when
    it is first used without gradients: an evaluation would change what is trained.
    """
    for layer in _layers(model):
        layer.support_avx512bf16_for_cpu = False


def spare_memory(model: nn.Module) -> None:
    """Give back what a base in 4 bits does not need on a CPU: the file it was made from, holes in the heap.

    Weights that are not in 4 bits are views of the file, all of which was read to quantise the rest: they
    are copied, so that it is not kept mapped for the sake of an embedding. Each product makes a layer's
    weights in full for a moment, and what is kept for the backward pass would land in the holes they leave:
    glibc is told to map large blocks one by one (3.2 GB in place of 4.4 for 362M weights).
    """
    for weight in (*model.parameters(), *model.buffers()):
        if weight.is_floating_point() and weight.device.type == "cpu":
            weight.data = weight.data.clone()
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK)


def in_float32(model: M) -> M:
    """Let ``model`` compute in float32; weights in 4 bits stay so."""
    for layer in _layers(model):
        layer.compute_dtype = torch.float32
    return nn.Module.float(model)


def _layers(model: nn.Module) -> list[Any]:
    return [module for module in model.modules() if hasattr(module, "support_avx512bf16_for_cpu")]
