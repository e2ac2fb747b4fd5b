"""Which of several sets of adapters a model computes with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

OWN = "default"
"""Name of the adapters that a model was loaded with: those that are trained and saved."""


class Wearing:
    """The model of one set of adapters on a base that has several; everything but calling it is the shared model's.

    It holds no weights of its own: counting, moving and saving them is the shared model's business.
    """

    def __init__(self, shared: Any, adapters: str) -> None:
        self._shared = shared
        self.adapters = adapters

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """A forward pass with its own adapters."""
        with worn(self._shared, self.adapters):
            return self._shared(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._shared, name)


def worn_by(model: Any) -> str:
    """The name of the adapters that `model` answers with."""
    return model.adapters if isinstance(model, Wearing) else OWN


@contextlib.contextmanager
def worn(model: Any, adapters: str) -> Iterator[None]:
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


def worn_now(part: Any) -> str | None:
    """The adapters that `part` of a model computes with; None where it has none."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    active = [layer.active_adapters for layer in part.modules() if isinstance(layer, BaseTunerLayer)]
    return active[0][0] if active and active[0] else None
