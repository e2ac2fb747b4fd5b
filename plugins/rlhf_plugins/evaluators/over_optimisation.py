"""Evaluator `over_optimisation`: how far the policy may move before what people want goes down again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from pydantic import Field, JsonValue

from rlhf_core.errors import RlhfError
from rlhf_core.metrics import Metric, bootstrap
from rlhf_core.plugins import TEXT, EvaluateJob, Evaluation, Evaluator, LanguageModelPolicy, PluginConfig
from rlhf_core.records import Modality, Sample
from rlhf_plugins.evaluators._judging import judge_samples

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Law = Literal["rl", "best_of_n"]
FEWEST = 3
"""Policies besides the warm start that a curve of two parameters is fitted to."""


class OverOptimisation(Evaluator):
    """Proxy and gold score against the square root of the KL divergence from the warm start (Gao, Schulman and Hilton
    2023, "Scaling Laws for Reward Model Overoptimization").

    All rounds' samples are judged anew by this round's reward model and by the gold judge. `proxy_gold_gap` is the
    proxy's gain over the warm start less the gold judge's, each in standard deviations of its scores of the warm
    start's samples: near 0 while the reward model means what people mean, and rising where it is exploited.
    `sqrt_kl` is the distance travelled. From three rounds on, the paper's curves are fitted: `kl_at_peak` is the KL
    divergence in nats at which the gold score is highest, and `gold_lost` what it lies below that peak by now (0
    before the peak). Fitted to so few points they are a warning, not a measurement.
    """

    modality: ClassVar[frozenset[Modality]] = TEXT
    looks_back: ClassVar[bool] = True

    class Config(PluginConfig):
        """Which curve."""

        law: Law = "rl"
        """`rl`: R(d) = d (alpha - beta log d). `best_of_n`: R(d) = d (alpha - beta d). d is the square root of KL."""
        batch_size: int = Field(64, ge=1)
        """Answers scored side by side."""

    @classmethod
    def produces(cls, config: Any) -> frozenset[str]:
        """What every round with a reward model has; the fit comes with the third round."""
        return frozenset({"proxy_gold_gap", "sqrt_kl"})

    @classmethod
    def needs_reward(cls, config: Any) -> bool:
        """The reward model is what may be exploited."""
        return True

    def evaluate(self, job: EvaluateJob) -> Evaluation:
        """Raises RlhfError where the pipeline names no gold judge, DataError where the policy has no likelihoods."""
        if job.gold is None:
            raise RlhfError(
                "without a gold judge nobody knows whether the reward is exploited",
                remedy="Name one in the pipeline (`gold: {use: ...}`).",
            )
        kl = self._divergence(job)
        metrics = {"sqrt_kl": Metric(value=max(kl, 0.0) ** 0.5)}
        before = job.past[0].samples if job.past else job.samples.get("warm_start")
        if job.reward is None or before is None:
            return Evaluation(metrics)
        judges = {"proxy": job.reward, "gold": job.gold}
        start = {name: _standard(judge_samples(judge, job.prompts, before)) for name, judge in judges.items()}

        def gains(samples: Sequence[Sequence[Sample]]) -> dict[str, list[float]]:
            """Per prompt, over the warm start's mean, in its standard deviations."""
            judged = {name: judge_samples(judge, job.prompts, samples) for name, judge in judges.items()}
            return {
                name: [(sum(row) / len(row) - start[name][0]) / start[name][1] for row in rows]
                for name, rows in judged.items()
            }

        now = gains(job.samples["challenger"])
        metrics["proxy_gold_gap"] = bootstrap(
            [p - g for p, g in zip(now["proxy"], now["gold"], strict=True)], seed=self.run.seed
        )
        points = [
            Point(done.round, done.metrics["sqrt_kl"].value, *_means(gains(done.samples)))
            for done in job.past[1:]
            if "sqrt_kl" in done.metrics
        ]
        number = job.past[-1].round + 1 if job.past else 1
        points.append(Point(number, metrics["sqrt_kl"].value, *_means(now)))
        metrics |= self._fitted(points)
        table: list[dict[str, JsonValue]] = [dict(point._asdict()) for point in points]
        return Evaluation(metrics, {"over_optimisation": table})

    def _divergence(self, job: EvaluateJob) -> float:
        """KL of the challenger from the warm start in nats an answer, on its own samples (k1, as `generation`)."""
        from rlhf_plugins.evaluators._likelihood import language_model
        from rlhf_plugins.evaluators.generation import answer_scores

        models = [language_model(policy, "over_optimisation") for policy in (job.policy, job.reference)]
        pairs = [(p, s) for p, row in zip(job.prompts, job.samples["challenger"], strict=True) for s in row if s.tokens]
        if not pairs:
            raise RlhfError("the challenger's samples carry no tokens", remedy="Sample them from a language model.")
        assert isinstance(job.policy, LanguageModelPolicy)
        temperature = job.policy.temperature
        asked, samples = [p for p, _ in pairs], [s for _, s in pairs]
        ours, theirs = (answer_scores(lm, asked, samples, temperature, self.config.batch_size) for lm in models)
        return sum(a[0] - b[0] for a, b in zip(ours, theirs, strict=True)) / len(pairs)

    def _fitted(self, points: Sequence[Point]) -> dict[str, Metric]:
        import numpy as np

        moved = [point for point in points if point.sqrt_kl > 0]
        if len(moved) < FEWEST:
            return {}
        d, gold = np.array([point.sqrt_kl for point in moved]), np.array([point.gold for point in moved])
        alpha, beta = fit_law(d, gold, self.config.law)
        found = {"gold_alpha": Metric(value=alpha), "gold_beta": Metric(value=beta)}
        top = peak(alpha, beta, self.config.law)
        if top is None:
            return found
        now = float(d[-1])
        lost = law(np.array([top]), alpha, beta, self.config.law)[0] - law(d[-1:], alpha, beta, self.config.law)[0]
        return found | {
            "kl_at_peak": Metric(value=top**2),
            "gold_lost": Metric(value=float(lost) if now > top else 0.0),
        }


