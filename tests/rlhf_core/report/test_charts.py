from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET

import pytest
from markupsafe import Markup

from rlhf_core.report.charts import HEIGHT, WIDTH, Point, Series, chart, nice_ticks, reliability, short, thinned
from rlhf_core.report.data import CalibrationBin


def drawn(figure: Markup) -> ET.Element:
    """The figure as XML: it is well-formed, or this raises."""
    return ET.fromstring(str(figure))


def circles(figure: Markup) -> list[tuple[float, float]]:
    return [(float(c.get("cx", "")), float(c.get("cy", ""))) for c in drawn(figure).iter("circle")]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (0.59, 3.44, [0, 1, 2, 3, 4]),
        (-3, 42, [-10, 0, 10, 20, 30, 40, 50]),
        (0.0012, 0.0019, [0.0012, 0.0014, 0.0016, 0.0018, 0.002]),
    ],
)
def test_ticks_are_round_and_cover_the_data(low: float, high: float, expected: list[float]) -> None:
    assert nice_ticks(low, high) == pytest.approx(expected)


def test_ticks_of_one_value_and_of_whole_numbers() -> None:
    for value in (0.0, 5.0, -0.001):
        ticks = nice_ticks(value, value)
        assert ticks[0] < value < ticks[-1]
    assert nice_ticks(1, 3, whole=True) == [1, 2, 3]


def test_numbers_have_the_decimals_that_tell_them_apart() -> None:
    assert [short([0, 0.5, 1])(x) for x in (0, 0.5, -1)] == ["0.0", "0.5", "−1.0"]
    assert short([0, 20, 40])(20) == "20"
    assert short([1e6, 2e6])(1e6) == "1e+06"


def test_a_higher_value_stands_higher_inside_the_frame() -> None:
    figure = chart("t", [Series("s", [Point(0, 1), Point(1, 3), Point(2, 2)])], x_label="x", y_label="y")
    (x0, y0), (x1, y1), (x2, y2) = circles(figure)
    assert x0 < x1 < x2 and y1 < y2 < y0
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y0 - y1 == pytest.approx(2 * (y2 - y1), abs=0.2)
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in circles(figure))


def test_intervals_lie_inside_the_frame_too() -> None:
    figure = chart("t", [Series("s", [Point(0, 1, -5, 9)])], x_label="x", y_label="y")
    bar = next(path.get("d", "") for path in drawn(figure).iter("path"))
    (low, high) = map(float, re.findall(r"^M[\d.]+ ([\d.]+)V([\d.]+)", bar)[0])
    (_, middle), *_ = circles(figure)
    assert 0 < high < middle < low < HEIGHT


def test_long_curves_are_lines_of_means() -> None:
    points = [Point(i, i % 2) for i in range(10_000)]
    figure = chart("t", [Series("s", points)], x_label="x", y_label="y")
    assert not circles(figure) and len(str(figure)) < 10_000
    thin = thinned(points, most=100)
    assert len(thin) == 100 and thin[0] == Point(49.5, 0.5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_left_out(bad: float) -> None:
    figure = chart(
        "t", [Series("s", [Point(0, 1), Point(1, bad), Point(bad, 1), Point(2, 2)])], x_label="x", y_label="y"
    )
    assert len(circles(figure)) == 2
    assert "nothing was measured" in chart("t", [Series("s", [Point(0, bad)])], x_label="x", y_label="y")
    assert "nothing was measured" in chart("t", [], x_label="x", y_label="y")


def test_labels_are_escaped_and_told_to_those_who_cannot_see() -> None:
    hostile = '<script>alert("x")</script>'
    series = [Series(hostile, [Point(0, 1, label=hostile)]), Series("b", [Point(1, 2)])]
    figure = chart(hostile, series, x_label=hostile, y_label=hostile, note=hostile)
    assert "<script" not in figure
    svg = next(drawn(figure).iter("svg"))
    assert svg.get("role") == "img"
    assert svg.findtext("title") == hostile
    assert "2 at 1" in str(svg.findtext("desc"))


def test_an_honest_model_lies_on_the_diagonal() -> None:
    bins = [CalibrationBin(0.5 + i / 10, 0.6 + i / 10, 0.55 + i / 10, 0.55 + i / 10, 50) for i in range(5)]
    figure = reliability("t", bins)
    line = next(line for line in drawn(figure).iter("line") if line.get("class") == "level")
    x1, y1, x2, y2 = (float(line.get(name, "")) for name in ("x1", "y1", "x2", "y2"))
    for x, y in circles(figure):
        assert y == pytest.approx(y1 + (x - x1) / (x2 - x1) * (y2 - y1), abs=0.3)
    assert len(list(drawn(figure).iter("rect"))) == 5
    assert "nothing was measured" in reliability("t", [CalibrationBin(0, 1, 0.5, 0.5, 0)])
