"""The pages: one round, and a whole campaign. Everything that models or people wrote is escaped text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from rlhf_core.report.card import card
from rlhf_core.report.charts import Point, Series, chart, percent, reliability
from rlhf_core.report.data import About, Curve, RoundData, Row, SampleRow
from rlhf_core.report.words import (
    ACCURACY,
    ECE,
    GOLD,
    KL,
    KNOWN,
    PREFERRED,
    PROXY,
    WIN_CHAMPION,
    WIN_START,
    campaign_headline,
    round_headline,
    title_of,
    value_of,
)

if TYPE_CHECKING:
    from jinja2 import Environment

OPEN_SAMPLES = 6
"""Prompts that are shown at once; the others unfold."""
TILES = (PREFERRED, WIN_START, GOLD, PROXY, KL, ACCURACY)
COLUMNS = (GOLD, PROXY, WIN_START, WIN_CHAMPION, KL, ACCURACY, ECE)
GOLD_COLOR, PROXY_COLOR, GOOD_COLOR, OTHER_COLOR = 1, 2, 3, 4


def round_report(
    about: About, data: RoundData, *, champion: RoundData | None = None, first: RoundData | None = None
) -> str:
    """One round as a self-contained HTML page; its report card compares with the `champion` before it and with the
    `first` policy, where they are given.
    """
    return render(
        "round.html",
        about=about,
        title=f"{about.pipeline}, round {data.round}" if data.round else f"{about.pipeline}, warm start",
        headline=round_headline(data),
        tiles=_tiles(data),
        one=data,
        card=card(data, champion, first),
        figures=[*_training_against_kl([data]), *_calibration(data)],
        curves=_curve_figures(data),
        samples=data.samples,
    )


def campaign_report(about: About, rounds: Sequence[RoundData]) -> str:
    """A campaign so far as a self-contained HTML page; `rounds` in their order, the warm start as round 0 first."""
    champion = next((one for one in reversed(rounds) if one.promoted), None)
    shown = champion or (rounds[-1] if rounds else RoundData(0))
    fitted = [one for one in rounds if one.calibration]
    return render(
        "campaign.html",
        about=about,
        title=f"{about.pipeline}, campaign",
        headline=campaign_headline(rounds),
        tiles=_tiles(shown),
        rounds=rounds,
        columns=[name for name in COLUMNS if any(name in one.metrics for one in rounds)],
        figures=[
            *_over_rounds(rounds),
            *_training_against_kl(rounds),
            *(_calibration(fitted[-1]) if fitted else []),
        ],
        samples=shown.samples,
        shown=shown,
    )


def _tiles(data: RoundData) -> list[tuple[str, str, str]]:
    """Title, value and interval of the figures that matter most."""
    tiles = []
    for name in TILES:
        metric = data.metrics.get(name)
        if metric is None or not math.isfinite(metric.value):
            continue
        value = value_of(name, metric, interval=False)
        ends = value_of(name, metric).partition(" [")[2]
        tiles.append((title_of(name), value, f"[{ends}" if ends else ""))
    return tiles


def _over_rounds(rounds: Sequence[RoundData]) -> list[Markup]:
    """What the campaign reached, round by round; hollow points were not promoted."""

    def by_round(name: str) -> list[Point]:
        return [
            Point(one.round, m.value, m.low, m.high, "", not one.promoted)
            for one in rounds
            if (m := one.metrics.get(name)) is not None
        ]

    def by_kl(name: str) -> list[Point]:
        found = []
        for one in rounds:
            metric, kl = one.metrics.get(name), one.metrics.get(KL)
            if metric is not None and (kl is not None or one.round == 0):
                x = kl.value if kl is not None else 0.0
                found.append(Point(x, metric.value, metric.low, metric.high, _name(one), not one.promoted))
        return found

    figures = []
    numbers = [one.round for one in rounds] or [0]
    wins = [
        Series("against the warm start", by_round(WIN_START), GOOD_COLOR),
        Series("against the champion before", by_round(WIN_CHAMPION), OTHER_COLOR),
    ]
    wins = [Series(one.name, [p for p in one.points if p.x > 0], one.color) for one in wins]
    if any(one.points for one in wins):
        note = "Bars: 95 % intervals. Hollow: not promoted. Dashed: no better."
        figures.append(
            chart(
                "Win rate by round", wins, x_label="round", y_label="win rate", y_range=(0, 1), level=0.5,
                x_range=(0.6, max(numbers) + 0.4), whole_x=True, y_format=percent, note=note,
            )
        )  # fmt: skip
    judged = (("Gold score against KL", GOLD, GOLD_COLOR), ("Proxy score against KL", PROXY, PROXY_COLOR))
    notes = {
        GOLD: "By the held-back judge. It turns down where the policy exploits its reward model.",
        PROXY: "By the reward model that each round optimised; each has a scale of its own.",
    }
    for title, name, color in judged:
        if points := by_kl(name):
            series = [Series(name.removesuffix("_score"), points, color)]
            figures.append(chart(title, series, x_label="KL, nats", y_label=title_of(name), note=notes[name]))
    health = [Series("accuracy", by_round(ACCURACY), PROXY_COLOR), Series("ECE", by_round(ECE), 5)]
    health = [Series(one.name, [p._replace(hollow=False) for p in one.points], one.color) for one in health]
    if any(one.points for one in health):
        figures.append(
            chart(
                "Reward model on held-out prompts", health, x_label="round", y_label="share", y_range=(0, 1),
                x_range=(0.6, max(numbers) + 0.4), level=0.5, whole_x=True, y_format=percent,
                note="50 % accuracy (dashed) is guessing. ECE is best at 0.",
            )
        )  # fmt: skip
    return figures


def _training_against_kl(rounds: Sequence[RoundData]) -> list[Markup]:
    """The proxy reward against KL within each round's optimisation."""
    series = []
    for one in rounds:
        for stage, curves in one.curves.items():
            if "kl" in curves and "reward" in curves:
                reward = dict(curves["reward"])
                points = [Point(kl, reward[step]) for step, kl in curves["kl"] if step in reward]
                series.append(Series(f"round {one.round}" if len(rounds) > 1 else stage, points, one.round))
    if not series:
        return []
    note = "Every point is a step of the optimiser, on the samples that it trains on."
    return [chart("Reward against KL in training", series, x_label="KL, nats", y_label="proxy reward", note=note)]


