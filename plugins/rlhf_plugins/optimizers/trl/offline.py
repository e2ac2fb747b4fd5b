"""TRL's DPOTrainer and KTOTrainer, on answers that the pipeline's reward graded, or that people judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

from rlhf_core.errors import TrainingError
from rlhf_core.metrics import Metric
from rlhf_core.plugins import OptimizeJob
from rlhf_core.run import Run
from rlhf_plugins.optimizers.trl.driver import Driver, driven
from rlhf_plugins.optimizers.trl.examples import Row, graded_rows, in_pairs_for_kto, stated_rows


def optimize(kind: str, job: OptimizeJob, config: Any, run: Run, *, name: str) -> dict[str, Metric]:
    """Train `job.policy` in place by TRL's trainer of `kind`."""
    driver = Driver(job, config, run, name=name)
    rows = _rows(kind, driver)
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
    """What there is to learn from. Raises TrainingError where everything is equally good."""
    job = driver.job
    if job.reward is not None:
        rows = graded_rows(kind, driver, job.reward)
        what = "all answers to each prompt have the same reward, so there is nothing to prefer"
        remedy = "Raise `answers`, or look at what the reward model gives."
    else:
        rows = stated_rows(kind, driver, job.need_feedback())
        driver.run.note(f"learns from {len(rows)} {'pairs' if kind == 'dpo' else 'answers'} that people judged")
        what = "everything that people said of training prompts is a tie, so there is nothing to prefer"
        remedy = "Collect more feedback of a kind that prefers one answer to another."
    if not rows:
        raise TrainingError(what, where=driver.name, remedy=remedy)
    return rows if kind == "dpo" else in_pairs_for_kto(rows, driver.run.seed)
