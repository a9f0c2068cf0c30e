"""Decoding on a CPU, compiled: norms, attention over pages, and low-rank adapters of single tokens.

Both read much memory and compute little with it, in pieces too small for a matrix product each.

Legend: B rows, H query heads, K key heads, C head size, P pages, T tokens of a page, N tokens, S slots,
R rank, I inputs, O outputs, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from tanzim.core.optional import need

PAGE = 16  # tokens: one vector register of float32
Array = np.ndarray[Any, Any]
# Sums may be reordered; infinities and NaN must stay what they are.
_FAST = {"reassoc", "contract", "nsz", "arcp", "afn"}
_LOG2E = np.float32(1.4426950408889634)
# 2^x = 1 + c1·x + c2·x² + … for |x| ≤ ½, within 2·10⁻⁷.
_C1, _C2, _C3, _C4, _C5, _C6 = (
    np.float32(c)
    for c in (0.6931471805599453, 0.24022650695910, 0.05550410866482, 0.00961812910763, 0.00133335581464,
              0.00015403530394)
)  # fmt: skip
_LOWEST = np.float32(-3e38)

Kernel = Callable[..., None]


@cache
def compiles() -> bool:
    """Tell whether numba is there; without it torch's operations take the place of what is here."""
    return find_spec("numba") is not None


@cache
def normalise() -> Kernel:
    """Return ``normalise(x_ND, weight_D, epsilon, out_ND)``: RMSNorm of a few rows.

    Raises:
        MissingExtra: numba is not installed.

    """
    numba: Any = need("numba", "serve")

    def rms(x_ND: Array, weight_D: Array, epsilon: float, out_ND: Array) -> None:
        for n in range(x_ND.shape[0]):
            total = np.float32(0)
            for x in x_ND[n]:
                total += x * x
            factor = np.float32(1) / np.sqrt(total / np.float32(x_ND.shape[1]) + np.float32(epsilon))
            for d in range(x_ND.shape[1]):
                out_ND[n, d] = x_ND[n, d] * factor * weight_D[d]

    made: Kernel = numba.njit(nogil=True, fastmath=_FAST)(rms)
    return made


@cache
def rotate_and_store() -> Kernel:
    """Return ``store(qkv_NO, cosine_LC, sine_LC, position_N, page_N, heads, keys_PKCT, values_PKTC)``.

    It turns queries and keys by their positions, as transformers pairs them (i with i + C/2), queries in
    place, and lays keys and values into the pages. A token stands at its position modulo the page.

    Raises:
        MissingExtra: numba is not installed.

    """
    numba: Any = need("numba", "serve")

    def store(
        qkv_NO: Array,
        cosine_LC: Array,
        sine_LC: Array,
        position_N: Array,
        page_N: Array,
        heads: int,
        keys_PKCT: Array,
        values_PKTC: Array,
    ) -> None:
        key_heads, size = keys_PKCT.shape[1], keys_PKCT.shape[2]
        half = size // 2
        for n in range(page_N.shape[0]):
            position = position_N[n]
            page, offset = page_N[n], position % PAGE
            for head in range(heads + key_heads):
                x_C = qkv_NO[n, head * size : (head + 1) * size]
                for c in range(half):
                    low, high = x_C[c], x_C[c + half]
                    x_C[c] = low * cosine_LC[position, c] - high * sine_LC[position, c]
                    x_C[c + half] = high * cosine_LC[position, c + half] + low * sine_LC[position, c + half]
                if head >= heads:
                    for c in range(size):
                        keys_PKCT[page, head - heads, c, offset] = x_C[c]
            first = (heads + key_heads) * size
            for head in range(key_heads):
                for c in range(size):
                    values_PKTC[page, head, offset, c] = qkv_NO[n, first + head * size + c]

    made: Kernel = numba.njit(nogil=True, fastmath=_FAST)(store)
    return made


