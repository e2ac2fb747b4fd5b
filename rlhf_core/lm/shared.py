"""One frozen base, many roles: models that differ in their adapters alone share the weights below.

A policy and its reference are then one base and two sets of adapters in memory instead of two whole models; a value
head on the reference's hidden states adds next to nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_core.lm.lora import is_adapted
from rlhf_core.lm.wearing import OWN, Wearing

if TYPE_CHECKING:
    import torch

    from rlhf_core.lm.model import LanguageModel

ADAPTERS_FILE = "adapter_model.safetensors"


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
