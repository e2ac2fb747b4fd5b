"""Overlap with reference answers (Lin 2004), for text where known good answers exist."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from rlhf_core.errors import DataError
from rlhf_core.metrics import bootstrap
from rlhf_core.plugins import TEXT, EvaluateJob, Evaluation, Evaluator, PluginConfig
from rlhf_core.records import Modality
from rlhf_plugins.evaluators._words import Words

Variant = Literal["rouge1", "rouge2", "rougeL"]


class Rouge(Evaluator):
    """ROUGE F1 of the challenger's answers against `Prompt.references`; of several references the closest counts."""

    modality: ClassVar[frozenset[Modality]] = TEXT

    class Config(PluginConfig):
        """Which overlaps to count."""

        variants: tuple[Variant, ...] = Field(("rouge1", "rouge2", "rougeL"), min_length=1)
        """Words, pairs of words, longest common subsequence."""
        stem: bool = False
        """Count `walks` and `walking` as the same word (English only)."""

    @classmethod
    def produces(cls, config: Any) -> frozenset[str]:
        """One metric a variant."""
        return frozenset(config.variants)

    def evaluate(self, job: EvaluateJob) -> Evaluation:
        """Mean over the prompts that have references, with intervals over them. Raises DataError where none has."""
        from rouge_score.rouge_scorer import RougeScorer

        scorer = RougeScorer(list(self.config.variants), tokenizer=Words(stem=self.config.stem))
        per_prompt: dict[str, list[float]] = {variant: [] for variant in self.config.variants}
        for prompt, samples in zip(job.prompts, job.samples["challenger"], strict=True):
            if not prompt.references or not samples:
                continue
            scores = [scorer.score_multi(prompt.references, sample.text or "") for sample in samples]
            for variant, values in per_prompt.items():
                values.append(sum(score[variant].fmeasure for score in scores) / len(scores))
        if not any(per_prompt.values()):
            raise DataError(
                "rouge compares with reference answers, and none of the held-out prompts has one",
                remedy="Map a column to `references` in the data source, or drop rouge from `evaluate`.",
            )
        return Evaluation(metrics={variant: bootstrap(values) for variant, values in per_prompt.items()})
