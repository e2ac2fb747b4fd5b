"""Value models: how much reward an answer that was begun like this will still bring."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rlhf_core.errors import TrainingError
from rlhf_core.lm.adapted_head import AdaptedHead
from rlhf_core.lm.heads import ScalarHead
from rlhf_core.lm.precision import computing_in
from rlhf_core.lm.sharding import entrance
from rlhf_plugins import world
from rlhf_plugins.optimizers.text.experience import Experience
from rlhf_plugins.sharding import is_asked, trained
from rlhf_plugins.trainee import Trainee, read_weights, trainable, write_weights

if TYPE_CHECKING:
    from rlhf_core.lm.model import LanguageModel

FILE = "value_model.safetensors"


class ValueModel(torch.nn.Module):
    """Gives V(s_t), the value before token t."""

    reads_hidden = False
    """Whether it needs the reference model's hidden states."""

    def values(self, part: Experience, hidden: Tensor | None) -> Tensor:
        """Values [b, T] of the answers in `part`; `hidden` [b, T, H] are the reference's states before each token."""
        raise NotImplementedError

    def trainee(self, *, lr: float, max_grad_norm: float) -> Trainee:
        """It in training."""
        return Trainee(self, lr=lr, max_grad_norm=max_grad_norm)


class HeadOnReference(ValueModel):
    """A small network on the frozen reference's hidden states, which scoring the reference computes anyway.

    It costs next to nothing in time and memory however large the language model is, its inputs never drift, and its
    errors cannot disturb the policy.
    """

    reads_hidden = True

    def __init__(self, lm: LanguageModel, seed: int) -> None:
        super().__init__()
        width = lm.model.config.get_text_config().hidden_size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed % 2**63)
            last = torch.nn.Linear(width, 1)
            self.layers = torch.nn.Sequential(
                torch.nn.LayerNorm(width), torch.nn.Linear(width, width), torch.nn.GELU(), last
            )
        # From zero: the first advantages are the rewards themselves, not noise.
        torch.nn.init.zeros_(last.weight)
        torch.nn.init.zeros_(last.bias)
        self.to(lm.device)

    def values(self, part: Experience, hidden: Tensor | None) -> Tensor:
        """Values [b, T]."""
        return self.layers(hidden).squeeze(-1)


class Network(ValueModel):
    """A transformer of its own, trained throughout: `start`, or a copy of the policy.

    With `adapters` it is that without weights of its own below its adapters: they are the policy's.
    """

    def __init__(self, lm: LanguageModel, *, adapters: bool = False, start: ScalarHead | None = None) -> None:
        super().__init__()
        if adapters and is_asked():
            raise TrainingError(
                "a value model of adapters is a part of the policy's base, and cannot be spread by itself",
                where="optimize.value_model",
                remedy="Use a value_model of `head` or `network` with FSDP.",
            )
        if start is None:
            start = AdaptedHead.on(lm) if adapters else ScalarHead.from_language_model(lm)
        # float32 even where adapters let the base be kept in less: small updates must not be swallowed.
        self.scalar = start.float().eval()
        self.compute_dtype = lm.compute_dtype

    def trainee(self, *, lr: float, max_grad_norm: float) -> Trainee:
        """A transformer can be spread."""
        return trained(self, self.scalar, self.compute_dtype, lr=lr, max_grad_norm=max_grad_norm)

    def values(self, part: Experience, hidden: Tensor | None) -> Tensor:
        """Values [b, T]."""
        with computing_in(self.scalar, self.compute_dtype):
            return entrance(self.scalar)(part.ids, part.attention)[:, part.start - 1 : -1]


@torch.no_grad()
def all_values(model: ValueModel, experience: Experience, hidden: Tensor | None, size: int | None) -> Tensor:
    """Values [B, T] of the whole batch, `size` rows at a time; 0 at masked positions."""
    result = torch.zeros_like(experience.logprobs)
    for index, part in experience.pieces(size):
        width = part.mask.shape[1]
        states = None if hidden is None else hidden[index, :width]
        result[index, :width] = torch.where(part.mask, model.values(part, states), 0.0)
    return world.merged(result)


def keep(model: ValueModel, folder: Path) -> None:
    """Leave the value model for the next round."""
    write_weights(trainable(model), folder / FILE)


def take_over(model: ValueModel, folder: Path) -> bool:
    """Continue from what the last round kept; False, and nothing changed, where that is of another shape or missing."""
    return (folder / FILE).is_file() and read_weights(trainable(model), folder / FILE)
