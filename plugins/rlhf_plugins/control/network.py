"""The multilayer perceptron behind policies and rewards, in torch to train and in numpy to act."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}


def perceptron(sizes: Sequence[int], activation: str) -> nn.Sequential:
    """Linear layers of `sizes` (input, hidden ..., output) with activations between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])


def orthogonal(network: nn.Sequential, *, head: float, seed: int) -> None:
    """Orthogonal weights of gain sqrt(2), `head` in the last layer, and no biases (Andrychowicz et al. 2021)."""
    generator = torch.Generator().manual_seed(seed)
    found = linears(network)
    for layer in found:
        nn.init.orthogonal_(layer.weight, head if layer is found[-1] else math.sqrt(2), generator=generator)
        nn.init.zeros_(layer.bias)


def linears(module: nn.Module) -> list[nn.Linear]:
    """The linear layers from input to output."""
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)]


@torch.no_grad()
def copy_layers(source: Sequence[nn.Linear], target: Sequence[nn.Linear]) -> None:
    """Give `target` the weights of `source`, layer by layer. Raises ValueError where the shapes differ."""
    for ours, theirs in zip(source, target, strict=True):
        if ours.weight.shape != theirs.weight.shape:
            raise ValueError(f"layers of shapes {tuple(ours.weight.shape)} and {tuple(theirs.weight.shape)}")
        theirs.weight.copy_(ours.weight)
        theirs.bias.copy_(ours.bias)


class Forward:
    """The network on one row at a time, in numpy.

    Several times as fast as torch on a row, and what comes out never depends on the other rows of a batch.
    """

    def __init__(self, network: nn.Sequential) -> None:
        self.layers = [(layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in linears(network)]
        self.activate = np.tanh if any(isinstance(layer, nn.Tanh) for layer in network) else _relu

    def __call__(self, row: NDArray[np.float32]) -> NDArray[np.float32]:
        """[I] -> [O]."""
        *hidden, (weight, bias) = self.layers
        for inner_weight, inner_bias in hidden:
            row = self.activate(inner_weight @ row + inner_bias)
        return weight @ row + bias


def _relu(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.maximum(values, 0)
