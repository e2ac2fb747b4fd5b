"""Strengths of policies from who beats whom."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
ELO = 400 / np.log(10)
"""Elo points of one unit of log-odds: 400 points are odds of ten to one (Elo 1978)."""


def bradley_terry(wins: Floats, ties: float = 0.5) -> Floats:
    """Log-strengths [K] of K players from `wins` [K, K] (row beats column; a tie is half a win for each), mean 0.

    Maximum likelihood of P(i beats j) = sigma(s_i - s_j) by the minorisation of Hunter 2004, with `ties` virtual ties
    between every two players, without which somebody who never lost would be infinitely strong.
    """
    players = len(wins)
    if players < 2:
        return np.zeros(players)
    wins = wins + ties / 2 * (1 - np.eye(players))
    np.fill_diagonal(wins, 0.0)
    games, won = wins + wins.T, wins.sum(1)
    strength = np.ones(players)
    for _ in range(10_000):
        updated = won / (games / (strength[:, None] + strength[None, :])).sum(1)
        updated /= np.exp(np.log(updated).mean())
        if np.abs(np.log(updated / strength)).max() < 1e-10:
            strength = updated
            break
        strength = updated
    found: Floats = np.log(strength)
    return found


def length_controlled(won: Floats, longer: Floats) -> float:
    """The win rate that would be left if both answers were equally long (Dubois et al. 2024, "Length-Controlled
    AlpacaEval"): sigma(a), from a logistic regression of N wins in [0, 1] on a + b tanh(longer / std(longer)).

    The paper's third term, how hard an instruction is, needs many policies on the same prompts and is left out. A
    little ridge (0.01 on a^2 + b^2, over N) keeps a clean sweep finite.
    """
    spread = longer.std()
    x = np.stack([np.ones_like(won), np.tanh(longer / spread) if spread > 0 else np.zeros_like(won)], axis=1)
    beta = np.zeros(2)
    for _ in range(100):
        p = 0.5 * (1 + np.tanh(x @ beta / 2))
        gradient = x.T @ (p - won) + 0.01 * beta
        step = np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x + 0.01 * np.eye(2), gradient)
        beta -= step
        if np.abs(step).max() < 1e-10:
            break
    return float(0.5 * (1 + np.tanh(beta[0] / 2)))
