"""What the kinds of reward models learn from, as rows for the network with a loss on its values.

The training loop (`_fitting`) knows of an objective only its `rows` and its `loss`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from rlhf_plugins.reward_models._bradley_terry import preference_loss
from rlhf_plugins.reward_models._plackett_luce import Stages, stage_log_probability

Floats = NDArray[np.float64]
Places = NDArray[np.int64]


class Objective(Protocol):
    """N rows and what they teach."""

    rows: Sequence[Any]

    def __len__(self) -> int:
        """N."""
        ...

    def loss(self, values: torch.Tensor, batch: Places) -> torch.Tensor:
        """The loss of the rows number `batch`; `values` [A] or [A, K] are those of their A answers, row after row."""
        ...

    def figures(self, values: torch.Tensor, batch: Places) -> dict[str, float]:
        """What else of a training step is worth a curve."""
        ...


@dataclass(frozen=True)
class Pairs:
    """N pairs: prompt with two answers, stated probability that the first is better, weight."""

    rows: Sequence[Any]
    stated: Floats
    weight: Floats
    lead: Floats | None = None
    """By how much the first should lead before the pair is content."""

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def relative(self) -> Floats:
        """The weights relative to their mean, so that the learning rate means the same for any overlap."""
        return self.weight / self.weight.mean()

    def loss(self, values: torch.Tensor, batch: Places) -> torch.Tensor:
        """What `measure` says of the pairs' margins."""
        stated, weight = _like(values, self.stated[batch]), _like(values, self.relative[batch])
        margins = values[0::2] - values[1::2]
        if self.lead is not None:
            margins = margins - _like(values, self.lead[batch])
        return self.measure(margins, stated, weight)

    def measure(self, margins: torch.Tensor, stated: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """The loss of [B] margins: Bradley-Terry; see `preference_loss`."""
        return preference_loss(margins, stated, weight)

    def figures(self, values: torch.Tensor, batch: Places) -> dict[str, float]:
        """Accuracy of the step, where a pair has a winner."""
        return pair_accuracy(values[0::2] - values[1::2], _like(values, self.stated[batch]))


@dataclass(frozen=True)
class Rankings:
    """N sets of samples of one prompt, each with all the orders that people put it in."""

    rows: Sequence[Any]
    sizes: NDArray[np.int64]
    """Samples of each row."""
    stages: Stages
    log_tie: torch.nn.Parameter
    """log delta_d of tied groups of 2..D samples, [D - 1]; learnt with the network."""

    def __len__(self) -> int:
        return len(self.rows)

    def loss(self, values: torch.Tensor, batch: Places) -> torch.Tensor:
        """Minus the mean log-likelihood of an order; see `stage_log_probability`. An order counts as often as given."""
        width = self.stages.left.shape[1]
        sizes = self.sizes[batch]
        starts = np.cumsum(sizes) - sizes
        columns = np.minimum(starts[:, None] + np.arange(width), len(values) - 1)
        table = values[torch.from_numpy(columns).to(values.device)]
        place = np.full(len(self.rows), -1)
        place[batch] = np.arange(len(batch))
        found = np.flatnonzero(place[self.stages.row] >= 0)
        stages = self.stages.pick(found, place)
        log_tie = torch.cat([torch.zeros(1), self.log_tie.cpu()]).to(values)
        logs = stage_log_probability(
            table[torch.from_numpy(stages.row).to(values.device)],
            torch.from_numpy(stages.left).to(values.device),
            torch.from_numpy(stages.chosen).to(values.device),
            log_tie,
        )
        return -(logs * _like(values, stages.weight)).sum() / float(self.weight_of(batch).sum())

    @cached_property
    def weights(self) -> Floats:
        """Orders behind each row."""
        return self.stages.order_weight(len(self.rows))

    def weight_of(self, batch: Places) -> Floats:
        """Orders behind some rows."""
        return self.weights[batch]

    def figures(self, values: torch.Tensor, batch: Places) -> dict[str, float]:
        """Nothing."""
        return {}


@dataclass(frozen=True)
class Ratings:
    """N samples with their ratings on K criteria, each in [0, 1]."""

    rows: Sequence[Any]
    stated: Floats
    """[N, K]; NaN where nobody rated."""
    weight: Floats
    """[N, K] numbers of ratings."""

    def __len__(self) -> int:
        return len(self.rows)

    def loss(self, values: torch.Tensor, batch: Places) -> torch.Tensor:
        """Weighted mean of (value - rating)^2 over what was rated; a mean of n ratings counts n times."""
        values = values.reshape(len(batch), -1)
        known = ~np.isnan(self.stated[batch])
        weight = _like(values, np.where(known, self.weight[batch], 0.0))
        errors = (values - _like(values, np.where(known, self.stated[batch], 0.0))) ** 2
        return (weight * errors).sum() / weight.sum().clamp(min=1e-9)

    def figures(self, values: torch.Tensor, batch: Places) -> dict[str, float]:
        """Nothing."""
        return {}


@dataclass(frozen=True)
class BinnedRatings:
    """N samples with their ratings as a distribution over B ordered bins."""

    rows: Sequence[Any]
    stated: Floats
    """[N, B] probabilities; see `two_hot`."""
    weight: Floats
    """[N] numbers of ratings."""

    def __len__(self) -> int:
        return len(self.rows)

    def loss(self, values: torch.Tensor, batch: Places) -> torch.Tensor:
        """Cross-entropy of the bins, in nats; values [N, B] are logits."""
        losses = -(_like(values, self.stated[batch]) * values.log_softmax(-1)).sum(-1)
        weight = _like(values, self.weight[batch])
        return (weight * losses).sum() / weight.sum()

    def figures(self, values: torch.Tensor, batch: Places) -> dict[str, float]:
        """Nothing."""
        return {}


@dataclass(frozen=True)
class Costs:
    """N rows of one or two answers: which of two is safer, and which are safe at all."""

    rows: Sequence[Any]
    stated: Floats
    """[N] P(the first is safer); NaN for rows of one answer and for pairs that nobody compared."""
    safe: Floats
    """[N, 2] 1 safe, 0 unsafe, NaN unknown; the second column of rows of one answer is NaN."""
    weight: Floats
    """[N] numbers of answers."""
    balance: Floats | None = None
    """[N, 2] factors of the signs' weights; see `class_balance`."""

    def __len__(self) -> int:
        return len(self.rows)

    def loss(self, values: torch.Tensor, batch: Places) -> torch.Tensor:
        """The cost model's loss of Dai et al. 2023 ("Safe RLHF", equation 6), with value = -cost, positive where safe:

        -log sigma(v_safer - v_other) of every pair, and -log sigma(s v) of every answer whose sign s is known.
        """
        table = self._table(values, batch)
        stated, safe = self.stated[batch], self.safe[batch]
        pairs, labels = ~np.isnan(stated), ~np.isnan(safe)
        weight = _like(values, self.weight[batch])
        logistic = torch.nn.functional.binary_cross_entropy_with_logits
        which = torch.from_numpy(pairs).to(values.device)
        known = torch.from_numpy(labels).to(values.device)
        order = logistic((table[:, 0] - table[:, 1])[which], _like(values, stated[pairs]), weight[which])
        balance = 1.0 if self.balance is None else _like(values, self.balance[batch][labels])
        sign = logistic(table[known], _like(values, safe[labels]), weight.unsqueeze(1).expand(-1, 2)[known] * balance)
        return (order if pairs.any() else 0.0 * values.sum()) + (sign if labels.any() else 0.0 * values.sum())

    def figures(self, values: torch.Tensor, batch: Places) -> dict[str, float]:
        """Share of the step's labelled answers on the right side of zero."""
        table, safe = self._table(values, batch), self.safe[batch]
        known = ~np.isnan(safe)
        if not known.any():
            return {}
        said = (table > 0).cpu().numpy()
        return {"sign_accuracy": float((said == (safe > 0.5))[known].mean())}

    def _table(self, values: torch.Tensor, batch: Places) -> torch.Tensor:
        """Values [B, 2]; what rows of one answer hold in the second column means nothing."""
        sizes = np.array([len(self.rows[i].answers) for i in batch])
        starts = np.cumsum(sizes) - sizes
        columns = np.stack([starts, starts + sizes - 1], axis=1)
        return values[torch.from_numpy(columns).to(values.device)]


def two_hot(scores: Floats, bins: int) -> Floats:
    """Scores [N] in [0, 1] as distributions [N, B] over the bin centres 0, 1/(B-1), .., 1 with the score as mean.

    All weight lies on the two neighbouring centres (Farebrother et al. 2024, "Stop Regressing", section 3.1).
    """
    place = np.clip(scores, 0, 1) * (bins - 1)
    low = np.minimum(place.astype(int), bins - 2)
    found = np.zeros((len(scores), bins))
    rows = np.arange(len(scores))
    found[rows, low] = 1 - (place - low)
    found[rows, low + 1] = place - low
    return found


def class_balance(labels: Places, weight: Floats) -> Floats:
    """Factors [N] for `weight` [N] that make all classes of `labels` [N] equally heavy: total / (classes * class's).

    The "balanced" heuristic of King and Zeng 2001 ("Logistic regression in rare events data"), as in scikit-learn.
    """
    _, place = np.unique(labels, return_inverse=True)
    heavy = np.bincount(place, weight)
    factors: Floats = (weight.sum() / (len(heavy) * heavy))[place]
    return factors


def pair_accuracy(margins: torch.Tensor, stated: torch.Tensor) -> dict[str, float]:
    """Share of the pairs with a winner whose winner has the higher value."""
    decided = stated != 0.5
    right = ((margins.detach() > 0) == (stated > 0.5))[decided].float()
    return {"accuracy": right.mean().item()} if len(right) else {}


def _like(values: torch.Tensor, numbers: Floats) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float32, device=values.device)
