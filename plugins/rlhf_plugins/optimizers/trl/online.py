"""TRL's GRPOTrainer and RLOOTrainer, which sample with `generate` and grade with the pipeline's reward."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from rlhf_core.metrics import Metric
from rlhf_core.plugins import OptimizeJob
from rlhf_core.records import Sample
from rlhf_core.run import Run
from rlhf_plugins.optimizers.text.grading import scores_of
from rlhf_plugins.optimizers.trl.driver import Driver, driven

TRAINERS = {"grpo": (GRPOConfig, GRPOTrainer), "rloo": (RLOOConfig, RLOOTrainer)}


def optimize(kind: str, job: OptimizeJob, config: Any, run: Run, *, name: str) -> dict[str, Metric]:
    """Train `job.policy` in place by TRL's trainer of `kind`."""
    driver, rater = Driver(job, config, run, name=name), job.need_reward()
    lm = driver.policy.lm
    configuration, trainer = TRAINERS[kind]

    def reward(prompts: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        asked = [job.prompts[int(number)] for number in prompts]
        texts = lm.decode(completion_ids)
        samples = [
            Sample(
                prompt_id=prompt.id,
                text=text,
                policy=job.policy.version or "data",
                round=job.policy.round,
                finished=bool(tokens) and tokens[-1] == lm.eos_id,
            )
            for prompt, text, tokens in zip(asked, texts, completion_ids, strict=True)
        ]
        return scores_of(rater, asked, samples, when="while training")

    def make(scratch: Path) -> Any:
        # TRL loads the reference from where the policy says that it came from.
        driver.reference.lm.model.save_pretrained(scratch / "reference")
        lm.model.config._name_or_path = str(scratch / "reference")
        # One row for each group of the whole run, in our order: the trainer's own shuffling starts anew on resuming.
        numbers = [str(number) for number in driver.order(config.steps * config.batch)]
        settings = {
            **driver.settings(scratch),
            "max_steps": config.steps * config.epochs,
            "num_iterations": config.epochs,
            "steps_per_generation": 1,
            "shuffle_dataset": False,
            "num_generations": config.answers,
            "per_device_train_batch_size": config.batch * config.answers,
            "max_completion_length": lm.max_new_tokens,
            "temperature": driver.policy.temperature,
        }
        return driven(trainer)(
            driver,
            model=lm.model,
            args=configuration(**{**settings, **config.extra}),
            processing_class=driver.tokenizer,
            reward_funcs=reward,
            train_dataset=Dataset.from_dict({"prompt": numbers}),
        )

    return driver.train(make)
