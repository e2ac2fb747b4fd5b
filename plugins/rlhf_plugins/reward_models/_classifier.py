"""Scoring texts with a Hugging Face sequence classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


def load_classifier(source: str, revision: str | None, trust_remote_code: bool) -> tuple[Any, Any]:
    """Model and tokenizer by hub name or folder, onto the accelerator where there is one; safetensors only.

    Raises DataError where there is none.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from rlhf_core.lm.loading import best_device, explained, quiet

    quiet()
    options = {"revision": revision or "main", "trust_remote_code": trust_remote_code}
    with explained(source, "classifier"):
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        model = AutoModelForSequenceClassification.from_pretrained(source, use_safetensors=True, **options)
    know_padding(model, tokenizer)
    return model.eval().to(best_device()), tokenizer


def know_padding(model: Any, tokenizer: Any) -> None:
    """Agree on a padding token: a decoder finds the last real token by it, and refuses batches without one."""
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if model.config.get_text_config().pad_token_id is None:
        model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    model.config.pad_token_id = model.config.get_text_config().pad_token_id


@torch.no_grad()
def logits(model: Any, pad: int, rows: Sequence[Sequence[int]], tokens: int = 8192, **more: Any) -> NDArray[np.float64]:
    """[N, labels] float64 of N token rows, in batches of similar length of about `tokens` tokens.

    `more` holds further inputs of the model, such as token types, as N rows each.
    """
    found = np.empty((len(rows), model.config.num_labels))
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    device = next(model.parameters()).device
    while order:
        width = max(len(rows[order[-1]]), 1)
        size = max(tokens // width, 1)
        batch, order = order[-size:], order[:-size]
        ids = torch.full((len(batch), width), pad)
        mask = torch.zeros_like(ids)
        extra = {name: torch.zeros_like(ids) for name in more}
        for place, i in enumerate(batch):
            ids[place, : len(rows[i])] = torch.tensor(rows[i], dtype=ids.dtype)
            mask[place, : len(rows[i])] = 1
            for name, values in more.items():
                extra[name][place, : len(rows[i])] = torch.tensor(values[i], dtype=ids.dtype)
        inputs = {
            name: tensor.to(device) for name, tensor in {"input_ids": ids, "attention_mask": mask, **extra}.items()
        }
        found[batch] = model(**inputs).logits.double().cpu().numpy()
    return found
