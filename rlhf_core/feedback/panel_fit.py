"""The simulated panel that answers like these people: maximum likelihood from their comparisons.

The model is that of the annotator `simulated_panel`. Of two samples of question q, shown in the order of sign s (+1
where the one with the lower id is shown first), rater r perceives the difference

    D = s (sum_c f_c d_qc + e_q + l m_q) + b + T_r x,   e_q ~ Normal(0, 2 t^2),   x ~ Logistic(0, 1),

with the judge's differences d_qc, the difference m_q in characters, the length bias l, the position bias b, the panel's
common taste t and the rater's noise T_r = T exp(s_T z_r). She ties where |D| <= tau_r = tau exp(s_tau y_r), else she
prefers the sign of D, or, by a slip of probability phi, the other one. A share of the pairs are alike to everybody: of
them nothing is left of the bracket. Everything is estimated in units of T, where the likelihood is well-behaved. e_q is
integrated out numerically; the raters' own z_r and y_r are random effects (the normal-normal model of
their single estimates, as in Hardy and Thompson 1996). Intervals are 95 %, from the curvature of the likelihood.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlhf_core.errors import DataError
from rlhf_core.metrics import Metric, wilson
from rlhf_core.records import Answer, Comparison, Sample, Skip

FEWEST = 50
"""Comparisons below which nothing is fitted."""
FEWEST_OF_A_RATER = 20
"""Comparisons of a rater that say something about how noisy she is."""
DRAWS = 4000
OWN = ("temperature_spread", "tie_spread")
"""What raters have of their own: the spread of the log of a factor on their noise, and on their threshold for ties."""
CHARACTERS = 100.0
"""Lengths are fitted in hundreds, so that all parameters are of about one size."""


@dataclass(frozen=True)
class Comparisons:
    """N answers about Q pairs by R raters."""

    question: NDArray[np.int64]
    """[N], 0 to Q - 1."""
    rater: NDArray[np.int64]
    """[N], 0 to R - 1."""
    sign: NDArray[np.float64]
    """[N], 1 where the sample with the lower id is shown first, else -1."""
    outcome: NDArray[np.int64]
    """[N], 1 for the sample shown first, -1 for the other, 0 for a tie."""
    judged: NDArray[np.float64]
    """[Q, C], the judge's points of the lower sample less those of the higher; C is 0 without a judge."""
    longer: NDArray[np.float64]
    """[Q], characters of the lower sample less those of the higher."""
    criteria: tuple[str, ...] = ()
    """Names of the C columns."""
    raters: tuple[str, ...] = ()
    skips: int = 0
    """Questions that were skipped."""


@dataclass(frozen=True)
class FittedPanel:
    """The panel's options, each with its interval, in the judge's units (without a judge, in units of the noise)."""

    raters: int
    options: dict[str, Metric]
    """`temperature`, `temperature_spread`, `taste`, `alike`, `tie_below`, `tie_spread`, `flip`, `skip`,
    `position_bias`, `length_bias`."""
    values: dict[str, Metric] = field(default_factory=dict)
    """Factor on each criterion of the judge; their mean, weighted by how much the criteria vary, is 1."""
    answers: int = 0
    log_likelihood: float = float("nan")
    """In nats."""

    def config(self, **more: Any) -> dict[str, Any]:
        """As options of `simulated_panel`; `more` are further ones, such as its judge."""
        fitted = {name: float(f"{metric.value:.4g}") for name, metric in self.options.items()}
        values = {"values": {name: float(f"{m.value:.4g}") for name, m in self.values.items()}} if self.values else {}
        # How different the raters' values are is not fitted; it is part of their noise here.
        alike = {"values_spread": 0.0, "drift": 0.0}
        return {"use": "simulated_panel", "raters": self.raters, **fitted, **values, **alike, **more}


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
    model = _Model(data)
    spreads = {name: Metric(value=0.0) for name in OWN}
    if model.raters_known:
        theta, own = model.maximise(np.ones((len(OWN), 1)))
        spreads = {name: spread_of(*model.single_raters(theta, own, number)) for number, name in enumerate(OWN)}
    prior = np.array([[max(spread.value, 1e-3)] for spread in spreads.values()])
    theta, own = model.maximise(prior)
    draws = model.draws(theta, own, prior, seed)
    options, values = model.in_units_of_the_judge(theta, draws)
    if data.criteria and not np.isfinite(options["temperature"].high or np.inf):
        raise DataError(
            "people's answers do not follow the judge: the noise that explains them may be boundless.",
            remedy="Choose a judge that is closer to what they prefer, or let more of them answer.",
        )
    asked = n + data.skips
    low, high = wilson(data.skips / asked, asked)
    options["skip"] = Metric(value=data.skips / asked, low=low, high=high, n=asked)
    options |= spreads
    likelihood = model.log_likelihood(theta, own)
    return FittedPanel(len(data.raters), options, values, n, likelihood)


