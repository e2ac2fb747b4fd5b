"""Evaluator `human_scores`: what people said about the policies' samples, from a file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from pydantic import JsonValue

from rlhf_core.errors import DataError
from rlhf_core.metrics import Metric, bootstrap
from rlhf_core.plugins import TEXT, EvaluateJob, Evaluation, Evaluator
from rlhf_core.records import Modality
from rlhf_plugins.evaluators._material import MaterialConfig, need, reads, rows_of


class HumanScore(NamedTuple):
    """One person's score of one text."""

    prompt: str
    text: str
    annotator: str
    score: float
    policy: str


class HumanScores(Evaluator):
    """Mean human score of a policy's samples, each sample's raters averaged first; intervals are over prompts.

    `human_score`: of the challenger's samples that were rated. `human_score_warm_start`: the same of the warm start's,
    where they were rated too. `human_scored`: share of the challenger's samples that were rated. Raise it by rating the
    samples that the round's report shows.
    """

    modality: ClassVar[frozenset[Modality]] = TEXT

    class Config(MaterialConfig):
        """Which file, and its columns."""

        data: str
        """A table with a row for each rating."""
        prompt: str = "prompt"
        """The column of prompts, as the report shows them."""
        text: str = "text"
        """The column of rated texts."""
        score: str = "score"
        """The column of scores."""
        annotator: str = "annotator"
        """The column of names; it may be missing."""
        policy: str = "policy"
        """The column that names a text's policy, for `rlhf evaluate`; it may be missing."""

    @classmethod
    def produces(cls, config: Any) -> frozenset[str]:
        """What every round with rated samples has."""
        return frozenset({"human_score", "human_scored"})

    @classmethod
    def reads(cls, config: Any) -> tuple[Path, ...]:
        """The file."""
        return reads(config)

    def evaluate(self, job: EvaluateJob) -> Evaluation:
        """Raises DataError where none of the challenger's samples was rated."""
        given: dict[tuple[str, str], list[float]] = defaultdict(list)
        for one in self._scores():
            given[one.prompt, one.text].append(one.score)
        metrics: dict[str, Metric] = {}
        for name, key in (("challenger", "human_score"), ("warm_start", "human_score_warm_start")):
            means, rated, total = [], 0, 0
            for prompt, samples in zip(job.prompts, job.samples.get(name, [()] * len(job.prompts)), strict=True):
                found = [
                    given[prompt.content, s.text or ""] for s in samples if (prompt.content, s.text or "") in given
                ]
                rated, total = rated + len(found), total + len(samples)
                if found:
                    means.append(sum(sum(scores) / len(scores) for scores in found) / len(found))
            if means:
                metrics[key] = bootstrap(means, seed=self.run.seed)
            if name == "challenger":
                metrics["human_scored"] = Metric(value=rated / total if total else 0.0, n=total)
        if "human_score" not in metrics:
            raise DataError(
                "none of the challenger's samples was rated",
                where=self.config.data,
                remedy="Texts and prompts must be exactly as in the round's samples.",
            )
        return Evaluation(metrics)

    def score_predictions(self, predictions: Path) -> Evaluation:
        """Mean scores of each policy in a table of ratings; nothing of `data` is read."""
        found = self._scores(self.config.model_copy(update={"data": str(predictions)}))
        table: list[dict[str, JsonValue]] = []
        metrics = {"human_score": _mean(found, self.run.seed)}
        for policy in sorted({one.policy for one in found}):
            metric = _mean([one for one in found if one.policy == policy], self.run.seed)
            metrics |= {f"human_score_{policy}": metric} if policy else {}
            table.append({"policy": policy, "score": metric.value, "low": metric.low, "high": metric.high})
        return Evaluation(metrics, {"human_scores": table})

    def _scores(self, config: Any = None) -> list[HumanScore]:
        config = config or self.config
        found = []
        for number, row in enumerate(rows_of(config), start=1):
            try:
                score = float(need(row, config.score, config.data))
            except (TypeError, ValueError) as error:
                raise DataError(f"row {number}: the score is no number: {error}", where=config.data) from error
            prompt, text = (str(need(row, name, config.data)) for name in (config.prompt, config.text))
            found.append(HumanScore(prompt, text, str(row.get(config.annotator, "")), score,
                                    str(row.get(config.policy, ""))))  # fmt: skip
        return found


def _mean(scores: Sequence[HumanScore], seed: int) -> Metric:
    """Over prompts, of texts, of raters."""
    by_text: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for one in scores:
        by_text[one.prompt][one.text].append(one.score)
    means = [[sum(s) / len(s) for s in texts.values()] for texts in by_text.values()]
    return bootstrap([sum(row) / len(row) for row in means], seed=seed)