@cache
def attend_pages() -> Kernel:
    """Return ``attend(qkv_NO, keys_PKCT, values_PKTC, pages_BL, length_B, scale, out_NO, first, last)``.

    It writes, for the rows from ``first`` to ``last``, what one query token of each sees of its cached
    tokens (softmax attention in one pass, Dao et al., arXiv:2205.14135). Queries stand first in a row of
    ``qkv_NO``; keys lie transposed in a page. C must be a multiple of 16.

    Raises:
        MissingExtra: numba is not installed.

    """
    numba: Any = need("numba", "serve")
    scores, mix = _vector_parts()

    def attend(  # noqa: PLR0913, PLR0917 - compiled functions take arrays, not records
        qkv_NO: Array,
        keys_PKCT: Array,
        values_PKTC: Array,
        pages_BL: Array,
        length_B: Array,
        scale: float,
        out_NO: Array,
        first: int,
        last: int,
    ) -> None:
        key_heads, size = keys_PKCT.shape[1], keys_PKCT.shape[2]
        heads = out_NO.shape[1] // size
        group = heads // key_heads
        score_T = np.empty(PAGE, np.float32)
        bits_T = np.empty(PAGE, np.int32)
        power_T = bits_T.view(np.float32)
        top_H = np.empty(heads, np.float32)
        total_H = np.empty(heads, np.float32)
        for row in range(first, last):
            out_NO[row] = 0
            top_H[:] = _LOWEST
            total_H[:] = 0
            length = length_B[row]
            for number in range((length + PAGE - 1) // PAGE):
                page = pages_BL[row, number]
                count = min(PAGE, length - number * PAGE)
                for head in range(heads):
                    out_C = out_NO[row, head * size : (head + 1) * size]
                    q_C = qkv_NO[row, head * size : (head + 1) * size]
                    scores(q_C, keys_PKCT[page, head // group], score_T, size)
                    best = top_H[head]
                    for t in range(PAGE):
                        score_T[t] = score_T[t] * scale if t < count else _LOWEST
                        best = max(best, score_T[t])
                    if best > top_H[head]:
                        factor = np.exp(top_H[head] - best)
                        total_H[head] *= factor
                        out_C *= factor
                        top_H[head] = best
                    for t in range(PAGE):
                        exponent = max((score_T[t] - best) * _LOG2E, np.float32(-126))
                        whole = np.floor(exponent + np.float32(0.5))
                        x = exponent - whole
                        bits_T[t] = (np.int32(whole) + np.int32(127)) << np.int32(23)
                        score_T[t] = np.float32(1) + x * (
                            _C1 + x * (_C2 + x * (_C3 + x * (_C4 + x * (_C5 + x * _C6))))
                        )
                    total = np.float32(0)
                    for t in range(PAGE):
                        score_T[t] = score_T[t] * power_T[t] if t < count else np.float32(0)
                        total += score_T[t]
                    total_H[head] += total
                    mix(score_T, values_PKTC[page, head // group], out_C, size)
            for head in range(heads):
                out_NO[row, head * size : (head + 1) * size] *= np.float32(1) / total_H[head]

    made: Kernel = numba.njit(nogil=True, fastmath=_FAST)(attend)
    return made


@cache
def add_low_rank() -> Kernel:
    """Return ``add(x_NI, y_NO, start, slot_N, a_SRI, b_SRO, first, last)``.

    For the tokens from ``first`` to ``last`` whose slot s is not negative it adds (x·A[s]ᵀ)·B[s] to the
    columns of y from ``start``. R must be a multiple of 4.

    Raises:
        MissingExtra: numba is not installed.

    """
    numba: Any = need("numba", "serve")

    def add(
        x_NI: Array,
        y_NO: Array,
        start: int,
        slot_N: Array,
        a_SRI: Array,
        b_SRO: Array,
        first: int,
        last: int,
    ) -> None:
        inputs, outputs = x_NI.shape[1], b_SRO.shape[2]
        for n in range(first, last):
            s = slot_N[n]
            if s < 0:
                continue
            y_O = y_NO[n, start : start + outputs]
            for r in range(0, a_SRI.shape[1], 4):  # four at once: x and y are read a quarter as often
                h0 = h1 = h2 = h3 = np.float32(0)
                for i in range(inputs):
                    x = x_NI[n, i]
                    h0 += x * a_SRI[s, r, i]
                    h1 += x * a_SRI[s, r + 1, i]
                    h2 += x * a_SRI[s, r + 2, i]
                    h3 += x * a_SRI[s, r + 3, i]
                for o in range(outputs):
                    y_O[o] += (
                        h0 * b_SRO[s, r, o]
                        + h1 * b_SRO[s, r + 1, o]
                        + h2 * b_SRO[s, r + 2, o]
                        + h3 * b_SRO[s, r + 3, o]
                    )

    made: Kernel = numba.njit(nogil=True, fastmath=_FAST)(add)
    return made


def _vector_parts() -> tuple[Any, Any]:
    """Return the two products inside `attend_pages`, written in LLVM's vectors.

    LLVM does not find them by itself: it unrolls loops of a page's length before it looks for vectors.
    """
    from numba.core import types
    from numba.extending import intrinsic

    from tanzim.infer import vectors

    four = 4  # accumulators: a chain of one would wait for each sum

    @intrinsic
    def scores(typing: Any, q_C: Any, key_CT: Any, score_T: Any, size: Any) -> Any:  # noqa: ANN401
        def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:  # noqa: ANN401
            q, key, out = (
                vectors.array(context, builder, signature.args[i], given[i]).data for i in range(3)
            )
            sums = [vectors.zeros(builder) for _ in range(four)]
            index = given[3].type
            with vectors.loop(builder, index(0), given[3], four) as (c, _):
                for sum_, lane in zip(sums, range(four), strict=True):
                    here = builder.add(c, index(lane))
                    number = vectors.splat(builder, builder.load(builder.gep(q, [here])))
                    line = vectors.load(builder, key, builder.mul(here, index(PAGE)))
                    builder.store(vectors.fused(builder, number, line, builder.load(sum_)), sum_)
            whole = vectors.total(builder, [builder.load(sum_) for sum_ in sums])
            vectors.store(builder, whole, out, index(0))
            return context.get_dummy_value()

        return types.void(q_C, key_CT, score_T, size), generate

    @intrinsic
    def mix(typing: Any, weight_T: Any, value_TC: Any, out_C: Any, size: Any) -> Any:  # noqa: ANN401
        def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:  # noqa: ANN401
            weight, value, out = (
                vectors.array(context, builder, signature.args[i], given[i]).data for i in range(3)
            )
            index = given[3].type
            with vectors.loop(builder, index(0), given[3], PAGE) as (c, _):
                sums = [vectors.load(builder, out, c), *[vectors.nothing()] * (four - 1)]
                for t in range(PAGE):
                    number = vectors.splat(builder, builder.load(builder.gep(weight, [index(t)])))
                    line = vectors.load(builder, value, builder.add(builder.mul(given[3], index(t)), c))
                    sums[t % four] = vectors.fused(builder, number, line, sums[t % four])
                vectors.store(builder, vectors.total(builder, sums), out, c)
            return context.get_dummy_value()

        return types.void(weight_T, value_TC, out_C, size), generate

    return scores, mix
