"""How often a judge prefers the challenger to the champion and to the warm start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, JsonValue

from rlhf_core.errors import RlhfError
from rlhf_core.metrics import Metric, bootstrap, mean_share
from rlhf_core.plugins import EvaluateJob, Evaluation, Evaluator, PluginConfig
from rlhf_core.records import Prompt, Sample
from rlhf_plugins.evaluators._judging import Judged, judge_samples


class WinRate(Evaluator):
    """Wins, scores and samples side by side, by a judge that training never saw.

    `win_rate_vs_...` compares sample with sample: how often somebody who sees one answer of each takes ours.
    `preferred_vs_...` compares prompt by prompt the mean scores of all samples: a policy that answers a little better
    most of the time, and much worse now and then, wins the first and loses the second.
    """

    class Config(PluginConfig):
        """Who judges, and how much of it the report shows."""

        judge: Literal["gold", "reward"] = "gold"
        """`gold`: the held-back judge that the pipeline names, which shows over-optimisation. `reward`: the reward
        model that the policy was optimised on, for want of a better one; it is easily pleased by what exploits it."""
        shown: int = Field(12, ge=0)
        """Prompts whose samples stand in the report, evenly from the greatest loss to the greatest gain."""

    @classmethod
    def produces(cls, config: Any) -> frozenset[str]:
        """All that a round with a champion, a warm start and a reward model has.

        Where one of them is missing (before the first round there is no reward model, and the warm start is itself
        evaluated as the challenger; some pipelines have none), what compares with it is left out.
        """
        names = {f"{what}_vs_{whom}" for what in ("win_rate", "preferred") for whom in ("champion", "warm_start")}
        names.add("proxy_score")
        if config.judge == "gold":
            names |= {"gold_score", "gold_score_warm_start", "reward_gold_agreement"}
        return frozenset(names)

    @classmethod
    def needs_reward(cls, config: Any) -> bool:
        """Where it is the judge."""
        return bool(config.judge == "reward")

    @classmethod
    def of_reward(cls, config: Any) -> frozenset[str]:
        """Without a reward model the gold judge's opinion is left."""
        if cls.needs_reward(config):
            return cls.produces(config)
        return frozenset({"proxy_score", "reward_gold_agreement"})

    def evaluate(self, job: EvaluateJob) -> Evaluation:
        """Metrics over the held-out prompts with 95 % intervals, and the table `samples`."""
        judge = job.gold if self.config.judge == "gold" else job.reward
        if judge is None:
            raise RlhfError(
                f"nobody to judge: there is no {_WORDS[self.config.judge]}", remedy=_REMEDY[self.config.judge]
            )
        judged = {name: judge_samples(judge, job.prompts, samples) for name, samples in job.samples.items()}
        metrics = self._preferences(judged)
        if self.config.judge == "gold":
            metrics |= {
                key: bootstrap(_means(judged[name]), seed=self.run.seed)
                for key, name in (("gold_score", "challenger"), ("gold_score_warm_start", "warm_start"))
                if name in judged
            }
        if job.reward is not None:
            metrics |= self._proxy(job, judged)
        return Evaluation(metrics, {"samples": side_by_side(job.prompts, job.samples, judged, self.config.shown)})

    def _preferences(self, judged: Mapping[str, Judged]) -> dict[str, Metric]:
        metrics = {}
        ours = judged["challenger"]
        for other in ("champion", "warm_start"):
            if other in judged:
                theirs = judged[other]
                means = zip(_means(ours), _means(theirs), strict=True)
                metrics[f"win_rate_vs_{other}"] = _share(win_rates(ours, theirs), self.run.seed)
                metrics[f"preferred_vs_{other}"] = mean_share([_beats(a, b) for a, b in means])
        return metrics

    def _proxy(self, job: EvaluateJob, judged: Mapping[str, Judged]) -> dict[str, Metric]:
        """What the reward model thinks, and how often it agrees with the judge where that is another one."""
        assert job.reward is not None
        if self.config.judge == "reward":
            return {"proxy_score": bootstrap(_means(judged["challenger"]), seed=self.run.seed)}
        seen = [name for name in ("challenger", "warm_start") if name in judged]
        proxy = {name: judge_samples(job.reward, job.prompts, job.samples[name]) for name in seen}
        found = {"proxy_score": bootstrap(_means(proxy["challenger"]), seed=self.run.seed)}
        agreements = [
            agreement([s for name in seen for s in proxy[name][i]], [s for name in seen for s in judged[name][i]])
            for i in range(len(job.prompts))
        ]
        if known := [share for share in agreements if share is not None]:
            found["reward_gold_agreement"] = _share(known, self.run.seed)
        return found


_WORDS = {"gold": "gold judge", "reward": "reward model"}
_REMEDY = {
    "gold": "Name one in the pipeline (`gold: {use: ...}`), or judge with the reward model (`judge: reward`).",
    "reward": "Before the first round there is none. Name a gold judge in the pipeline and set `judge: gold`.",
}


def win_rates(ours: Judged, theirs: Judged) -> list[float]:
    """Share of (our sample, their sample) pairs that ours wins, for each prompt; a tie is half a win."""
    return [
        sum(_beats(a, b) for a in mine for b in other) / (len(mine) * len(other))
        for mine, other in zip(ours, theirs, strict=True)
    ]


def agreement(proxy: Sequence[float], gold: Sequence[float]) -> float | None:
    """Share of the sample pairs of one prompt that both order alike; what gold ties is left out, None if that is all.

    A pair that only the proxy ties is half agreed on.
    """
    shares = [
        _beats(proxy[i], proxy[j]) if gold[i] > gold[j] else _beats(proxy[j], proxy[i])
        for i in range(len(gold))
        for j in range(i)
        if gold[i] != gold[j]
    ]
    return sum(shares) / len(shares) if shares else None


def side_by_side(
    prompts: Sequence[Prompt],
    samples: Mapping[str, Sequence[Sequence[Sample]]],
    judged: Mapping[str, Judged],
    rows: int,
) -> list[dict[str, JsonValue]]:
    """The first sample of every policy to `rows` prompts with its score, evenly from greatest loss to greatest gain."""
    columns = {"warm_start": "before", "champion": "champion", "challenger": "after"}
    base = judged.get("warm_start", judged["challenger"])
    gains = [after - before for after, before in zip(_means(judged["challenger"]), _means(base), strict=True)]
    order = sorted(range(len(prompts)), key=lambda i: gains[i])
    rows = min(rows, len(order))
    table: list[dict[str, JsonValue]] = []
    for row in range(rows):
        i = order[row * (len(order) - 1) // max(rows - 1, 1)]
        entry: dict[str, JsonValue] = {"prompt": prompts[i].content}
        for name, column in columns.items():
            if name in samples:
                entry[column] = _shown(samples[name][i][0])
                entry[f"{column}_score"] = judged[name][i][0]
        table.append(entry)
    return table


def _share(values: Sequence[float], seed: int) -> Metric:
    """Mean of shares with an interval. The bootstrap of all-equal 0s or 1s would claim certainty; Wilson doesn't."""
    return mean_share(values) if set(values) in ({0.0}, {1.0}) else bootstrap(values, seed=seed)


def _means(judged: Judged) -> list[float]:
    return [sum(row) / len(row) for row in judged]


def _beats(a: float, b: float) -> float:
    return 1.0 if a > b else 0.5 if a == b else 0.0


def _shown(sample: Sample) -> str:
    if sample.text is not None:
        return sample.text
    assert sample.trajectory is not None
    return f"{len(sample.trajectory.actions)} steps"
