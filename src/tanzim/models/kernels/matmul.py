"""Matrix products through oneDNN where torch would take slow kernels.

torch computes float32 products with MKL, whose AVX-512 kernels run on Intel processors only: on an
AMD one with AVX-512 it falls back to half the width. oneDNN, which torch ships too, looks at what the
processor can do and not at who made it. `register` puts it under ``aten::mm``, so that every linear
layer and its backward pass gain, whoever calls them.

The choice is a rule, not a measurement: two runs on one machine must round alike.
"""

from __future__ import annotations

import platform
import warnings
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

CPUINFO = Path("/proc/cpuinfo")


@cache
def register() -> bool:
    """Put oneDNN under ``aten::mm`` where it is the faster one, once; return whether it is there."""
    amd = "AuthenticAMD" in (CPUINFO.read_text() if CPUINFO.is_file() else platform.processor())
    avx512 = torch.backends.cpu.get_cpu_capability() == "AVX512"
    if not (amd and avx512 and torch.backends.mkldnn.is_available()):  # type: ignore[no-untyped-call]
        return False
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Warning only once for all operators", category=UserWarning)
        LIBRARY.impl("mm", product, "CPU", allow_override=True)  # type: ignore[no-untyped-call]
    return True


LIBRARY = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]


def product(left_MK: Tensor, right_KN: Tensor) -> Tensor:
    """Return the matrix product [M, N] (``aten::mm`` on the CPU)."""
    plain = left_MK.dtype == right_KN.dtype == torch.float32 and left_MK.dim() == right_KN.dim() == 2
    if plain and left_MK.shape[1] == right_KN.shape[0] and left_MK.numel() and right_KN.numel():
        weight_NK = right_KN.t()
        if not (weight_NK.is_contiguous() or right_KN.is_contiguous()):
            # A slice of columns, as VeRA's: oneDNN would take its plain loops, 1,800 times as slow.
            weight_NK = weight_NK.contiguous()
        result_MN: Tensor = torch.ops.mkldnn._linear_pointwise(left_MK, weight_NK, None, "none", [], "")
        return result_MN
    # beta = 0: what stands in the first argument is not read, and torch's own kernel runs.
    return torch.addmm(left_MK.new_empty(()), left_MK, right_KN, beta=0)
