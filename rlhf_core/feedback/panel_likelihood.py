"""The likelihood of people's comparisons under the model of a panel that stands in `panel_fit`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlhf_core.metrics import Metric

FEWEST_OF_A_RATER = 20
"""Comparisons of a rater that say something about how noisy she is."""
DRAWS = 4000
OWN = ("temperature_spread", "tie_spread", "position_spread")
"""What raters have of their own: the log of a factor on their noise, that on their threshold for ties, and what they
lean towards the sample shown first beyond the others, in units of the noise."""
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


class PanelLikelihood:
    """The likelihood in units of the noise. theta = slopes [C], then position, length, log tie, logit flip, log taste,
    logit alike, log alike noise, as far as they are estimated; own = what each rater has of her own [3, R], in the
    order of `OWN`.
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
            ("alike_noise", 0.0, several and bool((data.outcome == 0).any())),
        ):
            if is_there:
                self.names.append(name)
                self.start.append(start)
        self.given = given
        self.enough = given >= FEWEST_OF_A_RATER
        self.raters_known = int(self.enough.sum()) >= 3
        self.nodes = torch.tensor(_nodes())
        self.little = torch.tensor(1e-3, dtype=self.nodes.dtype)
        self.question, self.rater = torch.tensor(data.question), torch.tensor(data.rater)
        self.sign, self.outcome = torch.tensor(data.sign), torch.tensor(data.outcome)
        self.judged, self.longer = torch.tensor(data.judged), torch.tensor(data.longer) / CHARACTERS

    def answers_likelihood(self, theta: Any, own: Any) -> Any:
        """Log-likelihood of all answers, a scalar; `own` is [3, N], what the rater of each answer has of her own."""
        torch = self.torch
        at = dict(zip(self.names, theta, strict=True))
        known = self.judged @ theta[: self.judged.shape[1]] if self.judged.shape[1] else 0.0 * self.longer
        known = known + at.get("length", 0.0) * self.longer
        content = self.sign[:, None] * self.nodes
        of_question = self._of_questions(self._answers(at, own, content, 1.0), len(known))
        weights = hat_weights(self.nodes, known, 2**0.5 * torch.exp(at["taste"]) if "taste" in at else self.little)
        likelihood = torch.logsumexp(of_question + torch.log(weights.clamp(min=1e-30)), 1)
        if "alike" in at:
            clear = torch.exp(at["alike_noise"]) if "alike_noise" in at else 1.0
            nothing = self._of_questions(self._answers(at, own, 0.0 * self.sign[:, None], clear), len(known))[:, 0]
            logsigmoid = torch.nn.functional.logsigmoid
            likelihood = torch.logaddexp(likelihood + logsigmoid(-at["alike"]), nothing + logsigmoid(at["alike"]))
        return likelihood.sum()

    def _answers(self, at: dict[str, Any], own: Any, content: Any, clear: Any) -> Any:
        """[N, K], log-probability of each answer, with K values of what the pair's first sample has before the second,
        and the noise times `clear`.
        """
        torch = self.torch
        noise, readiness = torch.exp(own[:2])[:, :, None]
        u = (content + at["position"] + own[2][:, None]) / (noise * clear)
        tie = torch.exp(at["tie"]) * readiness / (noise * clear) if "tie" in at else 0.0 * noise
        first, second = torch.sigmoid(u - tie), torch.sigmoid(-u - tie)
        slip = 0.5 * torch.sigmoid(at["flip"])
        one, other = first + slip * (second - first), second + slip * (first - second)
        said = self.outcome[:, None]
        p = torch.where(said == 0, 1 - first - second, torch.where(said == 1, one, other))
        return torch.log(p.clamp(min=1e-12))

    def _of_questions(self, answers: Any, questions: int) -> Any:
        """[Q, K], the sums over each question's answers."""
        return self.torch.zeros(questions, answers.shape[1], dtype=answers.dtype).index_add(0, self.question, answers)

    def loss(self, theta: Any, own: Any, prior: Any) -> Any:
        """What is minimised: minus the log-likelihood, with Normal(0, prior) raters and hardly any other prior."""
        # Parameters at their end (no slips, no common taste) run to minus infinity: the faint pull holds them.
        faint = 0.5 * (theta**2).sum() / 100
        return -self.answers_likelihood(theta, own[:, self.rater]) + 0.5 * ((own / prior) ** 2).sum() + faint

    def maximise(self, prior: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """The best theta, and what raters then have of their own who are Normal(0, prior) in it; `prior` is [3, 1]."""
        from scipy.optimize import minimize

        torch, parameters = self.torch, len(self.names)
        spread = torch.tensor(prior)

        def value_and_slope(x: NDArray[Any]) -> tuple[float, NDArray[Any]]:
            both = torch.tensor(x, requires_grad=True)
            loss = self.loss(both[:parameters], both[parameters:].reshape(len(OWN), -1), spread)
            (slope,) = self.torch.autograd.grad(loss, both)
            return float(loss.detach()), slope.numpy()

        x = np.concatenate([self.start, np.zeros(len(OWN) * len(self.data.raters))])
        found = minimize(value_and_slope, x, jac=True, method="L-BFGS-B", options={"maxiter": 300, "ftol": 1e-10})
        return found.x[:parameters], found.x[parameters:].reshape(len(OWN), -1)

    def information(self, theta: NDArray[Any], own: NDArray[Any]) -> NDArray[Any]:
        """[3, R], what the answers say of what each rater has of her own: the sum of squared scores (Berndt, Hall, Hall
        and Hausman 1974).
        """
        each = self.torch.tensor(own[:, self.data.rater]).requires_grad_(True)
        (scores,) = self.torch.autograd.grad(self.answers_likelihood(self.torch.tensor(theta), each), each)
        return np.stack([np.bincount(self.data.rater, g**2, minlength=own.shape[1]) for g in scores.numpy()])

    def single_raters(
        self, theta: NDArray[Any], own: NDArray[Any], number: int
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Estimate and variance of number `number` of `OWN` for each rater with enough answers, without the prior of
        Normal(0, 1), and how many answers she gave.
        """
        information = self.information(theta, own)[number]
        enough = self.enough & (information > 1e-6)
        information, mode = information[enough], own[number][enough]
        return mode * (information + 1) / information, 1 / information, self.given[enough]

    def draws(self, theta: NDArray[Any], own: NDArray[Any], prior: NDArray[Any], seed: int) -> NDArray[Any]:
        """[DRAWS, len(theta)] from the normal approximation of the likelihood around its maximum, in which what the
        raters have of their own varies too.
        """
        torch = self.torch
        at = torch.tensor(theta, requires_grad=True)
        factors = torch.tensor(own, requires_grad=True)
        slopes = torch.autograd.grad(self.loss(at, factors, torch.tensor(prior)), at, create_graph=True)[0]
        rows = [torch.autograd.grad(slope, (at, factors), retain_graph=True) for slope in slopes]
        hessian = np.stack([row[0].numpy() for row in rows])
        mixed = np.stack([row[1].numpy().ravel() for row in rows])
        informed = (self.information(theta, own) + prior**-2.0).ravel()
        covariance = np.linalg.pinv(hessian - (mixed / informed) @ mixed.T, hermitian=True)
        # A likelihood that is flat to rounding may have curvatures just below zero.
        values, vectors = np.linalg.eigh(covariance)
        noise = np.random.default_rng(seed).standard_normal((DRAWS, len(theta)))
        return np.asarray(theta + noise @ (vectors * np.sqrt(values.clip(min=0))).T)

    def in_units_of_the_judge(
        self, theta: NDArray[Any], draws: NDArray[Any], own: NDArray[Any], spreads: Mapping[str, Metric]
    ) -> tuple[dict[str, Metric], dict[str, Metric], list[dict[str, float]]]:
        """The options of the panel and its factors on criteria, with the intervals that the draws give, and what each
        rater has of her own, those who answered most first.

        The panel's median rater is the mean of the raters, each as often as she answered.
        """
        louder, readier, leaning = centre = np.average(own, axis=1, weights=self.given)
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
        options = {"temperature": metric(lambda x: np.exp(louder) * noise(x))}
        shapes = {
            "position": ("position_bias", lambda x: x + leaning),
            "length": ("length_bias", lambda x: x / CHARACTERS),
            "tie": ("tie_below", lambda x: np.exp(x + readier)),
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
        if "alike_noise" in place:
            options["alike_noise"] = metric(lambda x: np.exp(x[place["alike_noise"]]))
        lean, unit = spreads["position_spread"], float(noise(theta[:, None])[0])
        low, high = (None if end is None else end * unit for end in (lean.low, lean.high))
        options |= {**spreads, "position_spread": Metric(value=lean.value * unit, low=low, high=high, n=lean.n)}
        values = {}
        if slopes > 1:
            for c, name in enumerate(self.data.criteria):
                values[name] = metric(lambda x, c=c: x[c] * noise(x))
        often = np.argsort(-self.given, kind="stable")
        team = [
            {"noise": float(np.exp(a)), "ties": float(np.exp(b)), "lean": float(c) * unit, "share": float(share)}
            for (a, b, c), share in zip((own - centre[:, None]).T[often], self.given[often], strict=True)
        ]
        return options, values, team if self.raters_known else []

    def log_likelihood(self, theta: NDArray[Any], own: NDArray[Any]) -> float:
        """Of the data at the maximum."""
        torch = self.torch
        with torch.no_grad():
            return float(self.answers_likelihood(torch.tensor(theta), torch.tensor(own)[:, self.rater]))
