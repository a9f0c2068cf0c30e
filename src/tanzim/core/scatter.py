"""Points as inline SVG: over numbers, sizes (a logarithmic axis) or names; kinds differ by shape, too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tanzim.core.charts import Frame, drawing, ticks
from tanzim.core.page import Html, tag
from tanzim.core.units import number

Shape = Literal["dot", "cross", "ring"]
Axis = Literal["linear", "log", "names"]


@dataclass(frozen=True, slots=True)
class Mark:
    """One point: where (x is an index where the axis has names), its shape, and what a pointer shows."""

    x: float
    y: float
    shape: Shape
    said: str


def scatter(
    title: str,
    marks: Sequence[Mark],
    *,
    x_name: str,
    axis: Axis = "linear",
    names: Sequence[str] = (),
    line: Sequence[tuple[float, float]] = (),
) -> Html:
    """Return points, and a line through ``line`` if there is one.

    Args:
        title: what is drawn.
        marks: at least one point, all finite.
        x_name: name of the horizontal axis.
        axis: linear, log (x above 0) or names (x is an index into ``names``).
        names: the names under the axis.
        line: points of a line, in order of x (linear axis).

    """
    xs = [mark.x for mark in marks] + [x for x, _ in line]
    ys = [mark.y for mark in marks] + [y for _, y in line]
    edges, labels = _axis(xs, axis, names)
    frame = Frame(64, 732, 14, 236, edges, ticks(min(ys), max(ys)))
    parts = frame.axes(x_name, labels)
    if line:
        path = " ".join(
            f"{'L' if index else 'M'}{frame.at_x(x):.1f} {frame.at_y(y):.1f}"
            for index, (x, y) in enumerate(line)
        )
        parts.append(tag("path", d=path, class_="curve k1"))
    for mark in marks:
        x = math.log10(mark.x) if axis == "log" else mark.x
        parts.append(_mark(mark, frame.at_x(x), frame.at_y(mark.y)))
    said = f"{len(marks)} points between {number(min(ys))} and {number(max(ys))}"
    return drawing(760, 280, title, said, *parts)


def shape(kind: Shape, x: float, y: float, *children: Html) -> Html:
    """Return one shape around (x, y): a dot, a cross or a ring with a dot."""
    if kind == "cross":
        a, b = 4.5, -4.5
        lines = [
            tag("line", x1=x + a, x2=x + b, y1=y + c, y2=y + d, class_="whisker") for c, d in ((a, b), (b, a))
        ]
        return tag("g", *children, *lines, class_="k2")
    dot = tag("circle", cx=x, cy=y, r=4.5, class_="dot")
    ring = tag("circle", cx=x, cy=y, r=9, class_="curve") if kind == "ring" else ""
    return tag("g", *children, dot, ring, class_="k1" if kind == "dot" else "k4")


def _mark(mark: Mark, x: float, y: float) -> Html:
    around = tag("circle", cx=x, cy=y, r=9, class_="hit")
    return shape(mark.shape, x, y, tag("title", mark.said), around)


def _axis(
    xs: Sequence[float], axis: Axis, names: Sequence[str]
) -> tuple[list[float], list[tuple[float, str]]]:
    """Return the ticks of the horizontal axis (its ends at least), and their labels if not themselves."""
    if axis == "names":
        return [-0.5, len(names) - 0.5], list(enumerate(names))
    if axis == "log":
        low, high = math.floor(math.log10(min(xs)) + 1e-9), math.ceil(math.log10(max(xs)) - 1e-9)
        if low == high:
            low, high = low - 1, high + 1
        between = [(1, 2, 5), (1, 3), (1,)][min(2, (high - low - 1) // 2)]
        steps = [(power, digit) for power in range(low, high) for digit in between] + [(high, 1)]
        labels = [(power + math.log10(digit), _short(digit, power)) for power, digit in steps]
        return [float(low), float(high)], labels
    return ticks(min(xs), max(xs), 6), []


def _short(digit: int, power: int) -> str:
    return f"{digit}e{power}" if abs(power) > 3 else number(digit * 10.0**power)
