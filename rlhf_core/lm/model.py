"""A causal language model with its tokenizer and prompt format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_core.records import Prompt

if TYPE_CHECKING:
    import torch


class LanguageModel:
    """Model, tokenizer and prompt format in one hand; everything that turns prompts into tensors and back."""

    model: Any
    tokenizer: Any
    max_prompt_tokens: int
    max_new_tokens: int

    def encode(self, prompts: Sequence[Prompt]) -> tuple[torch.Tensor, torch.Tensor]:
        """Left-padded token ids and attention mask, both [B, P] int64."""
        raise NotImplementedError

    def save(self, folder: Path) -> None:
        """Write a Hugging Face model folder (safetensors) with its tokenizer."""
        raise NotImplementedError
