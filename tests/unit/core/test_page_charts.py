"""Charts are parsed as XML and their geometry is compared with the numbers that went in."""

from __future__ import annotations

import itertools
import math
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tanzim.core.charts import Bar, Line, histogram, interval_bars, line_chart, thin, ticks
from tanzim.core.units import count, duration, number, size


def classed(svg: str, name: str) -> list[ET.Element]:
    return [e for e in ET.fromstring(svg).iter() if name in e.get("class", "").split()]


@given(st.floats(-1e6, 1e6), st.floats(1e-4, 1e6), st.integers(3, 8))
def test_ticks_are_round_even_and_enclose_the_range(low, width, count):
    made = ticks(low, low + width, count)
    steps = [b - a for a, b in itertools.pairwise(made)]
    step = steps[0]
    assert made[0] <= low + 1e-6 * step
    assert made[-1] >= low + width - 1e-6 * step
    assert max(steps) - min(steps) < 1e-6 * step + 1e-9 * abs(low)
    mantissa = step / 10 ** math.floor(math.log10(step * 1.0000001))
    assert min(abs(mantissa - nice) for nice in (1, 2, 2.5, 5, 10)) < 1e-3
    assert 2 <= len(made) <= count + 3


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (0.3, 2.2, [0, 0.5, 1, 1.5, 2, 2.5]), (3, 3, [1, 2, 3, 4, 5])],
)
def test_ticks_known_cases(low, high, expected):
    assert ticks(low, high) == expected


def test_line_chart_puts_values_in_proportion_and_skips_what_is_not_finite():
    points = [(0.0, 2.0), (10.0, 1.0), (20.0, math.nan), (30.0, 0.0)]
    svg = line_chart("Loss", [Line("eval", points, 1, dots=True)], x_name="step", mark=(10, "best <step>"))
    dots = classed(svg, "dot")
    xs, ys = [float(d.get("cx")) for d in dots], [float(d.get("cy")) for d in dots]
    assert len(dots) == 3
    assert (xs[1] - xs[0]) / (xs[2] - xs[0]) == pytest.approx(1 / 3, abs=1e-3)
    assert (ys[1] - ys[0]) / (ys[2] - ys[0]) == pytest.approx(1 / 2, abs=1e-3)
    assert ys == sorted(ys)
    root = ET.fromstring(svg)
    assert root.get("role") == "img"
    named = [e.text for e in root if e.get("id") in root.get("aria-labelledby").split()]
    assert named == ["Loss", "eval goes from 2 to 0"]
    assert "eval: 1 (step 10)" in [e.text for e in root.iter() if e.tag == "title"]
    assert "best <step>" in [e.text for e in root.iter() if e.tag == "text"]


def test_histogram_heights_are_counts_and_labels_stand_at_edges():
    svg = histogram("Lengths", [0, 50, 100, 400], [4, 1, 0], x_name="characters")
    bars = classed(svg, "bar")
    assert [float(b.get("height")) / float(bars[0].get("height")) for b in bars] == [1, 0.25, 0]
    labels = {
        e.text: float(e.get("x")) for e in ET.fromstring(svg).iter() if e.get("text-anchor") == "middle"
    }
    assert labels["50"] == float(bars[1].get("x"))
    assert labels["100"] == float(bars[2].get("x"))
    assert "0 to 50 characters: 4" in [e.text for e in ET.fromstring(svg).iter() if e.tag == "title"]


def test_bars_show_their_intervals():
    svg = interval_bars(
        "F1", [("فارسی", [Bar("base", 0.25, 0.2, 0.3, 0), Bar("tuned", 0.75, None, None, 1)])]
    )
    base, tuned = classed(svg, "bar")
    assert float(tuned.get("width")) / float(base.get("width")) == pytest.approx(3, rel=1e-3)
    ends = sorted(float(e.get("x1")) for e in classed(svg, "whisker")[1:])
    middle = float(base.get("x")) + float(base.get("width"))
    assert sum(ends) / 2 == pytest.approx(middle, abs=0.02)
    assert len(classed(svg, "whisker")) == 3


def test_thin_keeps_the_mean_and_says_how_many_it_joined():
    points = [(float(i), float(i % 7)) for i in range(1200)]
    kept, run = thin(points, 600)
    assert (len(kept), run) == (600, 2)
    assert sum(y for _, y in kept) / 600 == pytest.approx(sum(y for _, y in points) / 1200)
    assert thin(points[:5]) == (points[:5], 1)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (1234567, "1,234,567"), (0.123456, "0.1235"), (-2.5, "−2.5"), (1234.5678, "1,235"),
     (1.25e-7, "1.250e−07"), (2e-4, "0.0002"), (math.nan, "not a number"), (99999.96, "100,000")],
)  # fmt: skip
def test_numbers(value, shown):
    assert number(value) == shown


@given(st.floats(1e-4, 1e14))
def test_numbers_are_close_to_what_they_show(value):
    assert float(number(value).replace(",", "")) == pytest.approx(value, rel=1e-3)


def test_sizes_durations_and_counts():
    assert [count(n, "row") for n in (0, 1, 1200)] == ["0 rows", "1 row", "1,200 rows"]
    assert [size(n) for n in (0, 999, 1000, 538_400_000, 3.1e12)] == [
        "0 B",
        "999 B",
        "1 kB",
        "538 MB",
        "3.1 TB",
    ]
    assert [duration(s) for s in (0.42, 9.96, 59.7, 61, 3600, 86400.0)] == [
        "0.42 s", "10 s", "1 min 00 s", "1 min 01 s", "1 h 00 min", "24 h 00 min",
    ]  # fmt: skip
