"""Weights of criteria that depend on the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Gate:
    """g(x) = softmax(x W + b) over K criteria, from the standardised state x [H] at the end of a prompt."""

    weight: Floats
    """[H, K]."""
    bias: Floats
    """[K]."""
    middle: Floats
    """[H] mean of the states it was learnt on."""
    spread: Floats
    """[H] their standard deviation."""
    scale: float
    """Preference per unit of weighed rating."""

    @classmethod
    def fit(cls, states: Floats, gaps: Floats, stated: Floats, weight: Floats, decay: float) -> Gate:
        """From N prompts' states [N, H], rating differences [N, K] of two answers, and P(the first is better) [N].

        Minimises the weighted log loss of sigma(scale * g(x) . gap) + decay * |W|^2 by L-BFGS from even weights: no
        randomness.
        """
        middle, spread = states.mean(0), states.std(0) + 1e-6
        x, gap, y = (torch.from_numpy(np.asarray(a, dtype=float)) for a in ((states - middle) / spread, gaps, stated))
        w = torch.from_numpy(np.asarray(weight / weight.mean(), dtype=float))
        matrix = torch.zeros(states.shape[1], gaps.shape[1], dtype=torch.float64, requires_grad=True)
        bias = torch.zeros(gaps.shape[1], dtype=torch.float64, requires_grad=True)
        log_scale = torch.zeros((), dtype=torch.float64, requires_grad=True)
        parameters = [matrix, bias, log_scale]
        solver = torch.optim.LBFGS(parameters, max_iter=200, line_search_fn="strong_wolfe")

        def loss() -> torch.Tensor:
            solver.zero_grad()
            gates = (x @ matrix / len(matrix) ** 0.5 + bias).softmax(-1)
            margin = log_scale.exp() * (gates * gap).sum(-1)
            losses = torch.nn.functional.binary_cross_entropy_with_logits(margin, y, reduction="none")
            total: torch.Tensor = (w * losses).mean() + decay * ((matrix**2).sum() + (bias**2).sum() + log_scale**2)
            total.backward()
            return total

        solver.step(loss)
        learnt = (matrix / len(matrix) ** 0.5).detach().numpy()
        return cls(learnt, bias.detach().numpy(), middle, spread, float(log_scale.detach().exp()))

    def weights(self, states: Floats) -> Floats:
        """[N, K], each row adding up to 1."""
        logits = (states - self.middle) / self.spread @ self.weight + self.bias
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        found: Floats = shares / shares.sum(axis=1, keepdims=True)
        return found

    def save(self, path: Path) -> None:
        """As safetensors."""
        arrays = {name: np.ascontiguousarray(getattr(self, name)) for name in ("weight", "bias", "middle", "spread")}
        save_file({**arrays, "scale": np.array([self.scale])}, path)

    @classmethod
    def load(cls, path: Path) -> Gate:
        """What `save` wrote."""
        arrays = load_file(path)
        return cls(**{**arrays, "scale": float(arrays["scale"][0])})


class Gated:
    """A valuer whose values are followed by the prompt's weights: [A, 2 K]."""

    def __init__(self, valuer: Any, gate: Gate) -> None:
        self.valuer, self.gate, self.scalar = valuer, gate, valuer.scalar

    @property
    def packs(self) -> bool:
        """As the valuer's own."""
        return bool(self.valuer.packs)

    @packs.setter
    def packs(self, value: bool) -> None:
        self.valuer.packs = value

    def score(self, rows: Sequence[Any]) -> Floats:
        """Ratings and weights."""
        values = self.valuer.score(rows)
        if values.ndim == 1:
            values = values[:, None]
        if not len(rows):
            return np.empty((0, 2 * values.shape[1]))
        weights = np.repeat(self.gate.weights(self.valuer.prompt_states(rows)), [len(r.answers) for r in rows], axis=0)
        return np.concatenate([values, weights], axis=1)
