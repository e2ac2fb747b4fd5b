"""Demonstrations in the place of sampled answers, imitated beside the reward (PPO-ptx)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from rlhf_core.lm.logprobs import sequence_logprobs
from rlhf_core.records import Answer, Demonstration, Prompt
from rlhf_core.rl.losses import imitation_loss
from rlhf_plugins import world
from rlhf_plugins.optimizers.text.experience import Experience

if TYPE_CHECKING:
    from rlhf_core.lm.model import LanguageModel
    from rlhf_plugins.optimizers.text.settings import GradientSettings
    from rlhf_plugins.trainee import Trainee


class Shown(NamedTuple):
    """A demonstration."""

    prompt: Prompt
    text: str
    weight: float


def demonstrated(lm: LanguageModel, shown: Sequence[Shown]) -> Experience:
    """Demonstrations in the place of sampled answers; their `logprobs` are left at 0."""
    prompts = [each.prompt for each in shown]
    ids, mask = lm.encode(prompts)
    rows = [torch.tensor(tokens) for tokens in lm.answer_tokens([each.text for each in shown], prompts)]
    lengths = torch.tensor([len(row) for row in rows])
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=lm.pad_id).to(ids.device)
    own = (torch.arange(padded.shape[1]) < lengths[:, None]).to(ids.device)
    return Experience(
        ids=torch.cat([ids, padded], dim=1),
        attention=torch.cat([mask, own.long()], dim=1),
        start=ids.shape[1],
        mask=own,
        logprobs=torch.zeros(own.shape, device=ids.device),
        finished=torch.ones(len(rows), dtype=torch.bool, device=ids.device),
    )


def texts_of(answers: Sequence[Answer]) -> list[Shown]:
    """The demonstrations that are texts."""
    return [
        Shown(answer.question.prompt, answer.feedback.text, answer.feedback.weight)
        for answer in answers
        if isinstance(answer.feedback, Demonstration) and answer.feedback.text is not None
    ]


def imitation_gradient(
    lm: LanguageModel, trainee: Trainee, demonstrations: Sequence[Shown], config: GradientSettings
) -> float:
    """Add the gradient of the weighted imitation loss, times `ptx`; returns the loss without it, nats a token."""
    shown = demonstrated(lm, demonstrations)
    weights = torch.tensor([each.weight for each in demonstrations], device=shown.ids.device)
    tokens = float((shown.mask.sum(dim=1) * weights).sum())
    total = 0.0
    for index, part in shown.pieces(config.micro_batch):
        with lm.autocast():
            logprobs, _ = sequence_logprobs(lm.model, part.ids, part.attention, part.start)
        loss = imitation_loss(logprobs, part.mask, weights[index], tokens=tokens)
        trainee.backward(config.ptx * loss)
        total += loss.item()
    return world.totals(total)[0]
