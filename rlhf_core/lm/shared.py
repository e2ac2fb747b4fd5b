"""One frozen base, many roles: models that differ in their adapters alone share the weights below.

A policy and its reference are then one base and two sets of adapters in memory instead of two whole models; a value
head on the reference's hidden states adds next to nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rlhf_core.lm.lora import is_adapted

if TYPE_CHECKING:
    from rlhf_core.lm.model import LanguageModel

OWN = "default"
"""Name of the adapters that a model was loaded with: those that are trained and saved."""


class Wearing:
    """The model of one set of adapters on a base that has several; everything but calling it is the shared model's.

    It holds no weights of its own: counting, moving and saving them is the shared model's business.
    """

    def __init__(self, shared: Any, adapters: str) -> None:
        self._shared = shared
        self._adapters = adapters

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """A forward pass with its own adapters."""
        with _worn(self._shared, self._adapters):
            return self._shared(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._shared, name)


def share_base(lm: LanguageModel, other: LanguageModel, *, name: str = "reference") -> bool:
    """Let `other` compute on the base of `lm` with its own adapters, frozen, and give its own base free.

    False, with nothing changed, where they are not adapters on one and the same base. Afterwards `other` answers and
    scores as before; it can be neither trained nor saved.
    """
    if lm is other or isinstance(other.model, Wearing):
        return False
    if not (is_adapted(lm.model) and is_adapted(other.model)):
        return False
    if lm.base is None or lm.base != other.base or lm.compute_dtype != other.compute_dtype:
        return False
    import torch

    lm.model.add_adapter(name, other.model.peft_config[OWN])
    weights = dict(lm.model.named_parameters())
    with torch.no_grad():
        for path, weight in other.model.named_parameters():
            place = path.replace(f".{OWN}.", f".{name}.")
            if place != path:
                weights[place].copy_(weight)
    for path, weight in weights.items():
        if f".{name}." in path:
            weight.requires_grad_(False)
    other.model = Wearing(lm.model, name)
    return True


@contextlib.contextmanager
def _worn(model: Any, adapters: str) -> Iterator[None]:
    """Compute with `adapters` inside. peft's own switch would also change which weights are trained."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [part for part in model.modules() if isinstance(part, BaseTunerLayer)]
    before = [layer._active_adapter for layer in layers]
    for layer in layers:
        layer._active_adapter = [adapters]
    try:
        yield
    finally:
        for layer, active in zip(layers, before, strict=True):
            layer._active_adapter = active
