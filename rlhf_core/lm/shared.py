"""One frozen base, many roles: models that differ in their adapters alone share the weights below.

A policy and its reference are then one base and two sets of adapters in memory instead of two whole models; a value
head on the reference's hidden states adds next to nothing.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_core.lm.lora import is_adapted

if TYPE_CHECKING:
    import torch

    from rlhf_core.lm.model import LanguageModel

ADAPTERS_FILE = "adapter_model.safetensors"
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
    name = add_beside(lm.model, other.model.peft_config[OWN], adapter_weights(other.model, OWN), stem=name)
    other.model = Wearing(lm.model, name)
    return True


def adapter_weights(model: Any, name: str) -> dict[str, torch.Tensor]:
    """The weights of the adapters `name` of `model`, by their place in it whatever they are called."""
    marked = f".{name}."
    found = {path: weight.detach() for path, weight in model.named_parameters() if marked in path}
    return {path.replace(marked, "."): weight for path, weight in found.items()}


def worn_by(model: Any) -> str:
    """The name of the adapters that `model` answers with."""
    return model.adapters if isinstance(model, Wearing) else OWN


def write_adapters(model: Any, name: str, folder: Path) -> None:
    """Write the adapters `name` of `model` as peft's own `load_adapter` reads them."""
    from safetensors.torch import save_file

    model.peft_config[name].save_pretrained(folder)
    weights = adapter_weights(model, name)
    save_file({path: weight.cpu().contiguous() for path, weight in weights.items()}, folder / ADAPTERS_FILE)


def add_beside(
    model: Any, config: Any, weights: Mapping[str, torch.Tensor], *, stem: str, trainable: bool = False
) -> str:
    """Give `model` another set of adapters with a copy of `weights`; they are worn by whoever asks for them alone.

    Returns their name: `stem`, with a number where that is taken.
    """
    import torch

    names = itertools.chain([stem], (f"{stem}{number}" for number in itertools.count(2)))
    name = next(name for name in names if name not in model.peft_config)
    with torch.random.fork_rng(), torch.no_grad():
        # peft draws numbers for the fresh adapters, which are overwritten here.
        model.add_adapter(name, config)
        for path, weight in model.named_parameters():
            if f".{name}." in path:
                weight.copy_(weights[path.replace(f".{name}.", ".")])
                weight.requires_grad_(trainable)
    return name


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
