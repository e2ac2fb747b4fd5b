"""Low-rank adapters (Hu et al. 2021) on a language model, through peft."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from rlhf_core.errors import DataError
from rlhf_core.plugins.base import PluginConfig

ADAPTERS = "adapters"


class Lora(PluginConfig):
    """Train low-rank adapters and leave the model's own weights as they are."""

    r: int = Field(16, ge=1)
    """Rank of the adapters."""
    alpha: float = Field(32.0, gt=0)
    """Scale: the adapters' product counts alpha / r."""
    target_modules: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    """Names of the linear layers that get adapters; `all-linear` is all but the token head."""


def add_adapters(model: Any, lora: Lora) -> Any:
    """`model` wrapped in fresh adapters that change nothing yet (B is zero); only they are trainable.

    Raises DataError where none of the named layers exist.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    targets = lora.target_modules if lora.target_modules == "all-linear" else list(lora.target_modules)
    config = LoraConfig(r=lora.r, lora_alpha=lora.alpha, target_modules=targets, task_type="CAUSAL_LM")
    try:
        # The A matrices are random; a fixed stream makes two processes start from the same adapters.
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return get_peft_model(model, config)
    except ValueError as error:
        names = sorted({name.rpartition(".")[2] for name, part in model.named_modules() if _is_linear(part)})
        raise DataError(
            f"cannot put adapters on {type(model).__name__}: {error}",
            remedy=f"Set lora.target_modules to some of: {', '.join(names)}.",
        ) from error


def is_adapted(model: Any) -> bool:
    """Whether `model` wears adapters."""
    return hasattr(model, "peft_config")


def save_adapters(model: Any, folder: Path) -> None:
    """Write the model's own adapters alone, as safetensors, to `folder`/adapters."""
    model.save_pretrained(folder / ADAPTERS, selected_adapters=["default"])


def load_adapters(model: Any, folder: Path) -> Any:
    """`model` wearing the adapters that `save_adapters` wrote to `folder`, ready to be trained further."""
    from peft import PeftModel

    return PeftModel.from_pretrained(model, folder / ADAPTERS, is_trainable=True)


def _is_linear(part: Any) -> bool:
    import torch

    return isinstance(part, torch.nn.Linear)
