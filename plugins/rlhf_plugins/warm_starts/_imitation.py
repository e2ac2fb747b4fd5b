"""Demonstrations as rows of tokens, and the loss of imitating them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rlhf_core.errors import TrainingError
from rlhf_core.records import Answer, Demonstration

if TYPE_CHECKING:
    from rlhf_core.lm.model import LanguageModel


def demonstration_rows(lm: LanguageModel, demonstrations: Sequence[Answer]) -> list[dict[str, Any]]:
    """One row a text demonstration: `input_ids`, `labels` (-100 on the prompt) and `weight`, in the policy's format.

    The tokens are those the policy would read and sample, so that training and rollout never disagree.
    """
    pairs = [
        (answer.question.prompt, answer.feedback)
        for answer in demonstrations
        if isinstance(answer.feedback, Demonstration) and answer.feedback.text is not None
    ]
    prompts = [prompt for prompt, _ in pairs]
    asked = lm.format.prompt_tokens(prompts)
    answered = lm.answer_tokens([feedback.text for _, feedback in pairs], prompts)
    total = sum(feedback.weight for _, feedback in pairs)
    return [
        {
            "input_ids": [*prompt, *answer],
            "labels": [*[-100] * len(prompt), *answer],
            "weight": feedback.weight * len(pairs) / total,
        }
        for prompt, answer, (_, feedback) in zip(asked, answered, pairs, strict=True)
    ]


def collate(rows: Sequence[dict[str, Any]], pad_id: int) -> dict[str, Any]:
    """Rows as tensors padded on the right: `input_ids`, `attention_mask`, `labels` [B, L] and `weight` [B]."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    ids = [torch.tensor(row["input_ids"]) for row in rows]
    labels = [torch.tensor(row["labels"]) for row in rows]
    return {
        "input_ids": pad_sequence(ids, batch_first=True, padding_value=pad_id),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
        "labels": pad_sequence(labels, batch_first=True, padding_value=-100),
        "weight": torch.tensor([row["weight"] for row in rows]),
    }


def answer_losses(lm: LanguageModel, model: Any, batch: dict[str, Any]) -> tuple[Any, Any]:
    """Sum of the answer tokens' negative log-probabilities in nats [B], and the number of these tokens [B]."""
    from rlhf_core.lm.logprobs import sequence_logprobs

    labels = batch["labels"]
    answered = labels != -100
    start = int(answered.any(0).nonzero()[0])
    with lm.autocast():
        logprobs, _ = sequence_logprobs(model, batch["input_ids"], batch["attention_mask"], start)
    answered = answered[:, start:]
    return -(logprobs * answered).sum(1), answered.sum(1)


def check_finite(loss: float) -> None:
    """Raise TrainingError for a loss that would poison the weights."""
    if not math.isfinite(loss):
        raise TrainingError(
            f"sft: the loss became {loss}", remedy="Lower learning_rate, or look for odd demonstrations in the data."
        )
