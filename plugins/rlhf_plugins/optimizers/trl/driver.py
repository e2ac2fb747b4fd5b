"""Drives a trainer of TRL: our tokens and rewards in, its steps into our log, the model back as it was."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import PrinterCallback

from rlhf_core.errors import TrainingError
from rlhf_core.lm.lora import is_adapted
from rlhf_core.metrics import Metric
from rlhf_core.plugins import LanguageModelPolicy, OptimizeJob
from rlhf_core.run import Run
from rlhf_plugins.huggingface import CheckpointsToRun, quiet_settings, undo_patches
from rlhf_plugins.optimizers.text import experience as experiences
from rlhf_plugins.optimizers.text.measure import measure
from rlhf_plugins.optimizers.trl.examples import agreement

PROMPT_STREAM, LAST_STREAM = 0, 5
LAST_BATCH = 64
"""Answers that the metrics are measured on after training."""
LOGGED = {
    "loss": "policy_loss", "reward": "reward", "kl": "trl_kl", "entropy": "entropy", "grad_norm": "grad_norm",
    "learning_rate": "learning_rate", "completions/mean_length": "answer_tokens", "rewards/margins": "margin",
    "rewards/accuracies": "preference_accuracy",
}  # fmt: skip
"""TRL's names of numbers, and ours."""


class Driver:
    """One optimisation by one of TRL's trainers."""

    def __init__(self, job: OptimizeJob, config: Any, run: Run, *, name: str) -> None:
        if not job.prompts:
            raise TrainingError("there are no training prompts", where=name, remedy="Check the pipeline's data.")
        assert isinstance(job.policy, LanguageModelPolicy)
        assert isinstance(job.reference, LanguageModelPolicy)
        if is_adapted(job.policy.lm.model):
            raise TrainingError(
                "TRL measures adapters against their own base, not against this pipeline's reference",
                where=name,
                remedy="Drop `lora` from the policy, or use ppo, rloo, grpo or online_dpo, which share the base.",
            )
        self.job, self.config, self.run, self.name = job, config, run, name
        self.policy, self.reference = job.policy, job.reference
        # TRL sets padding side and pad token; the policy's own tokenizer stays as it is.
        self.tokenizer = copy.deepcopy(self.policy.lm.tokenizer)

    def order(self, size: int) -> list[int]:
        """`size` numbers of the job's prompts, pass after pass in an order of the run's seed."""
        numbers = range(len(self.job.prompts))
        return experiences.turn(numbers, seed=self.run.seed, stream=PROMPT_STREAM, number=0, size=size)

    def settings(self, scratch: Path) -> dict[str, Any]:
        """What all of TRL's configs take."""
        config, lm = self.config, self.policy.lm
        return {
            **quiet_settings(lm, self.run, scratch),
            "learning_rate": config.lr,
            "lr_scheduler_type": "linear",
            "max_grad_norm": config.max_grad_norm,
            "beta": config.beta,
            "save_steps": config.checkpoint_every,
            "logging_steps": 1,
            "gradient_checkpointing": False,
            "disable_dropout": True,
            "bf16": str(lm.compute_dtype) == "torch.bfloat16",
        }

    def train(self, make: Callable[[Path], Any]) -> dict[str, Metric]:
        """Let the trainer of `make(scratch)` train, from the newest checkpoint; metrics of answers afterwards."""
        latest = self.run.checkpoints.latest()
        name = self.policy.lm.model.config._name_or_path
        with tempfile.TemporaryDirectory(prefix="rlhf-trl-") as scratch:
            try:
                trainer = make(Path(scratch))
                trainer.remove_callback(PrinterCallback)
                trainer.add_callback(CheckpointsToRun(self.run, Path(scratch)))
                trainer.train(resume_from_checkpoint=str(latest[1]) if latest else None)
            finally:
                undo_patches(self.policy.lm)
                undo_patches(self.reference.lm)
                self.policy.lm.model.config._name_or_path = name
        return self._measure()

    def _measure(self) -> dict[str, Metric]:
        """What the other optimizers report, of a last batch of answers."""
        seed = self.run.seed
        prompts = experiences.turn(self.job.prompts, seed=seed, stream=LAST_STREAM, number=0, size=LAST_BATCH)
        measured = measure(
            self.policy,
            self.reference,
            self.job.reward,
            prompts,
            temperature=self.policy.temperature,
            size=None,
            seed=seed,
            stream=LAST_STREAM,
            when="after the last step",
        ).metrics
        if self.job.reward is not None:
            return measured
        return measured | agreement(self.policy, self.reference, self.job.validation)


def driven(trainer: type) -> Any:
    """`trainer` as a class whose steps go to the run of `driver`, given first, and that refuses losses of NaN."""

    class Driven(trainer):  # type: ignore[misc]
        def __init__(self, driver: Driver, **options: Any) -> None:
            self.driver = driver
            super().__init__(**options)

        def training_step(self, *arguments: Any, **options: Any) -> Any:
            loss = super().training_step(*arguments, **options)
            if not math.isfinite(loss.item()):
                raise TrainingError(
                    f"step {self.state.global_step + 1}: the loss became {loss.item()}",
                    where=self.driver.name,
                    remedy="The update was refused, and the last good checkpoint stays. Try a lower lr.",
                )
            return loss

        def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
            found = {LOGGED[name]: float(value) for name, value in logs.items() if name in LOGGED}
            if "policy_loss" in found:
                done = self.state.global_step
                self.driver.run.log(found, done - 1)
                self.driver.run.progress(done, self.state.max_steps, f"loss {found['policy_loss']:.2f}")
            super().log(logs, start_time)

        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            # The rows are tokenised as the policy reads and speaks.
            return dataset

        def _tokenize_prompts(self, prompts: Sequence[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
            # Rows of the online trainers hold the numbers of their prompts.
            asked = [self.driver.job.prompts[int(number)] for number in prompts]
            return self.driver.policy.lm.format.prompt_tokens(asked), None, {}

        def create_model_card(self, *arguments: Any, **options: Any) -> None:
            """None: the folder is a checkpoint, not a publication."""

    return Driven
