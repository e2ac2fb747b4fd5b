"""How far the policy has moved from the reference, and how hard to pull it back."""

from __future__ import annotations

import torch
from torch import Tensor


def k1(logprobs: Tensor, reference: Tensor) -> Tensor:
    """log p/q of sampled tokens (Schulman 2020, "Approximating KL divergence"): unbiased, noisy, negative at times.

    `logprobs` and `reference` are the log-probabilities of the same sampled tokens under policy and reference, any one
    shape, in nats; so is the result. Its expectation under the policy is KL(policy || reference). Never clamp it at 0:
    that is what makes an estimate biased.
    """
    return logprobs - reference


def k2(logprobs: Tensor, reference: Tensor) -> Tensor:
    """(log p/q)^2 / 2: never negative, low variance, biased; its gradient is that of the KL divergence."""
    return (logprobs - reference) ** 2 / 2


def k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """(q/p - 1) + log p/q: never negative and unbiased, but heavy-tailed where the policies are far apart."""
    return torch.expm1(reference - logprobs) + logprobs - reference


def next_coefficient(coefficient: float, kl: float, *, target: float | None, samples: int, horizon: float) -> float:
    """The KL coefficient after a batch of `samples` answers with mean divergence `kl` (Ziegler et al. 2019, sec. 2.2).

        e = clip(kl / target - 1, -0.2, 0.2)
        coefficient <- coefficient (1 + e samples / horizon)

    `kl` and `target` are nats an answer; `horizon` is the number of answers in which a fully clipped error changes the
    coefficient by about a fifth. A `target` of None keeps the coefficient fixed.
    """
    if target is None:
        return coefficient
    error = min(max(kl / target - 1, -0.2), 0.2)
    return coefficient * max(1 + error * samples / horizon, 0.0)
