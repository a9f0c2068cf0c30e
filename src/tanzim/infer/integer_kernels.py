"""The product of activations in float32 with weights in 8 or 4 bits, compiled for this processor.

Weights are turned to float32 in registers, each time for as many tokens as there are accumulators: memory is
read once for them, and that is what decoding waits for. Sums are in float32.

Legend: N tokens, I inputs, O outputs, T tiles of 32 outputs, L lanes of a tile, G groups of inputs, B bytes
for an input of a tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from tanzim.core.optional import need
from tanzim.infer.kernels import Array, Kernel
from tanzim.infer.threads import Job, viewer

LANES = 16  # of a vector; a tile has two
ROWS = 192  # tokens whose activations stay in the second cache
_BLOCKS = (12, 8, 4, 2, 1)


@cache
def multiply(bits: int) -> Kernel:
    """Return ``multiply(x_NI, codes_TIB, step_TGL, low_TGL, y_NO, first, last)``.

    It writes x · Wᵀ into y for the tiles from ``first`` to ``last``; rows of y have T · 32 numbers. Matrices
    are as in `models.integers.IntMatrix`, bfloat16 as uint16; in 8 bits ``low_TGL`` is not read.

    Args:
        bits: 8 or 4.

    Raises:
        MissingExtra: numba is not installed.

    """
    numba: Any = need("numba", "serve")
    # As many tokens as there are registers for their sums; those that are left in smaller blocks.
    tile = _tile(_BLOCKS if _has_wide_registers() else _BLOCKS[-2:], bits)

    def product(
        x_NI: Array, codes_TIB: Array, step_TGL: Array, low_TGL: Array, y_NO: Array, first: int, last: int
    ) -> None:
        count = x_NI.shape[0]
        for start in range(0, count, ROWS):
            for t in range(first, last):
                tile(x_NI, codes_TIB, step_TGL, low_TGL, y_NO, t, start, min(count, start + ROWS))

    made: Kernel = numba.njit(nogil=True)(product)
    return made


@cache
def multiply_in_team(bits: int) -> Job:
    """Return `multiply` for all tiles, divided among torch's threads.

    Its numbers: addresses of x, y, the codes, steps and lows; N, I, T and G.

    Args:
        bits: 8 or 4.

    Raises:
        MissingExtra: numba is not installed.

    """
    product, view = multiply(bits), viewer()
    codes = np.int8 if bits == 8 else np.uint8
    tile, width = 2 * LANES, 2 * LANES * bits // 8

    def loop(numbers: Array, part: int, parts: int) -> None:
        x, y, codes_, step, low = numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]
        rows, inputs, tiles, groups = numbers[5], numbers[6], numbers[7], numbers[8]
        product(
            view(x, (rows, inputs), np.float32),
            view(codes_, (tiles, inputs, width), codes),
            view(step, (tiles, groups, tile), np.uint16),
            view(low, (tiles, groups, tile), np.uint16),
            view(y, (rows, tiles * tile), np.float32),
            tiles * part // parts,
            tiles * (part + 1) // parts,
        )

    return Job(loop)


def _tile(blocks: Sequence[int], bits: int) -> Kernel:
    """Return a function that computes one tile for the tokens from n to stop, in blocks of these sizes."""
    numba: Any = need("numba", "serve")
    rows, block = blocks[0], _block(blocks[0], bits)
    rest = _tile(blocks[1:], bits) if len(blocks) > 1 else None

    def tile(
        x_NI: Array, codes_TIB: Array, step_TGL: Array, low_TGL: Array, y_NO: Array, t: int, n: int, stop: int
    ) -> None:
        while stop - n >= rows:
            block(x_NI, codes_TIB, step_TGL, low_TGL, y_NO, t, n)
            n += rows
        if rest is not None:
            rest(x_NI, codes_TIB, step_TGL, low_TGL, y_NO, t, n, stop)

    made: Kernel = numba.njit(nogil=True)(tile)
    return made


def _has_wide_registers() -> bool:
    import llvmlite.binding  # type: ignore[import-untyped]

    return bool(llvmlite.binding.get_host_cpu_features().get("avx512f"))


def _block(rows: int, bits: int) -> Any:  # noqa: ANN401 - an intrinsic of numba
    """Return ``block(x_NI, codes_TIB, step_TGL, low_TGL, y_NO, t, n)``: a tile for so many tokens from n."""
    from numba.core import types
    from numba.extending import intrinsic

    from tanzim.infer import vectors

    steps = max(1, 4 // rows)  # inputs at once, each with sums of its own: a chain of one would wait

    @intrinsic
    def block(
        typing: Any,  # noqa: ANN401
        x_NI: Any,  # noqa: ANN401
        codes_TIB: Any,  # noqa: ANN401
        step_TGL: Any,  # noqa: ANN401
        low_TGL: Any,  # noqa: ANN401
        y_NO: Any,  # noqa: ANN401
        t: Any,  # noqa: ANN401
        n: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:  # noqa: ANN401
            x, codes, step, low, y = (
                vectors.array(context, builder, signature.args[i], given[i]) for i in range(5)
            )
            index = given[5].type
            inputs, width = (vectors.extent(builder, codes, axis) for axis in (1, 2))
            groups = vectors.extent(builder, step, 1)
            group = builder.udiv(inputs, groups)
            tokens = [builder.add(given[6], index(row)) for row in range(rows)]
            lines = [builder.gep(x.data, [builder.mul(token, inputs)]) for token in tokens]
            sums = [[vectors.zeros(builder) for _ in range(2 * steps)] for _ in range(rows)]
            first = builder.mul(given[5], inputs)
            with vectors.loop(builder, index(0), groups, 1) as (g, _):
                scale = builder.mul(builder.add(builder.mul(given[5], groups), g), index(2 * LANES))
                spacing = _spacing(builder, step, low if bits == 4 else None, scale)
                start = builder.mul(g, group)
                with vectors.loop(builder, start, builder.add(start, group), steps) as (i, _):
                    for number in range(steps):
                        here = builder.add(i, index(number))
                        place = builder.gep(codes.data, [builder.mul(builder.add(first, here), width)])
                        weights = (_four if bits == 4 else _eight)(builder, place, spacing)
                        for line, sums_ in zip(lines, sums, strict=True):
                            activation = vectors.splat(builder, builder.load(builder.gep(line, [here])))
                            for sum_, weight in zip(sums_[2 * number :], weights, strict=False):
                                added = vectors.fused(builder, activation, weight, builder.load(sum_))
                                builder.store(added, sum_)
            row_length, column = vectors.extent(builder, y, 1), builder.mul(given[5], index(2 * LANES))
            for token, sums_ in zip(tokens, sums, strict=True):
                line = builder.gep(y.data, [builder.add(builder.mul(token, row_length), column)])
                for half in range(2):
                    whole = vectors.total(builder, [builder.load(sum_) for sum_ in sums_[half::2]])
                    vectors.store(builder, whole, line, index(half * LANES))
            return context.get_dummy_value()

        return types.void(x_NI, codes_TIB, step_TGL, low_TGL, y_NO, t, n), generate

    return block


def _eight(builder: Any, place: Any, spacing: Sequence[tuple[Any, Any]]) -> list[Any]:  # noqa: ANN401
    """Return 32 signed bytes as code · step, two vectors."""
    from llvmlite import ir

    from tanzim.infer import vectors

    bytes_, whole = (ir.VectorType(ir.IntType(size), LANES) for size in (8, 32))
    halves = [vectors.load(builder, place, ir.IntType(64)(half * LANES), bytes_) for half in range(2)]
    return [
        builder.fmul(builder.sitofp(builder.sext(half, whole), vectors.VECTOR), step)
        for half, (step, _) in zip(halves, spacing, strict=True)
    ]


def _four(builder: Any, place: Any, spacing: Sequence[tuple[Any, Any]]) -> list[Any]:  # noqa: ANN401
    """Return the halves of 16 bytes as code · step + low."""
    from llvmlite import ir

    from tanzim.infer import vectors

    bytes_, whole = (ir.VectorType(ir.IntType(size), LANES) for size in (8, 32))
    both = builder.zext(vectors.load(builder, place, ir.IntType(64)(0), bytes_), whole)
    halves = builder.and_(both, vectors.integers(15)), builder.lshr(both, vectors.integers(4))
    return [
        vectors.fused(builder, builder.sitofp(half, vectors.VECTOR), step, low)
        for half, (step, low) in zip(halves, spacing, strict=True)
    ]


def _spacing(builder: Any, step: Any, low: Any, start: Any) -> list[tuple[Any, Any]]:  # noqa: ANN401
    """Return (step, low) of both halves of a tile, from bfloat16; no low in 8 bits."""
    from llvmlite import ir

    from tanzim.infer import vectors

    short, whole = (ir.VectorType(ir.IntType(size), LANES) for size in (16, 32))

    def wide(given: Any, half: int) -> Any:  # noqa: ANN401
        bits = vectors.load(builder, given.data, builder.add(start, start.type(half * LANES)), short)
        shifted = builder.shl(builder.zext(bits, whole), vectors.integers(16))
        return builder.bitcast(shifted, vectors.VECTOR)

    return [(wide(step, half), None if low is None else wide(low, half)) for half in range(2)]
