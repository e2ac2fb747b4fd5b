"""TRL's DPOTrainer and KTOTrainer, on answers that the policy gave and the pipeline's reward graded before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

from rlhf_core.errors import TrainingError
from rlhf_core.metrics import Metric
from rlhf_core.plugins import OptimizeJob
from rlhf_core.run import Run
from rlhf_plugins.optimizers.text.grading import scores_of
from rlhf_plugins.optimizers.trl.driver import Driver, driven

Row = dict[str, Any]


def optimize(kind: str, job: OptimizeJob, config: Any, run: Run, *, name: str) -> dict[str, Metric]:
    """Train `job.policy` in place by TRL's trainer of `kind`."""
    driver = Driver(job, config, run, name=name)
    rows = _rows(kind, driver)
    if not rows:
        raise TrainingError(
            "all answers to each prompt have the same reward, so there is nothing to prefer",
            where=name,
            remedy="Raise `answers`, or look at what the reward model gives.",
        )
    configuration, trainer = {"dpo": (DPOConfig, DPOTrainer), "kto": (KTOConfig, KTOTrainer)}[kind]

    def make(scratch: Path) -> Any:
        settings = {
            **driver.settings(scratch),
            "num_train_epochs": config.epochs,
            "per_device_train_batch_size": config.batch,
            "max_length": None,
        }
        return driven(trainer)(
            driver,
            model=driver.policy.lm.model,
            ref_model=driver.reference.lm.model,
            args=configuration(**{**settings, **config.extra}),
            processing_class=driver.tokenizer,
            train_dataset=Dataset.from_list(rows),
        )

    return driver.train(make)


def _rows(kind: str, driver: Driver) -> list[Row]:
    """Answers with their grades, in the tokens that the policy sampled.

    dpo: the best and the worst answer to each prompt. kto: every answer, desirable where it is better than the average
    one to its prompt; `KL_completion_ids` is another row's answer, from which KTO estimates the divergence.
    """
    config, job = driver.config, driver.job
    prompts = [job.prompts[number] for number in driver.order(min(config.prompts, len(job.prompts)))]
    groups = driver.policy.sample(prompts, config.answers, driver.run.seed)
    asked = [prompt for prompt in prompts for _ in range(config.answers)]
    flat = [sample for group in groups for sample in group]
    scores = np.array(scores_of(job.reward, asked, flat, when="before the first step")).reshape(len(prompts), -1)
    rows: list[Row] = []
    for tokens, group, graded in zip(driver.policy.lm.format.prompt_tokens(prompts), groups, scores, strict=True):
        if graded.max() == graded.min():
            continue
        answers = [list(sample.tokens) for sample in group]
        if kind == "dpo":
            chosen, rejected = answers[int(graded.argmax())], answers[int(graded.argmin())]
            rows.append({"prompt_ids": tokens, "chosen_ids": chosen, "rejected_ids": rejected})
        else:
            rows += [
                {"prompt_ids": tokens, "completion_ids": answer, "label": bool(score > graded.mean())}
                for answer, score in zip(answers, graded, strict=True)
            ]
    if kind == "kto":
        order = np.random.default_rng(driver.run.seed).permutation(len(rows))
        rows = [rows[i] for i in order]
        for row, other in zip(rows, [*rows[-1:], *rows[:-1]], strict=True):
            row["KL_completion_ids"] = other["completion_ids"]
    return rows