def _calibration(data: RoundData) -> list[Markup]:
    if not data.calibration:
        return []
    total = sum(one.n for one in data.calibration)
    note = f"Round {data.round}, {total} held-out predictions. Grey bars: how many said so. On the line: honest."
    return [reliability("Calibration of the reward model", data.calibration, note)]


def _curve_figures(data: RoundData) -> list[tuple[str, list[Markup]]]:
    """A small chart for every metric of every stage that was logged more than once."""

    def points(curve: Curve) -> list[Point]:
        return [Point(step, value) for step, value in curve]

    stages = []
    for number, (stage, curves) in enumerate(data.curves.items()):
        figures = [
            chart(
                name.replace("_", " "),
                [Series(name, points(curve), number + 1)],
                x_label="step",
                y_label="",
                whole_x=True,
            )
            for name, curve in curves.items()
            if len(curve) > 1
        ]
        if figures:
            stages.append((stage, figures))
    return stages


def _name(data: RoundData) -> str:
    return str(data.round) if data.round else "start"


def _columns(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(column for row in rows for column in row))


def _sides(row: SampleRow) -> list[tuple[str, str, str]]:
    """(who, title, text) of the answers to show side by side; equal ones in a row are shown once."""
    sides = [("before", "warm start", row.before), ("after", "after", row.after)]
    if row.champion is not None and row.champion != row.before:
        sides.insert(1, ("champion", "champion then", row.champion))
    return sides


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}".replace("-", "−")
    return "" if value is None else str(value)


def _others(metrics: Mapping[str, Any]) -> list[str]:
    """All metrics, those that every campaign has first."""
    return [name for name in KNOWN if name in metrics] + sorted(name for name in metrics if name not in KNOWN)


def render(template: str, **values: Any) -> str:
    """A page of this folder's `template`."""
    text = _environment().get_template(template).render(**values)
    # What a model wrote may hold lone surrogates, which no encoding can carry, and control characters.
    return "".join(c for c in text if c >= " " or c in "\n\t").encode("utf-8", "replace").decode("utf-8")


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        style=Markup((folder / "style.css").read_text(encoding="utf-8")),
        title_of=title_of,
        value_of=value_of,
        columns_of=_columns,
        sides=_sides,
        cell=_cell,
        ordered=_others,
        open_samples=OPEN_SAMPLES,
    )
    return environment
