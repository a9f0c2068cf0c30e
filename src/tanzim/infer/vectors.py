"""Pieces of LLVM code over vectors of 16 float32, for numba's intrinsics; imported where numba is there."""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils

LANES = 16
VECTOR = ir.VectorType(ir.FloatType(), LANES)
_FUSED = ["contract"]  # one rounding where the processor can


def array(context: Any, builder: Any, type_: Any, value: Any) -> Any:  # noqa: ANN401
    """Return an array that numba passed, with its ``data`` and ``shape``."""
    return context.make_array(type_)(context, builder, value)


def extent(builder: Any, given: Any, axis: int) -> Any:  # noqa: ANN401
    """Return the length of one of an array's axes."""
    return cgutils.unpack_tuple(builder, given.shape)[axis]  # type: ignore[no-untyped-call]


def load(builder: Any, start: Any, index: Any, type_: Any = VECTOR) -> Any:  # noqa: ANN401
    """Load a vector whose first number stands at ``start[index]``."""
    place = builder.bitcast(builder.gep(start, [index]), type_.as_pointer())
    return builder.load(place, align=1)


def store(builder: Any, value: Any, start: Any, index: Any) -> None:  # noqa: ANN401
    """Store a vector where its first number belongs to ``start[index]``."""
    builder.store(value, builder.bitcast(builder.gep(start, [index]), VECTOR.as_pointer()), align=1)


def splat(builder: Any, number: Any) -> Any:  # noqa: ANN401
    """Return a vector of one number."""
    undefined = ir.Constant(VECTOR, ir.Undefined)
    one = builder.insert_element(undefined, number, ir.IntType(32)(0))
    return builder.shuffle_vector(one, undefined, integers(0))


def integers(number: int) -> Any:  # noqa: ANN401
    """Return a constant vector of 16 32-bit integers."""
    return ir.Constant(ir.VectorType(ir.IntType(32), LANES), [number] * LANES)


def fused(builder: Any, left: Any, right: Any, added: Any) -> Any:  # noqa: ANN401
    """Return left · right + added."""
    return builder.fadd(builder.fmul(left, right, flags=_FUSED), added, flags=_FUSED)


def total(builder: Any, parts: list[Any]) -> Any:  # noqa: ANN401
    """Return the sum of vectors, added in pairs."""
    while len(parts) > 1:
        pairs = zip(parts[::2], parts[1::2], strict=False)
        parts = [builder.fadd(a, b) for a, b in pairs] + parts[len(parts) // 2 * 2 :]
    return parts[0]


def nothing() -> Any:  # noqa: ANN401
    """Return a vector of zeros."""
    return ir.Constant(VECTOR, None)


def zeros(builder: Any) -> Any:  # noqa: ANN401
    """Return the place of a sum that begins at zero; LLVM turns it into a register."""
    return cgutils.alloca_once_value(builder, nothing())  # type: ignore[no-untyped-call]


def loop(builder: Any, start: Any, stop: Any, step: int) -> Any:  # noqa: ANN401
    """Return a context whose body runs for start, start + step, … below stop; it gives the index."""
    return cgutils.for_range_slice(builder, start, stop, start.type(step))
