"""Evaluator `tournament`: every round's policy against every other, by one judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, ClassVar, Literal

from pydantic import JsonValue

from rlhf_core.errors import RlhfError
from rlhf_core.metrics import Metric
from rlhf_core.plugins import EvaluateJob, Evaluation, Evaluator, PluginConfig
from rlhf_core.records import Sample
from rlhf_plugins.evaluators._judging import judge_samples
from rlhf_plugins.evaluators.win_rate import win_rates

RESAMPLES = 300


class Tournament(Evaluator):
    """Elo ratings over all rounds' policies, and the win rate that length does not explain.

    A champion can be beaten by a policy that an older one beats; ratings over all rounds show it. `elo` is the
    challenger's, from a Bradley-Terry model of all pairs, where the warm start has 1000 and 400 points are odds of ten
    to one. `win_rate_length_controlled` is the win rate against the champion with the influence of length taken out
    (Dubois et al. 2024); it is left out in the first round. Intervals are over prompts.
    """

    looks_back: ClassVar[bool] = True

    class Config(PluginConfig):
        """Who judges."""

        judge: Literal["gold", "reward"] = "gold"
        """`gold`: the held-back judge that the pipeline names. `reward`: the reward model of this round."""

    @classmethod
    def produces(cls, config: Any) -> frozenset[str]:
        """Both."""
        return frozenset({"elo", "win_rate_length_controlled"})

    @classmethod
    def needs_reward(cls, config: Any) -> bool:
        """Where it is the judge."""
        return bool(config.judge == "reward")

    def evaluate(self, job: EvaluateJob) -> Evaluation:
        """Judge all samples with one judge. Raises RlhfError where there is none."""
        import numpy as np

        from rlhf_plugins.evaluators._strength import ELO, bradley_terry, length_controlled

        judge = job.gold if self.config.judge == "gold" else job.reward
        if judge is None:
            raise RlhfError(
                f"nobody to judge: there is no {self.config.judge} model",
                remedy="Name one in the pipeline (`gold: {use: ...}`), or judge with the other one (`judge:`).",
            )
        players = _players(job)
        judged = {name: judge_samples(judge, job.prompts, samples) for name, samples in players.items()}
        names = list(players)
        # [prompts, K, K]: how often the row's samples beat the column's.
        won = np.full((len(job.prompts), len(names), len(names)), 0.5)
        for i, j in combinations(range(len(names)), 2):
            won[:, i, j] = win_rates(judged[names[i]], judged[names[j]])
            won[:, j, i] = 1 - won[:, i, j]
        rng = np.random.default_rng(self.run.seed)
        picks = rng.integers(0, len(won), (RESAMPLES, len(won)))
        last = len(names) - 1

        def elo(table: Any) -> Any:
            strengths = bradley_terry(table.sum(0))
            return 1000 + ELO * (strengths - strengths[0])

        found = elo(won)
        drawn = np.array([elo(won[pick]) for pick in picks])
        metrics = {"elo": _metric(found[last], drawn[:, last], len(won))}
        table: list[dict[str, JsonValue]] = [
            {"policy": name, "elo": float(found[i]), "low": float(np.quantile(drawn[:, i], 0.025)),
             "high": float(np.quantile(drawn[:, i], 0.975)), "against_challenger": float(won[:, i, last].mean())}
            for i, name in enumerate(names)
        ]  # fmt: skip
        if "champion" in job.samples:
            against = np.array(win_rates(judged["challenger"], _judged_champion(job, judge, judged)))
            longer = np.array(_lengths(job.samples["challenger"])) - np.array(_lengths(job.samples["champion"]))
            value = length_controlled(against, longer)
            resampled = [length_controlled(against[pick], longer[pick]) for pick in picks]
            metrics["win_rate_length_controlled"] = _metric(value, resampled, len(won))
        return Evaluation(metrics, {"elo": table})


def _players(job: EvaluateJob) -> dict[str, Sequence[Sequence[Sample]]]:
    """Every policy once, the oldest first and the challenger last."""
    if job.past:
        past = {f"round {done.round}": done.samples for done in job.past}
    else:
        past = {name: job.samples[name] for name in ("warm_start", "champion") if name in job.samples}
    return {**past, "challenger": job.samples["challenger"]}


def _judged_champion(job: EvaluateJob, judge: Any, judged: Mapping[str, Any]) -> Any:
    if "champion" in judged:
        return judged["champion"]
    return judge_samples(judge, job.prompts, job.samples["champion"])


def _lengths(samples: Sequence[Sequence[Sample]]) -> list[float]:
    """Mean length of each prompt's samples, in characters or steps."""
    from rlhf_core.health import length

    return [sum(map(length, group)) / len(group) for group in samples]


def _metric(value: float, drawn: Any, n: int) -> Metric:
    import numpy as np

    low, high = np.quantile(drawn, [0.025, 0.975])
    return Metric(value=float(value), low=min(float(low), float(value)), high=max(float(high), float(value)), n=n)
