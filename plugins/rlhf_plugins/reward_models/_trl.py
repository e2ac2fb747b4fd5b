"""TRL's RewardTrainer, told to tokenise nothing and to write nothing. Imports TRL: loaded only while training."""

from __future__ import annotations

import copy
import math
import tempfile
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, PrinterCallback
from trl import RewardConfig, RewardTrainer

from rlhf_core.errors import TrainingError
from rlhf_core.lm.model import LanguageModel
from rlhf_core.run import Run
from rlhf_plugins.reward_models._classifier import know_padding


class Reporting(RewardTrainer):
    """A trainer that hands its numbers on to the run."""

    def __init__(self, report: Run, **options: Any) -> None:
        self.report = report
        super().__init__(**options)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Numbers of one step."""
        names = {"loss": "loss", "grad_norm": "gradient_norm", "learning_rate": "lr", "accuracy": "accuracy"}
        found = {names[name]: float(value) for name, value in logs.items() if name in names}
        step = self.state.global_step
        if not math.isfinite(found.get("loss", 0.0)) or not math.isfinite(found.get("gradient_norm", 0.0)):
            raise TrainingError(f"the loss is not finite in step {step}", remedy="Lower `reward.lr`.")
        self.report.log(found, step)
        if "loss" in found:
            self.report.progress(step, self.state.max_steps, f"loss {found['loss']:.3f}")
        super().log(logs, start_time)

    def create_model_card(self, *args: Any, **options: Any) -> None:
        """None: nothing is published."""


def classifier_of(lm: LanguageModel, seed: int) -> Any:
    """A sequence classifier with one output on a copy of the language model's decoder (adapters merged in)."""
    model = copy.deepcopy(lm.model)
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    config = copy.deepcopy(model.config)
    config.num_labels = 1
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        classifier = AutoModelForSequenceClassification.from_config(config)
    classifier.base_model.load_state_dict(model.get_decoder().state_dict())
    know_padding(classifier, lm.tokenizer)
    return classifier.float().to(lm.device)


def train(
    model: Any, tokenizer: Any, chosen: list[list[int]], rejected: list[list[int]], config: Any, run: Run
) -> None:
    """Train `model` in place on pairs of token rows."""
    data = Dataset.from_dict({"chosen_ids": chosen, "rejected_ids": rejected})
    with tempfile.TemporaryDirectory() as scratch:
        arguments = RewardConfig(
            output_dir=scratch,
            num_train_epochs=config.epochs,
            per_device_train_batch_size=config.batch,
            learning_rate=config.lr,
            weight_decay=config.weight_decay,
            center_rewards_coefficient=config.centre,
            max_length=None,
            seed=run.seed,
            report_to=[],
            save_strategy="no",
            logging_steps=5,
            disable_tqdm=True,
            bf16=False,
            gradient_checkpointing=False,
            use_cpu=next(model.parameters()).device.type == "cpu",
        )
        trainer = Reporting(report=run, model=model, args=arguments, train_dataset=data, processing_class=tokenizer)
        # Its numbers go to the run, not to the terminal.
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    model.eval()
