"""Supervised fine-tuning of a language model on demonstrations, by TRL's SFTTrainer."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from rlhf_core.errors import DataError
from rlhf_core.metrics import Metric, bootstrap
from rlhf_core.plugins import LanguageModelPolicy, PluginConfig, Policy, WarmStart
from rlhf_core.records import Answer
from rlhf_plugins.warm_starts._imitation import answer_losses, collate, demonstration_rows

if TYPE_CHECKING:
    from rlhf_core.lm.model import LanguageModel
    from rlhf_core.run import Run


class Sft(WarmStart):
    """Imitates demonstrations: cross-entropy on the answer and its EOS, never on the prompt."""

    trains: ClassVar[type[Policy]] = LanguageModelPolicy

    class Config(PluginConfig):
        """How long and how fast to imitate."""

        epochs: float = Field(3.0, gt=0)
        """Passes over the demonstrations."""
        learning_rate: float | None = Field(None, gt=0)
        """Peak learning rate; by default 2.5e-3 for a starter, 2e-4 for adapters, 2e-5 for a trained model."""
        batch_size: int = Field(16, ge=1)
        """Demonstrations a step."""
        micro_batch_size: int | None = Field(None, ge=1)
        """Demonstrations computed side by side, where a whole batch does not fit; divides `batch_size`."""
        warmup: float = Field(0.05, ge=0, lt=1)
        """Share of the steps in which the learning rate rises; afterwards it falls to zero on a cosine."""
        weight_decay: float = Field(0.01, ge=0)
        """AdamW's decay."""
        gradient_checkpointing: bool = False
        """Recompute activations instead of keeping them: less memory, a third more time."""
        checkpoint_every: int = Field(100, ge=1)
        """Steps between checkpoints: the most that a kill can cost. Has no influence on the result."""

    def set_up(self) -> None:
        """A batch is whole micro batches."""
        micro = self.config.micro_batch_size
        if micro is not None and self.config.batch_size % micro:
            raise DataError(
                f"sft: batch_size {self.config.batch_size} is not a multiple of micro_batch_size {micro}",
                remedy="Choose a divisor.",
            )

    def start(
        self, policy: LanguageModelPolicy, demonstrations: Sequence[Answer], validation: Sequence[Answer]
    ) -> dict[str, Metric]:
        """Train `policy` in place; the held-out loss is in nats per token, its exponential is the perplexity.

        A demonstration of weight w counts w times in the gradient: its tokens' losses are multiplied by w (weights
        are scaled to mean 1, so that they do not change the learning rate). Goes on from the newest checkpoint and
        ends in the same weights, to the bit, as without an interruption. Raises DataError where there is nothing to
        imitate and TrainingError where the loss is not finite.
        """
        train = demonstration_rows(policy.lm, demonstrations)
        if not train:
            raise DataError(
                "sft has no demonstrations to imitate",
                remedy="Use a data source that yields some, or drop warm_start from the pipeline.",
            )
        held_out = demonstration_rows(policy.lm, validation)
        _train(policy.lm, train, held_out, self.config, self.run)
        if not held_out:
            return {}
        return held_out_metrics(policy.lm, held_out, self.config.micro_batch_size or self.config.batch_size)


def held_out_metrics(lm: LanguageModel, rows: Sequence[dict[str, Any]], batch_size: int) -> dict[str, Metric]:
    """`sft_loss` (nats per token, weights left aside) and `sft_perplexity`, with intervals over demonstrations."""
    import torch

    ordered = sorted(rows, key=lambda row: len(row["input_ids"]))
    sums: list[float] = []
    counts: list[int] = []
    with torch.inference_mode():
        for start in range(0, len(ordered), batch_size):
            batch = collate(ordered[start : start + batch_size], lm.pad_id)
            losses, tokens = answer_losses(lm, lm.model, {name: part.to(lm.device) for name, part in batch.items()})
            sums += losses.tolist()
            counts += tokens.tolist()
    # Divided by the mean length, the mean over demonstrations is exactly the loss per token.
    per_token = bootstrap([loss * len(counts) / sum(counts) for loss in sums])
    perplexity = {bound: math.exp(getattr(per_token, bound)) for bound in ("value", "low", "high")}
    return {"sft_loss": per_token, "sft_perplexity": Metric(**perplexity, n=per_token.n)}


def _train(
    lm: LanguageModel, train: list[dict[str, Any]], held_out: list[dict[str, Any]], config: Any, run: Run
) -> None:
    from datasets import Dataset
    from transformers import PrinterCallback

    from rlhf_plugins.huggingface import CheckpointsToRun, undo_patches
    from rlhf_plugins.warm_starts._trainer import Imitation, arguments

    latest = run.checkpoints.latest()
    if latest is not None:
        run.note(f"sft goes on at step {latest[0]}")
    with tempfile.TemporaryDirectory(prefix="rlhf-sft-") as scratch:
        trainer = Imitation(
            lm,
            run,
            args=arguments(lm, config, run, Path(scratch), evaluate=bool(held_out)),
            train_dataset=Dataset.from_list(train),
            eval_dataset=Dataset.from_list(held_out) if held_out else None,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(CheckpointsToRun(run, Path(scratch)))
        try:
            trainer.train(resume_from_checkpoint=str(latest[1]) if latest else None)
        finally:
            undo_patches(lm)
