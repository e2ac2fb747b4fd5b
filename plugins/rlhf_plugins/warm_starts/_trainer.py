"""TRL's SFTTrainer, told to tokenise, weigh and checkpoint as we do. Imports TRL: loaded only while training."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import Any

from trl import SFTConfig, SFTTrainer

from rlhf_core.lm.lora import is_adapted
from rlhf_core.lm.model import LanguageModel
from rlhf_core.run import Run
from rlhf_plugins.huggingface import quiet_settings
from rlhf_plugins.warm_starts._imitation import answer_losses, check_finite, collate


class Imitation(SFTTrainer):
    """SFTTrainer on rows that are tokenised already, with a weight each."""

    def __init__(self, lm: LanguageModel, run: Run, **options: Any) -> None:
        self.lm = lm
        self.report = run
        super().__init__(
            model=lm.model,
            processing_class=lm.tokenizer,
            data_collator=partial(collate, pad_id=lm.pad_id),
            **options,
        )
        # The loss below is divided by the tokens of the whole batch, so the trainer must count them and must not
        # average over micro batches once more.
        self.model_accepts_loss_kwargs = True

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Weighted sum of the answer tokens' losses over the number of answer tokens in the batch."""
        losses, tokens = answer_losses(self.lm, model, inputs)
        loss = (losses * inputs["weight"]).sum() / (tokens.sum() if num_items_in_batch is None else num_items_in_batch)
        check_finite(loss.item())
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Hand the numbers on to the run."""
        step = self.state.global_step
        names = {
            "loss": "loss",
            "eval_loss": "held_out_loss",
            "grad_norm": "grad_norm",
            "learning_rate": "learning_rate",
        }
        self.report.log({names[name]: float(value) for name, value in logs.items() if name in names}, step)
        if "loss" in logs:
            self.report.progress(step, self.state.max_steps, f"loss {logs['loss']:.2f}")
        super().log(logs, start_time)

    def create_model_card(self, *args: Any, **options: Any) -> None:
        """None: the folder is a checkpoint, not a publication."""


def arguments(lm: LanguageModel, config: Any, run: Run, scratch: Path, *, evaluate: bool) -> SFTConfig:
    """The trainer's settings: ours, and everything off that is slow, chatty or reaches for the network."""
    micro = config.micro_batch_size or config.batch_size
    rate = config.learning_rate or (2e-4 if is_adapted(lm.model) else 2.5e-3 if lm.base is None else 2e-5)
    settings: dict[str, Any] = quiet_settings(lm, run, scratch) | {
        "num_train_epochs": config.epochs,
        "learning_rate": rate,
        "per_device_train_batch_size": micro,
        "per_device_eval_batch_size": micro,
        "gradient_accumulation_steps": config.batch_size // micro,
        "warmup_steps": config.warmup,
        "lr_scheduler_type": "cosine",
        "weight_decay": config.weight_decay,
        "gradient_checkpointing": config.gradient_checkpointing,
        "eval_strategy": "epoch" if evaluate else "no",
        "prediction_loss_only": True,
        "save_steps": config.checkpoint_every,
        "logging_steps": 10,
        # The rows are tokenised; preparing them again would hash, map and cache them for nothing.
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "max_length": None,
        # Autocast is the language model's own business, the same in training and sampling.
        "bf16": False,
    }
    with warnings.catch_warnings():
        # TRL itself still says gradient_checkpointing where transformers has a new name for it.
        warnings.simplefilter("ignore", FutureWarning)
        return SFTConfig(**settings)
