"""How reliable each annotator is, and what several answers of unequal annotators say together (Dawid & Skene 1979)."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Label(NamedTuple):
    """What one annotator said about one item."""

    item: Hashable
    annotator: str
    value: str


@dataclass(frozen=True)
class DawidSkene:
    """What EM found. K is the number of values."""

    values: tuple[str, ...]
    """The K values that labels take."""
    prior: tuple[float, ...]
    """How frequent each true value is."""
    truth: dict[Hashable, tuple[float, ...]]
    """For each item the probability of each true value, given all its labels."""
    confusion: dict[str, tuple[tuple[float, ...], ...]]
    """For each annotator K rows, one a true value: how probable it is that the annotator says each value."""
    log_likelihood: float
    """Of the labels, in nats; of the last step."""

    def accuracy(self, annotator: str) -> float:
        """The probability that `annotator` names the true value of an item like these."""
        rows = self.confusion[annotator]
        return sum(share * rows[k][k] for k, share in enumerate(self.prior))


def dawid_skene(
    labels: Iterable[Label],
    *,
    values: Sequence[str] | None = None,
    known: Mapping[Hashable, str] | None = None,
    smoothing: float = 0.5,
    steps: int = 200,
    tolerance: float = 1e-8,
) -> DawidSkene:
    """Estimate the true values and every annotator's confusion matrix together, by EM.

    Of the labels, E-step:  P(z_i = k) ~ p_k prod_{labels (i, a, c)} pi^a_kc;  M-step:  p_k = mean_i P(z_i = k) and
    pi^a_kc ~ sum_{labels (i, a, c)} P(z_i = k) + `smoothing`  (Dawid & Skene 1979, equations 2.3 to 2.5, which have no
    smoothing: with it an annotator of a few labels is not believed to be infallible). It starts from the shares of the
    values among each item's labels. Items in `known` (gold questions) keep their value. The result does not depend on
    the order of the labels. Raises ValueError where there are none, or one has a value that is not in `values`.
    """
    import numpy as np

    known = known or {}
    given = sorted(labels, key=lambda label: (str(label.item), label.annotator, label.value))
    if not given:
        raise ValueError("no labels to learn from")
    names = tuple(values) if values is not None else tuple(sorted({label.value for label in given} | {*known.values()}))
    strange = {label.value for label in given} - {*names}
    if strange:
        raise ValueError(f"the labels {sorted(strange)} are not among the values {list(names)}")
    items = list(dict.fromkeys(label.item for label in given))
    annotators = sorted({label.annotator for label in given})
    place = {name: k for k, name in enumerate(names)}
    item_place = {item: i for i, item in enumerate(items)}
    who = {name: a for a, name in enumerate(annotators)}
    i = np.array([item_place[label.item] for label in given])
    a = np.array([who[label.annotator] for label in given])
    c = np.array([place[label.value] for label in given])
    fixed = {item_place[item]: place[value] for item, value in known.items() if item in item_place}

    def clamped(truth: NDArray[Any]) -> NDArray[Any]:
        for row, value in fixed.items():
            truth[row] = np.eye(len(names))[value]
        return truth

    truth = np.zeros((len(items), len(names)))
    np.add.at(truth, (i, c), 1.0)
    truth = clamped(truth / truth.sum(axis=1, keepdims=True))
    likelihood = -np.inf
    for _ in range(steps):
        prior = truth.mean(axis=0)
        confusion = np.full((len(annotators), len(names), len(names)), float(smoothing))
        for k in range(len(names)):
            np.add.at(confusion[:, k, :], (a, c), truth[i, k])
        total = confusion.sum(axis=2, keepdims=True)
        # Nothing is known of an annotator who met no item of a value, unless smoothing says something.
        confusion = np.where(total > 0, confusion / np.where(total > 0, total, 1), 1 / len(names))
        with np.errstate(divide="ignore"):
            logs = np.tile(np.log(prior), (len(items), 1))
            np.add.at(logs, i, np.log(confusion)[a, :, c])
        top = logs.max(axis=1, keepdims=True)
        weights = np.exp(logs - top)
        now = float((top[:, 0] + np.log(weights.sum(axis=1))).sum())
        truth = clamped(weights / weights.sum(axis=1, keepdims=True))
        if abs(now - likelihood) < tolerance:
            break
        likelihood = now
    return DawidSkene(
        values=names,
        prior=tuple(map(float, prior)),
        truth={item: tuple(map(float, truth[row])) for item, row in item_place.items()},
        confusion={name: tuple(tuple(map(float, row)) for row in confusion[number]) for name, number in who.items()},
        log_likelihood=now,
    )
