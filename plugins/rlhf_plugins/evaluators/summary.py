"""Evaluator `summary`: whether headlines and summaries are short, made of their source, and free of made-up figures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator

from rlhf_core.errors import DataError
from rlhf_core.metrics import Metric, bootstrap
from rlhf_core.plugins import TEXT, EvaluateJob, Evaluation, Evaluator, PluginConfig
from rlhf_core.records import Modality
from rlhf_plugins.evaluators._extraction import coverage, density, new_numbers, novelty
from rlhf_plugins.evaluators._material import MaterialConfig, need, rows_of
from rlhf_plugins.evaluators._words import Words

METRICS = (
    "summary_words", "summary_compression", "summary_coverage", "summary_density", "summary_novelty",
    "summary_supported_numbers", "summary_fits",
)  # fmt: skip


class Summary(Evaluator):
    """Measures the challenger's answers against the prompts that they sum up; needs neither judge nor references.

    `summary_words`: length. `summary_compression`: words of the source for one of the summary. `summary_coverage`,
    `summary_density` (Grusky et al. 2018): share of the words that lie in runs which the source has too, and how long
    the run of an average word is: low coverage says that the policy invents, high density that it copies.
    `summary_novelty` (See et al. 2017): share of the pairs of words that the source does not have.
    `summary_supported_numbers`: share of the answers that state no figure that the source does not have; figures that
    are written in words go unnoticed. `summary_fits`: share of the answers that are not empty and have at most
    `max_words`. Means over a prompt's samples; intervals are over prompts. An empty answer compresses like one word.
    """

    modality: ClassVar[frozenset[Modality]] = TEXT

    class Config(PluginConfig):
        """What the source is, and how long a summary may be."""

        source: str = r"(?s)(.*)"
        """Regular expression whose first group is the source in a prompt, such as `(?s)Story: (.*)\\nHeadline:`; left
        out, the source is all of the prompt."""
        max_words: int = Field(20, ge=1)
        """The longest summary that fits."""

        @field_validator("source")
        @classmethod
        def _has_a_group(cls, pattern: str) -> str:
            try:
                groups = re.compile(pattern).groups
            except re.error as error:
                raise ValueError(f"it is no regular expression: {error}") from error
            if not groups:
                raise ValueError("it needs a group, in brackets, that is the source")
            return pattern

    @classmethod
    def produces(cls, config: Any) -> frozenset[str]:
        """The same with every config."""
        return frozenset(METRICS)

    def evaluate(self, job: EvaluateJob) -> Evaluation:
        """Raises DataError where a prompt has no source, or where there are no samples."""
        found = []
        for prompt, samples in zip(job.prompts, job.samples["challenger"], strict=True):
            found += [self._measured(prompt.content, [sample.text or "" for sample in samples])] if samples else []
        return Evaluation(_means(found, self.run.seed))

    def score_predictions(self, predictions: Path) -> Evaluation:
        """A table with the columns `prompt` and `text`; several texts of a prompt are its samples."""
        config = MaterialConfig(data=str(predictions))
        texts: dict[str, list[str]] = {}
        for row in rows_of(config):
            prompt, text = (str(need(row, name, config.data) or "") for name in ("prompt", "text"))
            texts.setdefault(prompt, []).append(text)
        return Evaluation(_means([self._measured(*one) for one in texts.items()], self.run.seed))

    def _measured(self, prompt: str, answers: Sequence[str]) -> list[float]:
        """The metrics' values for one prompt, in their order."""
        match = re.search(self.config.source, prompt)
        source = _WORDS.tokenize((match.group(1) or "") if match else "")
        if not source:
            raise DataError(
                f"the prompt {prompt[:60]!r} has no source to sum up",
                remedy=f"`summary.source` should find it: {self.config.source!r}.",
            )
        rows = []
        for summary in map(_WORDS.tokenize, answers):
            rows.append(
                [
                    float(len(summary)),
                    len(source) / max(len(summary), 1),
                    coverage(source, summary),
                    density(source, summary),
                    novelty(source, summary),
                    float(new_numbers(source, summary) == 0),
                    float(0 < len(summary) <= self.config.max_words),
                ]
            )
        return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


_WORDS = Words()


def _means(by_prompt: Sequence[Sequence[float]], seed: int) -> dict[str, Metric]:
    if not by_prompt:
        raise DataError("there are no answers to measure", remedy="Sample some, with `test.samples`.")
    columns = zip(*by_prompt, strict=True)
    return {name: bootstrap(column, seed=seed) for name, column in zip(METRICS, columns, strict=True)}
