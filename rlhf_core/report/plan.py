"""The page of a plan: how accuracy grows with the questions asked, and what reaches the target."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rlhf_core.report.charts import Point, Series, chart, percent
from rlhf_core.report.data import About
from rlhf_core.report.pages import render

Row = tuple[float, float, float | None, float | None]
"""Questions, accuracy, and the ends of its interval."""


def plan_report(
    about: About, headline: str, target: float, curves: Sequence[tuple[str, Sequence[Row], Sequence[Row]]],
    columns: Sequence[str], rows: Sequence[Sequence[str]], panel: Mapping[str, Any],
) -> str:  # fmt: skip
    """A self-contained HTML page. `curves` holds name, measured points and fitted curve of each choice."""
    figures = [
        chart(
            name,
            [
                Series("fitted", [Point(*row) for row in fitted], 2),
                Series("measured", [Point(*row) for row in measured], 1),
            ],
            x_label="questions asked",
            y_label="held-out pairs ordered rightly",
            y_format=percent,
            level=target,
            note="Intervals are 95 %, over held-out prompts and repeats; the dashed line is the target.",
        )
        for name, measured, fitted in curves
    ]
    return render(
        "plan.html", about=about, title=f"{about.pipeline}, plan", headline=headline, figures=figures, columns=columns,
        rows=rows, panel=json.dumps(panel, indent=1, ensure_ascii=False),
    )  # fmt: skip
