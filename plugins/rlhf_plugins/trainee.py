"""A module in training: its trainable weights, their optimizer, and both on disk, to the bit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rlhf_core.lm.lora import is_adapted
from rlhf_core.lm.sharding import fill, give_back, like, shape, whole
from rlhf_core.lm.wearing import OWN
from rlhf_plugins import world


class NotFiniteError(ArithmeticError):
    """A loss or gradient is not finite; the weights were not touched."""


class Trainee:
    """The trainable weights of `module` under Adam (eps 1e-5, as in the PPO implementations that work)."""

    def __init__(self, module: torch.nn.Module, *, lr: float, max_grad_norm: float) -> None:
        self.weights = trainable(module)
        self.lr = lr
        self.max_grad_norm = max_grad_norm
        self.optimizer = torch.optim.Adam(self.weights.values(), lr=lr, eps=1e-5, fused=True)

    def set_rate(self, share: float) -> None:
        """Use `share` of the full learning rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * share

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a piece of the loss to those that are there."""
        loss.backward()

    def forget(self) -> None:
        """Drop the gradients without a step."""
        self.optimizer.zero_grad()

    def step(self, loss: float) -> float:
        """Clip all processes' gradients of `loss`, update, forget them; returns their norm before clipping.

        Raises NotFiniteError, with the weights as they were, where loss or gradients are not finite.
        """
        world.add_gradients(self.weights.values())
        norm = float(whole(torch.nn.utils.clip_grad_norm_(self.weights.values(), self.max_grad_norm)))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self.optimizer.zero_grad()
            raise NotFiniteError
        self.optimizer.step()
        self.optimizer.zero_grad()
        return norm

    def save(self, folder: Path, name: str) -> None:
        """Write weights and moments as `name`.safetensors and `name`_optimizer.safetensors."""
        write_weights(self.weights, folder / f"{name}.safetensors")
        write_tensors(self.moments(), folder / f"{name}_optimizer.safetensors")

    def load(self, folder: Path, name: str) -> None:
        """Go on from what `save` wrote. Raises ValueError where it is of another shape."""
        if not read_weights(self.weights, folder / f"{name}.safetensors"):
            raise ValueError(f"{folder / name} holds other weights than are trained here")
        device = next(iter(self.weights.values())).device
        self.set_moments(load_file(folder / f"{name}_optimizer.safetensors", device=str(device)))

    def moments(self) -> Iterator[tuple[str, Tensor]]:
        """What the optimizer remembers of each weight, as `weight|key`."""
        for name, weight in self.weights.items():
            for key, value in self.optimizer.state.get(weight, {}).items():
                yield f"{name}|{key}", value

    def set_moments(self, found: dict[str, Tensor]) -> None:
        """Let the optimizer remember what `moments` gave, whole."""
        for full, value in found.items():
            name, _, key = full.rpartition("|")
            weight = self.weights[name]
            self.optimizer.state[weight][key] = like(weight, value) if value.shape == weight.shape else value


def trainable(module: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The parameters that training changes: of an adapted model its own adapters alone."""
    give_back(module)
    found = {name: tensor for name, tensor in module.named_parameters() if tensor.requires_grad}
    # Others may wear adapters on the same base, and train them.
    return {name: found[name] for name in found if f".{OWN}." in name} if is_adapted(module) else found


def write_weights(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Write `tensors` as safetensors. Of several processes the first writes; all must come, where they are spread."""
    write_tensors(tensors.items(), file)


def write_tensors(tensors: Iterable[tuple[str, Tensor]], file: Path) -> None:
    """`write_weights` of tensors that come one by one."""
    found = {}
    for name, tensor in tensors:
        gathered = whole(tensor)
        if world.rank() == 0:
            found[name] = gathered.cpu().contiguous()
    if world.rank() == 0:
        save_file(found, file)


def read_weights(weights: dict[str, torch.nn.Parameter], file: Path) -> bool:
    """Fill `weights` from `file`; False, with nothing changed, where names or shapes differ."""
    found = load_file(file)
    if {name: tensor.shape for name, tensor in found.items()} != {n: shape(w) for n, w in weights.items()}:
        return False
    for name, weight in weights.items():
        fill(weight, found[name])
    return True
