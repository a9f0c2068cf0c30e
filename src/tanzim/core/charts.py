"""Charts as inline SVG: drawn from numbers alone, readable without colour, with names for screen readers."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from tanzim.core.page import Child, Html, tag
from tanzim.core.units import number

Point = tuple[float, float]
_HOVERS = 160  # strips that show values under the pointer; more would only be narrower than a pixel


@dataclass(frozen=True, slots=True)
class Line:
    """One curve: its name, points in order of x, colour 0–5, and whether each point gets a dot."""

    name: str
    points: Sequence[Point]
    colour: int
    dots: bool = False


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar with its interval: a name, a value, the interval's ends (None: unknown), colour 0–5."""

    name: str
    value: float
    low: float | None
    high: float | None
    colour: int


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return about ``count`` round numbers that enclose ``[low, high]``.

    The step is 1, 2, 2.5 or 5 times a power of ten (Heckbert, "Nice numbers for graph labels",
    Graphics Gems, 1990).
    """
    if not low < high:
        pad = abs(low) * 0.5 or 0.5
        low, high = low - pad, high + pad
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * nice for nice in (1, 2, 2.5, 5, 10) if power * nice >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


def thin(points: Sequence[Point], most: int = 600) -> tuple[list[Point], int]:
    """Return at most ``most`` points, each the mean of a run of neighbours, and the length of a run."""
    run = max(1, math.ceil(len(points) / most))
    groups = [points[start : start + run] for start in range(0, len(points), run)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups], run


def figure(title: str, chart: Html, caption: Child = "", keys: Sequence[tuple[str, int, bool]] = ()) -> Html:
    """Return a chart with heading, caption and, for several curves, a legend (name, colour, dots)."""
    shown = [
        tag(
            "li",
            tag(
                "svg",
                tag("line", x1=0, x2=32, y1=8, y2=8, class_="curve"),
                tag("circle", cx=16, cy=8, r=5, class_="dot") if dots else "",
                viewbox="0 0 32 16",
                class_=f"k{colour}",
                aria_hidden="true",
            ),
            tag("bdi", name),
        )
        for name, colour, dots in keys
    ]
    legend = tag("ul", shown, class_="key") if shown else ""
    below = tag("figcaption", caption) if caption else ""
    return tag("figure", tag("h3", title), legend, tag("div", chart, class_="scroll"), below)


def drawing(width: float, height: float, title: str, description: str, *children: Child) -> Html:
    """Return an SVG of that size, named and described for screen readers."""
    name = "c" + hashlib.sha256(f"{title}/{description}".encode(errors="replace")).hexdigest()[:10]
    return tag(
        "svg",
        tag("title", title, id=f"{name}t"),
        tag("desc", description, id=f"{name}d"),
        *children,
        viewbox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_labelledby=f"{name}t {name}d",
    )


@dataclass(frozen=True, slots=True)
class Frame:
    """A plotting area in the drawing, and the values at its edges."""

    left: float
    right: float
    top: float
    bottom: float
    x: list[float]
    y: list[float]

    def at_x(self, value: float) -> float:
        """Return where ``value`` stands from left to right."""
        return self.left + (value - self.x[0]) / (self.x[-1] - self.x[0]) * (self.right - self.left)

    def at_y(self, value: float) -> float:
        """Return where ``value`` stands from top to bottom."""
        return self.bottom - (value - self.y[0]) / (self.y[-1] - self.y[0]) * (self.bottom - self.top)

    def axes(self, x_name: str, labels: Sequence[tuple[float, str]] = ()) -> list[Html]:
        """Return grid, ticks and names; ``labels`` stand at x values instead of its numbers."""
        parts: list[Html] = []
        for value in self.y:
            y = self.at_y(value)
            parts.append(tag("line", x1=self.left, x2=self.right, y1=y, y2=y, class_="grid"))
            parts.append(tag("text", number(value), x=self.left - 8, y=y + 4, text_anchor="end"))
        for value, label in labels or [(value, number(value)) for value in self.x]:
            x = self.at_x(value)
            parts.append(tag("line", x1=x, x2=x, y1=self.bottom, y2=self.bottom + 5, class_="axis"))
            parts.append(tag("text", label, x=x, y=self.bottom + 19, text_anchor="middle"))
        parts.append(tag("line", x1=self.left, x2=self.right, y1=self.bottom, y2=self.bottom, class_="axis"))
        middle = (self.left + self.right) / 2
        parts.append(tag("text", x_name, x=middle, y=self.bottom + 38, text_anchor="middle"))
        return parts


def line_chart(
    title: str, lines: Sequence[Line], *, x_name: str, mark: tuple[float, str] | None = None
) -> Html:
    """Return curves over a common x.

    Args:
        title: what is drawn.
        lines: at least one curve with a finite point.
        x_name: name of the horizontal axis.
        mark: an x to mark with a dashed line, and its label.

    """
    clean = [
        Line(line.name, [p for p in line.points if all(map(math.isfinite, p))], line.colour, line.dots)
        for line in lines
    ]
    clean = [line for line in clean if line.points]
    everything = [point for line in clean for point in line.points]
    xs, ys = [x for x, _ in everything], [y for _, y in everything]
    x_ticks = ticks(min(xs), max(xs), 6)
    frame = Frame(64, 732, 14, 236, x_ticks, ticks(min(ys), max(ys)))
    parts = frame.axes(x_name)
    if mark:
        x = frame.at_x(mark[0])
        side = "end" if x > 560 else "start"
        parts.append(tag("line", x1=x, x2=x, y1=14, y2=236, class_="axis", stroke_dasharray="4 4"))
        parts.append(tag("text", mark[1], x=x + (-6 if side == "end" else 6), y=24, text_anchor=side))
    for line in clean:
        path = " ".join(
            f"{'L' if index else 'M'}{frame.at_x(x):.1f} {frame.at_y(y):.1f}"
            for index, (x, y) in enumerate(line.points)
        )
        parts.append(tag("path", d=path, class_=f"curve k{line.colour}"))
        if line.dots:
            dots = [
                tag("circle", cx=frame.at_x(x), cy=frame.at_y(y), r=4, class_="dot") for x, y in line.points
            ]
            parts.append(tag("g", dots, class_=f"k{line.colour}"))
    parts += _hovers(frame, clean, x_name)
    said = "; ".join(
        f"{line.name} goes from {number(line.points[0][1])} to {number(line.points[-1][1])}" for line in clean
    )
    return drawing(760, 280, title, said, *parts)


def _hovers(frame: Frame, lines: Sequence[Line], x_name: str) -> list[Html]:
    """Return invisible strips whose tooltip names the nearest point of every curve."""
    xs = sorted({x for line in lines for x, _ in line.points})
    xs = xs[:: math.ceil(len(xs) / _HOVERS)]
    edges = [frame.left, *((frame.at_x(a) + frame.at_x(b)) / 2 for a, b in itertools.pairwise(xs))]
    edges.append(frame.right)
    strips = []
    for x, (left, right) in zip(xs, itertools.pairwise(edges), strict=True):
        near = [(line.name, min(line.points, key=lambda point: abs(point[0] - x))) for line in lines]
        said = "\n".join(f"{name}: {number(y)} ({x_name} {number(at)})" for name, (at, y) in near)
        strips.append(
            tag("rect", tag("title", said), x=left, y=14, width=right - left, height=222, class_="hit")
        )
    return strips


def histogram(
    title: str, edges: Sequence[float], counts: Sequence[float], *, x_name: str, colour: int = 1
) -> Html:
    """Return a histogram as wide as half a page; bins are drawn equally wide, whatever they span.

    Args:
        title: what is counted.
        edges: n + 1 ascending ends of bins.
        counts: n counts.
        x_name: the unit of the edges.
        colour: 0 to 5.

    """
    frame = Frame(48, 378, 10, 150, [0, len(counts)], ticks(0, max(counts) or 1, 4))
    every = math.ceil(len(edges) / 7)
    parts = frame.axes(x_name, [(index, number(edges[index])) for index in range(0, len(edges), every)])
    bins = list(zip(itertools.pairwise(edges), counts, strict=True))
    for index, ((low, high), count) in enumerate(bins):
        x, y = frame.at_x(index), frame.at_y(count)
        said = f"{number(low)} to {number(high)} {x_name}: {number(count)}"
        wide = frame.at_x(index + 1) - x - 1
        parts.append(
            tag("rect", tag("title", said), x=x, y=y, width=wide, height=150 - y, class_=f"bar k{colour}")
        )
    (low, high), _ = max(bins, key=lambda pair: pair[1])
    said = f"{number(sum(counts))} in all; most between {number(low)} and {number(high)} {x_name}"
    return drawing(400, 194, title, said, *parts)


def interval_bars(
    title: str, groups: Sequence[tuple[str, Sequence[Bar]]], *, top: float | None = None
) -> Html:
    """Return horizontal bars with their intervals, in named groups.

    Args:
        title: what is drawn.
        groups: group name → bars.
        top: right end of the axis; None takes the largest value.

    """
    values = [v for _, bars in groups for b in bars for v in (b.value, b.high) if v is not None]
    scale = ticks(0, top or max([*values, 1e-9]), 5)
    height = 12 + sum(30 + 24 * len(bars) for _, bars in groups)
    frame = Frame(170, 650, 8, height, scale, [0, 1])
    parts: list[Html] = []
    for value in scale:
        x = frame.at_x(value)
        parts.append(tag("line", x1=x, x2=x, y1=8, y2=height, class_="grid"))
        parts.append(tag("text", number(value), x=x, y=height + 18, text_anchor="middle"))
    y = 12.0
    for name, bars in groups:
        parts.append(tag("text", name, x=4, y=y + 15, class_="name", font_weight="600"))
        y += 24
        for bar in bars:
            parts += _bar(frame, bar, y)
            y += 24
        y += 6
    said = "; ".join(
        f"{name}: " + ", ".join(f"{b.name} {number(b.value, 3)}" for b in bars) for name, bars in groups
    )
    return drawing(760, height + 24, title, said, *parts)


def _bar(frame: Frame, bar: Bar, y: float) -> list[Html]:
    said = f"{bar.name}: {number(bar.value)}"
    parts = [tag("text", bar.name, x=162, y=y + 13, text_anchor="end")]
    end = frame.at_x(bar.value)
    known = bar.low is not None and bar.high is not None
    if known:
        said += f" (95 % interval {number(bar.low or 0)} to {number(bar.high or 0)})"
    width = max(end - frame.left, 1)
    parts.append(
        tag(
            "rect",
            tag("title", said),
            x=frame.left,
            y=y + 1,
            width=width,
            height=16,
            rx=2,
            class_=f"bar k{bar.colour}",
        )
    )
    furthest = end
    if bar.low is not None and bar.high is not None:
        low, furthest = frame.at_x(bar.low), max(end, frame.at_x(bar.high))
        parts.append(tag("line", x1=low, x2=frame.at_x(bar.high), y1=y + 9, y2=y + 9, class_="whisker"))
        for x in (low, frame.at_x(bar.high)):
            parts.append(tag("line", x1=x, x2=x, y1=y + 5, y2=y + 13, class_="whisker"))
    parts.append(tag("text", number(bar.value, 3), x=furthest + 8, y=y + 13, class_="name"))
    return parts
