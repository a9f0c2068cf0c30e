"""The matrix products of a forward pass: with weights in full, or with integers that are unpacked on the way.

Legend: N tokens, I inputs, O outputs, T tiles of 32 outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tanzim.infer.integer_kernels import multiply, multiply_in_team
from tanzim.infer.kernels import compiles
from tanzim.infer.threads import has_team, shared
from tanzim.models.integers import TILE, IntLinear, device_of, join, precision
from tanzim.models.kernels import matmul

PACKED_ROWS = 16  # tokens for which oneDNN chooses a matrix's layout


class Product:
    """x · Wᵀ + bias for several linear layers that read the same x.

    Args:
        linears: their outputs stand side by side.
        packed: keep a copy of the weights in oneDNN's layout, else in one matrix.

    """

    def __init__(self, linears: Sequence[nn.Linear], *, packed: bool) -> None:
        joined = len(linears) > 1
        weight_OI = torch.cat([x.weight.detach() for x in linears]) if joined else linears[0].weight.detach()
        self._bias_O = _bias(linears)
        self._packed = packed
        self._weight: Tensor = (
            torch.ops.mkldnn._reorder_linear_weight(weight_OI, PACKED_ROWS) if packed else weight_OI
        )

    def __call__(self, x_NI: Tensor) -> Tensor:
        """Return [N, O]."""
        if self._packed:
            result_NO: Tensor = torch.ops.mkldnn._linear_pointwise(
                x_NI, self._weight, self._bias_O, "none", [], ""
            )
            return result_NO
        return functional.linear(x_NI, self._weight, self._bias_O)


class UnpackedProduct:
    """The same for layers whose weights are integers, which are unpacked into a matrix that is let go again.

    Args:
        linears: their outputs stand side by side; of all but the last they are multiples of 32.

    """

    def __init__(self, linears: Sequence[IntLinear]) -> None:
        self._matrix, self._bias_O, self._dtype = join(linears), _bias(linears), linears[0].dtype

    def __call__(self, x_NI: Tensor) -> Tensor:
        """Return [N, O]."""
        return functional.linear(x_NI, self._matrix.decode(self._dtype), self._bias_O)


class IntProduct:
    """The same in float32 on a CPU, where they are unpacked in registers (`integer_kernels`).

    Args:
        linears: their outputs stand side by side; of all but the last they are multiples of 32.

    """

    def __init__(self, linears: Sequence[IntLinear]) -> None:
        self._matrix, self._bias_O = join(linears), _bias(linears)
        codes, step, low = self._matrix.codes_TIB, self._matrix.step_TGL, self._matrix.low_TGL
        if low is None:
            low = step[:0]  # in 8 bits it is not read
        step, low = step.view(torch.uint16), low.view(torch.uint16)  # NumPy has no bfloat16
        self._arrays = codes.numpy(), step.numpy(), low.numpy()
        self._numbers = np.zeros(16, np.int64)
        self._numbers[2:5] = [array.ctypes.data for array in self._arrays]
        self._numbers[6:9] = codes.shape[1], codes.shape[0], step.shape[1]

    def __call__(self, x_NI: Tensor) -> Tensor:
        """Return [N, O]."""
        bits, tiles, x_NI = self._matrix.bits, self._arrays[0].shape[0], x_NI.contiguous()
        y_NO = x_NI.new_empty(x_NI.shape[0], tiles * TILE)
        if has_team():
            self._numbers[0], self._numbers[1], self._numbers[5] = x_NI.data_ptr(), y_NO.data_ptr(), len(x_NI)
            multiply_in_team(bits)(self._numbers, tiles)
        else:
            kernel, x, y = multiply(bits), x_NI.numpy(), y_NO.numpy()
            shared(lambda first, last: kernel(x, *self._arrays, y, first, last), tiles, self._arrays[0].size)
        y_NO = y_NO[:, : self._matrix.outputs]
        return y_NO if self._bias_O is None else y_NO.add_(self._bias_O)


AnyProduct = Product | UnpackedProduct | IntProduct


def product_of(linears: Sequence[nn.Linear]) -> AnyProduct:
    """Return the product of layers that read the same x, in the form of their weights."""
    integers = [linear for linear in linears if isinstance(linear, IntLinear)]
    on_cpu = device_of(linears[0]).type == "cpu" and precision(linears[0]) == torch.float32
    if not integers:
        return Product(linears, packed=on_cpu and matmul.register())
    compiled = on_cpu and compiles()
    return IntProduct(integers) if compiled else UnpackedProduct(integers)


def unjoinable(linears: Sequence[nn.Linear]) -> bool:
    """Tell whether outputs of integer layers cannot stand side by side."""
    return any(isinstance(linear, IntLinear) and linear.out_features % TILE for linear in linears[:-1])


def _bias(linears: Sequence[nn.Linear]) -> Tensor | None:
    if all(linear.bias is None for linear in linears):
        return None
    dtype, device = precision(linears[0]), device_of(linears[0])
    return torch.cat([
        torch.zeros(x.out_features, dtype=dtype, device=device) if x.bias is None else x.bias.detach()
        for x in linears
    ])  # fmt: skip
