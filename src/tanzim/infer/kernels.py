"""Decoding on a CPU, compiled: attention over pages, and low-rank adapters of single tokens.

Both read much memory and compute little with it, in pieces too small for a matrix product each.

Legend: B rows, H query heads, K key heads, C head size, P pages, T tokens of a page, N tokens, S slots,
R rank, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
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
    from llvmlite import ir  # type: ignore[import-untyped]
    from numba.core import cgutils, types
    from numba.extending import intrinsic

    vector = ir.VectorType(ir.FloatType(), PAGE)
    four = 4  # accumulators: a chain of one would wait for each sum

    def pointer(context: Any, builder: Any, type_: Any, value: Any) -> Any:  # noqa: ANN401
        return context.make_array(type_)(context, builder, value).data

    def at(builder: Any, start: Any, index: Any) -> Any:  # noqa: ANN401
        place = builder.gep(start, [index])
        return builder.bitcast(place, vector.as_pointer())

    def splat(builder: Any, number: Any) -> Any:  # noqa: ANN401
        one = builder.insert_element(ir.Constant(vector, ir.Undefined), number, ir.IntType(32)(0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), PAGE), [0] * PAGE)
        return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), zeros)

    def product(builder: Any, sum_: Any, number: Any, line: Any) -> Any:  # noqa: ANN401
        fused = ["contract"]  # one rounding where the processor can
        return builder.fadd(builder.fmul(splat(builder, number), line, flags=fused), sum_, flags=fused)

    @intrinsic
    def scores(typing: Any, q_C: Any, key_CT: Any, score_T: Any, size: Any) -> Any:  # noqa: ANN401
        def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:  # noqa: ANN401
            q, key, out = (pointer(context, builder, signature.args[i], given[i]) for i in range(3))
            sums = [
                cgutils.alloca_once_value(builder, ir.Constant(vector, None))  # type: ignore[no-untyped-call]
                for _ in range(four)
            ]
            index_type = given[3].type
            with cgutils.for_range_slice(builder, index_type(0), given[3], index_type(four)) as (c, _):
                for lane in range(four):
                    here = builder.add(c, index_type(lane))
                    number = builder.load(builder.gep(q, [here]))
                    line = builder.load(at(builder, key, builder.mul(here, index_type(PAGE))), align=4)
                    builder.store(product(builder, builder.load(sums[lane]), number, line), sums[lane])
            a, b, c_, d = (builder.load(sum_) for sum_ in sums)
            whole = builder.fadd(builder.fadd(a, b), builder.fadd(c_, d))
            builder.store(whole, builder.bitcast(out, vector.as_pointer()), align=4)
            return context.get_dummy_value()

        return types.void(q_C, key_CT, score_T, size), generate

    @intrinsic
    def mix(typing: Any, weight_T: Any, value_TC: Any, out_C: Any, size: Any) -> Any:  # noqa: ANN401
        def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:  # noqa: ANN401
            weight, value, out = (pointer(context, builder, signature.args[i], given[i]) for i in range(3))
            index_type = given[3].type
            with cgutils.for_range_slice(builder, index_type(0), given[3], index_type(PAGE)) as (c, _):
                place = at(builder, out, c)
                sums = [builder.load(place, align=4), *[ir.Constant(vector, None)] * (four - 1)]
                for t in range(PAGE):
                    number = builder.load(builder.gep(weight, [index_type(t)]))
                    where = builder.add(builder.mul(given[3], index_type(t)), c)
                    line = builder.load(at(builder, value, where), align=4)
                    sums[t % four] = product(builder, sums[t % four], number, line)
                a, b, c_, d = sums
                whole = builder.fadd(builder.fadd(a, b), builder.fadd(c_, d))
                builder.store(whole, place, align=4)
            return context.get_dummy_value()

        return types.void(weight_T, value_TC, out_C, size), generate

    return scores, mix