class Point(NamedTuple):
    """One round's policy."""

    round: int
    sqrt_kl: float
    proxy: float
    """Gain over the warm start, in standard deviations of the scores there."""
    gold: float


def law(d: Floats, alpha: float, beta: float, kind: Law) -> Floats:
    """The gold score at distances d > 0."""
    import numpy as np

    found: Floats = d * (alpha - beta * (np.log(d) if kind == "rl" else d))
    return found


def fit_law(d: Floats, gold: Floats, kind: Law) -> tuple[float, float]:
    """Least squares of `law` for N distances d > 0 and scores; it is linear in alpha and beta."""
    import numpy as np

    columns = np.stack([d, -d * (np.log(d) if kind == "rl" else d)], axis=1)
    alpha, beta = np.linalg.lstsq(columns, gold, rcond=None)[0]
    return float(alpha), float(beta)


def peak(alpha: float, beta: float, kind: Law) -> float | None:
    """The distance of the highest score; None where it rises for ever or falls from the start.

    Where the derivative is 0: log d = alpha / beta - 1 for `rl`, d = alpha / (2 beta) for `best_of_n`.
    """
    import math

    if beta <= 0 or (kind == "best_of_n" and alpha <= 0):
        return None
    exponent = alpha / beta - 1
    if kind == "rl" and exponent > 50:
        return None
    return math.exp(exponent) if kind == "rl" else alpha / (2 * beta)


def _standard(judged: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Mean and standard deviation of all scores; 1 where they are all equal."""
    import numpy as np

    values = np.array([value for row in judged for value in row])
    return float(values.mean()), float(values.std()) or 1.0


def _means(gains: dict[str, list[float]]) -> tuple[float, float]:
    proxy, gold = (sum(gains[name]) / len(gains[name]) for name in ("proxy", "gold"))
    return proxy, gold
