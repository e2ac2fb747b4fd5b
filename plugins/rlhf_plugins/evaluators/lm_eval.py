"""Evaluator `lm_eval`: any task of the LM Evaluation Harness."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, JsonValue

from rlhf_core.errors import DataError, RlhfError
from rlhf_core.metrics import Metric
from rlhf_core.plugins import TEXT, EvaluateJob, Evaluation, Evaluator, PluginConfig
from rlhf_core.records import Modality


class LmEval(Evaluator):
    """Tasks of EleutherAI's LM Evaluation Harness (Gao et al.), for figures that others can be compared with.

    `lm_eval_TASK_METRIC` is what the harness reports, with 1.96 of its standard errors on both sides. The policy reads
    the same tokens as in training: its BOS stands before every prompt. Needs the extra `lm-eval`; most tasks load their
    data from the Hugging Face hub. A task file may bring Python code of its own, which runs: use files that you trust.
    """

    modality: ClassVar[frozenset[Modality]] = TEXT

    class Config(PluginConfig):
        """Which tasks, and how they are asked."""

        tasks: dict[str, str] = Field(min_length=1)
        """Task and the metric of it that counts: `{hellaswag: acc_norm, gsm8k: "exact_match,strict-match"}`. The part
        behind a comma is the harness's filter."""
        folder: Path | None = None
        """Task files of your own, beside those that the harness brings."""
        examples: int | None = Field(None, ge=0)
        """Examples shown before a question (few-shot). Left out: as the task says."""
        limit: int | None = Field(None, ge=1)
        """Only so many items of each task, the first ones."""
        chat: bool = False
        """Ask through the tokenizer's chat template."""
        batch_size: int = Field(16, ge=1)
        """Items scored side by side."""

    @classmethod
    def produces(cls, config: Any) -> frozenset[str]:
        """One metric a task."""
        return frozenset(metric_name(task, metric) for task, metric in config.tasks.items())

    @classmethod
    def reads(cls, config: Any) -> tuple[Path, ...]:
        """The folder of task files."""
        return () if config.folder is None else (config.folder,)

    def evaluate(self, job: EvaluateJob) -> Evaluation:
        """Run the tasks on `job.policy`. Raises RlhfError without the harness, and DataError where the policy is no
        language model, or a task or its metric is not there.
        """
        from rlhf_plugins.evaluators._likelihood import language_model

        lm, config = language_model(job.policy, "lm_eval"), self.config
        try:
            importlib.import_module("lm_eval")
        except ImportError as error:
            raise RlhfError(
                "`lm_eval` needs the LM Evaluation Harness, which is not installed",
                remedy="Install the extra `lm-eval`: pip install 'rlhf-pipeline[lm-eval]'.",
            ) from error
        from rlhf_plugins.evaluators._harness import harness_results

        found, sizes = harness_results(lm, config, self.run.seed)
        metrics = {
            metric_name(task, metric): picked(found[task], task, metric, sizes.get(task))
            for task, metric in config.tasks.items()
        }
        rows: list[dict[str, JsonValue]] = [
            {"task": task, "metric": name, "value": value}
            for task, figures in sorted(found.items())
            for name, value in sorted(figures.items())
            if isinstance(value, int | float)
        ]
        return Evaluation(metrics, {"lm_eval": rows})


def metric_name(task: str, metric: str) -> str:
    """`lm_eval_gsm8k_exact_match_strict-match` for the task `gsm8k` and the metric `exact_match,strict-match`."""
    return f"lm_eval_{task}_{metric.replace(',', '_')}"


def picked(figures: Mapping[str, Any], task: str, metric: str, n: int | None) -> Metric:
    """One of the harness's figures `{"acc,none": 0.5, "acc_stderr,none": 0.1, ...}`. Without a filter in `metric`, the
    first one counts. Raises DataError where it is not there.
    """
    known = [key for key in figures if "," in key and "_stderr," not in key]
    key = next((key for key in known if key == metric or key.partition(",")[0] == metric), None)
    if key is None:
        raise DataError(f"the task `{task}` has no metric `{metric}`", remedy=f"It has: {', '.join(known) or 'none'}.")
    name, _, which = key.partition(",")
    value, error = float(figures[key]), figures.get(f"{name}_stderr,{which}")
    if not isinstance(error, int | float) or math.isnan(error):
        return Metric(value=value, n=n)
    return Metric(value=value, low=value - 1.96 * error, high=value + 1.96 * error, n=n)
