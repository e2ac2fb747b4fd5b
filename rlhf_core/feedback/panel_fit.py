"""The simulated panel that answers like these people: maximum likelihood from their comparisons.

The model is that of the annotator `simulated_panel`. Of two samples of question q, shown in the order of sign s (+1
where the one with the lower id is shown first), rater r perceives the difference

    D = s (sum_c f_c d_qc + e_q + l m_q) + b_r + T_r x,   e_q ~ Normal(0, 2 t^2),   x ~ Logistic(0, 1),

with the judge's differences d_qc, the difference m_q in characters, the length bias l, the panel's common taste t, the
rater's noise T_r = T exp(s_T z_r) and her own position bias b_r = b + s_b w_r. She ties where |D| <= tau_r =
tau exp(s_tau y_r), else she prefers the sign of D, or, by a slip of probability phi, the other one. A share of the
pairs are alike to everybody: of them nothing is left of the bracket, and the noise is a times what it is elsewhere,
since that two answers are the same, or equally useless, may be seen more surely than which one is better.

Everything is estimated in units of T, where the likelihood is well-behaved. e_q is integrated out numerically; the
raters' own z_r, y_r and w_r are random effects (the normal-normal model of their single estimates, as in Hardy and
Thompson 1996). Each rater counts as much as she answered: in crowds those who answer most are the more careful ones,
and an answer of the panel shall be like an answer that was given, not like one that some rater would give. Intervals
are 95 %, from the curvature of the likelihood.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlhf_core.errors import DataError
from rlhf_core.feedback.panel_likelihood import OWN, Comparisons, PanelLikelihood
from rlhf_core.metrics import Metric, wilson
from rlhf_core.records import Answer, Comparison, Sample, Skip

FEWEST = 50
"""Comparisons below which nothing is fitted."""


@dataclass(frozen=True)
class FittedPanel:
    """The panel's options, each with its interval, in the judge's units (without a judge, in units of the noise)."""

    raters: int
    options: dict[str, Metric]
    """`temperature`, `temperature_spread`, `taste`, `alike`, `alike_noise`, `tie_below`, `tie_spread`, `flip`, `skip`,
    `position_bias`, `position_spread`, `length_bias`."""
    values: dict[str, Metric] = field(default_factory=dict)
    """Factor on each criterion of the judge; their mean, weighted by how much the criteria vary, is 1."""
    team: tuple[dict[str, float], ...] = ()
    """What each rater has of her own, those who answered most first; empty where they gave too few answers."""
    answers: int = 0
    log_likelihood: float = float("nan")
    """In nats."""

    def config(self, **more: Any) -> dict[str, Any]:
        """As options of `simulated_panel`; `more` are further ones, such as its judge."""
        fitted = {name: float(f"{metric.value:.4g}") for name, metric in self.options.items()}
        if self.team:
            # The raters themselves, not others like them.
            fitted = {name: value for name, value in fitted.items() if name not in OWN}
        team = [{name: float(f"{value:.3g}") for name, value in person.items()} for person in self.team]
        values = {"values": {name: float(f"{m.value:.4g}") for name, m in self.values.items()}} if self.values else {}
        # How different the raters' values are is not fitted; it is part of their noise here.
        alike = {"values_spread": 0.0, "drift": 0.0}
        own = {"team": team} if team else {}
        return {"use": "simulated_panel", "raters": self.raters, **fitted, **values, **own, **alike, **more}


def comparisons(
    answers: Iterable[Answer], scores: Mapping[str, Mapping[str, float]] | None = None, criteria: Sequence[str] = ()
) -> Comparisons:
    """The comparisons of two samples among `answers`, as numbers. Rankings and ratings are left out.

    `scores` holds the judge's points on each of `criteria` by sample id.
    """
    questions: dict[tuple[str, str], int] = {}
    raters: dict[str, int] = {}
    rows: list[tuple[int, int, float, int]] = []
    judged: list[list[float]] = []
    longer: list[float] = []
    skips = 0
    for answer in answers:
        said = answer.feedback
        skips += isinstance(said, Skip)
        if not isinstance(said, Comparison):
            continue
        samples = {sample.id: sample for sample in answer.question.samples}
        lower, higher = sorted((said.first, said.second))
        if (lower, higher) not in questions:
            questions[lower, higher] = len(questions)
            known = scores or {}
            judged.append([known[lower][name] - known[higher][name] for name in criteria])
            longer.append(_characters(samples[lower]) - _characters(samples[higher]))
        outcome = {"first": 1, "tie": 0, "second": -1}[said.choice]
        sign = 1.0 if said.first == lower else -1.0
        rows.append((questions[lower, higher], raters.setdefault(said.annotator, len(raters)), sign, outcome))
    table = np.array(rows, dtype=float).reshape(-1, 4)
    points = np.array(judged, dtype=float).reshape(len(questions), len(criteria))
    return Comparisons(
        question=table[:, 0].astype(np.int64), rater=table[:, 1].astype(np.int64), sign=table[:, 2],
        outcome=table[:, 3].astype(np.int64), judged=points,
        longer=np.array(longer, dtype=float), criteria=tuple(criteria), raters=tuple(raters), skips=skips,
    )  # fmt: skip


def _characters(sample: Sample) -> float:
    return float(len(sample.text or ""))


def fit_panel(data: Comparisons, *, seed: int = 0) -> FittedPanel:
    """Estimate the panel. Raises DataError where there is too little to learn from, or where people do not follow the
    judge, so that its units mean nothing.
    """
    n = len(data.outcome)
    if n < FEWEST:
        raise DataError(
            f"a panel is fitted to {FEWEST} comparisons of two samples or more, and there are {n}.",
            remedy="Let people compare more pairs; rankings and ratings are not used.",
        )
    model = PanelLikelihood(data)
    spreads = {name: Metric(value=0.0) for name in OWN}
    if model.raters_known:
        theta, own = model.maximise(np.ones((len(OWN), 1)))
        spreads = {name: spread_of(*model.single_raters(theta, own, number)) for number, name in enumerate(OWN)}
    prior = np.array([[max(spread.value, 1e-3)] for spread in spreads.values()])
    theta, own = model.maximise(prior)
    options, values, team = model.in_units_of_the_judge(theta, model.draws(theta, own, prior, seed), own, spreads)
    if data.criteria and not np.isfinite(options["temperature"].high or np.inf):
        raise DataError(
            "people's answers do not follow the judge: the noise that explains them may be boundless.",
            remedy="Choose a judge that is closer to what they prefer, or let more of them answer.",
        )
    asked = n + data.skips
    low, high = wilson(data.skips / asked, asked)
    options["skip"] = Metric(value=data.skips / asked, low=low, high=high, n=asked)
    likelihood = model.log_likelihood(theta, own)
    return FittedPanel(len(data.raters), options, values, tuple(team), n, likelihood)


def spread_of(estimates: NDArray[Any], variances: NDArray[Any], answers: NDArray[Any]) -> Metric:
    """How different R raters are: the standard deviation s of x_r ~ Normal(m, s^2 + v_r), by maximum likelihood with
    its profile interval (Hardy and Thompson 1996), from their estimates x_r and the variances v_r of these.

    Raters are weighted by the number of their answers, as a sample of (sum w)^2 / sum w^2 raters (Kish 1965).
    """
    if not len(estimates):
        return Metric(value=0.0, n=0)
    weights = answers * (answers.sum() / (answers**2.0).sum())
    grid = np.linspace(0.0, 3.0, 601)
    precision = 1.0 / (grid[:, None] ** 2 + variances)
    means = (weights * precision * estimates).sum(1) / (weights * precision).sum(1)
    likelihood = 0.5 * (weights * (np.log(precision) - precision * (estimates - means[:, None]) ** 2)).sum(1)
    inside = grid[likelihood >= likelihood.max() - 1.92]
    best = float(grid[likelihood.argmax()])
    return Metric(value=best, low=float(inside.min()), high=float(inside.max()), n=len(estimates))


def outcomes(data: Comparisons) -> dict[str, float]:
    """Plain shares to compare a panel with its people by: ties; of the others, the first and the longer preferred."""
    counted = Counter(data.outcome.tolist())
    decided = counted[1] + counted[-1]
    side = data.outcome * data.sign * np.sign(data.longer[data.question])
    return {
        "ties": counted[0] / max(1, len(data.outcome)),
        "shown_first": counted[1] / max(1, decided),
        "longer": float((side > 0).sum() / max(1, (side != 0).sum())),
    }