def spread_of(estimates: NDArray[Any], variances: NDArray[Any]) -> Metric:
    """How different R raters are: the standard deviation s of x_r ~ Normal(m, s^2 + v_r), by maximum likelihood with
    its profile interval (Hardy and Thompson 1996), from their estimates x_r and the variances v_r of these.
    """
    if not len(estimates):
        return Metric(value=0.0, n=0)
    grid = np.linspace(0.0, 3.0, 601)
    weights = 1.0 / (grid[:, None] ** 2 + variances)
    means = (weights * estimates).sum(1) / weights.sum(1)
    likelihood = 0.5 * (np.log(weights) - weights * (estimates - means[:, None]) ** 2).sum(1)
    inside = grid[likelihood >= likelihood.max() - 1.92]
    best = float(grid[likelihood.argmax()])
    return Metric(value=best, low=float(inside.min()), high=float(inside.max()), n=len(estimates))


def hat_weights(nodes: Any, mean: Any, deviation: Any) -> Any:
    """[Q, K] weights w with sum_k w_qk f(x_k) = E f(X) for X ~ Normal(mean_q, deviation) and any f that is linear
    between the K increasing nodes x_k and constant beyond them.

    A second difference of E max(X - x, 0) = deviation * (phi(z) + z Phi(z)), z = (mean - x) / deviation. Unlike those
    of Gauss and Hermite, the nodes stay where f varies (about 0), however wide the distribution.
    """
    import torch

    z = (mean[:, None] - nodes) / deviation
    above = deviation * (torch.exp(-0.5 * z**2) / (2 * torch.pi) ** 0.5 + z * torch.special.ndtr(z))
    slopes = (above[:, 1:] - above[:, :-1]) / (nodes[1:] - nodes[:-1])
    ends = torch.ones(len(mean), 1, dtype=above.dtype)
    return torch.cat([slopes, 0 * ends], 1) - torch.cat([-ends, slopes], 1)


def _nodes() -> NDArray[np.float64]:
    """Where the content of a pair is looked at, in units of the noise: closely about 0, up to where all is certain."""
    close = np.arange(0, 5.01, 0.4)
    far = close[-1] * 1.4 ** np.arange(1, 15)
    positive = np.concatenate([close, far])
    return np.concatenate([-positive[:0:-1], positive])


