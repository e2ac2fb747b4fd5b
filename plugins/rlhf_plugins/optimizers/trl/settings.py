"""What can be set about TRL's trainers. Light: TRL is loaded when one of them runs."""

from __future__ import annotations

from pydantic import Field, JsonValue

from rlhf_core.plugins import PluginConfig


class TrlSettings(PluginConfig):
    """What the adapters have in common."""

    answers: int = Field(4, ge=2)
    """Answers to each prompt."""
    lr: float = Field(3e-4, gt=0)
    """Learning rate, falling linearly to 0."""
    beta: float = Field(0.05, gt=0)
    """TRL's weight of the divergence from the reference."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Norm that gradients are clipped to."""
    checkpoint_every: int = Field(5, ge=1)
    """Optimizer steps between checkpoints."""
    extra: dict[str, JsonValue] = {}
    """Further fields of the trainer's own config, as TRL documents them; they come last and win."""


class OnlineSettings(TrlSettings):
    """Trainers that sample while they train."""

    steps: int = Field(20, ge=1)
    """Batches of experience to learn from."""
    batch: int = Field(16, ge=1)
    """Prompts a step."""
    epochs: int = Field(1, ge=1)
    """Times that the policy goes through each batch."""


class OfflineSettings(TrlSettings):
    """Trainers that learn from answers which the policy gave before, or that people judged."""

    prompts: int = Field(320, ge=1)
    """Prompts that are answered, graded and learnt from. Without a reward model all feedback is learnt from, and
    neither this nor `answers` matters."""
    batch: int = Field(16, ge=2)
    """Examples a step."""
    epochs: float = Field(1.0, gt=0)
    """Passes over the examples."""
