"""What an answer is expected to score: subtracting it makes policy gradients quieter and leaves their mean alone."""

from __future__ import annotations


def next_baseline(baseline: float, mean: float, *, decay: float) -> float:
    """The moving baseline after a batch whose answers scored `mean` on average (Williams 1992, sec. 3).

        b <- decay b + (1 - decay) mean

    Only for the *next* batch: a baseline that has seen an answer's own score biases its gradient.
    """
    return decay * baseline + (1 - decay) * mean