class _Model:
    """The likelihood in units of the noise. theta = slopes [C], then position, length, log tie, logit flip, log taste,
    logit alike, as far as they are estimated; own = logs of each rater's factors [2, R], in the order of `OWN`.
    """

    def __init__(self, data: Comparisons) -> None:
        import torch

        self.data, self.torch = data, torch
        columns = len(data.criteria)
        varying = data.judged.std(0)
        self.weights = varying / max(float(varying.sum()), 1e-12)
        self.names = [f"slope:{name}" for name in data.criteria] + ["position"]
        self.start = [1.0 / max(float(data.judged[:, c].std()), 1e-6) / columns for c in range(columns)] + [0.0]
        given = np.bincount(data.rater, minlength=len(data.raters))
        several = bool(np.bincount(data.question).max() > 1)
        for name, start, is_there in (
            ("length", 0.0, bool(data.longer.any())),
            ("tie", np.log(0.3), bool((data.outcome == 0).any())),
            ("flip", -3.0, True),
            ("taste", np.log(0.5), several),
            ("alike", -1.5, several),
        ):
            if is_there:
                self.names.append(name)
                self.start.append(start)
        self.enough = given >= FEWEST_OF_A_RATER
        self.raters_known = int(self.enough.sum()) >= 3
        self.nodes = torch.tensor(_nodes())
        self.little = torch.tensor(1e-3, dtype=self.nodes.dtype)
        self.question, self.rater = torch.tensor(data.question), torch.tensor(data.rater)
        self.sign, self.outcome = torch.tensor(data.sign), torch.tensor(data.outcome)
        self.judged, self.longer = torch.tensor(data.judged), torch.tensor(data.longer) / CHARACTERS

    def answers_likelihood(self, theta: Any, own: Any) -> Any:
        """Log-likelihood of all answers, a scalar; `own` is [2, N], the rater's own factors behind each answer."""
        torch = self.torch
        at = dict(zip(self.names, theta, strict=True))
        known = self.judged @ theta[: self.judged.shape[1]] if self.judged.shape[1] else 0.0 * self.longer
        known = known + at.get("length", 0.0) * self.longer
        noise, readiness = torch.exp(own)[:, :, None]
        u = (self.sign[:, None] * self.nodes + at["position"]) / noise
        tie = torch.exp(at["tie"]) * readiness / noise if "tie" in at else 0.0 * noise
        first, second = torch.sigmoid(u - tie), torch.sigmoid(-u - tie)
        slip = 0.5 * torch.sigmoid(at["flip"])
        one, other = first + slip * (second - first), second + slip * (first - second)
        said = self.outcome[:, None]
        p = torch.where(said == 0, 1 - first - second, torch.where(said == 1, one, other))
        of_question = torch.zeros(len(known), len(self.nodes), dtype=p.dtype)
        of_question = of_question.index_add(0, self.question, torch.log(p.clamp(min=1e-12)))
        weights = hat_weights(self.nodes, known, 2**0.5 * torch.exp(at["taste"]) if "taste" in at else self.little)
        if "alike" in at:
            alike = torch.sigmoid(at["alike"])
            weights = (1 - alike) * weights + alike * (self.nodes == 0)
        return torch.logsumexp(of_question + torch.log(weights.clamp(min=1e-30)), 1).sum()

    def loss(self, theta: Any, own: Any, prior: Any) -> Any:
        """What is minimised: minus the log-likelihood, with Normal(0, prior) raters and hardly any other prior."""
        # Parameters at their end (no slips, no common taste) run to minus infinity: the faint pull holds them.
        faint = 0.5 * (theta**2).sum() / 100
        return -self.answers_likelihood(theta, own[:, self.rater]) + 0.5 * ((own / prior) ** 2).sum() + faint

    def maximise(self, prior: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """The best theta and own factors of raters whose logs are Normal(0, prior); `prior` is [2, 1]."""
        from scipy.optimize import minimize

        torch, parameters = self.torch, len(self.names)
        spread = torch.tensor(prior)

        def value_and_slope(x: NDArray[Any]) -> tuple[float, NDArray[Any]]:
            both = torch.tensor(x, requires_grad=True)
            loss = self.loss(both[:parameters], both[parameters:].reshape(len(OWN), -1), spread)
            loss.backward()
            return float(loss.detach()), both.grad.numpy()

        x = np.concatenate([self.start, np.zeros(len(OWN) * len(self.data.raters))])
        found = minimize(value_and_slope, x, jac=True, method="L-BFGS-B", options={"maxiter": 300, "ftol": 1e-10})
        return found.x[:parameters], found.x[parameters:].reshape(len(OWN), -1)

    def information(self, theta: NDArray[Any], own: NDArray[Any]) -> NDArray[Any]:
        """[2, R], what the answers say of each rater's own factors: the sum of squared scores (Berndt, Hall, Hall and
        Hausman 1974).
        """
        each = self.torch.tensor(own[:, self.data.rater]).requires_grad_(True)
        (scores,) = self.torch.autograd.grad(self.answers_likelihood(self.torch.tensor(theta), each), each)
        return np.stack([np.bincount(self.data.rater, g**2, minlength=own.shape[1]) for g in scores.numpy()])

    def single_raters(self, theta: NDArray[Any], own: NDArray[Any], number: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Estimate and variance of factor `number` of each rater with enough answers, without the prior of 1."""
        information = self.information(theta, own)[number]
        enough = self.enough & (information > 1e-6)
        information, mode = information[enough], own[number][enough]
        return mode * (information + 1) / information, 1 / information

    def draws(self, theta: NDArray[Any], own: NDArray[Any], prior: NDArray[Any], seed: int) -> NDArray[Any]:
        """[DRAWS, len(theta)] from the normal approximation of the likelihood around its maximum, in which the raters'
        own factors vary too.
        """
        torch = self.torch
        at = torch.tensor(theta, requires_grad=True)
        factors = torch.tensor(own, requires_grad=True)
        slopes = torch.autograd.grad(self.loss(at, factors, torch.tensor(prior)), at, create_graph=True)[0]
        rows = [torch.autograd.grad(slope, (at, factors), retain_graph=True) for slope in slopes]
        hessian = np.stack([row[0].numpy() for row in rows])
        mixed = np.stack([row[1].numpy().ravel() for row in rows])
        raters = (self.information(theta, own) + prior**-2.0).ravel()
        covariance = np.linalg.pinv(hessian - (mixed / raters) @ mixed.T, hermitian=True)
        # A likelihood that is flat to rounding may have curvatures just below zero.
        values, vectors = np.linalg.eigh(covariance)
        noise = np.random.default_rng(seed).standard_normal((DRAWS, len(theta)))
        return np.asarray(theta + noise @ (vectors * np.sqrt(values.clip(min=0))).T)

    def in_units_of_the_judge(
        self, theta: NDArray[Any], draws: NDArray[Any]
    ) -> tuple[dict[str, Metric], dict[str, Metric]]:
        """The options of the panel and its factors on criteria, with the intervals that the draws give."""
        slopes = len(self.data.criteria)

        def metric(of: Any) -> Metric:
            # Where the slope may be none, the noise may be anything.
            with np.errstate(divide="ignore", invalid="ignore"):
                low, high = np.quantile(np.nan_to_num(of(draws.T), nan=np.inf, posinf=np.inf), [0.025, 0.975])
                value = float(of(theta[:, None])[0])
            finite = np.isfinite([low, high])
            return Metric(
                value=value, low=float(low) if finite[0] else None, high=float(high) if finite[1] else None,
                n=len(self.data.outcome),
            )  # fmt: skip

        def noise(x: NDArray[Any]) -> NDArray[Any]:
            if not slopes:
                return np.ones(x.shape[1])
            slope = self.weights @ x[:slopes]
            return np.asarray(np.where(slope > 0, 1 / slope, np.inf))

        place = {name: number for number, name in enumerate(self.names)}
        options = {"temperature": metric(noise)}
        shapes = {
            "position": ("position_bias", lambda x: x),
            "length": ("length_bias", lambda x: x / CHARACTERS),
            "tie": ("tie_below", np.exp),
            "taste": ("taste", np.exp),
        }
        for name, (option, shape) in shapes.items():
            if name in place:
                options[option] = metric(lambda x, s=shape, i=place[name]: s(x[i]) * noise(x))
            else:
                options[option] = Metric(value=0.0)
        options["flip"] = metric(lambda x: 0.5 / (1 + np.exp(-x[place["flip"]])))
        if "alike" in place:
            options["alike"] = metric(lambda x: 1 / (1 + np.exp(-x[place["alike"]])))
        values = {}
        if slopes > 1:
            for c, name in enumerate(self.data.criteria):
                values[name] = metric(lambda x, c=c: x[c] * noise(x))
        return options, values

    def log_likelihood(self, theta: NDArray[Any], own: NDArray[Any]) -> float:
        """Of the data at the maximum."""
        torch = self.torch
        with torch.no_grad():
            return float(self.answers_likelihood(torch.tensor(theta), torch.tensor(own)[:, self.rater]))


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
