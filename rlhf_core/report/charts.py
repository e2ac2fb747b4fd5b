"""Small charts as SVG text: no script, no font, no address; colours are the page's CSS variables.

Drawn at the width of a phone, so that their text stays readable there, and set side by side where there is room.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from markupsafe import Markup, escape

from rlhf_core.metrics import wilson
from rlhf_core.report.data import CalibrationBin

WIDTH, HEIGHT = 360, 232
LEFT, RIGHT, TOP, BOTTOM = 54, 14, 12, 38
MOST_POINTS = 160
"""Longer curves are drawn as means of neighbouring points."""
MOST_DOTS = 24
"""Curves of more points are lines without dots."""
COLORS = 6
"""Number of colours `--c1` to `--c6` of the style sheet."""


class Point(NamedTuple):
    """A measured point, with the ends of its interval where there is one."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    label: str = ""
    """Written beside the point."""
    hollow: bool = False


@dataclass(frozen=True)
class Series:
    """Points of one colour, joined in their order."""

    name: str
    points: Sequence[Point]
    color: int = 1
    """1 to `COLORS`."""


@dataclass(frozen=True)
class Axis:
    """A scale from data to pixels with round numbers on it."""

    low: float
    high: float
    ticks: tuple[float, ...]
    start: float
    """Pixel of `low`."""
    end: float
    """Pixel of `high`."""

    def __call__(self, value: float) -> float:
        """The pixel of `value`."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] | None = None,
    x_range: tuple[float, float] | None = None,
    level: float | None = None,
    whole_x: bool = False,
    y_format: Callable[[float], str] | None = None,
    note: str = "",
) -> Markup:
    """Lines through points with intervals. `level` draws a dashed line to compare with.

    Intervals are bars on dots, and a band along a curve of many points. Non-finite points are left out.
    """
    drawn = [Series(one.name, thinned([p for p in one.points if _finite(p)]), one.color) for one in series]
    drawn = [one for one in drawn if one.points]
    if not drawn:
        return _figure(title, [], Markup('<p class="nothing">nothing was measured</p>'), note)
    points = [point for one in drawn for point in one.points]
    x = _axis([p.x for p in points], LEFT, WIDTH - RIGHT, wanted=x_range, whole=whole_x)
    ends = [end for p in points for end in (p.y, p.low, p.high) if end is not None]
    y = _axis(ends + ([level] if level is not None else []), HEIGHT - BOTTOM, TOP, wanted=y_range)
    body = [_frame(x, y, x_label, y_label, y_format or short(y.ticks), short(x.ticks))]
    if level is not None:
        body.append(f'<line class="level" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(level):.1f}" y2="{y(level):.1f}"/>')
    for one in drawn:
        body += _series(one, x, y)
    told = "; ".join(f"{one.name}: {_told(one.points)}" for one in drawn)
    legend = [(one.name, one.color) for one in drawn] if len(drawn) > 1 else []
    return _figure(title, legend, _svg(title, f"{y_label} against {x_label}. {told}", body), note)


def reliability(title: str, bins: Sequence[CalibrationBin], note: str = "") -> Markup:
    """How often predictions of each confidence were right; on the diagonal they are honest.

    The bars at the foot show how many predictions each bin holds.
    """
    filled = [one for one in bins if one.n > 0 and math.isfinite(one.confidence + one.accuracy)]
    if not filled:
        return _figure(title, [], Markup('<p class="nothing">nothing was measured</p>'), note)
    low = 0.5 if min(min(one.low, one.confidence) for one in filled) >= 0.5 else 0.0
    x = _axis([low, 1.0], LEFT, WIDTH - RIGHT, wanted=(low, 1.0))
    floor = min([low, *(one.accuracy for one in filled)])
    y = _axis([floor, 1.0], HEIGHT - BOTTOM, TOP, wanted=(math.floor(floor * 5) / 5, 1.0))
    body = [_frame(x, y, "predicted", "observed", percent, percent)]
    most = max(one.n for one in filled)
    foot = HEIGHT - BOTTOM
    for one in filled:
        tall = 44 * one.n / most
        left, right = x(max(one.low, x.low)) + 1, x(one.high) - 1
        body.append(
            f'<rect class="count" x="{left:.1f}" y="{foot - tall:.1f}" width="{right - left:.1f}" height="{tall:.1f}"/>'
        )
    start = max(x.low, y.low)
    body.append(f'<line class="level" x1="{x(start):.1f}" y1="{y(start):.1f}" x2="{x(1):.1f}" y2="{y(1):.1f}"/>')
    points = [Point(one.confidence, one.accuracy, *wilson(one.accuracy, one.n), label="") for one in filled]
    body += _series(Series("", [p._replace(low=max(p.low or 0, y.low)) for p in points], 2), x, y)
    told = "; ".join(f"said {percent(one.confidence)}, right {percent(one.accuracy)} of {one.n}" for one in filled)
    return _figure(title, [], _svg(title, told, body), note)


def nice_ticks(low: float, high: float, about: int = 6, whole: bool = False) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) that cover `low` to `high`, about `about` of them."""
    if not high > low:
        pad = abs(low) * 0.1 or 1.0
        low, high = low - pad, high + pad
    rough = (high - low) / max(about - 1, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    if whole:
        step = max(1.0, float(math.ceil(step)))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def thinned(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """At most `most` points: longer curves become means over stretches of equal length, the ends included."""
    if len(points) <= most:
        return list(points)
    thin = []
    for i in range(most):
        part = points[i * len(points) // most : (i + 1) * len(points) // most]
        thin.append(Point(_mean(p.x for p in part), _mean(p.y for p in part)))
    return thin


def short(ticks: Sequence[float]) -> Callable[[float], str]:
    """A format with as many decimals as tell these ticks apart."""
    step = min((abs(b - a) for a, b in pairwise(ticks)), default=1.0)
    if max(map(abs, ticks), default=0) >= 1e5 or step < 1e-4:
        return lambda value: f"{value:.3g}"
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return lambda value: f"{value:.{decimals}f}".replace("-", "−")


def percent(value: float) -> str:
    """0.93 as `93 %`."""
    return f"{100 * value:.0f} %"


def _finite(point: Point) -> bool:
    ends = (end for end in (point.low, point.high) if end is not None)
    return all(map(math.isfinite, (point.x, point.y, *ends)))


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return math.fsum(listed) / len(listed)


def _axis(
    values: Sequence[float],
    start: float,
    end: float,
    wanted: tuple[float, float] | None = None,
    whole: bool = False,
) -> Axis:
    low, high = wanted or (min(values), max(values))
    ticks = nice_ticks(low, high, whole=whole)
    if wanted is not None:
        ticks = [tick for tick in ticks if low - 1e-9 <= tick <= high + 1e-9]
    else:
        low, high = min(ticks[0], low), max(ticks[-1], high)
    return Axis(low, high, tuple(ticks), start, end)


def _frame(
    x: Axis, y: Axis, x_label: str, y_label: str, y_text: Callable[[float], str], x_text: Callable[[float], str]
) -> str:
    parts = []
    for tick in y.ticks:
        at = y(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 3.5:.1f}" text-anchor="end">{escape(y_text(tick))}</text>')
    foot = HEIGHT - BOTTOM
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{foot}" y2="{foot}"/>')
    for tick in x.ticks:
        at = x(tick)
        parts.append(f'<line class="axis" x1="{at:.1f}" x2="{at:.1f}" y1="{foot}" y2="{foot + 4}"/>')
        parts.append(f'<text x="{at:.1f}" y="{foot + 16}" text-anchor="middle">{escape(x_text(tick))}</text>')
    middle_x, middle_y = (LEFT + WIDTH - RIGHT) / 2, (TOP + foot) / 2
    parts.append(f'<text class="name" x="{middle_x}" y="{HEIGHT - 4}" text-anchor="middle">{escape(x_label)}</text>')
    parts.append(
        f'<text class="name" x="10" y="{middle_y}" text-anchor="middle" '
        f'transform="rotate(-90 10 {middle_y})">{escape(y_label)}</text>'
    )
    return "".join(parts)


def _series(series: Series, x: Axis, y: Axis) -> list[str]:
    color = (series.color - 1) % COLORS + 1
    points = series.points
    parts = []
    many = len(points) > MOST_DOTS
    ranged = [p for p in points if p.low is not None and p.high is not None]
    if many and ranged:
        over = [f"{x(p.x):.1f},{y(p.high):.1f}" for p in ranged if p.high is not None]
        under = [f"{x(p.x):.1f},{y(p.low):.1f}" for p in reversed(ranged) if p.low is not None]
        parts.append(f'<polygon class="band f{color}" points="{" ".join(over + under)}"/>')
    if len(points) > 1:
        line = " ".join(f"{x(p.x):.1f},{y(p.y):.1f}" for p in points)
        parts.append(f'<polyline class="line s{color}" points="{line}"/>')
    if many:
        return parts
    for p in points:
        at, height = x(p.x), y(p.y)
        if p.low is not None and p.high is not None:
            low, high = y(p.low), y(p.high)
            parts.append(
                f'<path class="bar s{color}" d="M{at:.1f} {low:.1f}V{high:.1f}M{at - 3:.1f} {low:.1f}h6'
                f'M{at - 3:.1f} {high:.1f}h6"/>'
            )
        look = f"hollow s{color}" if p.hollow else f"dot f{color}"
        told = f"{series.name} {p.label}: {_number(p.y)} at {_number(p.x)}".strip()
        parts.append(
            f'<circle class="{look}" cx="{at:.1f}" cy="{height:.1f}" r="4"><title>{escape(told)}</title></circle>'
        )
        if p.label:
            # Left above the point, where a rising line is not; at the left edge, right below it.
            side, dx, dy = ("end", -7, -5) if at > LEFT + 30 else ("start", 7, 14)
            parts.append(
                f'<text class="label" x="{at + dx:.1f}" y="{height + dy:.1f}" text-anchor="{side}">'
                f"{escape(p.label)}</text>"
            )
    return parts


def _told(points: Sequence[Point]) -> str:
    """The points in words, for those who cannot see them."""
    shown = points if len(points) <= 12 else [points[0], points[-1]]
    return ", ".join(f"{_number(p.y)} at {p.label or _number(p.x)}" for p in shown)


def _number(value: float) -> str:
    return f"{value:.3g}"


def _svg(title: str, description: str, body: Iterable[str]) -> Markup:
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><title>{escape(title)}</title>'
        f"<desc>{escape(description)}</desc>{''.join(body)}</svg>"
    )


def _figure(title: str, legend: Sequence[tuple[str, int]], picture: Markup, note: str) -> Markup:
    keys = Markup("").join(
        Markup('<span class="key"><i class="b{}"></i>{}</span>').format((color - 1) % COLORS + 1, name)
        for name, color in legend
    )
    return Markup("<figure><figcaption>{}{}</figcaption>{}{}</figure>").format(
        title,
        Markup('<span class="legend">{}</span>').format(keys) if keys else "",
        picture,
        Markup('<p class="note">{}</p>').format(note) if note else "",
    )
