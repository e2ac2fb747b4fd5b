"""An ensemble of networks that reward single steps; a segment is worth the sum of its steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from rlhf_core.errors import RlhfError
from rlhf_core.records import Sample
from rlhf_plugins.control.environments import Spaces
from rlhf_plugins.control.network import perceptron
from rlhf_plugins.reward_models._bradley_terry import lapsing_loss
from rlhf_plugins.reward_models._objectives import Pairs


class StepRewards(torch.nn.Module):
    """K networks from features [N, F] to rewards [N]; features are standardised first."""

    def __init__(self, features: int, hidden: Sequence[int], members: int) -> None:
        super().__init__()
        self.members = torch.nn.ModuleList(perceptron([features, *hidden, 1], "relu") for _ in range(members))
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))

    def standardise_on(self, features: torch.Tensor) -> None:
        """Take mean and standard deviation from [N, F]; a feature that never varies is left as it is."""
        self.mean.copy_(features.mean(dim=0))
        std = features.std(dim=0, correction=0)
        self.std.copy_(torch.where(std > 1e-6, std, torch.ones_like(std)))

    def forward(self, features: torch.Tensor, member: int) -> torch.Tensor:
        """Rewards [N] of one member."""
        rewards: torch.Tensor = self.members[member]((features - self.mean) / self.std).squeeze(-1)
        return rewards


class Clips(NamedTuple):
    """The steps of M segments, one segment after the other."""

    features: torch.Tensor
    """[S, F]"""
    starts: NDArray[np.int64]
    """[M + 1]: segment i is the rows starts[i] to starts[i + 1]."""

    @classmethod
    def of(cls, samples: Sequence[Sample], spaces: Spaces) -> Clips:
        """Observations and encoded actions of the samples. Raises RlhfError where one is a text or of other shapes."""
        found = [sample.trajectory for sample in samples]
        if not all(found):
            raise RlhfError("a text has no steps to reward", remedy="Choose a reward model for texts.")
        trajectories = [trajectory for trajectory in found if trajectory is not None]
        starts = np.cumsum([0, *(len(trajectory.actions) for trajectory in trajectories)])
        seen = [row for trajectory in trajectories for row in trajectory.observations]
        done = [row for trajectory in trajectories for row in trajectory.actions]
        if any(len(row) != spaces.observation for row in seen):
            raise RlhfError(
                f"observations of {len(seen[0])} numbers, where {spaces.environment} gives {spaces.observation}",
                remedy="Score samples of the environment that the reward model was trained in.",
            )
        observations = np.array(seen, dtype=np.float32).reshape(len(seen), spaces.observation)
        actions = spaces.encode(np.array(done, dtype=np.float32).reshape(len(done), -1))
        return cls(torch.from_numpy(np.concatenate([observations, actions], axis=1)), starts)

    def rows(self, clips: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Row numbers of the steps of some segments, and for each the segment's place in `clips`."""
        lengths = [int(self.starts[i + 1] - self.starts[i]) for i in clips]
        places = torch.repeat_interleave(torch.tensor(lengths))
        rows = [torch.arange(self.starts[i], self.starts[i + 1]) for i in clips]
        return torch.cat(rows) if rows else places, places


class Row(NamedTuple):
    """One member's view of a preference, as the training loop counts them."""

    member: int
    first: int
    """Number of a segment."""
    second: int | None
    """Number of the other one; None where a segment is rated by itself and the other is worth nothing."""
    length: int
    """Steps of both."""
    shares: None = None
    """Nothing is computed for several rows at once."""


@dataclass(frozen=True)
class HastyPairs(Pairs):
    """Pairs whose raters now and then answer without looking."""

    lapse: float = 0.0
    """Share of such answers."""

    def measure(self, margins: torch.Tensor, stated: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Bradley-Terry with lapses; see `lapsing_loss`."""
        return lapsing_loss(margins, stated, weight, self.lapse)


class RatedSegments(Pairs):
    """Segments with a rating in [0, 1] instead of a probability; the second of each row is worth nothing."""

    def measure(self, margins: torch.Tensor, stated: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Mean over the rows of weight * (value - rating)^2."""
        return (weight * (margins - stated) ** 2).mean()

    def figures(self, values: torch.Tensor, batch: NDArray[np.int64]) -> dict[str, float]:
        """Nothing."""
        return {}


class SegmentValuer:
    """Values of segments for the training loop of reward models."""

    def __init__(self, rewards: StepRewards, clips: Clips) -> None:
        self.scalar = rewards
        self.clips = clips

    def values(self, rows: Sequence[Row]) -> torch.Tensor:
        """[2 B]: the sums of the first and of the second segment of each row, by the row's own member."""
        values = torch.zeros(2 * len(rows))
        for member in range(len(self.scalar.members)):
            wanted = [
                (2 * place + side, clip)
                for place, row in enumerate(rows)
                if row.member == member
                for side, clip in enumerate((row.first, row.second))
                if clip is not None
            ]
            if wanted:
                steps, places = self.clips.rows([clip for _, clip in wanted])
                rewards = self.scalar(self.clips.features[steps], member)
                values = values.index_add(0, torch.tensor([place for place, _ in wanted])[places], rewards)
        return values

    @torch.no_grad()
    def sums(self) -> NDArray[np.float64]:
        """The sum of every segment by every member, [K, M]."""
        count = len(self.clips.starts) - 1
        _, places = self.clips.rows(range(count))
        sums = [
            torch.zeros(count, dtype=torch.float64).index_add(0, places, self.scalar(self.clips.features, k).double())
            for k in range(len(self.scalar.members))
        ]
        return torch.stack(sums).numpy()
