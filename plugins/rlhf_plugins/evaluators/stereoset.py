"""Evaluator `stereoset`: whether a language model prefers stereotypes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, JsonValue

from rlhf_core.metrics import Metric
from rlhf_core.plugins import TEXT, EvaluateJob, Evaluation, Evaluator
from rlhf_core.records import Modality
from rlhf_plugins.evaluators._material import MaterialConfig, reads

if TYPE_CHECKING:
    from rlhf_plugins.evaluators._stereoset import Item

NAMES = ("stereoset_lms", "stereoset_ss", "stereoset_icat")
RESAMPLES = 1000


class StereoSet(Evaluator):
    """StereoSet (Nadeem et al. 2021): language-model score, stereotype score and ICAT, in per cent.

    A sentence's likelihood is the geometric mean of its tokens' probabilities, as the authors do for GPT-2. Within a
    sentence it is that of the whole sentence; between sentences that of the continuation behind its context, where the
    authors use a head for next sentences that policies do not have: compare it with other policies here, not with the
    paper. `rlhf evaluate stereoset` scores files of predictions exactly as the authors' program. Intervals are over
    targets.
    """

    modality: ClassVar[frozenset[Modality]] = TEXT

    class Config(MaterialConfig):
        """Which items."""

        data: str = "McGill-NLP/stereoset"
        """The authors' `dev.json`, or the data set on the hub."""
        batch_size: int = Field(64, ge=1)
        """Sentences scored side by side."""

    @classmethod
    def produces(cls, config: Any) -> frozenset[str]:
        """All items together; the tables tell tasks and domains apart."""
        return frozenset(NAMES)

    @classmethod
    def reads(cls, config: Any) -> tuple[Path, ...]:
        """The file."""
        return reads(config)

    def evaluate(self, job: EvaluateJob) -> Evaluation:
        """Score `job.policy`. Raises DataError where it is no language model or the items cannot be read."""
        from rlhf_plugins.evaluators._likelihood import answer_likelihoods, language_model, text_likelihoods

        lm, items = language_model(job.policy, "stereoset"), self._items()
        scores: dict[str, float] = {}
        for task in ("intrasentence", "intersentence"):
            rows = [(item, one) for item in items if item.task == task for one in item.sentences.values()]
            texts = [one.text for _, one in rows]
            if task == "intrasentence":
                found = text_likelihoods(lm, texts, self.config.batch_size)
            else:
                found = answer_likelihoods(lm, [item.context for item, _ in rows], texts, self.config.batch_size)
            scores |= {one.id: total / max(n, 1) for (_, one), (total, n) in zip(rows, found, strict=True)}
        return summary(items, scores)

    def score_predictions(self, predictions: Path) -> Evaluation:
        """The scores of a file of sentence scores in the authors' format, on the items of `data`."""
        from rlhf_plugins.evaluators._stereoset import read_predictions

        return summary(self._items(), read_predictions(predictions))

    def _items(self) -> list[Item]:
        from rlhf_plugins.evaluators._material import rows_of
        from rlhf_plugins.evaluators._stereoset import TASKS, item_of, read_items

        if Path(self.config.data).suffix == ".json":
            return read_items(Path(self.config.data))[: self.config.limit]
        names = (self.config.name,) if self.config.name else TASKS
        config = self.config
        return [
            item_of(row, task, config.data)
            for task in TASKS
            if task in names
            for row in rows_of(config.model_copy(update={"name": task}))
        ]


def summary(items: Sequence[Item], scores: Mapping[str, float]) -> Evaluation:
    """Metrics over all items, with intervals over targets; the table `stereoset` by task and domain."""
    import numpy as np

    from rlhf_plugins.evaluators._stereoset import TASKS, counts, scores_of

    table: list[dict[str, JsonValue]] = []
    tasks = [task for task in TASKS if any(item.task == task for item in items)]
    for task in [*tasks, "overall"]:
        of_task = [item for item in items if task in (item.task, "overall")]
        domains = sorted({item.domain for item in of_task})
        for domain in [*domains, "overall"]:
            chosen = [item for item in of_task if domain in (item.domain, "overall")]
            found = scores_of(list(counts(chosen, scores).values()))
            table.append({"task": task, "domain": domain, "items": len(chosen), **found._asdict()})
    by_target = np.array(list(counts(items, scores).values()))
    rng = np.random.default_rng(0)
    draws = [scores_of(by_target[rng.integers(0, len(by_target), len(by_target))]) for _ in range(RESAMPLES)]
    metrics = {}
    for name, value, drawn in zip(NAMES, scores_of(list(by_target)), zip(*draws, strict=True), strict=True):
        low, high = np.quantile(drawn, [0.025, 0.975])
        # ICAT is not linear: its value may lie beyond most of the resamples'.
        metrics[name] = Metric(value=value, low=min(float(low), value), high=max(float(high), value), n=len(by_target))
    return Evaluation(metrics, {"stereoset": table})
